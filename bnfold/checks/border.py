"""What came over the border between PyTorch and a file: the exporter's errors, apart from those of the fold.

The exported model is held to what PyTorch gives in the model's own types, by the rule of `judge`: what is beyond that
is the exporter's doing. Where the two agree in float64, and the exporter has taken to no coarser type, it is not, but
what ONNX Runtime's kernels round, such as a sigmoid near 0 by 1e-7. Where the exported model can be run in float64
alone, it is held to PyTorch in float64. The fold is held to the exported model elsewhere (`verify`). Beside that, as
information, the distances of all forms of the model (PyTorch's, exported, folded) from PyTorch in float64, on that
input on which the exporter came nearest to its bound, or went furthest past it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.checks.compare import compare
from bnfold.checks.exact import ENGINE, ExactAnswers, ExactModel, ExactPair
from bnfold.checks.functions import ArrayFunction, ExactFunction, FunctionSession
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Array, Runner
from bnfold.checks.verify import begun, compared
from bnfold.errors import ModelError
from bnfold.results import Border, BorderOutput, OutputDifference

Answers = Mapping[str, Array]
EAGER = "PyTorch"


@dataclass(frozen=True, eq=False)
class Origin:
    """A model where it comes from: run in its own types, and in float64.

    `exact` raises ModelError where the model cannot be run so. `name` is that of the framework, with its version.
    `is_narrowed` says that what was made of the model computes in a coarser type than it.
    """

    name: str
    own: ArrayFunction
    exact: ArrayFunction
    is_narrowed: bool = True


def compare_across(
    origin: Origin,
    exported: Runner,
    folded: Runner,
    exact: ExactModel,
    forms: tuple[str, str],
    options: CheckOptions,
    advance: Callable[[int, int], None],
) -> Border:
    """Run all forms of a model on the same inputs.

    `exact` is the exported model in float64; `forms` are the words for the exported and the folded one. An input that
    PyTorch refuses, such as a size that its program does not take, is left out.

    Raises ModelError if PyTorch can run its own model on no input, or with other outputs than the exported one has.
    """
    signature = exported.inputs, exported.outputs
    alone = exported.provider == ENGINE
    own = FunctionSession(origin.exact if alone else origin.own, *signature, origin.name)
    baseline, scores = begun(own, options, lambda done, of: advance(done, 2 * of))
    pair = None if alone else ExactPair(ExactFunction(origin.exact, *signature), exact, not origin.is_narrowed)
    beside = ExactAnswers(pair, options.exact_seconds, options.until(0.5))
    verdict = compared(baseline, exported, scores, options, beside, lambda done, of: advance(of + done, 2 * of))
    deciding = [feed for feed in baseline.feeds if feed.label in {result.input for result in verdict.outputs}]
    in_float64 = FunctionSession(origin.exact, *signature, origin.name)
    reference = f"{origin.name} in float64"
    try:
        truths = {feed.label: in_float64.run(feed.values) for feed in deciding}
    except ModelError as error:
        truths = {feed.label: own.run(feed.values) for feed in deciding}
        reference = f"{origin.name} in the model's own types ({error})"
    eager = FunctionSession(origin.own, *signature, origin.name)
    answers = {feed.label: [side.run(feed.values) for side in (eager, exported, folded)] for feed in deciding}
    outputs = tuple(
        _output(result, truths.get(str(result.input), {}), answers.get(str(result.input), ({}, {}, {})))
        for result in verdict.outputs
    )
    return Border(verdict.passed, reference, (EAGER, *forms), outputs)


def _output(result: OutputDifference, truth: Answers, answers: Sequence[Answers]) -> BorderOutput:
    """The verdict on one output, with the errors on the input that decided it; infinite where there is none."""
    name = result.name
    eager, exported, folded = (_distance(truth.get(name), form.get(name)) for form in answers)
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


def _distance(truth: Array | None, answer: Array | None) -> float:
    if truth is None or answer is None:
        return math.inf
    if truth.dtype.kind == "f" and answer.dtype.kind == "f":
        return compare(truth.astype(np.float64), answer.astype(np.float64)).max_abs
    return compare(truth, answer).max_abs
