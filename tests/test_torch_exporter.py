"""What torch's exporter and ONNX Runtime get wrong, and right models convert all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn
from torch_networks import calibrated

import bnfold
from bnfold.graphs.onnx.exact.steps import coarsest_step
from bnfold.graphs.torch.onnx_export import to_onnx

VOLUMES, MAPS = (1, 3, 5, 5, 5), (1, 3, 8, 8)


class SmallSigmoid(nn.Module):
    """Gives numbers near 0, which ONNX Runtime's sigmoid rounds to 1e-7 however small they are."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.conv, self.norm, self.shift = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), shift

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.norm(self.conv(x)) + self.shift)


def volumes(*, norm: bool) -> nn.Module:
    layers = [nn.Conv3d(3, 4, 3, bias=False), nn.BatchNorm3d(4) if norm else nn.Identity(), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv3d(4, 2, 1, bias=False))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv3d without a bias": (lambda: volumes(norm=False), VOLUMES),
    "Conv3d without a bias and BatchNorm": (lambda: volumes(norm=True), VOLUMES),
    "sigmoid near 0": (lambda: SmallSigmoid(-10), MAPS),
    "sigmoid nearer to 0": (lambda: SmallSigmoid(-15), MAPS),
}


@pytest.mark.parametrize("name", NETS)
def test_right_models_convert(name: str, tmp_path: Path) -> None:
    make, shape = NETS[name]
    net, x, out = calibrated(make()), torch.randn(shape), tmp_path / "out.onnx"
    report = bnfold.convert(net, out, example_inputs=x, bench=False)
    assert all(site.folded for site in report.sites)
    assert report.verification is not None
    assert report.verification.border is not None
    assert report.verification.border.passed
    (answer,) = InferenceSession(out).run(None, {InferenceSession(out).get_inputs()[0].name: x.numpy()})
    assert float((torch.from_numpy(answer) - net(x).detach()).abs().max()) < 1e-6
    nodes = onnx.load(out).graph.node
    assert not {"Expand", "Concat", "CastLike"} & {node.op_type for node in nodes} or "sigmoid" in name


def test_a_coarser_type_than_pytorch_computes_in_is_seen() -> None:
    def steps(dtype: torch.dtype, to: torch.dtype) -> float:
        class Rounding(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x * 2).to(to).to(dtype) + 1

        program = torch.export.export(Rounding(), (torch.ones(3, dtype=dtype),))
        return coarsest_step(to_onnx(program, "it", None, None).model_proto)

    assert steps(torch.float32, torch.float32) == 2.0**-23
    assert steps(torch.float32, torch.float16) == 2.0**-10
    assert steps(torch.float64, torch.float64) == 2.0**-52
    assert steps(torch.float64, torch.bfloat16) == 2.0**-7
