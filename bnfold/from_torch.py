"""A conversion that begins in PyTorch: to an ONNX file, by way of torch's exporter, or to a program (.pt2).

Decisions. The fold of an ONNX target is done on the exported graph, so that the account is that of the file. Each
target is verified twice: the fold against what was exported (or traced), and that against PyTorch itself, so that an
error of the exporter is neither overlooked nor put down to the fold. A program is verified and timed in PyTorch, as
read back from the file that was written; it is timed as PyTorch runs it without a compiler. Every opening of a
measurement has a copy of its own, for weights in other places of memory.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.conversion import PROGRAM_SUFFIX, Attempt, Conversion, Job, Progress, Target, Task, described
from bnfold.errors import ModelError, OutputError, UsageError
from bnfold.exactly import ExactSource
from bnfold.graphs.onnx import files
from bnfold.graphs.onnx.exact.steps import coarsest_step
from bnfold.graphs.onnx.fold import count
from bnfold.graphs.onnx.simplify import simplified
from bnfold.graphs.onnx.sources import open_model
from bnfold.graphs.onnx.staging import Staged, stage
from bnfold.graphs.torch.eager import Function
from bnfold.graphs.torch.exported import fold_exported, load_program, save_program
from bnfold.graphs.torch.opened import FRAMEWORK, Opened, Request, open_source
from bnfold.results import Latency, Source, Verification

Exact = Mapping[str, Callable[[], Any]]
"""Constants by name, in float64 as they were before they were rounded."""

if TYPE_CHECKING:
    from bnfold.checks.exact import ExactModel
    from bnfold.checks.functions import ExactFunction, FunctionSession, TimedFunctionSession
    from bnfold.checks.options import CheckOptions
    from bnfold.checks.session import Runner, TensorInfo


def opened(
    source: Any,
    options: CheckOptions | None,
    *,
    example_inputs: Any,
    dynamic_shapes: Any,
    weights: str | os.PathLike[str] | None,
    trust_pickle: bool,
    assume_eval: bool,
) -> Opened:
    """The source, read, made and traced. Raises what `open_source` raises."""
    from bnfold.checks.data import read_arrays
    from bnfold.checks.options import CheckOptions

    options = options or CheckOptions()
    data = options.input_data
    arrays = {} if data is None or data.is_dir() else read_arrays(data)
    request = Request(
        weights=None if weights is None else Path(weights),
        trust_pickle=trust_pickle,
        example_inputs=example_inputs,
        input_shapes=options.input_shapes,
        input_types=options.input_types,
        arrays=arrays,
        dynamic_shapes=dynamic_shapes,
        assume_eval=assume_eval,
    )
    return open_source(source, request)


def prepare(opened: Opened, target: Target, hashed: bool) -> Task:
    """The conversion of an opened model to what the target's suffix says; `hashed` asks for the checksum of its file.

    Raises UsageError for what the target does not take; ModelError if the export fails.
    """
    sha256 = files.sha256(opened.place.path) if hashed and opened.place.path is not None else None
    job = (ToProgram if target.path.suffix.lower() == PROGRAM_SUFFIX else ToOnnx)(opened, target)

    def describe() -> Source:
        return Source(opened.place.text, sha256() if sha256 else None, job.opset, job.ir_version)

    return Task(job, job.before, describe, opened.notes)


class ToOnnx(Conversion):
    """A PyTorch model into an ONNX file. `before` counts what was exported."""

    unchanged = "nothing folded: the output is what torch's exporter wrote"

    def __init__(self, opened: Opened, target: Target) -> None:
        """Export the model. Raises what `Opened.onnx` and `staging.stage` raise."""
        self._opened = opened
        folder = target.folder / "exported"
        exported = stage(open_model(opened.onnx()).document, folder / target.path.name, folder, target.external).model
        document = open_model(exported).document
        self.before = count(document.model, files.nbytes(document))
        source = described(document, None)
        self.opset, self.ir_version = source.opset, source.ir_version
        self._names = [info.name for info in document.model.graph.input]
        self._is_narrowed = coarsest_step(document.model) > opened.coarsest_step
        given = simplified(exported, target.folder / "simplified") if target.simplify else exported
        super().__init__(given, exported, target)

    def verified(
        self, options: CheckOptions, progress: Progress | None, *, certify: bool = False
    ) -> tuple[Attempt, Verification]:
        options = _with_test_shapes(options, self._opened, self._names)
        attempt, verification = super().verified(options, progress, certify=certify)
        before, after = self._pair(attempt)
        sides = _runner(before, options, "the exported model"), _runner(after, options, "the folded model")
        forms = ("exported ONNX", "folded ONNX")
        crossing = Crossing(self._opened, *sides, ExactSource(before), forms, is_narrowed=self._is_narrowed)
        return attempt, crossing.added_to(verification, options, progress)

    def certified(self, options: CheckOptions) -> Attempt:
        return super().certified(_with_test_shapes(options, self._opened, self._names))

    def measured(self, attempt: Attempt, options: CheckOptions, progress: Progress | None) -> tuple[Latency, ...]:
        return super().measured(attempt, _with_test_shapes(options, self._opened, self._names), progress)


class ToProgram(Job):
    """A PyTorch model into a program of torch.export. `before` counts what was traced."""

    unchanged = "nothing folded: the output is the program as it was"
    opset = ir_version = None

    def __init__(self, opened: Opened, target: Target) -> None:
        """Raises UsageError for what a program does not take."""
        if target.external or target.simplify:
            what = "--simplify" if target.simplify else "--save-as-external-data"
            raise UsageError(f"{what} is for an ONNX target; {target.path} is a program of PyTorch's")
        self._opened = opened
        self._target = target
        self._numbers = count_from()
        before = fold_exported(opened.program, replace(target.options, only=(), skip=("*",))).before
        self._stored = opened.place.path if opened.is_stored else None
        self.before = replace(before, file_bytes=self._stored.stat().st_size if self._stored else None)

    def attempt(self, without: frozenset[int] = frozenset()) -> Attempt:
        folded = fold_exported(self._opened.program, replace(self._target.options, without=without))
        path = self._target.folder / str(next(self._numbers)) / self._target.path.name
        changed = folded.model is not self._opened.program
        try:
            path.parent.mkdir()
            if not changed and self._stored is not None:
                shutil.copyfile(self._stored, path)
            else:
                save_program(folded.model, path)
        except OSError as error:
            raise OutputError(f"{self._target.path}: cannot be written: {error.strerror}") from None
        after = replace(folded.after, file_bytes=path.stat().st_size)
        return Attempt(folded.sites, Staged(path, self._target.path), after, changed, exact=folded.exact)

    def judge(
        self, attempt: Attempt, options: CheckOptions, progress: Progress | None = None, *, proven: bool = False
    ) -> Verification:
        from bnfold.checks.exact import ExactPair
        from bnfold.checks.verify import verify_runners

        opened = self._opened
        exported, folded = self._sides(attempt)
        stored = _in_float64(opened, folded)
        unrounded = _in_float64(opened, folded, attempt.exact) if attempt.exact else stored
        pair = ExactPair(_explicit(opened), unrounded, stored=stored, proven=proven)
        sides = _session(opened, exported), _session(opened, folded)
        return verify_runners(*sides, options, exact=pair, progress=progress)

    def measured(self, attempt: Attempt, options: CheckOptions, progress: Progress | None) -> tuple[Latency, ...]:
        from bnfold.checks.bench import bench_elsewhere

        exported, folded = self._sides(attempt)
        return bench_elsewhere(
            lambda role: _timed(self._opened, folded if role == "folded" else exported),
            FRAMEWORK,
            self._checked(options),
            progress=progress,
        )

    def verified(
        self, options: CheckOptions, progress: Progress | None, *, certify: bool = False
    ) -> tuple[Attempt, Verification]:
        options = self._checked(options)
        attempt, verification = super().verified(options, progress, certify=certify)
        opened, forms = self._opened, ("exported program", "folded program")
        exported, folded = self._sides(attempt)
        runners = _session(opened, exported), _session(opened, folded)
        crossing = Crossing(opened, *runners, _explicit(opened), forms)
        return attempt, crossing.added_to(verification, options, progress)

    def _checked(self, options: CheckOptions) -> CheckOptions:
        """The options with test shapes. Raises UsageError for what is ONNX Runtime's."""
        if tuple(options.providers) != ("cpu",):
            raise UsageError("--providers are ONNX Runtime's; a program is verified and timed in PyTorch on the CPU")
        if options.intra_op_num_threads is not None or options.bench_threads:
            raise UsageError("--intra-op-num-threads is ONNX Runtime's; set OMP_NUM_THREADS for a program of PyTorch's")
        return _with_test_shapes(options, self._opened, [name for name, _, _ in self._opened.inputs])

    def _sides(self, attempt: Attempt) -> tuple[Function, Function]:
        """The program, and an attempt as read back from its file."""
        folded = load_program(attempt.staged.model, trusted=True)
        return self._opened.function_of(self._opened.program), self._opened.function_of(folded)


