"""Are two models the same function?

The reference is the original on ORT's CPU provider without graph optimisations, because the optimised levels give wrong
answers on some graphs; beside it, both models in float64 where that can be had (`exact`). Models whose types ORT has no
operators for, such as convolutions in float64 or bfloat16, are compared in float64 alone, and the verdict says so.
`judge` has the rule of the verdict.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from bnfold.checks.baseline import Baseline
from bnfold.checks.compare import compare, tolerance_for
from bnfold.checks.exact import ENGINE, ExactAnswers, ExactPair, ExactRunner
from bnfold.checks.examine import examine
from bnfold.checks.judge import OutputScore
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import (
    CPU,
    ModelFile,
    Runner,
    TensorInfo,
    open_session,
    resolve_providers,
    runtime_version,
)
from bnfold.errors import ModelError, UsageError
from bnfold.results import Accuracy, OutputDifference, Verification

_EXACT_SHARE, _NOISE_SHARE = 0.6, 0.3  # of the time that is left

Progress = Callable[[str, float], None]
"""Called with the name of the stage and the fraction of it that is done, 0 to 1."""


def verify(
    original: ModelFile,
    folded: ModelFile,
    options: CheckOptions,
    *,
    reference: ModelFile | None = None,
    exact: ExactPair | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Run both models on the same inputs and judge every output.

    `folded` runs on the CPU and on every other provider of `options`, without graph optimisations. `reference`, an
    equivalent of `original`, is run in its place: ORT crashes the process, rather than raise, on a BatchNormalization
    of opset 9 with trailing empty outputs at this level, and the caller knows how to take those away. The same care is
    needed for `folded`. `exact` are the two models to be run in float64. At most two sessions are open at a time.

    Models whose inputs or outputs differ in name, order or type are different functions: not passed, with a detail. So
    is a folded model that ORT cannot load or run.

    Raises:
        UsageError: if an option does not fit the model or the machine.
        ModelError: if the original can be run neither by ORT nor in float64.
        MissingDependency: if ORT is not installed.
    """
    others = tuple(provider for provider in resolve_providers(options.providers) if provider != CPU)
    stages = 3 + len(others)  # the original's answers, the folded model's on each provider, the noise floor
    advance = _stepper(progress, stages)
    source = original if reference is None else reference
    threads = options.intra_op_num_threads
    try:
        session = open_session(source, intra_op_num_threads=threads, label="the original")
    except ModelError as error:
        if exact is None or others:
            raise
        return _verified_exactly(exact, options, error, progress)
    baseline, scores = begun(session, options, advance(0))
    answers = ExactAnswers(exact, options.exact_seconds, options.until(_EXACT_SHARE))
    accuracy: tuple[Accuracy, ...] = ()
    failure = None
    for stage, provider in enumerate((CPU, *others), start=1):
        try:
            candidate = open_session(folded, provider, intra_op_num_threads=threads, label="the folded model")
            failure = _signature_difference(session, candidate)
            if failure is None:
                hits = examine(baseline, candidate, scores, options, answers, advance(stage))
                accuracy = accuracy or hits
        except ModelError as error:
            failure = f"{error} ({provider})"
        if failure is not None:
            break
        del candidate  # before the next session is opened
    if failure is None:
        _measure_noise(baseline, source, scores, options, advance(stages - 1))
    verdict = _verdict(baseline, scores, failure, accuracy)
    return replace(
        verdict,
        reference=_reference_text(others),
        exact=answers.text(len(baseline.feeds)),
        notes=(*verdict.notes, *_disputes(baseline, scores, answers), *_notes(scores)),
    )


