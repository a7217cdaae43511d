"""What came over the border between PyTorch and a file: the exporter's errors, apart from those of the fold.

The exported model is held to what PyTorch gives in the model's own types, by the rule of `judge` and the tolerances of
the fold: what is beyond them is the exporter's doing. The fold is held to the exported model elsewhere (`verify`).
Beside that, as information, the distances of all forms of the model (PyTorch's, exported, folded) from PyTorch in
float64, on that input on which the exporter came nearest to its bound, or went furthest past it.

An input that PyTorch refuses (a size that its program does not take) counts for nothing; one at least must be left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from bnfold.results import Border, BorderOutput, OutputDifference

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
    scores = {
        info.name: OutputScore(info.name, tolerance_for(info.name, info.dtype, options)) for info in exported.outputs
    }
    tolerances = {name: score.tolerance for name, score in scores.items()}
    baseline = Baseline(exported, tolerances, options, lambda done, of: advance(done, 2 * of))
    own = FunctionSession(origin.own, exported.inputs, exported.outputs, origin.name)
    failure: ModelError | None = None
    for done, feed in enumerate(baseline.feeds, start=1):
        answers = baseline.answers(feed)
        try:
            eager = own.run(feed.values)
        except ModelError as error:
            failure = failure or error
            continue
        for name, score in scores.items():
            gap = _gap(eager[name], answers.get(name))
            score.cases.append(judge(feed.label, EAGER, gap, score.tolerance, _movement(baseline, feed, name)))
        advance(len(baseline.feeds) + done, 2 * len(baseline.feeds))
    if failure is not None and not all(score.cases for score in scores.values()):
        raise failure
    results = [score.result() for score in scores.values()]
    deciding = [feed for feed in baseline.feeds if feed.label in {result.input for result in results}]
    sides = (own, exported, folded)
    exact = FunctionSession(origin.exact, exported.inputs, exported.outputs, origin.name)
    reference = f"{origin.name} in float64"
    try:
        truths = {feed.label: exact.run(feed.values) for feed in deciding}
    except ModelError as error:
        truths = {feed.label: own.run(feed.values) for feed in deciding}
        reference = f"{origin.name} in the model's own types ({error})"
    forms_answers = {feed.label: [side.run(feed.values) for side in sides] for feed in deciding}
    outputs = tuple(_output(result, truths[str(result.input)], forms_answers[str(result.input)]) for result in results)
    return Border(all(output.passed for output in outputs), reference, (EAGER, *forms), outputs)


def _output(result: OutputDifference, truth: Answers, answers: Sequence[Answers]) -> BorderOutput:
    """The verdict on one output, with the errors on the input that decided it."""
    name = result.name
    eager, exported, folded = (_gap(truth[name], form.get(name), widened=True).max_abs for form in answers)
    return BorderOutput(
        name=name,
        passed=result.passed,
        tolerance=result.tolerance,
        export_error=result.max_abs,
        eager=eager,
        exported=exported,
        folded=folded,
        input=result.input,
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
