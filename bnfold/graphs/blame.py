"""Which of the folds of one model is to blame for a difference: those without which it goes away."""

from __future__ import annotations

from collections.abc import Callable


def culprits(
    suspects: frozenset[int], folded: frozenset[int], passes: Callable[[frozenset[int]], bool]
) -> frozenset[int]:
    """The folds that fail on their own, by bisection, of suspects that are known to fail together.

    `folded` are the places of all sites that fold; `passes(without)` says whether all is well with these left out.
    Empty if only a sum of folds fails.
    """
    if len(suspects) < 2:
        return suspects
    ordered = sorted(suspects)
    middle = len(ordered) // 2
    found: frozenset[int] = frozenset()
    for half in (frozenset(ordered[:middle]), frozenset(ordered[middle:])):
        if not passes(folded - half):
            found |= culprits(half, folded, passes)
    return found
