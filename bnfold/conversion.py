"""One conversion: from a source to a file that is complete, verified, and does not have its name yet.

The source is opened afresh for every attempt, which costs little because weights are not read; so an attempt with other
folds never sees what an earlier one did.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.certificates import Examination, as_metadata, examine
from bnfold.errors import OutputError, UsageError
from bnfold.exactly import ExactSource
from bnfold.graphs.account import FoldOptions, taken_back
from bnfold.graphs.blame import culprits
from bnfold.graphs.families import factory_name
from bnfold.graphs.onnx import files
from bnfold.graphs.onnx.document import Document, Ledger
from bnfold.graphs.onnx.exact.exposed import exposed
from bnfold.graphs.onnx.fold import count, evaluate_batch_norms, fold_document, strip_empty_outputs
from bnfold.graphs.onnx.limits import index_limits
from bnfold.graphs.onnx.simplify import simplified
from bnfold.graphs.onnx.sources import open_model
from bnfold.graphs.onnx.staging import Staged, stage, stage_copy
from bnfold.graphs.onnx.validity import blamed_on
from bnfold.results import Counts, Latency, Site, Source, Verification

if TYPE_CHECKING:
    from bnfold.checks.options import CheckOptions

Progress = Callable[[str, float], None]
UNCHANGED = "the output is the input, byte for byte"
PROGRAM_SUFFIX = ".pt2"
SUFFIXES = (".onnx", PROGRAM_SUFFIX)


@dataclass(frozen=True, eq=False)
class Attempt:
    """The result of folding some sites: on the disk beside the target, with its account.

    `changed` says whether it is anything else than a copy of the original's file; `ledger` what the folds did. `exact`
    are the new constants of a program of PyTorch's, as they were before they were rounded.
    """

    sites: tuple[Site, ...]
    staged: Staged
    after: Counts
    changed: bool
    ledger: Ledger | None = None
    exact: Mapping[str, Callable[[], Any]] | None = None

    @property
    def folded(self) -> frozenset[int]:
        """The places, in the account, of the sites that folded."""
        return frozenset(index for index, site in enumerate(self.sites) if site.folded)


@dataclass(frozen=True)
class Target:
    """Where the result goes, the folder beside it to work in, and how to fold and write it.

    `external` is that of `staging.stage`; `simplify` asks for onnxsim in front.
    """

    path: Path
    folder: Path
    options: FoldOptions
    external: bool | None = None
    simplify: bool = False


@dataclass(frozen=True)
class Task:
    """A job with what the report says of its source; `describe` may wait for a checksum."""

    job: Job
    before: Counts
    describe: Callable[[], Source]
    notes: tuple[str, ...] = ()


class Job(ABC):
    """What is the same for every kind of target: an attempt, the verdict on it, and what is done where that is bad.

    `unchanged` says what the output is where no site folds.
    """

    unchanged = UNCHANGED

    @abstractmethod
    def attempt(self, without: frozenset[int] = frozenset()) -> Attempt:
        """Fold all chosen sites but these, and write the result into the folder."""

    @abstractmethod
    def judge(self, attempt: Attempt, options: CheckOptions, progress: Progress | None = None) -> Verification:
        """The verdict on one attempt, against the original."""

    @abstractmethod
    def measured(self, attempt: Attempt, options: CheckOptions, progress: Progress | None) -> tuple[Latency, ...]:
        """The latency of the original and of one attempt."""

    def examined(self, attempt: Attempt, options: CheckOptions, *, follow: bool) -> Examination:
        """Every fold of an attempt by itself, as far as that is possible; with `follow`, where the error goes."""
        return Examination({}, "folds are looked at one by one in ONNX files alone")

    def depth(self, attempt: Attempt, options: CheckOptions) -> tuple[tuple[str, float], ...]:
        """How the error develops down the graph (see `Verification.depth`), as far as that can be seen."""
        return ()

    def certified(self, options: CheckOptions, without: frozenset[int] = frozenset()) -> Attempt:
        """An attempt with a certificate of every fold; those that are wrong are taken back."""
        raise UsageError("folds are certified in ONNX files alone: name a target that ends in .onnx")

    def verified(
        self, options: CheckOptions, progress: Progress | None, *, certify: bool = False
    ) -> tuple[Attempt, Verification]:
        """The attempt that passes, and the verdict on it; folds that fail are taken back and named.

        When nothing passes, the verdict on the full attempt is returned with it.
        """
        full = self.certified(options) if certify else self.attempt()
        if not full.changed:
            return full, Verification(True, self.unchanged, ())
        verdict = self.judge(full, options, progress)
        if verdict.passed:
            return full, verdict
        found = self.examined(full, options, follow=True)
        verdict = replace(verdict, culprits=found.culprits(found.wrong, full.sites))
        for wrong in self._suspects(found, full, options):
            if not wrong or wrong >= full.folded:
                continue
            rest = self.certified(options, wrong) if certify else self.attempt(wrong)
            again = self.judge(rest, options, progress)
            if again.passed:
                names = tuple(full.sites[index].name for index in sorted(wrong))
                known = found.culprits(wrong, full.sites)
                marked = _marked(rest, wrong, "its fold failed verification")
                return marked, replace(again, taken_back=names, culprits=known)
            rest.staged.discard()
        return full, verdict

    def _suspects(self, found: Examination, full: Attempt, options: CheckOptions) -> Iterator[frozenset[int]]:
        """Sets of folds to take back, the likelier first: those found wrong by themselves, those found by bisection."""
        if found.wrong and not found.wrong >= full.folded:
            yield self._alone(found, options)
        yield culprits(full.folded, full.folded, lambda without: self._passes(without, options))

    def _alone(self, found: Examination, options: CheckOptions) -> frozenset[int]:
        """The folds that are wrong; of those that met in one value, only the ones without which it passes."""
        wrong = found.wrong
        for place in sorted(place for place in wrong if found.found[place].together & wrong):
            if found.found[place].together & wrong and self._passes(wrong - {place}, options):
                wrong -= {place}
        return wrong

    def _passes(self, without: frozenset[int], options: CheckOptions) -> bool:
        attempt = self.attempt(without)
        passed = self.judge(attempt, options).passed
        attempt.staged.discard()
        return passed


class Conversion(Job):
    """A source, what the result must equal (the source, or what it was simplified from), and a target.

    Everything is written into the target's folder. The methods raise what `sources.open_model` and `staging.stage`
    raise.
    """

    def __init__(self, source: Any, original: Any, target: Target) -> None:
        self._source = source
        self._original = original
        self._target = target
        self._numbers = count_from()
        self._reference: Path | None = None
        self._exact: ExactSource | None = None

    def attempt(self, without: frozenset[int] = frozenset(), metadata: Mapping[str, str] | None = None) -> Attempt:
        opened = open_model(self._source)
        document = opened.document
        untouched = document.model.SerializeToString()
        sites = fold_document(document, opened.name, replace(self._target.options, without=without))
        for key, value in (metadata or {}).items():
            document.model.metadata_props.add(key=key, value=value)
        is_copy = (
            self._source is self._original
            and document.path is not None
            and document.model.SerializeToString() == untouched
        )
        folder = self._target.folder / str(next(self._numbers))
        if is_copy and not self._target.external:
            staged = stage_copy(document, self._target.path, folder)
            is_copy = staged.data is None
        else:
            staged = stage(document, self._target.path, folder, self._target.external)
        return Attempt(sites, staged, count(document.model, staged.nbytes), not is_copy, document.ledger)

    def examined(self, attempt: Attempt, options: CheckOptions, *, follow: bool) -> Examination:
        original, folded = self._pair(attempt)
        return examine(original, folded, attempt.ledger, limited(options, original), follow=follow)

    def depth(self, attempt: Attempt, options: CheckOptions) -> tuple[tuple[str, float], ...]:
        from bnfold.checks.depth import depth

        seen = exposed(*self._pair(attempt), attempt.ledger) if attempt.ledger else None
        return depth(seen.original, seen.folded, seen.names, options) if seen else ()

    def certified(self, options: CheckOptions, without: frozenset[int] = frozenset()) -> Attempt:
        """An attempt whose every fold was looked at by itself, with the certificates in the file and in the account."""
        attempt = self.attempt(without)
        if not attempt.changed or attempt.ledger is None:
            return attempt
        found = self.examined(attempt, options, follow=False)
        attempt.staged.discard()
        if found.wrong:
            return _marked(self.certified(options, without | found.wrong), found.wrong, "its certificate failed")
        sites = found.certified(attempt.sites)
        return replace(self.attempt(without, as_metadata(sites)), sites=sites)

    def judge(self, attempt: Attempt, options: CheckOptions, progress: Progress | None = None) -> Verification:
        from bnfold.checks.exact import ExactPair
        from bnfold.checks.verify import verify

        original, folded = self._pair(attempt)
        self._exact = self._exact or ExactSource(original)
        unrounded = ExactSource(folded, attempt.ledger.exact if attempt.ledger else None)
        exact = ExactPair(self._exact, unrounded, stored=ExactSource(folded))
        options = limited(options, original)
        return verify(original, folded, options, exact=exact, progress=progress)

    def measured(self, attempt: Attempt, options: CheckOptions, progress: Progress | None) -> tuple[Latency, ...]:
        from bnfold.checks.bench import bench

        return bench(*self._pair(attempt), options, progress=progress)

    def _pair(self, attempt: Attempt) -> tuple[Path, Path]:
        """The original and an attempt as files that ONNX Runtime can run."""
        if self._reference is None:
            to = self._target
            self._reference = runnable(self._original, to.folder / "original", to.options.assume_eval)
        return self._reference, runnable(attempt.staged.model, self._target.folder / f"run{next(self._numbers)}")


def limited(options: CheckOptions, model: Any) -> CheckOptions:
    """The options with the limits of a model's indices, as far as the user names no others."""
    opened = open_model(model)
    with blamed_on(opened.document, opened.name):
        found = index_limits(opened.document)
    return replace(options, index_limits={**found, **options.index_limits})