def _verified_exactly(
    exact: ExactPair, options: CheckOptions, why: ModelError, progress: Progress | None
) -> Verification:
    """The verdict where ORT cannot run the original: both models in float64, held against the tolerance of their types.

    Raises `why` where they cannot be run so either.
    """
    foreign = exact.original.foreign
    if foreign is not None:
        raise ModelError(
            f"{why}; nothing here can run {foreign}, so nothing can be compared or measured: to fold the model all the "
            "same, convert it with --no-verify --no-bench"
        )
    advance = _stepper(progress, 2)
    session = ExactRunner(exact.original, "the original")
    try:
        baseline, scores = begun(session, options, advance(0))
    except ModelError as error:
        raise ModelError(f"{why}; {error}") from None
    candidate = ExactRunner(exact.folded, "the folded model")
    verdict = compared(baseline, candidate, scores, options, ExactAnswers(None, 0.0), advance(1))
    return replace(
        verdict,
        reference=f"the original in {ENGINE}, since ONNX Runtime cannot run it here; the folded model equally",
        exact=f"both models in {ENGINE} alone: {why}",
        notes=(
            *verdict.notes,
            "compared as functions, in float64: what rounding in the models' own types does was not seen",
        ),
    )


def verify_runners(
    original: Runner,
    folded: Runner,
    options: CheckOptions,
    *,
    exact: ExactPair | None = None,
    progress: Progress | None = None,
) -> Verification:
    """The same verdict on two models that something else than ONNX Runtime runs.

    Raises:
        UsageError: if an option does not fit the model.
        ModelError: if the original cannot be run.
    """
    advance = _stepper(progress, 2)
    baseline, scores = begun(original, options, advance(0))
    verdict = compared(
        baseline,
        folded,
        scores,
        options,
        ExactAnswers(exact, options.exact_seconds, options.until(_EXACT_SHARE)),
        advance(1),
    )
    return replace(verdict, reference=f"the original on {original.provider}, the folded model equally")


def compared(
    baseline: Baseline,
    candidate: Runner,
    scores: dict[str, OutputScore],
    options: CheckOptions,
    exact: ExactAnswers,
    advance: Callable[[int, int], None],
) -> Verification:
    """The verdict on a candidate, into `scores`, too; one that cannot be run is not passed."""
    hits: tuple[Accuracy, ...] = ()
    failure = _signature_difference(baseline.session, candidate)
    if failure is None:
        try:
            hits = examine(baseline, candidate, scores, options, exact, advance)
        except ModelError as error:
            failure = str(error)
    return _verdict(baseline, scores, failure, hits)


def _verdict(
    baseline: Baseline, scores: Mapping[str, OutputScore], failure: str | None, accuracy: tuple[Accuracy, ...]
) -> Verification:
    """What the scores say, or that nothing could be compared; what was compared is for the caller to add."""
    infos = baseline.session.outputs
    outputs = _results(infos, scores) if failure is None else tuple(_incomparable(info.name, failure) for info in infos)
    return Verification(
        passed=bool(outputs) and all(output.passed for output in outputs),
        reference="",
        outputs=outputs,
        inputs=baseline.inputs_tried(),
        accuracy=accuracy,
        notes=baseline.contradictions,
    )


def _disputes(baseline: Baseline, scores: Mapping[str, OutputScore], exact: ExactAnswers) -> Iterator[str]:
    """Where float64 does not agree with the runtime on the original, which one operator is enough for."""
    for score in scores.values():
        for case in score.disputed[:1]:
            feed = next(feed for feed in baseline.feeds if feed.label == case.feed)
            error = case.exactly.before if case.exactly else None
            by = f" by {error.max_abs:.2g}" if error and error.problem is None else ""
            yield (
                f"on input '{case.feed}', bnfold's float64 and ONNX Runtime differ on the original itself: output "
                f"'{score.name}'{by}, {exact.parting(feed)}; so ONNX Runtime alone decides there"
            )
            return


def _notes(scores: Mapping[str, OutputScore]) -> tuple[str, ...]:
    """Where the runtime's own optimisations change the original by more than the tolerance."""
    notes = []
    for score in scores.values():
        noise = score.own_noise()
        if noise is not None:
            notes.append(
                f"ONNX Runtime's own optimisations change the original's output '{score.name}' by {noise[0]:.2g}, more "
                f"than the {noise[1]:.2g} allowed: its doing, not the fold's"
            )
    return tuple(notes)


