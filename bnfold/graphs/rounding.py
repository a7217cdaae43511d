"""Whether a folded constant can be held in its own type, and what it says there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.algebra.storing import as_read, is_lost


class Folded(Protocol):
    """A constant and the affine that folds have put on it: before these, after them, and after them as it is stored.

    `step` is the distance between 1 and the next larger number of its type.
    """

    affine: Affine | None

    @property
    def step(self) -> float: ...

    def plain64(self) -> Array: ...

    def float64(self) -> Array: ...

    def stored64(self) -> Array: ...


def settled(known: Folded) -> Array:
    """A constant of an affine operator in float64, as `algebra.storing` takes it."""
    if known.affine is None:
        return known.float64()
    return as_read(known.float64(), known.stored64(), known.plain64(), known.affine)


def lost(known: Folded, kind: ops.Kind, position: int) -> Refusal | None:
    """Why an operator that stays cannot multiply by this constant: in its type it would be another factor."""
    is_factor = isinstance(kind, ops.ConstAffine) and kind.absorber.scale == position
    if not is_factor or not is_lost(settled(known), known.stored64(), known.step):
        return None
    detail = "what the folded constant says is lost when it is rounded to its type"
    return Refusal("below-precision", detail)


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

    `kind` is, or names, the type and `limit` its largest number. `extent` is a number that no magnitude in the constant
    exceeds, but for rounding; it decides almost always. Where it does not, `exact` is the folded constant in float64,
    and `is_finite` says whether it is so once rounded.
    """
    if extent() * norm(affine.scale) + norm(affine.shift) < limit / 2:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(exact()).all():
            return Refusal("non-finite", f"folding into '{name}' gives values that are not finite numbers")
        if not is_finite():
            return Refusal("range-overflow", f"folding into '{name}' gives values that its type {kind} cannot hold")
    return None


def norm(array: NDArray[Any]) -> float:
    """The Euclidean norm, which no element exceeds in magnitude; NaN or infinity where it is none, or too large.

    It is read off faster than the largest magnitude itself. What is added outweighs elements whose squares vanish.
    """
    if array.size == 1:
        return abs(float(array.item()))
    flat = array.ravel(order="K")
    if flat.dtype not in (np.float32, np.float64):  # the sum of squares does not fit into smaller types
        flat = flat.astype(np.float32)
    return math.sqrt(np.vdot(flat, flat)) + 1e-18  # takes elements at any address, as in a mapped file, as they are
