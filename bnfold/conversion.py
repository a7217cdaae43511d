"""One conversion: from a source to a file that is complete, verified, and does not have its name yet.

The source is opened afresh for every attempt, which costs little because weights are not read; so an attempt with other
folds never sees what an earlier one did. Everything temporary goes when the conversion ends, however it ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bnfold.graphs.onnx import files
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.fold import FoldOptions, count, evaluate_batch_norms, fold_document, strip_empty_outputs
from bnfold.graphs.onnx.sources import open_model
from bnfold.results import Counts, Latency, Site, Source, Verification

if TYPE_CHECKING:
    from bnfold.checks.options import CheckOptions

Progress = Callable[[str, float], None]
UNCHANGED = "the output is the input, byte for byte"


@dataclass(eq=False)
class Attempt:
    """The result of folding some sites: on the disk beside the target, with its account."""

    sites: tuple[Site, ...]
    staged: files.Staged
    after: Counts
    changed: bool


@dataclass(eq=False)
class Conversion:
    """A source, a target and what to do; a context that cleans up. `reference` is what the result must equal.

    Raises what `sources.open_model` and `files.stage` raise.
    """

    source: Any
    target: Path
    options: FoldOptions
    external: bool | None = None
    reference: Any = None
    _scratch: tempfile.TemporaryDirectory[str] | None = None
    _attempts: list[Attempt] = field(default_factory=list)

    def __enter__(self) -> Conversion:
        self._scratch = tempfile.TemporaryDirectory(prefix="bnfold-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for attempt in self._attempts:
            attempt.staged.discard()
        if self._scratch is not None:
            self._scratch.cleanup()

    def attempt(self, without: frozenset[int] = frozenset()) -> Attempt:
        """Fold all chosen sites but these, and write the result beside the target."""
        opened = open_model(self.source)
        document = opened.document
        untouched = document.model.SerializeToString()
        sites = fold_document(document, opened.name, replace(self.options, without=without))
        changed = document.path is None or document.model.SerializeToString() != untouched
        staged = (
            files.stage(document, self.target, self.external)
            if changed or self.external
            else files.stage_copy(document, self.target)
        )
        attempt = Attempt(sites, staged, count(document.model, staged.nbytes), changed)
        self._attempts.append(attempt)
        return attempt

    def verified(self, options: CheckOptions, progress: Progress | None) -> tuple[Attempt, Verification]:
        """The attempt that passes, and the verdict on it; folds that fail are taken back and named.

        When nothing passes, the verdict on the full attempt is returned with it.
        """
        full = self.attempt()
        if not full.changed:
            return full, Verification(True, UNCHANGED, ())
        verdict = self.judge(full, options, progress)
        folded = [index for index, site in enumerate(full.sites) if site.folded]
        if verdict.passed or not folded:
            return full, verdict
        culprits = self._culprits(frozenset(folded), options)
        if not culprits or len(culprits) == len(folded):
            return full, verdict
        rest = self.attempt(frozenset(culprits))
        again = self.judge(rest, options, progress)
        if not again.passed:
            return full, verdict
        names = tuple(full.sites[index].name for index in sorted(culprits))
        sites = tuple(
            replace(site, reason="taken-back", detail="its fold failed verification and was taken back")
            if index in culprits
            else site
            for index, site in enumerate(rest.sites)
        )
        rest.sites = sites
        return rest, replace(again, taken_back=names)

    def judge(self, attempt: Attempt, options: CheckOptions, progress: Progress | None = None) -> Verification:
        """The verdict on one attempt, against the reference."""
        from bnfold.checks.verify import verify

        return verify(*self._pair(attempt), options, progress=progress)

    def measured(self, attempt: Attempt, options: CheckOptions, progress: Progress | None) -> tuple[Latency, ...]:
        """The latency of the reference and of one attempt."""
        from bnfold.checks.bench import bench

        return bench(*self._pair(attempt), options, progress=progress)

    def _pair(self, attempt: Attempt) -> tuple[Path, Path]:
        """The reference and an attempt as files that ONNX Runtime can run."""
        if self._scratch is None:
            raise RuntimeError("a conversion is used outside its context")
        scratch = Path(self._scratch.name)
        original = runnable(self.reference, scratch / "original.onnx", self.options.assume_eval)
        return original, runnable(attempt.staged.temporary, scratch / "folded.onnx")

    def _culprits(self, suspects: frozenset[int], options: CheckOptions) -> set[int]:
        """The folds that fail on their own, by bisection; empty if only their sum fails."""
        everything = {index for index, site in enumerate(self._attempts[0].sites) if site.folded}
        attempt = self.attempt(frozenset(everything - suspects))
        passed = self.judge(attempt, options).passed
        attempt.staged.discard()
        if passed:
            return set()
        if len(suspects) == 1:
            return set(suspects)
        ordered = sorted(suspects)
        half = len(ordered) // 2
        return self._culprits(frozenset(ordered[:half]), options) | self._culprits(frozenset(ordered[half:]), options)


def describe(document: Document, hashed: bool) -> tuple[Source, Counts]:
    """Where a document comes from, and what its graph holds."""
    model, path = document.model, document.path
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    digest = files.sha256(path) if hashed and path is not None else None
    source = Source(str(path) if path is not None else None, digest, opset, model.ir_version)
    return source, count(model, files.file_bytes(document))


def runnable(model: Any, copy: Path, assume_eval: bool = False) -> Path:
    """The file of a model, if ONNX Runtime can run it as it is; else one of the same function, written to `copy`.

    ONNX Runtime crashes, without optimisations, on empty trailing outputs of a BatchNormalization; a copy has none.
    """
    opened = open_model(model)
    document = opened.document
    stripped = strip_empty_outputs(document.model)
    evaluated = evaluate_batch_norms(document.model) if assume_eval else 0
    if document.path is not None and not stripped and not evaluated:
        return document.path
    copy.unlink(missing_ok=True)
    files.stage(document, copy).commit()
    return copy
