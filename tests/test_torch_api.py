"""`bnfold.fold` on PyTorch models: told apart by their type, and given back as the same kind."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from saved import CONV_BN, save
from torch import nn
from torch.export import ExportedProgram
from torch_networks import calibrated, difference, verdicts

import bnfold

MAPS = (2, 3, 9, 8)


@pytest.fixture
def module() -> nn.Sequential:
    return calibrated(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))


def test_a_module(module: nn.Sequential) -> None:
    x = torch.randn(MAPS)
    result = bnfold.fold(module, example_inputs=x)
    assert type(result.model) is nn.Sequential
    assert result.model is not module
    assert verdicts(result.sites) == ["backward"]
    assert (result.before.batch_norms, result.after.batch_norms) == (1, 0)
    assert difference(module(x), result.model(x)) < 1e-5
    assert bnfold.fold(module, example_inputs=(x,), inplace=True).model is module


def test_a_module_without_example_inputs(module: nn.Sequential) -> None:
    with pytest.raises(bnfold.UsageError, match="a PyTorch module needs example_inputs="):
        bnfold.fold(module)


def test_a_program_and_its_file(module: nn.Sequential, tmp_path: Path) -> None:
    x = torch.randn(MAPS)
    program = torch.export.export(module, (x,))
    torch.export.save(program, tmp_path / "model.pt2")
    for model in (program, tmp_path / "model.pt2", str(tmp_path / "model.pt2")):
        result = bnfold.fold(model, only=["1"])
        assert type(result.model) is ExportedProgram
        assert verdicts(result.sites) == ["backward"]
        assert difference(module(x), result.model.module()(x)) < 1e-5
    with pytest.raises(bnfold.UsageError, match="are for a module; a program was given"):
        bnfold.fold(program, example_inputs=x)


@pytest.mark.parametrize("argument", [{"example_inputs": 1}, {"dynamic_shapes": {}}, {"inplace": True}])
def test_what_is_for_a_module_is_refused_for_onnx(argument: dict[str, object], tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", CONV_BN)
    with pytest.raises(bnfold.UsageError, match=f"{next(iter(argument))} is for a PyTorch module"):
        bnfold.fold(path, **argument)