def _runner(path: Path, options: CheckOptions, label: str) -> Runner:
    """A model on ONNX Runtime; in float64 where that has no operators for its types, as `verify` does."""
    from bnfold.checks.exact import ExactRunner
    from bnfold.checks.session import open_session

    try:
        return open_session(path, intra_op_num_threads=options.intra_op_num_threads, label=label)
    except ModelError:
        return ExactRunner(ExactSource(path), label)


@dataclass(frozen=True, eq=False)
class Crossing:
    """An opened model with what was made of it, ready to run; `exact` is the exported one in float64.

    `is_narrowed` is as of an `Origin`.
    """

    opened: Opened
    exported: Runner
    folded: Runner
    exact: ExactModel
    forms: tuple[str, str]
    is_narrowed: bool = True

    def added_to(self, verdict: Verification, options: CheckOptions, progress: Progress | None) -> Verification:
        """The verdict on a fold with the comparison with PyTorch; passed where both are."""
        from bnfold.checks.border import Origin, compare_across

        def advance(done: int, of: int) -> None:
            if progress is not None:
                progress("compare with PyTorch", done / of)

        origin = Origin(FRAMEWORK, self.opened.function, _widened(self.opened.widened), self.is_narrowed)
        sides = self.exported, self.folded, self.exact
        border = compare_across(origin, *sides, self.forms, options, advance)
        return replace(verdict, passed=verdict.passed and border.passed, border=border)


