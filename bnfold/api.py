"""The pipeline, in reading order: open, fold, write beside the target, verify, measure, take the target's name.

`fold` and `inspect` need NumPy and onnx alone. `verify`, `bench` and a `convert` with either also need ONNX Runtime.

Decisions. What is verified is the file that was written, not the model in memory. When the verdict fails, the folds
are bisected: every subset is folded afresh from the source, the folds that fail on their own are taken back, and the
rest is verified once more; if that fails too, nothing is written. A model in which nothing folds is copied byte for
byte, which needs no verification. In a model with BatchNorms in training mode, `assume_eval` changes the function on
purpose; the reference is then the original in inference mode.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.conversion import PROGRAM_SUFFIX, Target, Task, checked_target, described, limited, prepare, runnable
from bnfold.errors import EquivalenceError, MissingDependency, ModelError, UsageError
from bnfold.graphs.account import explained, fold_options
from bnfold.graphs.families import is_of_torch
from bnfold.graphs.onnx import files
from bnfold.graphs.onnx.fold import count, fold_document
from bnfold.graphs.onnx.index import index_model
from bnfold.graphs.onnx.sources import open_model
from bnfold.graphs.onnx.staging import folder_beside
from bnfold.results import Counts, Environment, Latency, Report, Site, Source, Verification
from bnfold.version import __version__

if TYPE_CHECKING:
    from bnfold.checks.options import CheckOptions
    from bnfold.conversion import Attempt

Progress = Callable[[str, float], None]
# How the command line spells what its users did not call by the name of an argument.
_OPTIONS = {"dynamic_shapes": " (--dynamic)", "trust_pickle": " (--trust-pickle)"}


@dataclass(frozen=True)
class FoldResult:
    """A folded model of the kind that was given, the account of its sites, and what the graph held before and after."""

    model: Any
    sites: tuple[Site, ...]
    before: Counts
    after: Counts


def fold(
    model: Any,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    inplace: bool = False,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    freeze_initializers: bool = False,
    assume_eval: bool = False,
    trust_pickle: bool = False,
) -> FoldResult:
    """Fold every BatchNorm that algebra allows; the model that is given is not changed.

    `model` is an onnx.ModelProto, an onnx_ir.Model, a torch.onnx.ONNXProgram, a torch.nn.Module or a
    torch.export.ExportedProgram, and `result.model` is of the same kind; a path to an ONNX file gives a ModelProto, one
    to a .pt2 file a program, whose own code may run if `trust_pickle` says so. `only` and `skip` are shell-style
    patterns on site names. `freeze_initializers` takes
    initializers that are also inputs of an ONNX graph as constants; `assume_eval` takes BatchNorms in training mode as
    inference ones.

    A module is traced by torch.export on `example_inputs` (a tensor, a tuple of arguments or a dict of named ones),
    with these `dynamic_shapes`. What its code and its tree of submodules cannot carry stays; folded BatchNorms become
    identities. With `inplace` the module itself is folded and not a copy. The fold holds for the way that code takes on
    the example inputs: where it takes another one on other inputs (a branch on the batch size, a flag, the training
    mode) and uses a folded layer otherwise there, the result differs; leave such layers out with `skip`.

    Nothing is run: use `convert` to have the result verified.

    Raises:
        ModelError: if the model cannot be read or traced, or contradicts itself.
        MissingDependency: if the model is of a kind whose package is not installed.
        UsageError: if a module lacks example inputs, or another model is given what is for a module.
    """
    options = fold_options(only, skip, freeze_initializers, assume_eval, drawn=True)
    for_module = {"example_inputs": example_inputs, "dynamic_shapes": dynamic_shapes, "inplace": inplace}
    for_module["trust_pickle"] = trust_pickle
    if is_of_torch(model):
        folded = _torch("bnfold.graphs.torch.sources").fold_model(model, options, **for_module)
        return FoldResult(folded.model, folded.sites, folded.before, folded.after)
    _refuse_for_module(**for_module)
    opened = open_model(model)
    before = count(opened.document.model)
    sites = fold_document(opened.document, opened.name, options)
    after = count(opened.document.model)
    return FoldResult(opened.give_back(opened.document), sites, before, after)


def _refuse_for_module(**arguments: Any) -> None:
    """Raises UsageError for an argument that is for a PyTorch module and was given with another model."""
    for name, value in arguments.items():
        if value is not None and value is not False:
            option = _OPTIONS.get(name, "")
            raise UsageError(f"{name}{option} is for a PyTorch module; the model is of another kind")


def _torch(module: str) -> Any:
    """A module of this package that needs PyTorch."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependency('folding a PyTorch model needs torch: pip install "bnfold[torch]"') from None


