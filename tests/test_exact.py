"""The float64 engine: every operator against ONNX Runtime, whole models against the tests' own interpreter."""

from __future__ import annotations

import time

import numpy as np
import pytest
from graph_builder import DOUBLE
from graphs import parse
from operator_bodies import CASES, RNG, X, model_of
from random_graphs import random_model

from bnfold.checks.session import open_session
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.kernels import BORROWED, WRITTEN, CannotRun
from bnfold.graphs.onnx.sources import open_model


@pytest.mark.parametrize("body", CASES)
def test_operators_agree_with_onnx_runtime(body: str) -> None:
    model = model_of(body)
    expected = open_session(model.SerializeToString()).run({"x": X})["y_"]
    found = Engine(open_model(model).document).run({"x": X})["y_"]
    assert found.dtype == np.float64
    assert found.shape == expected.shape
    assert expected.size > 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


# A Scan over two values, with a state: along which axes and which way, what it is given and what it gives.
SCANS = [
    "num_scan_inputs = 2",
    "num_scan_inputs = 2, scan_input_directions = [0, 1], scan_output_directions = [1, 0]",
    "num_scan_inputs = 2, scan_input_axes = [1, -1], scan_output_axes = [2, -1], scan_output_directions = [0, 1]",
]


@pytest.mark.parametrize("settings", SCANS)
def test_scans_agree_with_onnx_runtime(settings: str) -> None:
    text = f"""(T[3,3,3] a, T[3,3,3] b, T[3,3] s) => (T[3,3] last, T[p,q,r] u, T[p,q,r] v)
        {{ last, u, v = Scan<{settings}, body = g (T[3,3] t, T[3,3] e, T[3,3] f) => (T[3,3] m, T[3,3] p, T[3,3] q)
          {{ h = MatMul(t, e) m = Add(h, f) p = Sub(m, e) q = Mul(m, f) }}>(s, a, b) }}"""
    model = parse(text, "float")
    feeds = {name: RNG.standard_normal((3, 3, 3)).astype(np.float32) for name in "ab"} | {"s": X[0, 0, :3, :3]}
    expected = open_session(model.SerializeToString()).run(feeds)
    found = Engine(open_model(model).document).run(feeds)
    assert found.keys() == expected.keys()
    for name, want in expected.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_a_scan_over_sequences_of_two_lengths_is_refused() -> None:
    text = """(T[3,2] a, T[4,2] b) => (T[l,2] u)
        { u = Scan<num_scan_inputs = 2, body = g (T[2] e, T[2] f) => (T[2] p) { p = Add(e, f) }>(a, b) }"""
    with pytest.raises(CannotRun, match=r"^node 'u' \(Scan\): ValueError"):
        Engine(open_model(parse(text, "float")).document).run({"a": X[0, 0, :3, :2], "b": X[0, 0, :4, :2]})


def test_every_operator_is_tried() -> None:
    tried = {node.op_type for body in CASES for node in model_of(body).graph.node}
    assert tried == BORROWED | WRITTEN.keys()


def test_models_agree_with_an_interpreter_of_another_hand() -> None:
    compared, reasons = 0, set()
    for seed in range(4000, 4150):
        case = random_model(seed, DOUBLE)
        for feeds, expected in zip(case.feeds, case.expected, strict=True):
            try:
                found = Engine(open_model(case.model).document).run(feeds)
            except CannotRun as error:
                reasons.add(str(error).partition(": ")[2])
                continue
            for name, want in expected.items():
                assert found[name].shape == want.shape
                np.testing.assert_allclose(found[name], want, rtol=0, atol=1e-9 * np.abs(want).max(initial=0))
                compared += 1
    assert compared > 500
    assert "this operator has no implementation in float64 here" in reasons
    assert len(reasons) < 8


def test_values_go_after_their_last_reader_and_can_be_watched() -> None:
    model = parse("(T[2,4] x) => (T[2,4] y) <T[4] w> { a = Mul(x, w) b = Relu(a) y = Add(a, b) }", "float")
    seen: dict[str, np.ndarray] = {}
    engine = Engine(open_model(model).document)
    x = RNG.standard_normal((2, 4))
    out = engine.run({"x": x}, watch=seen.__setitem__)
    assert set(seen) == {"a", "b", "y"}
    assert set(out) == {"y"}
    np.testing.assert_array_equal(seen["b"], np.maximum(seen["a"], 0))
    doubled = engine.run({"x": x}, weights={"w": 2 * engine.stored("w").astype(float)})
    np.testing.assert_allclose(doubled["y"], 2 * out["y"])


def test_a_part_of_a_graph_runs_from_values_inside_it() -> None:
    model = parse("(T[2,4] x) => (T[2,4] y) <T[4] w> { a = Mul(x, w) b = Relu(a) y = Add(a, b) }", "float")
    engine = Engine(open_model(model).document)
    found = engine.part(model.graph.node[1:], ["y", "b"], {"a": np.array([1.0, -2.0])})
    np.testing.assert_array_equal(found["y"], [2.0, -2.0])
    with pytest.raises(CannotRun, match="the value 'a' is not fed"):
        engine.part(model.graph.node[1:], ["y"], {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(T[2,4] x) => (T[2,4] y) { y = Bernoulli(x) }", r"^node 'y' \(Bernoulli\): this operator has no"),
        ("(T[2,4,3] x) => (T[2,4,3] y) <bn[4]> { y = BN<training_mode=1>(x) }", r"^node 'y' .* statistics"),
        ("(T[2,4] x) => (T[2,4] y) <T[3] w> { y = Mul(x, w) }", r"^node 'y' \(Mul\): TypeError: "),
    ],
)
def test_what_cannot_be_run_says_why(text: str, reason: str) -> None:
    with pytest.raises(CannotRun, match=reason):
        Engine(open_model(parse(text, "float")).document).run({"x": np.ones((2, 4, 3) if "3] x" in text else (2, 4))})


def test_a_run_ends_at_its_deadline() -> None:
    model = parse("(T[2,4] x) => (T[2,4] y) { y = Relu(x) }", "float")
    with pytest.raises(CannotRun, match="the time set for it is over"):
        Engine(open_model(model).document).run({"x": X[0, 0]}, deadline=time.monotonic() - 1)
