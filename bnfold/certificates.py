"""What differs between two models, part by part: the proof, certificates of folds, the search for one that is wrong.

All ask `graphs.onnx.exact.certify`, on files, with inputs of the sizes that verification uses. It needs no ONNX
Runtime. Decision: a part that is wrong fails the verdict, whatever the outputs say. It may be inactive on
every input that was drawn, and not on one of the user's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bnfold.checks.compare import tolerance_for
from bnfold.checks.feed import FLOATS, Feed
from bnfold.checks.feeds import make_feeds
from bnfold.checks.options import CheckOptions
from bnfold.errors import UsageError
from bnfold.exactly import ExactSource, runtime_agrees
from bnfold.graphs.onnx.document import Ledger
from bnfold.graphs.onnx.exact.certify import Certifier
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.findings import Finding, Part
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.graphs.onnx.exact.samples import Samples
from bnfold.results import Certificate, Culprit, Proof, Site, Verification

_METADATA = "bnfold.certificate."
_PATIENCE = 8.0  # times the seconds for float64, since this decides
_SHARE = 0.4  # of the time that is left
_MOST_POINTS = 8
_VISIBLE = 1e-6


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found of every fold, by its place in the account, and of all parts; or why nothing was.

    `growth` follows the error through the graph where something is wrong.
    """

    found: Mapping[int, Finding]
    reason: str | None = None
    parts: tuple[Part, ...] = ()
    growth: tuple[tuple[str, float], ...] = ()

    @property
    def proof(self) -> Proof | None:
        if self.reason is not None:
            return None
        proven = [part for part in self.parts if part.proven]
        wrong = [part for part in self.parts if part.is_wrong]
        rest = [part for part in self.parts if not part.proven and not part.is_wrong]
        error = max((part.error for part in proven), default=0.0)
        return Proof(len(self.parts), len(proven), error, _reasons(wrong), _reasons(rest))

    @property
    def wrong(self) -> frozenset[int]:
        """The folds that are wrong for certain."""
        return frozenset(place for place, finding in self.found.items() if finding.is_wrong)

    def certified(self, sites: Sequence[Site]) -> tuple[Site, ...]:
        """The sites, those that folded with their certificates."""
        return tuple(
            replace(site, certificate=self._certificate(place, sites)) if site.folded else site
            for place, site in enumerate(sites)
        )

    def _certificate(self, place: int, sites: Sequence[Site]) -> Certificate:
        finding = self.found.get(place)
        if finding is None:
            return Certificate("not run", detail=self.reason or "it left no trace in the graph")
        together = tuple(sites[other].name for other in sorted(finding.together))
        operators = tuple(finding.operators)
        if not finding.ran:
            return Certificate("not run", operators=operators, together=together, detail=finding.reason)
        status = "failed" if finding.is_wrong else "not run" if finding.reason else "proven"
        return Certificate(status, finding.error, finding.rounding, operators, together, finding.reason)  # type: ignore[arg-type]

    def culprits(self, places: frozenset[int], sites: Sequence[Site]) -> tuple[Culprit, ...]:
        """What is known of these folds, the first in the account first."""
        return tuple(self._culprit(sites[place].name, self.found.get(place)) for place in sorted(places))

    def _culprit(self, name: str, finding: Finding | None) -> Culprit:
        if finding is None or not finding.ran:
            return Culprit(name)
        names = [value for value, _ in self.growth]
        start = min((names.index(value) for value in finding.values if value in names), default=len(names))
        return Culprit(name, max(finding.error, finding.stored_error), _thinned(self.growth[start:]))


def examine(original: ExactSource, other: ExactSource, ledger: Ledger | None, options: CheckOptions) -> Examination:
    """Examine every part in which two models differ. `ledger` is what folds between them noted, if they did."""
    if options.exact_seconds <= 0:
        return Examination({}, "it was not asked for")
    deadline = min(time.monotonic() + _PATIENCE * options.exact_seconds, options.until(_SHARE))
    before, after = original.engine(), other.engine()
    if isinstance(before, str) or isinstance(after, str):
        return Examination({}, before if isinstance(before, str) else str(after))
    if _signature(before) != _signature(after):
        return Examination({}, "their inputs or outputs differ")
    try:
        feed, samples = _sampled(original, options, deadline)
        apart = _apart(samples, other, feed.values, deadline) if ledger is None or ledger.in_functions else None
        certifier = Certifier(before, after, ledger, samples, _tolerances(options), options.seed, apart, runtime_agrees)
        parts = certifier.parts(deadline)
        is_wrong = ledger is not None and any(part.is_wrong for part in parts)
        growth = certifier.growth(feed.values, deadline) if is_wrong else []
    except (CannotRun, UsageError) as error:
        return Examination({}, str(error))
    return Examination(certifier.findings(parts), parts=tuple(parts), growth=tuple(growth))


def _sampled(original: ExactSource, options: CheckOptions, deadline: float) -> tuple[Feed, Samples]:
    """The first input on which the original runs, and what it comes by there. Raises CannotRun where there is none."""
    first: CannotRun | None = None
    for feed in make_feeds(original.inputs, replace(options, check_n=max(options.check_n, 1))):
        try:
            return feed, original.samples(feed.values, deadline)
        except CannotRun as error:  # drawn sizes may not fit
            first = first or error
    raise first or CannotRun("there is no input")


def _signature(engine: Engine) -> list[tuple[str, str]]:
    """The names and types of inputs and outputs."""
    return [(name, dtype) for name, dtype, _ in (*engine.inputs, *engine.outputs)]


def _apart(samples: Samples, other: ExactSource, feeds: Mapping[str, Any], deadline: float) -> set[str] | None:
    """The names that stand for different values in another model; None where that cannot be run."""
    try:
        return samples.unlike(other.samples(feeds, deadline))
    except CannotRun:
        return None


def _reasons(parts: Sequence[Part]) -> tuple[tuple[str, str], ...]:
    return tuple((part.cutout.value, part.reason or "") for part in parts)


def _tolerances(options: CheckOptions) -> dict[str, float]:
    return {name: tolerance_for("", name, options).rtol for name in FLOATS}


def with_proof(verdict: Verification, found: Examination, original: ExactSource | None) -> Verification:
    """The verdict with what was found of the parts; a part that is wrong fails it.

    Where parts are open, it says which branches no input took.
    """
    proof = found.proof
    is_whole = proof is not None and not proof.open
    notes = () if is_whole or original is None else original.branches_left_out()
    if found.reason is not None and verdict.outputs:
        notes = (*notes, f"not proven part by part: {found.reason}")
    passed = verdict.passed and not (proof and proof.wrong)
    return replace(verdict, passed=passed, proof=proof, notes=(*verdict.notes, *notes))


def as_metadata(sites: Sequence[Site]) -> dict[str, str]:
    """Certificates for a model's `metadata_props`, as JSON by the name of the site."""
    return {
        f"{_METADATA}{site.name}": json.dumps({**asdict(site.certificate), "into": site.into})
        for site in sites
        if site.certificate is not None
    }


def _thinned(growth: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """The first value that is visibly off, those where the error has at least doubled since, and the last."""
    points: list[tuple[str, float]] = []
    visible = [point for point in growth if point[1] > _VISIBLE]
    for point in visible[:-1]:
        if not points or point[1] >= 2 * points[-1][1]:
            points.append(point)
    return (*points[: _MOST_POINTS - 1], *visible[-1:])
