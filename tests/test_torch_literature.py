"""The networks of the literature by way of ONNX: exported as they are, folded, and compared with the eager module."""

from __future__ import annotations

import copy
import warnings
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from graphs import runtime
from interpreter import run
from torch import Tensor, nn
from torch_literature import NETWORKS
from torch_networks import calibrated, difference, verdicts

import bnfold

pytest.importorskip("onnxscript", reason="the exporter of PyTorch needs it")


CASES = {name: case for name, case in NETWORKS.items() if case[2]}


class Everything(nn.Module):
    """All networks with norms side by side, because an export takes its time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.networks = nn.ModuleList(calibrated(make()) for make, _, _ in CASES.values())

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [network(x) for network, x in zip(self.networks, inputs, strict=True)]


class Folded(NamedTuple):
    """What became of every network, by its name: the verdicts and the answers of the folded model."""

    verdicts: dict[str, list[str]]
    answers: dict[str, Tensor]


@pytest.fixture(scope="module")
def everything() -> Everything:
    return Everything().eval()


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return tuple(torch.randn(shape) for _, shape, _ in CASES.values())


@pytest.fixture(scope="module")
def exact(everything: Everything, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The answers of the eager networks in float64."""
    module = copy.deepcopy(everything).double()
    with torch.no_grad():
        return dict(zip(CASES, module(*(x.double() for x in inputs)), strict=True))


@pytest.fixture(scope="module", params=[torch.float64, torch.float32])
def folded(request: pytest.FixtureRequest, everything: Everything, inputs: tuple[Tensor, ...]) -> Folded:
    module = copy.deepcopy(everything).to(request.param)
    given = tuple(x.to(request.param) for x in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.onnx.export(module, given, dynamo=True, optimize=False, verbose=False).model_proto
    result = bnfold.fold(model)
    feeds = {info.name: x.numpy() for info, x in zip(result.model.graph.input, given, strict=True)}
    exact = request.param is torch.float64
    answers = list(run(result.model, feeds).values()) if exact else runtime(result.model)(feeds)
    sites = iter(verdicts(result.sites))
    return Folded(
        {name: [next(sites) for _ in expected] for name, (_, _, expected) in CASES.items()},
        {name: torch.from_numpy(np.asarray(y)) for name, y in zip(CASES, answers, strict=True)},
    )


@pytest.mark.parametrize("name", CASES)
def test_network(name: str, folded: Folded, exact: dict[str, Tensor]) -> None:
    assert folded.verdicts[name] == CASES[name][2]
    rtol = 1e-9 if folded.answers[name].dtype is torch.float64 else 1e-5
    assert difference(exact[name], folded.answers[name]) < rtol
