"""The error from value to value down the graph: which values are compared, and that a fault shows where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import parse
from saved import TWO_BATCH_NORMS

import bnfold
from bnfold.checks.depth import depth
from bnfold.checks.options import CheckOptions
from bnfold.graphs.onnx.exact import exposed

# The BatchNorm is carried through the Transpose: c is still there, but holds something else.
CROSSED = """(T[N,4,5] x) => (T[N,3,4] y) <T[5,3] w, bn[3]>
    { a = Relu(x) c = MatMul(a, w) t = Transpose<perm=[0,2,1]>(c) b = BN(t) y = Tanh(b) }"""


def converted(text: str, folder: Path, **options: bool) -> bnfold.Report:
    return bnfold.convert(parse(text, "float"), folder / "b.onnx", bench=False, **options)


@pytest.mark.parametrize(("text", "names"), [(TWO_BATCH_NORMS, ["b", "r", "y"]), (CROSSED, ["a", "b", "y"])])
def test_values_that_are_the_same_in_both_models_are_followed(text: str, names: list[str], tmp_path: Path) -> None:
    verification = converted(text, tmp_path, depth=True).verification
    assert verification is not None
    found = dict(verification.depth)
    assert all(0 <= error < 1e-5 for error in found.values())
    assert list(found) == names


def test_nothing_is_followed_unasked_or_in_models_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = converted(TWO_BATCH_NORMS, tmp_path)
    assert asked.verification is not None
    assert asked.verification.depth == ()
    monkeypatch.setattr(exposed, "LARGEST_BYTES", 0)
    (tmp_path / "b.onnx").unlink()
    large = converted(TWO_BATCH_NORMS, tmp_path, depth=True)
    assert large.verification is not None
    assert large.verification.depth == ()


def test_of_many_values_some_are_chosen_over_the_whole_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposed, "MOST_VALUES", 4)
    relus = " ".join(f"r{i + 1} = Relu(r{i})" for i in range(20))
    text = f"""(T[N,2,4,4] x) => (T[N,2,4,4] y) <T[2,2,1,1] w, bn[2]>
        {{ c = Conv(x, w) r0 = BN(c) {relus} y = Identity(r20) }}"""
    verification = converted(text, tmp_path, depth=True).verification
    assert verification is not None
    assert [name for name, _ in verification.depth] == ["r0", "r6", "r12", "r18"]


def test_a_fault_is_a_step_where_it_is() -> None:
    text = """(T[N,4,4,4] x) => (T[N,4,4,4] y, T[N,4,4,4] a, T[N,4,4,4] b) <T[4,4,1,1] u, T[4,4,1,1] v, T[4,4,1,1] w>
        { a = Conv(x, u) b = Conv(a, v) y = Conv(b, w) }"""
    model = parse(text, "float")
    faulty = onnx.ModelProto.FromString(model.SerializeToString())
    weight = onnx.numpy_helper.to_array(faulty.graph.initializer[1]).copy()
    weight[0] *= np.float32(1.01)
    faulty.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(weight, faulty.graph.initializer[1].name))
    names = ["a", "b", "y", "not there"]
    found = dict(depth(model.SerializeToString(), faulty.SerializeToString(), names, CheckOptions()))
    assert list(found) == ["a", "b", "y"]
    assert found["a"] == 0
    assert found["b"] > 1e-4
    assert found["y"] > 1e-5


def test_a_model_that_cannot_be_run_is_not_followed() -> None:
    assert depth(parse(TWO_BATCH_NORMS, "float").SerializeToString(), b"no model", ["y"], CheckOptions()) == ()
