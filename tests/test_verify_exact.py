"""The verdict with float64 beside it: rounding of the runtime is told from a fault, which it cannot hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import parse, weights
from onnx import numpy_helper

import bnfold
from bnfold.checks.compare import Gap, Tolerance, compare, distance
from bnfold.checks.exact import ExactAnswers, ExactPair
from bnfold.checks.feed import Feed
from bnfold.checks.judge import Exactly, judge
from bnfold.checks.options import CheckOptions
from bnfold.checks.verify import verify
from bnfold.errors import ModelError
from bnfold.exactly import ExactSource
from bnfold.results import OutputDifference

QUICK = CheckOptions(check_n=3)

# Cancellation: float32 loses x behind 4096 times it; the exact answer is x.
LOSSY = "(float[400] x) => (float[400] y) <float[1] k> { t = Mul(x, k) u = Add(t, x) y = Sub(u, t) }"
PLAIN = "(float[400] x) => (float[400] y) <float[1] c> { y = Mul(x, c) }"


def exact_pair(original: Any, folded: Any) -> ExactPair:
    return ExactPair(ExactSource(original), ExactSource(folded))


def model(text: str, dtype: str = "float", **values: Any) -> onnx.ModelProto:
    return parse(text, dtype, values={name: np.asarray(value) for name, value in values.items()})


def judged(
    original: onnx.ModelProto, folded: onnx.ModelProto, options: CheckOptions = QUICK
) -> tuple[OutputDifference, OutputDifference]:
    """The verdict on the only output, without and with float64."""
    data = original.SerializeToString(), folded.SerializeToString()
    (without,) = verify(*data, options).outputs
    (with_,) = verify(*data, options, exact=exact_pair(original, folded)).outputs
    return without, with_


def test_rounding_of_the_original_is_no_fault_of_the_fold() -> None:
    without, with_ = judged(model(LOSSY, k=4096.0), model(PLAIN, c=1.0))
    assert (without.passed, with_.passed) == (False, True)
    assert with_.exact_before is not None
    assert with_.exact_before > with_.tolerance
    assert (with_.exact_difference, with_.exact_after) == (0.0, 0.0)
    assert with_.decided_by == "float64"
    assert (with_.place_error or 0) <= (with_.place_tolerance or 0)


def test_rounding_of_both_is_told_apart_from_a_fault() -> None:
    twice = "(float[400] x) => (float[400] y) <float[1] k> { t = Mul(x, k) u = Sub(x, t) y = Add(u, t) }"
    without, with_ = judged(model(LOSSY, k=65536.0), model(twice, k=120000.0))
    assert (without.passed, with_.passed) == (False, True)
    assert "ONNX Runtime's rounding alone passes the" in (with_.detail or "")
    assert (with_.exact_difference or 0) < 1e-9
    wrong = twice.replace("y = Add(u, t)", "v = Add(u, t) y = Mul(v, c)").replace("k>", "k, float[1] c>")
    _, with_ = judged(model(LOSSY, k=65536.0), model(wrong, k=120000.0, c=1.0003))
    assert not with_.passed
    assert "in float64 the models differ by" in (with_.detail or "")


def test_a_fold_that_rounds_worse_than_the_original_fails() -> None:
    _, with_ = judged(model(PLAIN, c=1.0), model(LOSSY, k=4096.0))
    assert not with_.passed
    assert "(from the exact answer, the original is off by 0, the folded model by" in (with_.detail or "")


def test_a_fault_hidden_by_rounding_is_seen() -> None:
    """Past the tolerance in float64, within it in float32, by a lucky rounding to float16."""
    rounding = "(float[64] x) => (float[64] y) <float[1] c> { m = Mul(x, c) h = Cast<to = 10>(m) y = Cast<to = 1>(h) }"
    x = np.ones(64, np.float32)
    data = model(rounding, c=1.0), model(rounding, c=1.0 + 2.0**-12)
    (without,) = verify(*(item.SerializeToString() for item in data), QUICK).outputs
    answers = [ExactSource(item).run({"x": x}, np.inf) for item in data]
    assert not isinstance(answers[0], str)
    assert not isinstance(answers[1], str)
    assert compare(answers[0]["y"], answers[1]["y"]).max_abs == 2.0**-12
    assert without.max_abs != 2.0**-12
    (with_,) = verify(*(item.SerializeToString() for item in data), QUICK, exact=exact_pair(*data)).outputs
    assert not with_.passed


def test_where_weights_decide_between_two_integers_nothing_is_decided() -> None:
    text = "(float[2] x) => (float[2] y) <float[1] c> { m = Mul(x, c) r = Floor(m) y = Add(r, x) }"
    path = model(text, c=3.0), model(text, c=np.nextafter(np.float32(3), np.float32(0)))
    pair = exact_pair(*path)
    feed = Feed("a feed", {"x": np.array([1.0, 5.0], np.float32)})
    found = ExactAnswers(pair, 1.0)
    exact = found.on(feed, urgent=True)
    assert exact is not None
    between = compare(exact[0]["y"], exact[1]["y"])
    assert between.max_abs == 1.0
    moved = found.moved_by_weights(feed, "y", exact[0]["y"])
    assert moved.max_abs == 1.0
    assert found.jumps
    exactly = Exactly(Gap(), Gap(), between, lambda: moved, jumps=True)
    assert judge("f", "CPU", Gap(), Tolerance(1e-4, 0), _no_movement, exactly).status == "set aside"


def test_a_sensitive_model_without_jumps_is_not_excused() -> None:
    """Cancellation amplifies the last digit of the weights to twice the tolerance; so does it a fault."""
    text = "(float[2] x) => (float[2] y) <float[1] c, float[1] d> { m = Mul(x, c) n = Mul(x, d) y = Sub(m, n) }"
    original, wrong = model(text, c=1e4 + 1, d=1e4), model(text, c=(1e4 + 1) * (1 + 2e-7), d=1e4)
    found = ExactAnswers(exact_pair(original, wrong), 1.0)
    feed = Feed("a feed", {"x": np.array([1.0, 5.0], np.float32)})
    exact = found.on(feed, urgent=True)
    assert exact is not None
    between = compare(exact[0]["y"], exact[1]["y"])
    assert between.max_abs > 1e-3
    moved = found.moved_by_weights(feed, "y", exact[0]["y"])
    assert moved.max_abs > 1e-3
    exactly = Exactly(Gap(), Gap(), between, lambda: moved, jumps=found.jumps)
    assert judge("f", "CPU", between, Tolerance(1e-4, 0), _no_movement, exactly).status == "failed"


@pytest.mark.parametrize(
    ("weight", "status"), [(np.nextafter(np.float32(1.9), np.float32(2)), "passed"), (np.float32(1.90004), "failed")]
)
def test_a_channel_that_is_small_by_cancellation_is_as_exact_as_its_weights(weight: Any, status: str) -> None:
    text = "(float[99,2] x) => (float[99,2] y) <float[2] c, float[2] d> { m = Mul(x, c) n = Mul(x, d) y = Sub(m, n) }"
    c, d = np.float32([4.0, 1.9]), np.float32([0, 1.899])
    original, other = model(text, c=c, d=d), model(text, c=np.float32([4.0, weight]), d=d)
    found = ExactAnswers(exact_pair(original, other), 1.0)
    feed = Feed("a feed", {"x": np.tile(np.float32([1, 5]), (99, 1))})
    exact = found.on(feed, urgent=True)
    assert exact is not None
    between = compare(exact[0]["y"], exact[1]["y"])
    moved = found.moved_by_weights(feed, "y", exact[0]["y"])
    case = judge("f", "CPU", between, Tolerance(1e-4, 0), _no_movement, Exactly(Gap(), between, between, lambda: moved))
    assert not between.errors.within(between.sizes.to_judge_by(between.sizes.shares()).times(1e-4))
    assert case.status == status


def _no_movement(nudges: int) -> Gap:
    raise AssertionError("nudges decide nothing where float64 does")


def gap(max_abs: float) -> Gap:
    return Gap(max_abs=max_abs, max_ref=1.0, mismatches=1, finite=9)


@pytest.mark.parametrize(
    ("difference", "before", "after", "between", "moved", "status", "error"),
    [
        (5e-5, 1e-6, 5e-5, 2e-5, 0, "passed", 5e-5),
        (5e-5, 1e-6, 5e-5, 2e-4, 0, "failed", 2e-4),
        (5e-5, 1e-6, 5e-5, 2e-4, 9e-5, "set aside", 2e-4),
        (2e-4, 2e-4, 1e-5, 1e-5, 0, "passed", 1e-5),
        (2e-4, 1e-4, 2.9e-4, 1e-5, 0, "passed", 1e-5),
        (2e-4, 5e-5, 2e-4, 1e-5, 0, "failed", 2e-4),
        (2e-2, 1e-2, 1e-2, 2e-4, 0, "failed", 2e-4),
    ],
)
def test_the_rule_with_float64(
    difference: float, before: float, after: float, between: float, moved: float, status: str, error: float
) -> None:
    exactly = Exactly(gap(before), gap(after), gap(between), lambda: gap(moved), jumps=True)
    case = judge("normal", "CPU", gap(difference), Tolerance(1e-4, 0.0), _no_movement, exactly)
    assert (case.status, case.error) == (status, error)


# What ONNX Runtime cannot run.


CONV = "(T[N,4,8,8] x) => (T[N,6,8,8] y) <T[6,4,3,3] w, bn[6]> { c = Conv<pads=[1,1,1,1]>(x, w) y = BN(c) }"


@pytest.mark.parametrize(("dtype", "rtol"), [("double", 1e-9), ("bfloat16", 1e-2)])
def test_types_without_operators_are_verified_in_float64(dtype: str, rtol: float, tmp_path: Path) -> None:
    onnx.save(model(CONV, dtype), tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="cannot load the original"):
        verify(tmp_path / "a.onnx", tmp_path / "a.onnx", QUICK)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", options=QUICK)
    verification = report.verification
    assert verification is not None
    assert verification.passed
    assert "since ONNX Runtime cannot run it here" in verification.reference
    (output,) = verification.outputs
    assert 0 < output.max_abs <= output.tolerance
    assert report.after is not None
    assert report.after.batch_norms == 0
    assert report.latency == ()
    assert any("latency was not measured: ONNX Runtime cannot load" in note for note in report.notes)

    folded = onnx.load(tmp_path / "b.onnx")
    name = folded.graph.node[0].input[1]
    changed = weights(folded)[name] * np.asarray(1 + 5 * rtol).astype(weights(folded)[name].dtype)
    wrong = numpy_helper.from_array(changed.astype(weights(folded)[name].dtype), name)
    next(tensor for tensor in folded.graph.initializer if tensor.name == name).CopyFrom(wrong)
    assert not bnfold.verify(tmp_path / "a.onnx", folded, options=QUICK).passed


def test_where_neither_can_run_both_reasons_are_told(tmp_path: Path) -> None:
    text = "(T[3,4] x) => (T[3,4] y) <T[4,4] w, bn[4]> { u = Bernoulli(x) c = MatMul(u, w) y = BN(c) }"
    onnx.save(model(text.replace("MatMul(u, w)", "Selu(u)"), "bfloat16"), tmp_path / "a.onnx")
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load the original: .*; the original cannot be run in f"):
        bnfold.verify(tmp_path / "a.onnx", tmp_path / "a.onnx", options=QUICK)


def test_why_there_is_no_reference_is_told() -> None:
    data = model("(float[3,4] x) => (float[3,4] y) { y = Bernoulli<seed = 1.0>(x) }")
    verdict = verify(data.SerializeToString(), data.SerializeToString(), QUICK, exact=exact_pair(data, data))
    assert (
        verdict.exact == "not run in float64: node 'y' (Bernoulli): this operator has no implementation in float64 here"
    )
    none = verify(data.SerializeToString(), data.SerializeToString(), QUICK)
    assert none.exact == "not run in float64: it was not asked for"


# Time.


class Clockwork:
    """A model that takes all the time there is."""

    inputs = outputs = ()
    jumps = False

    def __init__(self) -> None:
        self.deadlines: list[float] = []

    def run(self, feeds: Any, deadline: float, nudge: int | None = None) -> Any:
        self.deadlines.append(deadline)
        return {"y": np.zeros(1)}


def test_time_is_kept_for_inputs_that_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("bnfold.checks.exact.time.monotonic", lambda: now[0])
    slow = Clockwork()

    def run(feeds: Any, deadline: float, nudge: int | None = None) -> Any:
        now[0] += 1.0
        return Clockwork.run(slow, feeds, deadline, nudge)

    slow.run = run  # type: ignore[method-assign]
    answers = ExactAnswers(ExactPair(slow, slow), 1.0)
    assert answers.on(Feed("first", {}), urgent=False) is not None
    assert answers.on(Feed("second", {}), urgent=False) is None
    assert answers.reason == "the time set for it is over"
    assert answers.on(Feed("gray", {}), urgent=True) is not None
    assert answers.on(Feed("first", {}), urgent=False) is not None
    assert slow.deadlines == [8.0] * 4
    assert answers.text(6).endswith("too, on 2 of 6 inputs")
    assert ExactAnswers(ExactPair(slow, slow), 0.0).on(Feed("first", {}), urgent=True) is None


def test_distances_are_of_finite_entries_of_any_type() -> None:
    found = distance(np.array([1.0, 1e6, 2.0]), np.array([1.0, np.inf, 2.5], np.float16))
    assert (found.max_abs, found.max_ref, found.problem) == (0.5, 2.0, None)
    assert distance(np.zeros(2), np.zeros(3)).problem == "shape (3,) instead of (2,)"


# The distribution of errors.


def test_quantiles_ratios_and_top_classes() -> None:
    reference = np.tile(np.arange(1.0, 501.0), (2, 1))
    candidate = reference.copy()
    candidate[0, :10] += 0.5  # the smallest ones: large relative errors
    candidate[1, 498] = 501.5  # another largest class, the same five
    found = compare(reference, candidate)
    assert found.abs_error is not None
    assert found.rel_error is not None
    assert (found.abs_error.p50, found.abs_error.p90, found.abs_error.p99) == (0.0, 0.0, 0.5)
    assert found.abs_error.p999 == 2.5
    assert found.rel_error.p50 == 0.0
    assert found.rel_error.p999 == 0.5
    assert (found.top1_hits, found.top1_rows, found.top5_hits, found.has_five) == (1, 2, 10, True)
    noise = np.sum((candidate - reference) ** 2)
    assert found.snr_db == pytest.approx(10 * np.log10(np.sum(reference**2) / noise))
    assert compare(reference, reference).snr_db is None
    zero = compare(np.array([0.0, 1.0]), np.array([1e-3, 1.0])).rel_error
    assert zero is not None
    assert zero.p999 == np.inf