def _marked(rest: Attempt, wrong: frozenset[int], why: str) -> Attempt:
    """An attempt with these folds told as taken back."""
    return replace(rest, sites=taken_back(rest.sites, wrong, f"{why} and was taken back"))


def runnable(model: Any, folder: Path, assume_eval: bool = False) -> Path:
    """The file of a model, if ONNX Runtime can run it as it is; else one of the same function, written to a new folder.

    ONNX Runtime crashes, without optimisations, on empty trailing outputs of a BatchNormalization; a copy has none.
    """
    document = open_model(model).document
    stripped = strip_empty_outputs(document.model)
    evaluated = evaluate_batch_norms(document.model) if assume_eval else 0
    if document.path is not None and not stripped and not evaluated:
        return document.path
    return stage(document, folder / "model.onnx", folder).model


def prepare(source: Any, target: Target, hashed: bool) -> Task:
    """The conversion of an ONNX model; `hashed` asks for its checksum. Raises what `open_model` and onnxsim raise."""
    document = open_model(source).document
    _refuse_data_file(document, target.path)
    sha256 = files.sha256(document.path) if hashed and document.path is not None else None
    before = count(document.model, files.nbytes(document))
    given = simplified(source, target.folder / "simplified") if target.simplify else source
    return Task(Conversion(given, source, target), before, lambda: described(document, sha256() if sha256 else None))