def inspect(
    model: Any,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    freeze_initializers: bool = False,
    assume_eval: bool = False,
    checks: CheckOptions | None = None,
    weights: str | os.PathLike[str] | None = None,
    trust_pickle: bool = False,
    drawings: bool = True,
) -> Report:
    """Say of every site whether it would fold, into what and through what, or why it would stay. Writes nothing.

    Takes what `fold` takes and raises what it raises. A module that is given by the name of its factory or by a file is
    traced as `convert` does it, on inputs of the `input_shapes` of `checks`, and the sites are those of its program.
    `drawings` is as in `convert`.
    """
    options = fold_options(only, skip, freeze_initializers, assume_eval, drawn=drawings)
    path = Path(model) if isinstance(model, str | os.PathLike) else None
    for_torch = {"example_inputs": example_inputs, "dynamic_shapes": dynamic_shapes, "weights": weights}
    if is_of_torch(model):
        given, notes = model, ()
        if path is not None and path.suffix.lower() != PROGRAM_SUFFIX:
            door = _torch("bnfold.from_torch")
            opened = door.opened(model, checks, assume_eval=assume_eval, trust_pickle=trust_pickle, **for_torch)
            given, notes, example_inputs, dynamic_shapes = opened.program, opened.notes, None, None
        elif weights is not None:
            raise UsageError("weights are for package.module:factory; this model has its own")
        stored = path if path is not None and path.is_file() else None
        sha256 = files.sha256(stored) if stored is not None else None
        fold_model = _torch("bnfold.graphs.torch.sources").fold_model
        for_model = {"example_inputs": example_inputs, "dynamic_shapes": dynamic_shapes}
        _, sites, before, after, _ = fold_model(given, options, **for_model, trust_pickle=trust_pickle)
        before = replace(before, file_bytes=stored.stat().st_size if stored is not None else None)
        source = Source(os.fspath(model) if path is not None else None, sha256() if sha256 else None, None, None)
        return Report(__version__, source, sites, before, after, notes=notes, reasons=explained(sites))
    _refuse_for_module(**for_torch, trust_pickle=trust_pickle)
    named = open_model(model)
    document = named.document
    sha256 = files.sha256(document.path) if document.path is not None else None
    before = count(document.model, files.nbytes(document))
    sites = fold_document(document, named.name, options)
    source = described(document, sha256() if sha256 else None)
    return Report(__version__, source, sites, before, count(document.model), reasons=explained(sites))


