"""Models on which folds were wrong, or ended in an error, and were called right: the verdict from end to end."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import pytest
from graphs import parse

import bnfold
from bnfold.checks.options import CheckOptions
from bnfold.graphs.onnx.corrected import CORRECTED
from bnfold.graphs.onnx.exact.kernels import BORROWED, WRITTEN
from bnfold.graphs.onnx.exact.matching import DRAWING

QUICK = CheckOptions(check_n=3)
AXES = ("-2,-1", "-1,-2", "1,2", "2,1", "1,-1", "-1,1")
UNSQUEEZED = """(T[1,4,4,5] x) => (T y) <T[4,4] A, T[4] s>
    {{ m = MatMul(A, x) u = Unsqueeze<axes=[{}]>(s) y = Mul(m, u) }}"""


def unsqueezed(axes: str, path: Path) -> Path:
    model = parse(UNSQUEEZED.format(axes), "float", opset=11, ir=6, values={"s": np.float32([1, 2, 3, 4])})
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("axes", AXES)
def test_an_unsqueeze_by_several_axes_in_any_order_folds_rightly(axes: str, tmp_path: Path) -> None:
    path = unsqueezed(axes, tmp_path / "a.onnx")
    report = bnfold.convert(path, tmp_path / "b.onnx", bench=False, options=QUICK)
    assert report.verification is not None
    assert report.verification.passed
    assert bnfold.verify(path, tmp_path / "b.onnx", options=CheckOptions(check_n=3, exact_seconds=0)).passed


def test_what_evaluation_and_float64_have_wrong_alike_is_not_called_right(tmp_path: Path) -> None:
    """Without the correction both place the axes as onnx's reference does, and the fold is wrong for a runtime."""
    path = unsqueezed("-2,-1", tmp_path / "a.onnx")

    def wrong(attributes: dict, inputs: list, opset: int, count: int) -> np.ndarray:
        array = np.asarray(inputs[0])
        for axis in attributes["axes"]:
            array = np.expand_dims(array, axis)
        return array

    with mock.patch.dict(CORRECTED, {"Unsqueeze": wrong}), mock.patch.dict(WRITTEN, {"Unsqueeze": wrong}):
        result = bnfold.fold(path)
        onnx.save(result.model, tmp_path / "b.onnx")
        assert any(site.folded for site in result.sites)
        verdict = bnfold.verify(path, tmp_path / "b.onnx", options=QUICK)
        assert not verdict.passed
        assert any("differ on the original itself" in note and "(Unsqueeze)" in note for note in verdict.notes)
        with pytest.raises(bnfold.EquivalenceError):
            bnfold.convert(path, tmp_path / "c.onnx", bench=False, options=QUICK)


def test_a_model_that_is_run_writes_into_no_array_of_the_caller(tmp_path: Path) -> None:
    """ONNX Runtime updates the running statistics of a BatchNorm in training mode in place, where they are inputs."""
    text = """(T[2,3,4,4] x, T[3] mean, T[3] var) => (T[2,3,4,4] y, T[3] m, T[3] v) <T[3] gamma, T[3] beta> {
        y, m, v = BatchNormalization<training_mode=1>(x, gamma, beta, mean, var) }"""
    onnx.save(parse(text, "float"), tmp_path / "a.onnx")
    arrays = {"x": np.ones((2, 3, 4, 4)), "mean": np.zeros(3), "var": np.ones(3)}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    np.savez(tmp_path / "x.npz", **arrays)
    options = CheckOptions(check_n=3, input_data=tmp_path / "x.npz")
    verdict = bnfold.verify(tmp_path / "a.onnx", tmp_path / "a.onnx", options=options)
    assert verdict.passed
    assert all(output.max_abs == 0 for output in verdict.outputs)


def test_a_contraction_of_open_sizes_between_two_affines_folds() -> None:
    text = """(T[N,K] x) => (T[N,4] y) <T[3,4] w, T[4] gamma, T[4] beta, T[4] mean, T[4] var, T[4] s>
        { e = Einsum<equation="nk,kc->nc">(x, w) b = BN(e) y = Mul(b, s) }"""
    result = bnfold.fold(parse(text, "float"))
    assert all(site.folded for site in result.sites)


def test_a_batch_that_is_stored_as_minus_one_is_certified(tmp_path: Path) -> None:
    model = parse("(T[N,3,4,4] x) => (T[N,4,4,4] y) <T[4,3,1,1] w, bn[4]> { c = Conv(x, w) y = BN(c) }", "float")
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, tmp_path / "a.onnx")
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, certify=True, options=QUICK)
    (site,) = report.sites
    assert site.certificate is not None
    assert site.certificate.status == "proven"


def test_operators_that_draw_are_never_taken_for_the_same() -> None:
    """Every operator of the standard whose result is random."""
    random = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == "" and _draws(schema)}
    assert random >= {"RandomNormal", "RandomUniformLike", "Multinomial", "Bernoulli"}
    assert all(name.startswith(DRAWING) for name in random)
    assert not random & (set(WRITTEN) | set(BORROWED))


def _draws(schema: onnx.defs.OpSchema) -> bool:
    return "seed" in schema.attributes and schema.name != "Dropout"
