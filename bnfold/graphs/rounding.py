"""Whether a folded constant can be held in its own type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.algebra.affine import Affine, Array, Refusal


def unfit(
    name: str,
    kind: object,
    limit: float,
    affine: Affine,
    extent: Callable[[], float],
    exact: Callable[[], Array],
    is_finite: Callable[[], bool],
) -> Refusal | None:
    """Why `affine` of the constant of this name is not a finite number in its type, where it is not.

    `kind` is, or names, the type, `limit` is its largest number and `extent` the largest magnitude in the constant,
    which decides almost always. Where it does not, `exact` is the folded constant in float64, and `is_finite` says
    whether it is so once rounded.
    """
    if extent() * largest(affine.scale) + largest(affine.shift) < limit / 2:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        folded = exact()
    if not np.isfinite(folded).all():
        return Refusal("non-finite", f"folding into '{name}' gives values that are not finite numbers")
    if not is_finite():
        return Refusal("range-overflow", f"folding into '{name}' gives values that its type {kind} cannot hold")
    return None


def largest(array: NDArray[Any]) -> float:
    """The largest magnitude; NaN where there is one."""
    if array.size == 1:
        return abs(float(array.item()))
    return max(abs(float(np.maximum.reduce(array, None))), abs(float(np.minimum.reduce(array, None))))
