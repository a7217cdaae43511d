"""What came over the border between PyTorch and a file: the exporter's errors, apart from those of the fold.

Per input tried, four forms of one model are run: PyTorch in float64 (the reference), PyTorch in the model's own types,
the exported model and the folded one. The exported model is held to PyTorch's own answer by the rule of `judge` and the
tolerances of the fold: what is beyond them is the exporter's doing. The fold is held to the exported model elsewhere
(`verify`). All other errors are information.

An input that PyTorch refuses (a size that its program does not take) counts for nothing; one at least must be left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bnfold.checks.baseline import Baseline
from bnfold.checks.compare import Gap, compare, tolerance_for
from bnfold.checks.feed import Feed
from bnfold.checks.functions import ArrayFunction, FunctionSession
from bnfold.checks.judge import OutputScore, judge
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Array, Runner
from bnfold.errors import ModelError
from bnfold.results import Border, BorderOutput

Answers = Mapping[str, Array]
EAGER = "PyTorch"


@dataclass(frozen=True, eq=False)
class Origin:
    """A model where it comes from: run in its own types, and in float64.

    `exact` raises ModelError where the model cannot be run so. `name` is that of the framework, with its version.
    """

    name: str
    own: ArrayFunction
    exact: ArrayFunction


def compare_across(
    origin: Origin,
    exported: Runner,
    folded: Runner,
    forms: tuple[str, str],
    options: CheckOptions,
    advance: Callable[[int, int], None],
) -> Border:
    """Run all forms of a model on the same inputs; `forms` are the words for the exported and the folded one.

    Raises ModelError if PyTorch can run its own model on no input, or with other outputs than the exported one has.
    """
    tolerances = {info.name: tolerance_for(info.name, info.dtype, options) for info in exported.outputs}
    scores = {name: OutputScore(name, tolerance) for name, tolerance in tolerances.items()}
    baseline = Baseline(exported, tolerances, options, lambda done, of: advance(done, 2 * of))
    own = FunctionSession(origin.own, exported.inputs, exported.outputs, origin.name)
    exact = FunctionSession(origin.exact, exported.inputs, exported.outputs, origin.name)
    errors = {name: [0.0, 0.0, 0.0] for name in tolerances}
    reference = f"{origin.name} in float64"
    failure: ModelError | None = None
    compared = 0
    for done, feed in enumerate(baseline.feeds, start=1):
        answers = [baseline.answers(feed), folded.run(feed.values)]
        try:
            eager = own.run(feed.values)
        except ModelError as error:
            failure = failure or error
            continue
        compared += 1
        for name, score in scores.items():
            gap = _gap(eager[name], answers[0].get(name))
            score.cases.append(judge(feed.label, EAGER, gap, score.tolerance, _movement(baseline, feed, name)))
        if exact is not own:
            try:
                truth: Answers = exact.run(feed.values)
            except ModelError as error:
                # One run without a reference is enough: errors of different inputs are measured against one thing.
                exact, reference = own, f"{origin.name} in the model's own types ({error})"
                errors = {name: [0.0, 0.0, 0.0] for name in tolerances}
        if exact is own:
            truth = eager
        for name, worst in errors.items():
            for at, form in enumerate((eager, *answers)):
                worst[at] = max(worst[at], _gap(truth[name], form.get(name), widened=True).max_abs)
        advance(len(baseline.feeds) + done, 2 * len(baseline.feeds))
    if not compared and failure is not None:
        raise failure
    outputs = tuple(_output(score, errors[name]) for name, score in scores.items())
    passed = all(output.passed for output in outputs)
    return Border(passed, reference, (EAGER, *forms), outputs)


def _output(score: OutputScore, errors: list[float]) -> BorderOutput:
    result = score.result()
    eager, exported, folded = errors
    return BorderOutput(
        name=score.name,
        passed=result.passed,
        tolerance=result.tolerance,
        export_error=result.max_abs,
        eager=eager,
        exported=exported,
        folded=folded,
        detail=result.detail,
    )


def _gap(reference: Array, candidate: Array | None, *, widened: bool = False) -> Gap:
    """The distance of an answer, as a number of float64 if `widened`."""
    if candidate is None:
        return Gap("missing", max_abs=math.inf)
    if widened and reference.dtype.kind == "f" and candidate.dtype.kind == "f":
        return compare(reference.astype(np.float64), candidate.astype(np.float64))
    return compare(reference, candidate)


def _movement(baseline: Baseline, feed: Feed, name: str) -> Callable[[int], Gap]:
    return lambda nudges: baseline.movement(feed, nudges).get(name, Gap("missing", max_abs=math.inf))
