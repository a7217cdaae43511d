"""The verdict: equal models pass, every kind of sabotage is caught, and what cannot be decided is not passed."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from bnfold.checks import verify as verify_module
from bnfold.checks.compare import Gap, Tolerance, compare, tolerance_for
from bnfold.checks.judge import judge
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Session, open_session
from bnfold.checks.verify import verify
from bnfold.errors import ModelError, UsageError
from bnfold.results import OutputDifference

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
QUICK = CheckOptions(check_n=3)
RNG = np.random.default_rng(7)
WEIGHTS = {
    "w1": RNG.standard_normal((6, 3, 3, 3)) / 5,
    "b1": RNG.standard_normal(6),
    "w2": RNG.standard_normal((8, 6, 3, 3)) / 7,
    "b2": RNG.standard_normal(8),
    "w3": RNG.standard_normal((8, 5)) / 3,
    "b3": RNG.standard_normal(5),
}
BODY = """
    c1 = Conv(x, w1, b1)  a1 = Relu(c1)
    c2 = Conv(a1, w2, b2)  a2 = Relu(c2)
    p = GlobalAveragePool(a2)  f = Flatten(p)
    y = Gemm(f, w3, b3)
"""


def graph(text: str, weights: dict[str, np.ndarray] | None = None, opset: int = 17) -> bytes:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    for name, value in (weights or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    return proto.SerializeToString()


def network(body: str = BODY, **changed: np.ndarray) -> bytes:
    weights = {name: value.astype(np.float32) for name, value in {**WEIGHTS, **changed}.items()}
    return graph(f"net (float[N, 3, 8, 8] x) => (float[N, 5] y) {{ {body} }}", weights)


def function(body: str, kind: str = "float", size: int = 400, out: str = "") -> bytes:
    return graph(f"f ({kind}[{size}] x) => ({out or kind}[K] y) {{ {body} }}")


def constant(name: str, value: float, kind: str = "float") -> str:
    return f"{name}0 = Constant <value_float = {value:.9g}> ()  {name} = CastLike({name}0, x)\n"


def only(outputs: tuple[OutputDifference, ...]) -> OutputDifference:
    (output,) = outputs
    return output


# Equal


def test_a_model_equals_itself() -> None:
    verdict = verify(network(), network(), CheckOptions())
    assert verdict.passed
    output = only(verdict.outputs)
    assert (output.name, output.max_abs, output.max_rel, output.smallest_rtol) == ("y", 0.0, 0.0, 0.0)
    assert output.top1_agreement == 1.0
    assert output.cosine == pytest.approx(1.0, abs=1e-12)
    assert output.noise_floor is not None
    assert output.detail is None
    assert len(verdict.inputs) == 6
    assert "without graph optimisations" in verdict.reference


def test_rounding_of_a_fold_passes() -> None:
    scale = RNG.uniform(0.5, 2, (6, 1, 1, 1))
    scaled_after = BODY.replace("c1 = Conv(x, w1, b1)", "c0 = Conv(x, w1)  cm = Mul(c0, s)  c1 = Add(cm, b)")
    original = network(scaled_after, s=scale[:, 0], b=WEIGHTS["b1"][:, None, None])
    output = only(verify(original, network(w1=WEIGHTS["w1"].astype(np.float32) * scale), QUICK).outputs)
    assert output.passed
    assert 0 < output.max_abs <= output.tolerance


@pytest.mark.parametrize("factor", [1 + 5e-5, 1.02])
def test_the_smallest_tolerance_is_the_one_that_would_pass(factor: float) -> None:
    before, after = function("y = Identity(x)"), function(constant("k", factor) + "y = Mul(x, k)")
    smallest = only(verify(before, after, QUICK).outputs).smallest_rtol
    assert smallest is not None
    assert verify(before, after, CheckOptions(check_n=3, rtol=smallest * 1.001)).passed
    assert not verify(before, after, CheckOptions(check_n=3, rtol=smallest * 0.999)).passed


# Sabotage


def swapped(name: str) -> np.ndarray:
    return WEIGHTS[name][[1, 0, *range(2, len(WEIGHTS[name]))]]


def scaled_channel(name: str, factor: float) -> np.ndarray:
    value = WEIGHTS[name].copy()
    value[0] *= factor
    return value


@pytest.mark.parametrize(
    "changed",
    [
        {"w1": WEIGHTS["w1"] * 1.01},
        {"w1": scaled_channel("w1", 1.01)},
        {"w2": scaled_channel("w2", 0.99)},
        {"w3": scaled_channel("w3", -1)},
        {"w1": swapped("w1")},
        {"w2": swapped("w2")},
        {"b1": swapped("b1")},
        {"b1": WEIGHTS["b1"] + 1e-2},
        {"b3": WEIGHTS["b3"] + 1e-2 * np.eye(5)[2]},
        {"b2": np.zeros(8)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_changed_weights_are_caught(changed: dict[str, np.ndarray]) -> None:
    verdict = verify(network(), network(**changed), QUICK)
    assert not verdict.passed
    output = only(verdict.outputs)
    assert not output.passed
    assert output.max_abs > output.tolerance
    assert output.smallest_rtol is not None
    assert output.smallest_rtol > 1e-4
    assert output.detail is not None
    assert "CPUExecutionProvider" in output.detail


@pytest.mark.parametrize("body", [BODY.replace("a2 = Relu(c2)", "a2 = Identity(c2)"), BODY.replace("w3, b3", "w3")])
def test_a_lost_operator_is_caught(body: str) -> None:
    assert not verify(network(), network(body), QUICK).passed


@pytest.mark.parametrize(
    ("before", "after", "detail"),
    [
        ("y = Log(x)", "a = Abs(x)  y = Log(a)", "NaN entries"),
        ("y = Sqrt(x)", "r = Relu(x)  y = Sqrt(r)", "NaN entries"),
        ("z = Sub(x, x)  y = Div(x, z)", "z = Sub(x, x)  y = Mul(x, z)", "infinite entries"),
        (
            "z = Sub(x, x)  y = Div(x, z)",
            "z = Sub(x, x)  d = Div(x, z)  y = Neg(d)",
            "infinite entries of the other sign",
        ),
    ],
)
def test_nan_and_infinity_must_be_where_they_were(before: str, after: str, detail: str) -> None:
    finite = "  f = Identity(x)"
    header = "f (float[400] x) => (float[K] y, float[K] f)"
    first, second = (graph(f"{header} {{ {body}{finite} }}") for body in (before, after))
    assert verify(first, second, QUICK).outputs[0].detail is not None
    broken = verify(first, second, QUICK).outputs[0]
    assert not broken.passed
    assert detail in (broken.detail or "")


def test_nan_in_the_same_places_is_no_difference() -> None:
    assert verify(function("y = Log(x)"), function("y = Log(x)"), QUICK).passed


@pytest.mark.parametrize(
    "body",
    [
        "m = Mul(x, x)  n = Neg(m)  o = Sub(n, m)  y = Log(o)",
        "z = Sub(x, x)  y = Div(z, z)",
        "s = Constant <value_ints = [0]> ()  e = Constant <value_ints = [0]> ()  y = Slice(x, s, e)",
    ],
    ids=["all NaN", "zero by zero", "empty"],
)
def test_an_output_without_a_finite_value_proves_nothing(body: str) -> None:
    verdict = verify(function(body), function(body), QUICK)
    assert not verdict.passed
    assert "proves nothing" in (only(verdict.outputs).detail or "")


@pytest.mark.parametrize(
    ("kind", "factor", "passed"),
    [
        ("float", 1 + 5e-5, True),
        ("float", 1 + 2e-4, False),
        ("float16", 1.004, True),
        ("float16", 1.02, False),
        ("double", 1 + 1e-7, False),
    ],
)
def test_tolerance_goes_by_the_type(kind: str, factor: float, passed: bool) -> None:
    verdict = verify(function("y = Identity(x)", kind), function(constant("k", factor) + "y = Mul(x, k)", kind), QUICK)
    assert verdict.passed is passed


def test_bfloat16_models_are_compared() -> None:
    same, other = (
        function("y = Identity(x)", "bfloat16"),
        graph(
            "f (bfloat16[400] x) => (bfloat16[400] y) "
            "{ f = Cast <to = 1> (x)  k = Constant <value_float = 1.05> ()  m = Mul(f, k)  y = Cast <to = 16> (m) }"
        ),
    )
    assert verify(same, same, QUICK).passed
    assert not verify(same, other, QUICK).passed


@pytest.mark.parametrize(
    ("kind", "before", "after", "passed"),
    [
        ("int64", "y = ArgMax <axis = 0> (x)", "y = ArgMax <axis = 0> (x)", True),
        ("int64", "y = ArgMax <axis = 0> (x)", "y = ArgMin <axis = 0> (x)", False),
        ("bool", "n = Neg(x)  y = Less(x, n)", "n = Neg(x)  y = Greater(n, x)", True),
        ("bool", "n = Neg(x)  y = Less(x, n)", "n = Neg(x)  y = Greater(x, n)", False),
    ],
)
def test_outputs_that_are_no_floats_must_be_equal(kind: str, before: str, after: str, passed: bool) -> None:
    verdict = verify(function(before, out=kind), function(after, out=kind), QUICK)
    assert verdict.passed is passed
    if not passed:
        assert "allowed" in (only(verdict.outputs).detail or "")


def test_strings_must_be_equal(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array(["a", "b"]))
    options = CheckOptions(input_data=tmp_path / "s.npy")
    same = function("y = Identity(x)", "string", size=2)
    other = function("i = Constant <value_ints = [1, 0]> ()  y = Gather(x, i)", "string", size=2)
    assert verify(same, same, options).passed
    assert not verify(same, other, options).passed


# Another function altogether


PLAIN = "f (float[4] a, float[4] b) => (float[4] y) { y = Sub(a, b) }"


@pytest.mark.parametrize(
    ("after", "what"),
    [
        ("f (float[4] b, float[4] a) => (float[4] y) { y = Sub(a, b) }", "inputs"),
        ("f (float[4] a, float[4] c) => (float[4] y) { y = Sub(a, c) }", "inputs"),
        ("f (float[4] a) => (float[4] y) { y = Sub(a, a) }", "inputs"),
        ("f (float[4] a, float[4] b) => (float[4] z) { z = Sub(a, b) }", "outputs"),
        ("f (float[4] a, float[4] b) => (double[4] y) { z = Sub(a, b)  y = Cast <to = 11> (z) }", "outputs"),
        ("f (float[4] a, float[4] b) => (float[4] y, float[4] z) { y = Sub(a, b)  z = Add(a, b) }", "outputs"),
    ],
)
def test_another_signature_is_another_function(after: str, what: str) -> None:
    verdict = verify(graph(PLAIN), graph(after), QUICK)
    assert not verdict.passed
    assert only(verdict.outputs).detail is not None
    assert f"another function: {what} (" in (only(verdict.outputs).detail or "")


def test_another_shape_is_caught() -> None:
    after = "s = Constant <value_ints = [20, 20]> ()  y = Reshape(x, s)"
    proto = onnx.load_from_string(function(after))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    verdict = verify(function("y = Identity(x)"), proto.SerializeToString(), QUICK)
    assert not verdict.passed
    assert "shape (20, 20) instead of (400,)" in (only(verdict.outputs).detail or "")


@pytest.mark.parametrize(
    "after", [b"rubbish", function("s = Constant <value_ints = [3, 4]> ()  y = Reshape(x, s)")], ids=["load", "run"]
)
def test_a_folded_model_that_breaks_is_not_passed(after: bytes) -> None:
    verdict = verify(function("y = Identity(x)"), after, QUICK)
    assert not verdict.passed
    assert "ONNX Runtime cannot" in (only(verdict.outputs).detail or "")
    assert "the folded model" in (only(verdict.outputs).detail or "")


def test_elements_of_a_sequence_are_judged_each() -> None:
    def split(axis: int, factor: float = 1) -> bytes:
        body = f"{constant('k', factor)} m = Mul(x, k)  y = SplitToSequence <axis = {axis}> (m)"
        return graph(f"f (float[2, 3] x) => (seq(float[A, B]) y) {{ {body} }}")

    verdict = verify(split(0), split(0), QUICK)
    assert verdict.passed
    assert [output.name for output in verdict.outputs] == ["y[0]", "y[1]"]
    assert not verify(split(0), split(0, 1.01), QUICK).passed
    assert not verify(split(0), split(1), QUICK).passed


# Inputs on which nothing can be decided


CUBE = "s = Mul(x, x)  c = Mul(s, x)  y = Sin(c)"
CUBE_OTHERWISE = constant("k", 3) + "t = Mul(x, k)  s = Mul(t, x)  u = Mul(s, x)  c = Div(u, k)  y = Sin(c)"
CUBE_WRONG = constant("k", 1.01) + "s = Mul(x, x)  c = Mul(s, x)  d = Sin(c)  y = Mul(d, k)"
WIDE = CheckOptions(val_range=(-41.3, 40.7), check_n=2)


def test_a_large_input_that_the_original_does_not_bear_is_made_smaller() -> None:
    verdict = verify(function(CUBE), function(CUBE_OTHERWISE), QUICK)
    assert verdict.passed
    assert verdict.inputs == ("normal", "uniform", "large, scaled by 0.1")
    assert not verify(function(CUBE), function(CUBE_WRONG), QUICK).passed


def test_where_rounding_alone_moves_the_original_nothing_is_decided() -> None:
    verdict = verify(function(CUBE), function(CUBE_OTHERWISE), WIDE)
    assert not verdict.passed
    output = only(verdict.outputs)
    assert (output.detail or "").startswith("undecided: input 'normal', 'uniform' set aside")
    assert "--rtol" in (output.detail or "")
    assert output.smallest_rtol is None


def test_an_input_set_aside_counts_for_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 400))
    options = CheckOptions(val_range=(-41.3, 40.7), check_n=3, input_data=tmp_path / "x.npy")
    verdict = verify(function(CUBE), function(CUBE_OTHERWISE), options)
    assert verdict.passed
    output = only(verdict.outputs)
    assert "set aside" in (output.detail or "")
    assert output.max_abs <= output.tolerance
    assert output.smallest_rtol is not None
    assert output.smallest_rtol <= 1e-4
    assert not verify(function(CUBE), function(CUBE_WRONG), options).passed


def test_float16_that_overflows_is_tried_on_smaller_inputs() -> None:
    exponential = function("y = Exp(x)", "float16")
    verdict = verify(exponential, exponential, QUICK)
    assert verdict.passed
    assert verdict.inputs[2].startswith("large, scaled by")


def test_inputs_on_which_the_original_does_not_run_are_left_out() -> None:
    body = "s = Constant <value_ints = [1, 6]> ()  y = Reshape(x, s)"
    baked = graph(f"f (float[N, 2, 3] x) => (float[M, 6] y) {{ {body} }}")
    verdict = verify(baked, baked, QUICK)
    assert verdict.passed
    assert verdict.inputs == (
        "normal, batch 1",
        "uniform, batch 2 (left out: the original cannot run on it)",
        "large, batch 3 (left out: the original cannot run on it)",
    )


# Errors that are the user's


@pytest.mark.parametrize(
    ("original", "options", "error", "reason"),
    [
        (b"rubbish", QUICK, ModelError, "cannot load the original"),
        (network(), CheckOptions(input_shapes={"x": (1, 4, 8, 8)}), UsageError, "the model has Nx3x8x8"),
        (network(), CheckOptions(output_rtol={"z": 1.0}), UsageError, "'z', which is no output: the model has y"),
        (network(), CheckOptions(output_atol={"z": 1.0}), UsageError, "no output"),
        (network(), CheckOptions(providers=("abacus",)), UsageError, "abacus"),
        (
            graph("f (float[N, 3, H] x, float[4] w) => (float[N, 3, H] y) { y = Add(x, w) }"),
            QUICK,
            ModelError,
            r"the sizes of x 1x3x128 were guessed: give yours with --input-shape",
        ),
    ],
)
def test_errors_in_one_line(original: bytes, options: CheckOptions, error: Any, reason: str) -> None:
    with pytest.raises(error, match=reason) as caught:
        verify(original, network(), options)
    assert "\n" not in str(caught.value)


def test_data_on_which_the_original_does_not_run_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 2, 3), np.float32))
    body = "s = Constant <value_ints = [1, 6]> ()  y = Reshape(x, s)"
    baked = graph(f"f (float[N, 2, 3] x) => (float[M, 6] y) {{ {body} }}")
    with pytest.raises(ModelError, match="cannot run the original"):
        verify(baked, baked, CheckOptions(input_data=tmp_path / "x.npy"))


@pytest.mark.skipif(HAS_CUDA, reason="CUDAExecutionProvider is present")
def test_no_silent_fallback_to_the_cpu() -> None:
    with pytest.raises(UsageError, match="cuda"):
        verify(network(), network(), CheckOptions(providers=("cpu", "cuda")))


@pytest.mark.skipif(not HAS_CUDA, reason="CUDAExecutionProvider is not available here")
def test_the_folded_model_is_judged_on_cuda_too() -> None:
    options = CheckOptions(check_n=3, providers=("cpu", "cuda"))
    assert verify(network(), network(), options).passed
    wrong = verify(network(), network(w1=WEIGHTS["w1"] * 1.01), options)
    assert not wrong.passed


# The rest of the contract


def test_tolerances_of_single_outputs() -> None:
    header = "f (float[9] x) => (float[9] y, float[9] z)"
    before = graph(f"{header} {{ y = Identity(x)  z = Identity(x) }}")
    after = graph(f"{header} {{ k = Constant <value_float = 1.01> ()  y = Mul(x, k)  z = Mul(x, k) }}")
    verdict = verify(before, after, CheckOptions(check_n=3, output_rtol={"z": 0.1}))
    assert [output.passed for output in verdict.outputs] == [False, True]
    assert verify(before, after, CheckOptions(check_n=3, rtol=0.1)).passed
    assert verify(before, after, CheckOptions(check_n=3, output_atol={"y": 9.0, "z": 9.0})).passed


def test_a_reference_is_run_in_place_of_the_original() -> None:
    assert verify(b"never loaded", network(), QUICK, reference=network()).passed


def test_accuracy_on_labelled_data(tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((70, 3, 8, 8)).astype(np.float32)
    classes = open_session(network()).run({"x": x})["y"].argmax(axis=1)
    labels = np.where(np.arange(70) < 10, (classes + 1) % 5, classes)
    np.savez(tmp_path / "t.npz", x=x, labels=labels)
    options = CheckOptions(input_data=tmp_path / "t.npz", check_n=1)
    (accuracy,) = verify(network(), network(), options).accuracy
    assert (accuracy.output, accuracy.correct_before, accuracy.correct_after, accuracy.total) == ("y", 60, 60, 70)
    changed = network(b3=WEIGHTS["b3"] + 100 * np.eye(5)[0])
    verdict = verify(network(), changed, options)
    assert verdict.accuracy[0].correct_after == int(np.count_nonzero(labels == 0))
    assert verdict.inputs == ("file t.npz, in 2 parts", "normal, batch 1")
    assert (verdict.outputs[0].top1_agreement or 0) < 0.9


def test_progress_grows_to_the_end() -> None:
    seen: list[tuple[str, float]] = []
    verify(network(), network(), QUICK, progress=lambda stage, done: seen.append((stage, done)))
    fractions = [done for _, done in seen]
    assert {stage for stage, _ in seen} == {"verify"}
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


def test_never_more_than_two_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Session] = weakref.WeakSet()
    most = []

    def counting(*args: Any, **kwargs: Any) -> Session:
        opened = open_session(*args, **kwargs)
        alive.add(opened)
        most.append(len(alive))
        return opened

    monkeypatch.setattr(verify_module, "open_session", counting)
    verify(network(), network(), QUICK)
    assert len(most) == 3
    assert max(most) == 2


def test_a_disagreement_of_the_runtime_with_itself_is_named_and_does_not_decide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken_optimiser(model: Any, *args: Any, **kwargs: Any) -> Session:
        source = network(w1=WEIGHTS["w1"] * 1.1) if kwargs.get("opt_level") == "all" else model
        return open_session(source, *args, **kwargs)

    monkeypatch.setattr(verify_module, "open_session", broken_optimiser)
    verdict = verify(network(), network(), QUICK)
    assert verdict.passed
    output = only(verdict.outputs)
    (note,) = verdict.notes
    assert note.startswith("ONNX Runtime's own optimisations change the original's output 'y' by ")
    assert (output.noise_floor or 0) > output.tolerance


TWO_INPUTS = "f (float[N, 4] x, float[N, 4] z) => (float[a, 4] y, float[b, 4] w) { y = Abs(x) w = Abs(z) }"


@pytest.mark.parametrize(("rows", "noted"), [(3, False), (5, True)])
@pytest.mark.parametrize("given", ["shapes", "data"])
def test_sizes_that_contradict_the_names_of_the_model_are_noted(
    given: str, rows: int, noted: bool, tmp_path: Path
) -> None:
    """Exporters give one name to sizes that differ, and ONNX Runtime takes what is fed."""
    shapes = {"x": (3, 4), "z": (rows, 4)}
    options = replace(QUICK, input_shapes=shapes)
    if given == "data":
        np.savez(tmp_path / "d.npz", **{name: np.ones(shape, np.float32) for name, shape in shapes.items()})
        options = replace(QUICK, input_data=tmp_path / "d.npz", check_n=0)
    verdict = verify(graph(TWO_INPUTS), graph(TWO_INPUTS), options)
    assert verdict.passed
    said = "the shapes given make 'N' 3 and 5: the model's names say that these sizes are the same"
    assert verdict.notes == ((said,) if noted else ())


# The parts


@pytest.mark.parametrize(
    ("gap", "moved", "status", "nudges"),
    [
        (Gap(max_abs=1e-4, max_ref=1.0, mismatches=1), Gap(), "passed", []),
        (Gap(max_abs=2e-4, max_ref=1.0, mismatches=1), Gap(), "failed", [2]),
        (Gap(max_abs=2e-4, max_ref=1.0, mismatches=1), Gap(max_abs=1e-6, mismatches=1), "failed", [2]),
        (Gap(max_abs=2e-4, max_ref=1.0, mismatches=1), Gap(max_abs=5e-5, mismatches=1), "failed", [2, 8]),
        (Gap(max_abs=2e-4, max_ref=1.0, mismatches=1), Gap(max_abs=7e-5, mismatches=1), "set aside", [2, 8]),
        (Gap(max_abs=2e-4, max_ref=1.0, mismatches=9), Gap(max_abs=7e-5, mismatches=1), "failed", [2, 8]),
        (Gap("1 NaN", max_ref=1.0), Gap(max_abs=1.0, mismatches=9), "failed", [2]),
        (Gap("1 NaN", max_ref=1.0), Gap("1 NaN"), "set aside", [2, 8]),
        (Gap(max_abs=2e-4, max_ref=1.0, mismatches=1), Gap("1 NaN", max_abs=1.0), "failed", [2]),
    ],
)
def test_the_rule(gap: Gap, moved: Gap, status: str, nudges: list[int]) -> None:
    asked: list[int] = []

    def movement(number: int) -> Gap:
        asked.append(number)
        return moved

    assert judge("normal", "CPU", gap, Tolerance(1e-4, 0.0), movement).status == status
    assert asked == nudges


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.5], {"max_abs": 0.5, "max_ref": 2.0, "mismatches": 1, "finite": 2, "problem": None}),
        ([np.nan, 2.0], [np.nan, 2.0], {"max_abs": 0.0, "finite": 1, "problem": None}),
        ([np.inf, -np.inf], [np.inf, -np.inf], {"max_abs": 0.0, "finite": 0, "problem": None}),
        ([1e308, -1e308], [-1e308, 1e308], {"max_abs": np.inf}),
        ([0.0, 0.0], [0.0, 0.0], {"cosine": None, "max_ref": 0.0}),
        ([1e200, 1e200], [1e200, 1e200], {"cosine": pytest.approx(1.0)}),
        ([], [], {"max_abs": 0.0, "finite": 0, "problem": None}),
        ([[1.0, 3.0], [2.0, 1.0]], [[1.0, 3.0], [2.0, 2.5]], {"top1_hits": 1, "top1_rows": 2}),
        ([[np.nan, 3.0], [2.0, 1.0]], [[np.nan, 3.0], [2.0, 1.0]], {"top1_hits": 1, "top1_rows": 1}),
    ],
)
def test_gaps_of_floats(reference: Any, candidate: Any, expected: dict[str, Any]) -> None:
    gap = compare(np.array(reference), np.array(candidate))
    assert {name: getattr(gap, name) for name in expected} == expected


def test_large_integers_that_differ_by_one_differ() -> None:
    gap = compare(np.array([2**62]), np.array([2**62 + 1]))
    assert (gap.max_abs, gap.mismatches) == (1.0, 1)


@pytest.mark.parametrize(
    ("dtype", "harmless", "harmful"),
    [("float16", 1e-7, 1e-5), ("bfloat16", 1e-39, 1e-30), ("float32", 1e-39, 1e-30), ("float64", 1e-310, 1e-300)],
)
def test_an_output_of_zeros_tolerates_nothing_but_the_smallest_numbers(
    dtype: str, harmless: float, harmful: float
) -> None:
    bound = tolerance_for("y", dtype, CheckOptions()).bound(0.0)
    assert harmless <= bound < harmful
