"""Proof by parts: a fault in an inactive channel is found, and named; honest pairs of models raise no alarm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import parse
from inactive_networks import NAMES, network
from sabotaging import Sabotage, planted
from saved import save

import bnfold
from bnfold.checks.options import CheckOptions
from bnfold.graphs.onnx.exact.kernels import WRITTEN

# More are for `BNFOLD_FAULTS=50`, which takes some minutes.
FAULTS = int(os.environ.get("BNFOLD_FAULTS", "6"))
QUICK = CheckOptions(check_n=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_fault_in_a_fold_is_found_and_named_by_its_part(name: str, tmp_path: Path) -> None:
    onnx.save(network(name), tmp_path / "a.onnx")
    sabotage = Sabotage(tmp_path / "a.onnx", tmp_path, QUICK)
    seen = set()
    for fault in sabotage.faults(FAULTS, seed=3):
        with planted(fault):
            attempt = sabotage.job.attempt()
            found = sabotage.job.examined(attempt, QUICK)
            attempt.staged.discard()
        wrong = {attempt.sites[place].name for place in found.wrong}
        assert wrong, fault
        assert wrong <= set(fault.owners), fault
        seen.add(fault.kind)
    assert len(seen) > 1


@pytest.mark.parametrize("name", NAMES)
def test_every_fault_outside_of_the_folds_is_found_and_named(name: str, tmp_path: Path) -> None:
    model = network(name)
    onnx.save(model, tmp_path / "a.onnx")
    sabotage = Sabotage(tmp_path / "a.onnx", tmp_path, QUICK)
    attempt = sabotage.job.attempt()
    assert sabotage.job.examined(attempt, QUICK).proof == bnfold.Proof(
        parts := len(sabotage.job.examined(attempt, QUICK).parts), parts, pytest.approx(0, abs=1e-10)
    )
    original = onnx.load(tmp_path / "a.onnx")
    folded = onnx.load(attempt.staged.model)
    kept = {tensor.name for tensor in original.graph.initializer}
    changed = 0
    for tensor in folded.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        readers = [node for node in folded.graph.node if tensor.name in node.input]
        if tensor.name not in kept or array.dtype.kind != "f" or not readers:
            continue
        array.reshape(-1)[-1] = array.reshape(-1)[-1] * np.float32(1.01) + np.float32(0.01)
        wrong = onnx.ModelProto()
        wrong.CopyFrom(folded)
        target = next(item for item in wrong.graph.initializer if item.name == tensor.name)
        target.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        onnx.save(wrong, attempt.staged.model)
        proof = sabotage.job.examined(attempt, QUICK).proof
        assert proof is not None
        assert proof.wrong, tensor.name
        changed += 1
    assert changed or name not in ("text", "detector")


def test_a_wrong_fold_in_an_inactive_part_is_taken_back(tmp_path: Path) -> None:
    onnx.save(network("detector"), tmp_path / "a.onnx")
    sabotage = Sabotage(tmp_path / "a.onnx", tmp_path, QUICK)
    fault = next(fault for fault in sabotage.faults(40, seed=5) if fault.owners == ("b",) and fault.kind == "bias")
    with planted(fault):
        report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, options=QUICK)
    assert report.verification is not None
    assert report.verification.taken_back == ("b",)
    assert bnfold.verify(tmp_path / "a.onnx", tmp_path / "b.onnx", options=QUICK).passed


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_a_fault_is_not_verified(name: str, tmp_path: Path) -> None:
    """Whatever is known of two files is in them."""
    onnx.save(network(name), tmp_path / "a.onnx")
    sabotage = Sabotage(tmp_path / "a.onnx", tmp_path, QUICK)
    for fault in sabotage.faults(2, seed=11):
        with planted(fault):
            attempt = sabotage.job.attempt()
        verdict = bnfold.verify(tmp_path / "a.onnx", attempt.staged.model, options=QUICK)
        attempt.staged.discard()
        assert not verdict.passed, fault
        assert verdict.proof is not None
        assert verdict.proof.wrong, fault


def test_a_part_on_which_float64_is_wrong_is_not_proven(tmp_path: Path) -> None:
    """Both sides are wrong alike, so that they agree."""
    save(tmp_path / "a.onnx", "(T[1,4,6,6] x) => (T[1,4,6,6] y) <T[4,4,1,1] w, bn[4]> { c = Conv(x, w) y = BN(c) }")
    right = WRITTEN["Conv"]
    with mock.patch.dict(WRITTEN, {"Conv": lambda *args: 1.02 * right(*args)}):
        report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, options=QUICK)
    assert report.verification is not None
    assert report.verification.proof is not None
    (pair,) = report.verification.proof.open
    assert pair == ("y", "float64 and ONNX Runtime do not agree on what computes 'y'")


def test_a_model_with_an_operator_that_float64_lacks_is_proven_around_it(tmp_path: Path) -> None:
    text = """(T[2,4,6,6] x) => (T[2,4,6,6] y) <T[4,4,1,1] w, bn[4], T[4,4,1,1] v, bn2[4]>
        { c = Conv(x, w) b = BN(c) l = LRN<size=3>(b) d = Conv(l, v) y = BN2(d) }"""
    save(tmp_path / "a.onnx", text)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, options=QUICK)
    assert report.verification is not None
    assert report.verification.proof is not None
    assert (report.verification.proof.parts, report.verification.proof.proven) == (2, 2)


# Honest pairs.


def _offline(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "offline.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "offline.onnx")


def _simplified(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    onnxsim = pytest.importorskip("onnxsim")
    result: onnx.ModelProto = onnxsim.simplify(model)[0]
    return result


def _dynamic(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for info in (*other.graph.input, *other.graph.output):
        if len(info.type.tensor_type.shape.dim) > 1:
            info.type.tensor_type.shape.dim[0].dim_param = "batch"
    del other.graph.value_info[:]
    return other


def _renamed(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The same with other names inside."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    fixed = {info.name for info in (*other.graph.input, *other.graph.output)} | {""}
    for node in other.graph.node:
        node.input[:] = [name if name in fixed else f"{name}_" for name in node.input]
        node.output[:] = [name if name in fixed else f"{name}_" for name in node.output]
    for tensor in other.graph.initializer:
        tensor.name += "_" if tensor.name not in fixed else ""
    del other.graph.value_info[:]
    return other


def _folded(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    result: onnx.ModelProto = bnfold.fold(model).model
    return result


@pytest.mark.parametrize("other", [_offline, _simplified, _dynamic, _renamed, _folded])
@pytest.mark.parametrize("name", NAMES)
def test_honest_pairs_raise_no_alarm(
    name: str, other: Callable[[onnx.ModelProto, Path], onnx.ModelProto], tmp_path: Path
) -> None:
    model = network(name)
    if name == "branches" and other in (_renamed, _simplified):
        pytest.skip("names in branches are left alone")
    onnx.save(model, tmp_path / "a.onnx")
    onnx.save(other(model, tmp_path), tmp_path / "b.onnx")
    verdict = bnfold.verify(tmp_path / "a.onnx", tmp_path / "b.onnx", options=QUICK)
    assert verdict.passed, verdict
    assert verdict.proof is not None
    assert not verdict.proof.wrong
    if other not in (_offline,):
        assert not verdict.proof.open
        assert verdict.proof.parts == 0 or other in (_simplified, _folded)


@pytest.mark.parametrize("name", ["digits", "autoencoder", "separable"])
def test_half_precision_passes_with_its_tolerance(name: str, tmp_path: Path) -> None:
    """Weights rounded to float16 are another function within its tolerance, and not within that of float32."""
    model = network(name)
    onnx.save(model, tmp_path / "a.onnx")
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16).astype(np.float32), tensor.name))
    onnx.save(model, tmp_path / "b.onnx")
    assert not bnfold.verify(tmp_path / "a.onnx", tmp_path / "b.onnx", options=QUICK).passed
    loose = CheckOptions(check_n=1, rtol=1e-2)
    assert bnfold.verify(tmp_path / "a.onnx", tmp_path / "b.onnx", options=loose).passed


def test_a_name_that_a_tool_gives_to_another_value_is_no_fault(tmp_path: Path) -> None:
    """What the convolution was called is the folded value now."""
    text = """(T[N,4,6,6] x) => (T[N,4,6,6] y) <T[4,4,1,1] w, T[4] b, bn[4]> {
        c = Conv(x, w, b) n = BN(c) r = Relu(n) y = Neg(r) }"""
    model = save(tmp_path / "a.onnx", text)
    folded = bnfold.fold(model).model
    for node in folded.graph.node:
        node.input[:] = ["c" if name == "n" else name for name in node.input]
        node.output[:] = ["c" if name == "n" else name for name in node.output]
    onnx.save(folded, tmp_path / "b.onnx")
    verdict = bnfold.verify(tmp_path / "a.onnx", tmp_path / "b.onnx", options=QUICK)
    assert verdict.passed
    assert verdict.proof is not None
    assert (verdict.proof.parts, verdict.proof.proven) == (1, 1)


def _pair(folder: Path, first: str, second: str, **values: object) -> bnfold.Verification:
    for name, text in (("a", first), ("b", second)):
        onnx.save(parse(text, "float", values=values), folder / f"{name}.onnx")  # type: ignore[arg-type]
    return bnfold.verify(folder / "a.onnx", folder / "b.onnx", options=QUICK)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("r = Relu(x) s = Relu(r) y = Neg(s)", "r = Relu(x) y = Neg(r)"),
        ("r = Sigmoid(x) s = Relu(r) y = Neg(s)", "r = Sigmoid(x) y = Neg(r)"),
        ("r = Relu(x) p = MaxPool<kernel_shape=[2,2]>(r) s = Relu(p) y = Neg(s)",
         "r = Relu(x) p = MaxPool<kernel_shape=[2,2]>(r) y = Neg(p)"),
        ("a = Exp(x) b = Exp(x) c = Sub(a, b) y = Add(c, x)", "a = Exp(x) c = Sub(a, a) d = Add(c, x) y = Identity(d)"),
    ],
)  # fmt: skip
def test_what_holds_of_a_value_by_how_it_is_made_is_no_fault(first: str, second: str, tmp_path: Path) -> None:
    texts = (f"(T[1,2,4,4] x) => (T[1,2,h,w] y) {{ {nodes} }}" for nodes in (first, second))
    verdict = _pair(tmp_path, *texts)
    assert verdict.passed
    assert verdict.proof is not None
    assert (verdict.proof.wrong, verdict.proof.open) == ((), ())


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("(T[1,8] x) => (T[1,8] y) <T low = {{0}}, T high = {{{}}}> {{ y = Clip(x, low, high) }}", (50, 60)),
        ("(int64[8] x) => (bool[8] y) <int64 c = {{{}}}> {{ y = Greater(x, c) }}", (2, 3)),
        ("(int64[8] x) => (bool[8] y) <int64 c = {{{}}}> {{ y = Equal(x, c) }}", (50256, 50257)),
        ("(int64[8] x) => (int64[8] y) <int64 c = {{{}}}> {{ y = Mod(x, c) }}", (3, 4)),
    ],
)
def test_bounds_that_no_drawn_input_reaches_are_told_apart(text: str, other: tuple[int, int], tmp_path: Path) -> None:
    verdict = _pair(tmp_path, *(text.format(number) for number in other))
    assert not verdict.passed
    assert verdict.proof is not None
    assert verdict.proof.wrong


def test_rows_of_a_table_that_are_too_many_to_be_read_are_not_called_proven(tmp_path: Path) -> None:
    text = "(int64[2] x) => (T[2,4] y) <T[1000,4] table> { y = Gather(table, x) }"
    table = np.ones((1000, 4))
    onnx.save(parse(text, "float", values={"table": table}), tmp_path / "a.onnx")
    table[900] = 2
    onnx.save(parse(text, "float", values={"table": table}), tmp_path / "b.onnx")
    proof = bnfold.verify(tmp_path / "a.onnx", tmp_path / "b.onnx", options=QUICK).proof
    assert proof is not None
    assert proof.wrong or proof.open == (("y", "'x' names 1000 rows, more than are tried"),)


def test_why_nothing_is_proven_is_a_note(tmp_path: Path) -> None:
    verdict = _pair(tmp_path, "(T[2] x) => (T[2] y) { y = Relu(x) }", "(T[2] z) => (T[2] y) { y = Relu(z) }")
    assert not verdict.passed
    assert verdict.proof is None
    assert "not proven part by part: their inputs or outputs differ" in verdict.notes


def test_a_first_input_on_which_the_model_does_not_run_is_passed_over(tmp_path: Path) -> None:
    """Only an even number of rows can be paired; the first input drawn has one."""
    text = """(T[N,4] x) => (T[M,8] y) <T[4,4] w, bn[4], int64[2] pairs = {-1, 8}>
        { m = MatMul(x, w) b = BN(m) y = Reshape(b, pairs) }"""
    save(tmp_path / "a.onnx", text)
    options = CheckOptions(check_n=3)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, options=options)
    assert report.verification is not None
    assert "cannot run on it" in " ".join(report.verification.inputs)
    assert report.verification.proof is not None
    assert (report.verification.proof.parts, report.verification.proof.proven) == (1, 1)


def test_a_value_whose_equal_lies_in_a_branch_that_does_not_run_is_drawn_for_itself(tmp_path: Path) -> None:
    text = """(T[N,4,6,6] x) => (T[N,4,h,w] z, T[N,4,6,6] y)
        <bool k = {1}, int64[4] far = {1, 1, 3, 1000}, bn[4], T[4,4,1,1] W>
        { z = If(k) <then_branch = a () => (T[N,4,h,w] t) { t = Abs(x) },
                     else_branch = b () => (T[N,4,h,w] e) { w = Reshape(x, far) r = Relu(x) e = Conv(w, r) }>
          s = Relu(x) c = Conv(s, W) y = BN(c) }"""
    save(tmp_path / "a.onnx", text)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, options=QUICK)
    assert report.verification is not None
    assert report.verification.proof is not None
    assert (report.verification.proof.parts, report.verification.proof.proven) == (1, 1)
