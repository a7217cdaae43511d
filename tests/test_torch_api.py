"""`bnfold.fold` on PyTorch models: told apart by their type, and given back as the same kind."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from saved import CONV_BN, save
from torch import nn
from torch.export import ExportedProgram
from torch_networks import calibrated, difference, verdicts

import bnfold
from bnfold.report import as_markdown

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


def test_an_onnx_program(module: nn.Sequential) -> None:
    x = torch.randn(MAPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of onnxscript and PyTorch about each other
        program = torch.onnx.export(module, (x,), dynamo=True, optimize=False, verbose=False)
    before = program.model_proto.SerializeToString(deterministic=True)
    result = bnfold.fold(program)
    assert type(result.model) is type(program)
    assert result.model is not program
    assert result.model.exported_program is program.exported_program
    assert program.model_proto.SerializeToString(deterministic=True) == before
    assert [(site.into, site.folded) for site in result.sites] == [(("node_conv2d",), True)]
    assert [node.op_type for node in result.model.model_proto.graph.node] == ["Conv"]
    assert difference(module(x), result.model(x)[0]) < 1e-5
    assert bnfold.inspect(program).sites == result.sites


def test_inspection_of_a_module_a_program_and_its_file(module: nn.Sequential, tmp_path: Path) -> None:
    x, path = torch.randn(MAPS), tmp_path / "model.pt2"
    program = torch.export.export(module, (x,))
    torch.export.save(program, path)
    content = path.read_bytes()
    weight = module[0].weight.detach().clone()
    for model, inputs in ((module, {"example_inputs": x}), (program, {}), (path, {})):
        report = bnfold.inspect(model, skip=["nothing"], **inputs)
        assert report.sites == bnfold.fold(model, **inputs).sites
        assert (report.before.batch_norms, report.after.batch_norms, report.output_path) == (1, 0, None)
        assert (report.source.opset, report.source.ir_version) == (None, None)
        assert "opset" not in as_markdown.dumps(report)
    assert (report.source.path, report.before.file_bytes) == (str(path), len(content))
    assert report.source.sha256 == hashlib.sha256(content).hexdigest()
    assert torch.equal(module[0].weight, weight)
    assert path.read_bytes() == content
    with pytest.raises(bnfold.UsageError, match="needs example_inputs="):
        bnfold.inspect(module)


@pytest.mark.parametrize("argument", [{"example_inputs": 1}, {"dynamic_shapes": {}}, {"inplace": True}])
def test_what_is_for_a_module_is_refused_for_onnx(argument: dict[str, object], tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", CONV_BN)
    for function in (bnfold.fold, bnfold.inspect) if "inplace" not in argument else (bnfold.fold,):
        with pytest.raises(bnfold.UsageError, match=rf"^{next(iter(argument))}.* is for a PyTorch module"):
            function(path, **argument)