def _session(opened: Opened, function: Function) -> FunctionSession:
    from bnfold.checks.functions import FunctionSession

    return FunctionSession(function, *_signature(opened), FRAMEWORK)


def _timed(opened: Opened, function: Function) -> TimedFunctionSession:
    """A copy of a function, ready to be timed."""
    from bnfold.checks.functions import TimedFunctionSession

    start = time.perf_counter_ns()
    copied = function.copied()
    return TimedFunctionSession(copied, *_signature(opened), FRAMEWORK, (time.perf_counter_ns() - start) / 1e6)


def _explicit(opened: Opened) -> ExactFunction:
    """The program in float64."""
    return _in_float64(opened, opened.function_of(opened.explicit))


def _in_float64(opened: Opened, function: Function, exact: Exact | None = None) -> ExactFunction:
    from bnfold.checks.functions import ExactFunction

    return ExactFunction(_widened(function, exact), *_signature(opened))


def _signature(opened: Opened) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    from bnfold.checks.session import TensorInfo

    return tuple(TensorInfo(*item) for item in opened.inputs), tuple(TensorInfo(*item) for item in opened.outputs)


def _widened(function: Function, exact: Exact | None = None) -> Callable[[Sequence[Any]], list[Any]]:
    """The function in float64, with these values for its weights; it is made at the first call."""
    made: list[Function] = []

    def widened(arrays: Sequence[Any]) -> list[Any]:
        if not made:
            made.append(function.in_float64(exact))
        return made[0](arrays)

    return widened


def _with_test_shapes(options: CheckOptions, opened: Opened, names: Sequence[str]) -> CheckOptions:
    """The options with shapes for the test data: those of the trace, as far as the user names no others."""
    shapes = dict(zip(names, opened.test_shapes, strict=True))
    if not opened.is_traced_on_shapes:
        given = dict(options.input_shapes)
        if "" in given and len(names) == 1:
            given = {names[0]: given[""]}
        shapes = given if "" in given else {**shapes, **given}
    return replace(options, input_shapes=shapes, input_types={})
