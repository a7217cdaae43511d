"""The inputs that a module is traced on from the command line: shapes, types, and the user's own arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

from click.testing import CliRunner, Result

from bnfold.cli import main

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(256, 4)
        self.conv, self.norm = nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4)
        self.eval()

    def forward(self, ids, scale=None):
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling():
            assert int(ids.max()) < 256
        y = self.norm(self.conv(self.table(ids.long()).movedim(-1, 1)))
        return y if scale is None else y * scale
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("nets", None)


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["convert", "nets:Net", "-o", "out.onnx", "--no-bench", *args])


def inputs() -> dict[str, tuple[int, list[int]]]:
    found = {}
    for info in onnx.load("out.onnx").graph.input:
        kind: Any = info.type.tensor_type
        found[info.name] = kind.elem_type, [dim.dim_value for dim in kind.shape.dim]
    return found


@pytest.mark.parametrize(
    ("dtype", "elem_type"),
    [("uint8", onnx.TensorProto.UINT8), ("int32", onnx.TensorProto.INT32), ("int64", onnx.TensorProto.INT64)],
)
def test_an_input_of_integers(dtype: str, elem_type: int) -> None:
    result = run("--input-shape", f"ids:{dtype}:2,6")
    assert result.exit_code == 0, result.output
    assert inputs() == {"ids": (elem_type, [2, 6])}


def test_several_inputs_of_types_of_their_own() -> None:
    result = run("--input-shape", "ids:int64:2x6", "--input-shape", "scale:float64:1")
    assert result.exit_code == 0, result.output
    assert inputs() == {"ids": (onnx.TensorProto.INT64, [2, 6]), "scale": (onnx.TensorProto.DOUBLE, [1])}


@pytest.mark.parametrize("shape", [[], ["--input-shape", "ids:2,6"], ["--input-shape", "2,6"]])
def test_arrays_of_the_user_are_what_is_traced(shape: list[str]) -> None:
    np.savez("data.npz", ids=np.arange(12, dtype=np.int32).reshape(2, 6) % 8)
    result = run("--input-data", "data.npz", *shape)
    assert result.exit_code == 0, result.output
    assert inputs() == {"ids": (onnx.TensorProto.INT32, [2, 6])}


def test_rows_of_the_users_arrays_as_many_as_the_shape_says() -> None:
    np.savez("data.npz", ids=np.arange(24).reshape(4, 6))
    result = run("--input-data", "data.npz", "--input-shape", "ids:3,6")
    assert result.exit_code == 0, result.output
    assert inputs() == {"ids": (onnx.TensorProto.INT64, [3, 6])}


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("ids:int7:2,6", "cannot read the type in 'ids:int7:2,6': there are bool, uint8, "),
        ("idx:int64:2,6", "'idx' is no input: the forward of the Net takes ids, scale"),
        ("ids:complex64:2,6", "cannot read the type in 'ids:complex64:2,6': there are "),
    ],
)
def test_bad_types_are_one_line(shape: str, said: str) -> None:
    result = run("--input-shape", shape)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {said}")
    assert result.stderr.count("\n") == 1


def test_a_type_that_a_model_says_otherwise_of_is_one_line() -> None:
    assert run("--input-shape", "ids:int64:2,6").exit_code == 0
    for shape, code in (("ids:int64:2,6", 0), ("ids:int32:2,6", 2), ("int32:2,6", 2)):
        result = CliRunner().invoke(main, ["verify", "out.onnx", "out.onnx", "--input-shape", shape])
        assert result.exit_code == code, result.output
    assert result.stderr == "Error: input 'ids' is int64 in the model, not int32: leave the type out\n"
