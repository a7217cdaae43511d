"""What is the same for every framework around a fold: which sites are chosen, and how outcomes are told."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal, cast

from bnfold.algebra.fold import Outcome
from bnfold.algebra.reasons import REASONS
from bnfold.errors import UsageError
from bnfold.results import Explanation, Site


@dataclass(frozen=True)
class FoldOptions:
    """Which sites fold: those whose names match a pattern of `only` (all, if there is none) and none of `skip`.

    `without` leaves sites out by their place in the account. `freeze_initializers` takes initializers that are also
    graph inputs as constants; `assume_eval` takes BatchNorms in training mode as inference ones. `drawn` asks for the
    `operators` of the sites.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    freeze_initializers: bool = False
    assume_eval: bool = False
    without: frozenset[int] = frozenset()
    drawn: bool = False

    def chooses(self, index: int, name: str) -> bool:
        wanted = not self.only or any(fnmatchcase(name, pattern) for pattern in self.only)
        return wanted and index not in self.without and not any(fnmatchcase(name, pattern) for pattern in self.skip)


def fold_options(
    only: Iterable[str], skip: Iterable[str], freeze_initializers: bool, assume_eval: bool, *, drawn: bool = False
) -> FoldOptions:
    """The options as a caller gives them. Raises UsageError for what is no list of patterns."""
    lists = {}
    for name, patterns in (("only", only), ("skip", skip)):
        if isinstance(patterns, str) or not isinstance(patterns, Iterable):
            raise UsageError(f"{name}={patterns!r}: give a list of patterns, as in {name}=['{patterns}']")
        lists[name] = tuple(patterns)
        other = next((pattern for pattern in lists[name] if not isinstance(pattern, str)), None)
        if other is not None:
            raise UsageError(f"{name}=[{other!r}]: a pattern is a string, as in {name}=['{other}']")
    return FoldOptions(lists["only"], lists["skip"], freeze_initializers, assume_eval, drawn=drawn)


def account(outcome: Outcome) -> Site:
    """An outcome as callers see it."""
    name, op = outcome.site.name, cast(Literal["BatchNormalization", "affine"], outcome.site.op)
    refusal, drawn = outcome.refusal, outcome.operators
    if refusal is None:
        way, into, through, added = outcome.direction, outcome.into, outcome.through, outcome.added_bytes
        return Site(name, op, "folded", way, into, through, added_bytes=added, operators=drawn)
    reason, blocker, detail = refusal.reason, refusal.blocker, refusal.detail
    return Site(name, op, "kept", reason=reason, blocker=blocker, detail=detail, operators=drawn)


def taken_back(sites: Iterable[Site], places: Collection[int], detail: str) -> tuple[Site, ...]:
    """The account of folds without those at these places, which were carried out and turned out to be wrong."""
    return tuple(
        replace(site, reason="taken-back", detail=detail) if place in places else site
        for place, site in enumerate(sites)
    )


def explained(sites: Iterable[Site]) -> tuple[Explanation, ...]:
    """The reasons for which some of these sites stay, in the order of the table of reasons."""
    given = {site.reason for site in sites}
    return tuple(Explanation(code, *reason) for code, reason in REASONS.items() if code in given)