def begun(
    original: Runner, options: CheckOptions, advance: Callable[[int, int], None]
) -> tuple[Baseline, dict[str, OutputScore]]:
    """What candidates are compared with, and an empty score per output.

    Raises what `Baseline` raises, and UsageError for a tolerance of what is no output.
    """
    scores = _scores(original.outputs, options)
    tolerances = {name: score.tolerance for name, score in scores.items()}
    return Baseline(original, tolerances, options, advance), scores


def _scores(outputs: Iterable[TensorInfo], options: CheckOptions) -> dict[str, OutputScore]:
    """An empty score per output. Raises UsageError for a tolerance of what is no output."""
    names = {info.name: info.dtype for info in outputs}
    for name in (*options.output_rtol, *options.output_atol):
        if name not in names:
            raise UsageError(f"tolerance given for '{name}', which is no output: the model has {', '.join(names)}")
    return {name: OutputScore(name, tolerance_for(name, dtype, options)) for name, dtype in names.items()}


def _signature_difference(original: Runner, folded: Runner) -> str | None:
    for what, before, after in (
        ("inputs", original.inputs, folded.inputs),
        ("outputs", original.outputs, folded.outputs),
    ):
        if [(info.name, info.dtype) for info in before] != [(info.name, info.dtype) for info in after]:
            return f"another function: {what} {_signature(after)} instead of {_signature(before)}"
    return None


def _measure_noise(
    baseline: Baseline,
    source: ModelFile,
    scores: Mapping[str, OutputScore],
    options: CheckOptions,
    advance: Callable[[int, int], None],
) -> None:
    """Note the error of the original itself at full optimisation; nothing where ORT cannot run it there."""
    try:
        optimised = open_session(
            source, opt_level="all", intra_op_num_threads=options.intra_op_num_threads, label="the original"
        )
        deadline = options.until(_NOISE_SHARE)
        for done, feed in enumerate(baseline.feeds):
            if time.monotonic() > deadline:
                break
            expected = baseline.answers(feed)
            for name, array in optimised.run(feed.values).items():
                if name in expected and name in scores:
                    gap = compare(expected[name], array)
                    if not math.isinf(gap.max_abs):
                        scores[name].noise[feed.label] = gap.max_abs
            advance(done + 1, len(baseline.feeds))
    except ModelError:
        return


def _results(infos: Iterable[TensorInfo], scores: Mapping[str, OutputScore]) -> tuple[OutputDifference, ...]:
    """A verdict per output, or per element of a sequence; an output that never had a value is not passed."""
    results = [score.result() for score in scores.values() if score.cases]
    for info in infos:
        if not any(result.name == info.name or result.name.startswith(f"{info.name}[") for result in results):
            results.append(
                _incomparable(info.name, "empty on every input tried, which proves nothing: give --input-data")
            )
    return tuple(results)


def _stepper(progress: Progress | None, stages: int) -> Callable[[int], Callable[[int, int], None]]:
    """For each stage, a function that reports how many of its steps are done."""

    def stage(number: int) -> Callable[[int, int], None]:
        def advance(done: int, of: int) -> None:
            if progress is not None:
                progress("verify", (number + done / of) / stages)

        return advance

    return stage


def _incomparable(name: str, detail: str) -> OutputDifference:
    return OutputDifference(name, max_abs=math.inf, max_rel=math.inf, tolerance=0.0, passed=False, detail=detail)


def _reference_text(others: tuple[str, ...]) -> str:
    places = " and on ".join(("there", *others))
    return (
        f"the original on {CPU} without graph optimisations (ONNX Runtime {runtime_version()}); "
        f"the folded model {places}, equally without"
    )


def _signature(infos: Iterable[TensorInfo]) -> str:
    return "(" + ", ".join(f"{info.dtype} {info.name}" for info in infos) + ")"
