"""Weights in a coarser type than the outputs: a right fold converts, and a wrong one does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from torch import Tensor, nn
from torch_networks import Code, calibrated

import bnfold
from bnfold.errors import EquivalenceError
from bnfold.graphs.torch.constants import Known

MAPS = (2, 3, 4, 4)


def in_type(dtype: torch.dtype) -> Callable[[Any, Tensor], Tensor]:
    return lambda net, x: net.norm(net.conv(x.to(dtype)).float())


def under_autocast(net: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net.conv(x)
    return net.norm(y.float())


CODE: dict[str, tuple[Callable[[Any, Tensor], Tensor], torch.dtype]] = {
    "a convolution in half": (in_type(torch.float16), torch.float16),
    "a convolution in bfloat16": (in_type(torch.bfloat16), torch.bfloat16),
    "a factor in double": (lambda net, x: net.conv(x) * net.wide.double(), torch.float32),
    "a factor that is used in half": (lambda net, x: net.norm(x) * net.wide.half().to(x.dtype), torch.float32),
    "autocast": (under_autocast, torch.float32),
}


def network(name: str) -> nn.Module:
    body, dtype = CODE[name]
    torch.manual_seed(len(name))
    net = calibrated(Code(body, conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3), wide=torch.rand(3, 1, 1) + 0.5))
    net.conv.to(dtype)
    return net


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("name", CODE)
def test_what_is_lost_in_a_coarser_weight_is_no_fault_of_the_fold(name: str, suffix: str, tmp_path: Path) -> None:
    report = bnfold.convert(network(name), tmp_path / f"out{suffix}", example_inputs=torch.randn(MAPS), bench=False)
    assert report.verification is not None
    assert report.verification.passed
    assert report.verification.taken_back == ()


def test_a_weight_that_is_off_by_more_than_its_rounding_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Known.fill

    def careless(self: Known, out: Tensor) -> None:
        right(self, out)
        if self.affine is not None:
            with torch.no_grad():
                out.mul_(1.01)

    monkeypatch.setattr(Known, "fill", careless)
    net = network("a convolution in half")
    with pytest.raises(EquivalenceError, match=r"the folded model is not the same function: .* in float64"):
        bnfold.convert(net, tmp_path / "out.pt2", example_inputs=torch.randn(MAPS), bench=False)
