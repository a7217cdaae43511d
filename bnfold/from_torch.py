"""A conversion that begins in PyTorch: to an ONNX file, by way of torch's exporter, or to a program (.pt2).

Decisions. The fold of an ONNX target is done on the exported graph, so that the account is that of the file. Each
target is verified twice: the fold against what was exported (or traced), and that against PyTorch itself, so that an
error of the exporter is neither overlooked nor put down to the fold. A program is verified in PyTorch, as read back
from the file that was written; its latency is not measured.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.conversion import PROGRAM_SUFFIX, Attempt, Conversion, Job, Progress, Target, Task, described
from bnfold.errors import ModelError, OutputError, UsageError
from bnfold.exactly import ExactSource
from bnfold.graphs.onnx import files
from bnfold.graphs.onnx.fold import count
from bnfold.graphs.onnx.simplify import simplified
from bnfold.graphs.onnx.sources import open_model
from bnfold.graphs.onnx.staging import Staged, stage
from bnfold.graphs.torch.eager import Function
from bnfold.graphs.torch.exported import fold_exported, load_program, save_program
from bnfold.graphs.torch.opened import FRAMEWORK, Opened, Request, open_source
from bnfold.results import Latency, Source, Verification

if TYPE_CHECKING:
    from bnfold.checks.functions import FunctionSession
    from bnfold.checks.options import CheckOptions
    from bnfold.checks.session import Runner


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
        dtypes={name: str(array.dtype) for name, array in arrays.items()},
        dynamic_shapes=dynamic_shapes,
        assume_eval=assume_eval,
    )
    return open_source(source, request)


def prepare(opened: Opened, target: Target, hashed: bool) -> Task:
    """The conversion of an opened model to what the target's suffix says; `hashed` asks for the checksum of its file.

    Raises UsageError for another suffix, and for what the target does not take; ModelError if the export fails.
    """
    suffix = target.path.suffix.lower()
    if suffix not in (".onnx", PROGRAM_SUFFIX):
        raise UsageError(f"{target.path}: the suffix says what to write: .onnx, or .pt2 for a program of PyTorch's")
    sha256 = files.sha256(opened.place.path) if hashed and opened.place.path is not None else None
    job = ToProgram(opened, target) if suffix == PROGRAM_SUFFIX else ToOnnx(opened, target)

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
        given = simplified(exported, target.folder / "simplified") if target.simplify else exported
        super().__init__(given, exported, target)

    def verified(
        self, options: CheckOptions, progress: Progress | None, *, certify: bool = False
    ) -> tuple[Attempt, Verification]:
        options = _with_test_shapes(options, self._opened, self._names)
        attempt, verification = super().verified(options, progress, certify=certify)
        exported, folded = (
            _runner(path, options, label)
            for path, label in zip(self._pair(attempt), ("the exported model", "the folded model"), strict=True)
        )
        forms = ("exported ONNX", "folded ONNX")
        return attempt, _crossed(verification, self._opened, exported, folded, forms, options, progress)

    def certified(self, options: CheckOptions, without: frozenset[int] = frozenset()) -> Attempt:
        return super().certified(_with_test_shapes(options, self._opened, self._names), without)

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
        return Attempt(folded.sites, Staged(path, self._target.path), after, changed)

    def judge(self, attempt: Attempt, options: CheckOptions, progress: Progress | None = None) -> Verification:
        from bnfold.checks.verify import verify_runners

        return verify_runners(*self._pair(attempt), options, progress=progress)

    def measured(self, attempt: Attempt, options: CheckOptions, progress: Progress | None) -> tuple[Latency, ...]:
        """Nothing: latency is measured on ONNX Runtime."""
        return ()

    def verified(
        self, options: CheckOptions, progress: Progress | None, *, certify: bool = False
    ) -> tuple[Attempt, Verification]:
        if tuple(options.providers) != ("cpu",):
            raise UsageError("--providers are ONNX Runtime's; a program is verified in PyTorch on the CPU")
        options = _with_test_shapes(options, self._opened, [name for name, _, _ in self._opened.inputs])
        attempt, verification = super().verified(options, progress, certify=certify)
        forms = ("exported program", "folded program")
        return attempt, _crossed(verification, self._opened, *self._pair(attempt), forms, options, progress)

    def _pair(self, attempt: Attempt) -> tuple[FunctionSession, FunctionSession]:
        """The program and an attempt, read back from its file, as functions."""
        opened = self._opened
        folded = load_program(attempt.staged.model)
        return _session(opened, opened.function_of(opened.program)), _session(opened, opened.function_of(folded))


def _runner(path: Path, options: CheckOptions, label: str) -> Runner:
    """A model on ONNX Runtime; in float64 where that has no operators for its types, as `verify` does."""
    from bnfold.checks.exact import ExactRunner
    from bnfold.checks.session import open_session

    try:
        return open_session(path, intra_op_num_threads=options.intra_op_num_threads, label=label)
    except ModelError:
        return ExactRunner(ExactSource(path), label)


def _session(opened: Opened, function: Function) -> FunctionSession:
    from bnfold.checks.functions import FunctionSession
    from bnfold.checks.session import TensorInfo

    inputs = tuple(TensorInfo(*signature) for signature in opened.inputs)
    outputs = tuple(TensorInfo(*signature) for signature in opened.outputs)
    return FunctionSession(function, inputs, outputs, FRAMEWORK)


def _crossed(
    verification: Verification,
    opened: Opened,
    exported: Runner,
    folded: Runner,
    forms: tuple[str, str],
    options: CheckOptions,
    progress: Progress | None,
) -> Verification:
    """The verdict on a fold with the comparison with PyTorch; passed where both are."""
    from bnfold.checks.border import Origin, compare_across

    def advance(done: int, of: int) -> None:
        if progress is not None:
            progress("compare with PyTorch", done / of)

    origin = Origin(FRAMEWORK, opened.function, _in_float64(opened.widened))
    border = compare_across(origin, exported, folded, forms, options, advance)
    return replace(verification, passed=verification.passed and border.passed, border=border)


def _in_float64(function: Function) -> Callable[[Sequence[Any]], list[Any]]:
    """The function in float64; it is made at the first call."""
    made: list[Function] = []

    def exact(arrays: Sequence[Any]) -> list[Any]:
        if not made:
            made.append(function.in_float64())
        return made[0](arrays)

    return exact


def _with_test_shapes(options: CheckOptions, opened: Opened, names: Sequence[str]) -> CheckOptions:
    """The options with shapes for the test data: those of the trace, as far as the user names no others."""
    shapes = dict(zip(names, opened.test_shapes, strict=True))
    if not opened.is_traced_on_shapes:
        given = dict(options.input_shapes)
        if "" in given and len(names) == 1:
            given = {names[0]: given[""]}
        shapes = given if "" in given else {**shapes, **given}
    return replace(options, input_shapes=shapes)
