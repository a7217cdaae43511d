"""Each fold of an attempt by itself: certificates, and the search for a fold that is wrong.

Both ask `graphs.onnx.exact.certify`, on the file that was written, with inputs of the sizes that verification uses. It
needs no ONNX Runtime. Decision: a fold whose certificate fails is wrong for certain, whatever the outputs say.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bnfold.checks.feeds import make_feeds
from bnfold.checks.options import CheckOptions
from bnfold.errors import UsageError
from bnfold.exactly import ExactSource
from bnfold.graphs.onnx.document import Ledger
from bnfold.graphs.onnx.exact.certify import Certifier, Finding
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.results import Certificate, Culprit, Site

_METADATA = "bnfold.certificate."
_PATIENCE = 20.0  # times the seconds for float64, since this was asked for, or a verdict has failed
_MOST_POINTS = 8
_VISIBLE = 1e-6


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found of every fold, by its place in the account; or why nothing was."""

    found: Mapping[int, Finding]
    reason: str | None = None
    growth: tuple[tuple[str, float], ...] = ()

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
        return Culprit(name, finding.stored_error, _thinned(self.growth[start:]))


def examine(original: Any, folded: Path, ledger: Ledger | None, options: CheckOptions, *, follow: bool) -> Examination:
    """Examine every fold between two models; with `follow`, follow the error through the graph too."""
    if ledger is None:
        return Examination({}, "nothing folded")
    deadline = time.monotonic() + _PATIENCE * max(options.exact_seconds, CheckOptions().exact_seconds)
    source, target = ExactSource(original), ExactSource(folded)
    engines = source.engine(), target.engine()
    if isinstance(engines[0], str) or isinstance(engines[1], str):
        return Examination({}, next(engine for engine in engines if isinstance(engine, str)))
    certifier = Certifier(engines[0], engines[1], ledger)
    try:
        feed = make_feeds(source.inputs, replace(options, check_n=1))[0]
        found = certifier.findings(feed.values, deadline, options.seed)
        return Examination(found, growth=tuple(certifier.growth(feed.values, deadline)) if follow else ())
    except (CannotRun, UsageError) as error:
        return Examination({}, str(error))


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