def _refuse_data_file(document: Document, target: Path) -> None:
    """Raises OutputError for a target that is a data file of the source."""
    for data in files.all_of(document)[1:]:
        if data.resolve() == target.resolve():
            raise OutputError(f"{target}: this file holds weights of the input; choose another name")


def described(document: Document, sha256: str | None) -> Source:
    """Where a document comes from."""
    model, path = document.model, document.path
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    return Source(str(path) if path is not None else None, sha256, opset, model.ir_version)


def checked_target(source: Any, output: str | os.PathLike[str] | None, force: bool) -> Path:
    """Where the result goes; raises UsageError or OutputError where it cannot."""
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    factory = factory_name(source) if path is not None else None
    if output is not None:
        target = Path(output)
    elif factory is not None:
        target = Path(f"{factory[1]}.folded.onnx")
    elif path is not None:
        target = path.parent / f"{path.stem}.folded.onnx"
    else:
        raise UsageError("a model that is given in memory needs an output path")
    try:
        if target.is_dir():
            raise OutputError(f"{target}: this is a directory; name the file to write")
        if not target.parent.is_dir():
            raise OutputError(f"{target}: the folder '{target.parent}' does not exist; make it first")
        if target.exists() and not target.is_file():
            raise OutputError(f"{target}: this is no regular file; name another one")
        if target.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{target}: the suffix says what to write: .onnx, or .pt2 for a program of PyTorch's")
        if os.path.lexists(target) and not force:
            same = path is not None and path.exists() and target.exists() and target.samefile(path)
            what = "this is the input" if same else "the file exists"
            raise OutputError(f"{target}: {what}; choose another name, or --force to overwrite it")
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror}") from None
    return target