def convert(
    source: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    verify: bool = True,
    bench: bool = True,
    certify: bool = False,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    freeze_initializers: bool = False,
    assume_eval: bool = False,
    simplify: bool = False,
    save_as_external_data: bool | None = None,
    force: bool = False,
    checksum: bool | None = None,
    depth: bool = False,
    drawings: bool = True,
    options: CheckOptions | None = None,
    progress: Progress | None = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    weights: str | os.PathLike[str] | None = None,
    trust_pickle: bool = False,
) -> Report:
    """Fold a model, verify the result against it, measure both, and write the result.

    `source` is a path, or a model as `fold` takes it; `output` defaults to the source's stem + ".folded.onnx" beside
    it. The target appears only when all is well, in one rename. `checksum` asks for the source's SHA-256 in the report;
    None stands for yes where the run verifies or measures, which takes much longer than a checksum. `depth` asks the
    verification to follow the error down the graph of an ONNX model, for the report; `drawings` asks for the
    `operators` of every site, which a report in HTML draws. `options` say how to verify and measure (`CheckOptions`);
    `progress` is called with the name of a stage and the fraction of it that is done.

    A source may be PyTorch's, too: a module, an exported program or its .pt2 file, a TorchScript file, a file with a
    pickled module if `trust_pickle` says that its code may run, or "package.module:factory", the name of a function or
    class that gives a module, into which `weights` (a .safetensors file or a state dict of torch.save) are loaded. A
    module is traced on `example_inputs`, or on inputs of the `input_shapes` of `options`; `dynamic_shapes` are those of
    torch.export, where an axis may also be a name or None, as in {"x": {0: "batch"}}. The suffix of `output` decides
    between an ONNX file and a program (.pt2).

    `certify` proves every fold by itself, in float64 and apart from rounding: see `Certificate`. The certificates are
    in the report and, as JSON under `bnfold.certificate.` and the site's name, in the metadata of the model; a fold
    that fails is taken back.

    Raises:
        UsageError: if the options contradict each other or the machine.
        ModelError: if the source cannot be read, traced or exported, or run neither by ONNX Runtime nor in float64.
        OutputError: if the target exists and `force` is not given, or cannot be written.
        EquivalenceError: if the result is not the same function; nothing is written then, and `report` has the account.
        MissingDependency: if ONNX Runtime, or onnxsim for `simplify`, is needed and not installed.
    """
    target = checked_target(source, output, force)
    chosen = fold_options(only, skip, freeze_initializers, assume_eval, drawn=drawings)
    for_torch = {"example_inputs": example_inputs, "dynamic_shapes": dynamic_shapes, "weights": weights}
    for_torch["trust_pickle"] = trust_pickle
    if not is_of_torch(source):
        _refuse_for_module(**for_torch)
        if target.suffix.lower() == PROGRAM_SUFFIX:
            raise UsageError(f"{target}: an ONNX model cannot be made a program of PyTorch's; write it as .onnx")
    on_runtime = target.suffix.lower() != PROGRAM_SUFFIX
    checks = _check_options(options, on_runtime).begun() if verify or bench else None
    where = _environment() if checks is not None and on_runtime else None
    hashed = checks is not None if checksum is None else checksum
    ready: Callable[[Target, bool], Task] = partial(prepare, source)
    if is_of_torch(source):
        door = _torch("bnfold.from_torch")
        ready = partial(door.prepare, door.opened(source, options, assume_eval=assume_eval, **for_torch))
    with folder_beside(target) as folder:
        task = ready(Target(target, folder, chosen, save_as_external_data, simplify), hashed)
        if verify and checks is not None:
            attempt, verification = task.job.verified(checks, progress, certify=certify)
            if depth and attempt.changed:
                verification = replace(verification, depth=task.job.depth(attempt, checks))
        else:
            attempt, verification = task.job.certified(_options(options)) if certify else task.job.attempt(), None
        report = Report(__version__, task.describe(), attempt.sites, task.before, attempt.after, notes=task.notes)
        report = report.with_(verification=verification, environment=where, reasons=explained(attempt.sites))
        if verification is not None and not verification.passed:
            raise EquivalenceError(_difference(target, verification), report)
        if bench and checks is not None and attempt.changed:
            report = _measured(report, task, attempt, checks, progress)
        attempt.staged.commit(force=force)
        if checks is not None:
            took = checks.seconds - (checks.ends - time.monotonic())
            report = report.with_(seconds=took, seconds_allowed=checks.seconds)
        return report.with_(output_path=str(target))


def _measured(report: Report, task: Task, attempt: Attempt, checks: CheckOptions, progress: Progress | None) -> Report:
    """The report with the latency, or with a note of why there is none."""
    from bnfold.checks.options import BENCH_SECONDS_IN_CONVERSION

    over = f"the {checks.seconds:g} s for the whole conversion (--seconds) were over"
    if time.monotonic() > checks.ends:
        return report.with_(notes=(*report.notes, f"latency was not measured: {over}"))
    timed = replace(checks, bench_seconds=checks.bench_seconds or BENCH_SECONDS_IN_CONVERSION)
    try:
        latency = task.job.measured(attempt, timed, progress)
    except ModelError as error:
        if report.verification is None:
            raise
        # What was verified is right, whether it can be timed or not: ORT lacks operators of some types.
        return report.with_(notes=(*report.notes, f"latency was not measured: {error}"))
    if time.monotonic() > checks.ends:
        report = report.with_(notes=(*report.notes, f"latency was measured less than it might be: {over}"))
    return report.with_(latency=_with_sizes(latency, task.before.file_bytes, attempt.after.file_bytes))


