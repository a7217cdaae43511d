"""One conversion: from a source to a file that is complete, verified, and does not have its name yet.

The source is opened afresh for every attempt, which costs little because weights are not read; so an attempt with other
folds never sees what an earlier one did.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.certificates import Examination, as_metadata, examine, with_proof
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
from bnfold.graphs.onnx.scales import input_scales
from bnfold.graphs.onnx.simplify import simplified
from bnfold.graphs.onnx.sources import open_model
from bnfold.graphs.onnx.staging import Staged, stage, stage_copy
from bnfold.graphs.onnx.validity import blamed_on
from bnfold.results import Counts, Culprit, Latency, Site, Source, Verification

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


@dataclass(frozen=True, eq=False)
class Tried:
    """An attempt with what was found of its parts, the folds that are left out of it, and what is known of these."""

    attempt: Attempt
    found: Examination
    without: frozenset[int]
    culprits: tuple[Culprit, ...]


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
    def judge(
        self, attempt: Attempt, options: CheckOptions, progress: Progress | None = None, *, proven: bool = False
    ) -> Verification:
        """The verdict on one attempt, against the original; `proven` says that every part of it is."""

    @abstractmethod
    def measured(self, attempt: Attempt, options: CheckOptions, progress: Progress | None) -> tuple[Latency, ...]:
        """The latency of the original and of one attempt."""

    def examined(self, attempt: Attempt, options: CheckOptions) -> Examination:
        """Every part that an attempt changed, by itself, as far as that is possible."""
        return Examination({}, "parts are looked at one by one in ONNX files alone")

    def with_certificates(self, attempt: Attempt, found: Examination, without: frozenset[int]) -> Attempt:
        """The same attempt, with a certificate of every fold in the file and in the account."""
        raise UsageError("folds are certified in ONNX files alone: name a target that ends in .onnx")

    def in_float64(self) -> ExactSource | None:
        """The original of an ONNX model, kept with its answers."""
        return None

    def depth(self, attempt: Attempt, options: CheckOptions) -> tuple[tuple[str, float], ...]:
        """How the error develops down the graph (see `Verification.depth`), as far as that can be seen."""
        return ()

    def certified(self, options: CheckOptions) -> Attempt:
        """An attempt with a certificate of every fold; those that are wrong are taken back."""
        tried = self._tried(frozenset(), options, certify=True)
        if not tried.found.wrong:
            return tried.attempt
        tried.attempt.staged.discard()
        return self._tried(tried.without | tried.found.wrong, options, certify=True).attempt

    def verified(
        self, options: CheckOptions, progress: Progress | None, *, certify: bool = False
    ) -> tuple[Attempt, Verification]:
        """The attempt that passes, and the verdict on it; folds that fail are taken back and named.

        When nothing passes, the verdict on the attempt with the most folds is returned with it.
        """
        tried = self._tried(frozenset(), options, certify=certify)
        verdict = self._judged(tried, options, progress)
        folded = tried.attempt.folded
        if verdict.passed:
            return tried.attempt, verdict
        wrong = tried.found.wrong or culprits(
            folded, folded, lambda without: self._passes(tried.without | without, options)
        )
        if wrong and not wrong >= folded:
            known = (*tried.culprits, *tried.found.culprits(wrong, tried.attempt.sites))
            rest = self._tried(tried.without | wrong, options, known, certify=certify)
            again = self._judged(rest, options, progress)
            if again.passed:
                return rest.attempt, again
            rest.attempt.staged.discard()
        return tried.attempt, replace(verdict, culprits=tried.found.culprits(tried.found.wrong, tried.attempt.sites))

    def _tried(
        self, without: frozenset[int], options: CheckOptions, known: tuple[Culprit, ...] = (), *, certify: bool
    ) -> Tried:
        """An attempt without these folds, of which this is known, and without those that are wrong by themselves,
        unless all are.
        """
        attempt = self.attempt(without)
        while True:
            found = self.examined(attempt, options) if attempt.changed else Examination({}, "nothing folded")
            wrong = self._alone(found, without, options)
            if not wrong or wrong >= attempt.folded:
                break
            known = (*known, *found.culprits(wrong, attempt.sites))
            without |= wrong
            attempt.staged.discard()
            attempt = self.attempt(without)
        if certify:
            attempt = self.with_certificates(attempt, found, without)
        why = f"its {'certificate failed' if certify else 'fold failed verification'} and was taken back"
        return Tried(replace(attempt, sites=taken_back(attempt.sites, without, why)), found, without, known)

    def _judged(self, tried: Tried, options: CheckOptions, progress: Progress | None) -> Verification:
        """The verdict on an attempt and on its parts."""
        proof = tried.found.proof
        if tried.attempt.changed:
            proven = proof is not None and proof.proven == proof.parts
            verdict = self.judge(tried.attempt, options, progress, proven=proven)
        else:
            verdict = Verification(True, self.unchanged, ())
        return replace(
            with_proof(verdict, tried.found, self.in_float64() if tried.attempt.changed else None),
            taken_back=tuple(tried.attempt.sites[place].name for place in sorted(tried.without)),
            culprits=tried.culprits,
        )

    def _alone(self, found: Examination, without: frozenset[int], options: CheckOptions) -> frozenset[int]:
        """The folds that are wrong; of those that met in one part, only the ones without which it is right."""
        wrong = found.wrong
        for place in sorted(place for place in wrong if found.found[place].together & wrong):
            if found.found[place].together & wrong and self._is_sound(without | (wrong - {place}), options):
                wrong -= {place}
        return wrong

    def _is_sound(self, without: frozenset[int], options: CheckOptions) -> bool:
        attempt = self.attempt(without)
        found = self.examined(attempt, options)
        attempt.staged.discard()
        return not found.wrong

    def _passes(self, without: frozenset[int], options: CheckOptions) -> bool:
        if time.monotonic() > options.ends:
            return True  # the search ends without a culprit
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

    def examined(self, attempt: Attempt, options: CheckOptions) -> Examination:
        original, folded = self._pair(attempt)
        return examine(self.in_float64(), ExactSource(folded), attempt.ledger, limited(options, original))

    def depth(self, attempt: Attempt, options: CheckOptions) -> tuple[tuple[str, float], ...]:
        from bnfold.checks.depth import depth

        seen = exposed(*self._pair(attempt), attempt.ledger) if attempt.ledger else None
        return depth(seen.original, seen.folded, seen.names, options) if seen else ()

    def with_certificates(self, attempt: Attempt, found: Examination, without: frozenset[int]) -> Attempt:
        if not attempt.changed or attempt.ledger is None:
            return attempt
        attempt.staged.discard()
        sites = found.certified(attempt.sites)
        return replace(self.attempt(without, as_metadata(sites)), sites=sites)

    def judge(
        self, attempt: Attempt, options: CheckOptions, progress: Progress | None = None, *, proven: bool = False
    ) -> Verification:
        from bnfold.checks.exact import ExactPair
        from bnfold.checks.verify import verify

        original, folded = self._pair(attempt)
        unrounded = ExactSource(folded, attempt.ledger.exact if attempt.ledger else None)
        exact = ExactPair(self.in_float64(), unrounded, stored=ExactSource(folded), proven=proven)
        options = limited(options, original)
        return verify(original, folded, options, exact=exact, progress=progress)

    def measured(self, attempt: Attempt, options: CheckOptions, progress: Progress | None) -> tuple[Latency, ...]:
        from bnfold.checks.bench import bench

        return bench(*self._pair(attempt), options, progress=progress)

    def _pair(self, attempt: Attempt) -> tuple[Path, Path]:
        """The original and an attempt as files that ONNX Runtime can run."""
        return self._runnable(), runnable(attempt.staged.model, self._target.folder / f"run{next(self._numbers)}")

    def _runnable(self) -> Path:
        if self._reference is None:
            to = self._target
            self._reference = runnable(self._original, to.folder / "original", to.options.assume_eval)
        return self._reference

    def in_float64(self) -> ExactSource:
        self._exact = self._exact or ExactSource(self._runnable())
        return self._exact


def limited(options: CheckOptions, model: Any) -> CheckOptions:
    """The options with the limits of a model's indices and the scales of its inputs, where the user names no others."""
    opened = open_model(model)
    with blamed_on(opened.document, opened.name):
        limits, scales = index_limits(opened.document), input_scales(opened.document)
    return replace(
        options,
        index_limits={**limits, **options.index_limits},
        input_scales={**scales, **options.input_scales},
    )


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
