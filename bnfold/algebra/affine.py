"""The affine map of one value, and the refusal: the two outcomes that every rule deals in.

A BatchNorm in eval mode is `y = scale * x + shift` with `scale = gamma / sqrt(var + eps)` and
`shift = beta - mean * scale` (Ioffe and Szegedy 2015, algorithm 2). Both parameters are float64 arrays, rank-aligned
with the tensor they act on and of size 1 along every axis on which they do not vary. So a rule asks *along which axes*
a parameter varies, never whether two sizes happen to match.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnfold.algebra.reasons import REASONS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Refusal:
    """Why a rule cannot go on: a reason code of `reasons`, one sentence, and the name of the node that blocks."""

    reason: str
    detail: str
    blocker: str | None = None

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"'{self.reason}' is no reason code")


class Affine:
    """The map `x -> scale * x + shift`, elementwise under broadcasting. It is not to be changed.

    `scale` and `shift` have the rank of the tensor; an axis of size 1 means "does not vary along it".
    """

    __slots__ = ("has_scale", "has_shift", "scale", "shift")

    def __init__(self, scale: Array, shift: Array) -> None:
        if scale.ndim != shift.ndim:
            raise ValueError(f"scale has rank {scale.ndim}, shift has rank {shift.ndim}")
        self.scale = scale
        self.shift = shift
        self.has_scale = not _is_all(scale, 1.0)
        self.has_shift = not _is_all(shift, 0.0)

    def __repr__(self) -> str:
        return f"Affine({self.scale!r}, {self.shift!r})"

    @classmethod
    def of(cls, scale: ArrayLike, shift: ArrayLike, rank: int) -> Affine:
        """An affine of the given rank; parameters are aligned to the right, as broadcasting does."""
        return cls(compact(aligned(scale, rank)), compact(aligned(shift, rank)))

    @classmethod
    def identity(cls, rank: int) -> Affine:
        return cls.of(1.0, 0.0, rank)

    @classmethod
    def along(cls, axis: int, scale: ArrayLike, shift: ArrayLike, rank: int) -> Affine:
        """An affine whose parameters are vectors of shape (C,) along one axis."""
        shape = [1] * rank
        shape[axis] = -1
        return cls(*(compact(np.asarray(parameter, np.float64).reshape(shape)) for parameter in (scale, shift)))

    @property
    def rank(self) -> int:
        return self.scale.ndim

    @property
    def is_identity(self) -> bool:
        return not self.has_scale and not self.has_shift

    @property
    def is_finite(self) -> bool:
        return is_finite(self.scale) and is_finite(self.shift)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which scale or shift varies."""
        pairs = zip(self.scale.shape, self.shift.shape, strict=True)
        return tuple([axis for axis, sizes in enumerate(pairs) if sizes != (1, 1)])

    def size(self, axis: int) -> int:
        """The extent of the parameters along one axis; 1 where they do not vary."""
        return int(max(self.scale.shape[axis], self.shift.shape[axis]))

    def after(self, inner: Affine) -> Affine:
        """The composition: `self(inner(x))`."""
        return Affine(compact(self.scale * inner.scale), compact(self.scale * inner.shift + self.shift))

    def scaling(self) -> Affine:
        """The linear part alone."""
        return Affine(self.scale, np.zeros((1,) * self.rank))

    def shifting(self) -> Affine:
        """The constant part alone."""
        return Affine(np.ones((1,) * self.rank), self.shift)

    def aligned(self, rank: int) -> Affine:
        """The same map at another rank; ValueError if it varies along an axis that goes."""
        return Affine(aligned(self.scale, rank), aligned(self.shift, rank))

    def mapped(self, move: Callable[[Array, float], Array | Refusal]) -> Affine | Refusal:
        """Both parameters carried by `move(parameter, neutral)`; neutral is 1 for the scale and 0 for the shift."""
        scale = move(self.scale, 1.0)
        if isinstance(scale, Refusal):
            return scale
        shift = move(self.shift, 0.0)
        if isinstance(shift, Refusal):
            return shift
        return Affine(compact(scale), compact(shift))

    def __call__(self, x: NDArray[np.generic]) -> Array:
        """The map applied in float64, with broadcasting."""
        return np.asarray(self.scale * np.asarray(x, np.float64) + self.shift)


def varying(parameter: Array) -> tuple[int, ...]:
    """The axes of a parameter that have more than one element."""
    return tuple([axis for axis, size in enumerate(parameter.shape) if size != 1])


def aligned(parameter: ArrayLike, rank: int) -> Array:
    """The parameter with exactly `rank` axes, aligned to the right; ValueError if it cannot be."""
    array = np.asarray(parameter, np.float64)
    if array.ndim == rank:
        return array
    if array.ndim > rank:
        surplus = array.ndim - rank
        if any(size != 1 for size in array.shape[:surplus]):
            raise ValueError(f"a parameter of shape {array.shape} has no rank {rank}")
        return array.reshape(array.shape[surplus:])
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def compact(parameter: Array) -> Array:
    """The same parameter with size 1 along every axis on which all its values are equal."""
    if parameter.size <= 1:
        return parameter
    if parameter.size in parameter.shape and parameter.item(0) != parameter.item(-1):  # most often two elements tell
        return parameter
    for axis in varying(parameter):
        first = parameter.take([0], axis) if parameter.shape[axis] else parameter
        if parameter.shape[axis] and bool((parameter == first).all()):
            parameter = first
    return parameter


def _is_all(parameter: Array, number: float) -> bool:
    """Whether every element is this number; the first one tells that most are not."""
    if parameter.size and parameter.item(0) != number:
        return False
    return parameter.size <= 1 or bool((parameter == number).all())


def is_finite(parameter: Array) -> bool:
    """Whether no element is NaN or infinity."""
    if parameter.size == 1:
        return math.isfinite(parameter.item())
    flat = parameter.reshape(-1)
    return math.isfinite(flat.dot(flat)) or bool(np.isfinite(parameter).all())  # a finite sum of squares tells, fast


def as_vector(a: Affine, axis: int | None) -> Affine:
    """The affine as one on a vector that runs along an axis; as it is, if the axis is None."""
    return a if axis is None else Affine(vector(a.scale, axis), vector(a.shift, axis))


def vector(parameter: Array, axis: int) -> Array:
    """A parameter that varies along one axis alone, as an array of rank 1."""
    return parameter.reshape(parameter.shape[axis])