def _difference(target: Path, verification: Verification) -> str:
    """What differs, and whose doing it is: an exporter's error is told first, since no fold can mend it."""
    border = verification.border
    if border is not None and not border.passed:
        wrong = next(output for output in border.outputs if not output.passed)
        return (
            "torch's exporter, not the fold: what it made of the model is not the same function, "
            f"output '{wrong.name}': {wrong.detail}; {target} was not written"
        )
    why = "it has no outputs to compare"
    for output in verification.outputs:
        if not output.passed:
            error = output.detail or f"error {output.max_abs:.2g}, {output.tolerance:.2g} allowed"
            why = f"output '{output.name}': {error}"
            break
    else:
        if verification.proof and verification.proof.wrong:
            why = verification.proof.wrong[0][1]
    return f"the folded model is not the same function: {why}; {target} was not written"


def verify(a: Any, b: Any, *, options: CheckOptions | None = None, progress: Progress | None = None) -> Verification:
    """Are two models the same function? `a` is the reference; both are given as `fold` takes them.

    Raises:
        UsageError: if the options contradict each other or the machine.
        ModelError: if a model cannot be read, or `a` cannot be run.
        MissingDependency: if ONNX Runtime is not installed.
    """
    checks = _check_options(options).begun()
    from tempfile import TemporaryDirectory

    from bnfold.certificates import examine, with_proof
    from bnfold.checks.exact import ExactPair
    from bnfold.checks.verify import verify as run
    from bnfold.exactly import ExactSource

    with TemporaryDirectory(prefix="bnfold-") as folder:
        pair = _runnable_pair(a, b, folder)
        limits, original, other = limited(checks, pair[0]), ExactSource(pair[0]), ExactSource(pair[1])
        found = examine(original, other, None, limits)  # it keeps answers that the verdict needs again
        verdict = run(*pair, limits, exact=ExactPair(original, other), progress=progress)
        return with_proof(verdict, found, original)


def bench(
    a: Any, b: Any, *, memory: bool = False, options: CheckOptions | None = None, progress: Progress | None = None
) -> tuple[Latency, ...]:
    """Which of two models is faster, and is the difference real? A ratio above 1 means that `b` is faster.

    With `memory`, each is also run in a Python process of its own, to see how much memory it needs. Takes what `verify`
    takes and raises what it raises.
    """
    checks = _check_options(options)
    from tempfile import TemporaryDirectory

    from bnfold.checks.bench import bench as run

    with TemporaryDirectory(prefix="bnfold-") as folder:
        names = (_called(a, "the first model"), _called(b, "the second model"))
        latency = run(*_runnable_pair(a, b, folder), checks, names=names, memory=memory, progress=progress)
    return _with_sizes(latency, *(files.nbytes(open_model(model).document) for model in (a, b)))


def files_read(*models: Any) -> list[Path]:
    """The files that models are in, with those of their weights; of what is no path, none. Raises ModelError."""
    paths = [Path(model) for model in models if isinstance(model, str | os.PathLike)]
    return [
        file for path in paths for file in ((path,) if is_of_torch(path) else files.all_of(open_model(path).document))
    ]


def _called(model: Any, otherwise: str) -> str:
    return os.fspath(model) if isinstance(model, str | os.PathLike) else otherwise


def _with_sizes(rows: tuple[Latency, ...], before: int | None, after: int | None) -> tuple[Latency, ...]:
    return tuple(replace(row, file_before_bytes=before, file_after_bytes=after) for row in rows)


def _runnable_pair(a: Any, b: Any, folder: str) -> tuple[Path, Path]:
    for model in (a, b):
        path = Path(model) if isinstance(model, str | os.PathLike) else None
        if is_of_torch(model) if path is None else path.suffix.lower() == PROGRAM_SUFFIX:
            what = path or f"the {type(model).__name__}"
            raise UsageError(f"{what}: verify and bench take ONNX models; convert compares and times those of PyTorch")
        opened = open_model(model)
        index_model(opened.document.model, opened.name)  # an invalid model is no different one
    return runnable(a, Path(folder) / "a"), runnable(b, Path(folder) / "b")


def _check_options(options: CheckOptions | None, on_runtime: bool = True) -> CheckOptions:
    """The options, or the default ones; UsageError or MissingDependency now rather than after the work.

    `on_runtime` says whether ONNX Runtime will be needed.
    """
    from bnfold.checks.session import resolve_options, resolve_providers

    options = _options(options)
    if on_runtime:
        resolve_options(options.provider_options, resolve_providers(options.providers))
    return options


def _options(options: CheckOptions | None) -> CheckOptions:
    from bnfold.checks.options import CheckOptions

    return options or CheckOptions()


def _environment() -> Environment:
    from bnfold.checks.environment import environment

    return environment()
