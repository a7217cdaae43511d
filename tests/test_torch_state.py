"""Modules that keep state from call to call: a conversion and a fold leave the given one as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from torch import Tensor, nn
from torch_networks import calibrated, difference

import bnfold

MAPS = (2, 3, 4, 4)


class Keeping(nn.Module):
    """A convolution and a BatchNorm, and code that changes what the module holds."""

    def __init__(self, code: Callable[[Keeping, Tensor], Tensor]) -> None:
        super().__init__()
        self.code = code
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        self.register_buffer("steps", torch.ones(()))
        self.number, self.kept = 1, []

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, self.norm(self.conv(x)))


def counting(net: Keeping, y: Tensor) -> Tensor:
    net.steps.add_(1)
    return y * net.steps


def remembering(net: Keeping, y: Tensor) -> Tensor:
    net.number += 1
    net.kept.append(net.number)
    return y


def decaying(net: Keeping, y: Tensor) -> Tensor:
    with torch.no_grad():
        net.other.weight.mul_(0.5)
    return net.other(y)


def choosing(net: Keeping, y: Tensor) -> Tensor:
    net.steps.add_(1)
    return torch.cond(y.sum() > 0, lambda t: t * 2, lambda t: t * 3, (y,)) * net.steps


CODE = {code.__name__: code for code in (counting, remembering, decaying, choosing)}


def state(net: Any) -> tuple[dict[str, Tensor], Any]:
    return copy.deepcopy(net.state_dict()), (net.number, list(net.kept))


def same(a: tuple[dict[str, Tensor], Any], b: tuple[dict[str, Tensor], Any]) -> bool:
    return a[1] == b[1] and all(torch.equal(a[0][name], b[0][name]) for name in a[0])


@pytest.mark.parametrize("name", CODE)
def test_a_fold_leaves_the_given_module_as_it_was(name: str) -> None:
    net, x = calibrated(Keeping(CODE[name])), torch.randn(MAPS)
    before = state(net)
    result = bnfold.fold(net, example_inputs=x)
    assert same(before, state(net))
    assert [(site.name, site.status) for site in result.sites] == [("norm", "folded")]
    with torch.no_grad():
        assert difference(copy.deepcopy(net)(x), result.model(x)) < 1e-5


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("name", [name for name in CODE if name != "remembering"])
def test_a_conversion_leaves_the_given_module_as_it_was(name: str, suffix: str, tmp_path: Path) -> None:
    if name == "decaying" and suffix == ".onnx":
        pytest.skip("torch's exporter does not write parameters back")
    net = calibrated(Keeping(CODE[name]))
    before = state(net)
    report = bnfold.convert(net, tmp_path / f"out{suffix}", example_inputs=torch.randn(MAPS), bench=False)
    assert same(before, state(net))
    assert report.verification is not None
    assert report.verification.passed
