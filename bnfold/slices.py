"""How large the entries of an array are, slice by slice: so that every channel is judged by its own size.

A bound relative to the largest entry of all says nothing of the others: boxes in pixels beside scores, a mask of -1e9
beside logits. So errors and sizes are taken along every short axis, and entries far above all others are set apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Key = int | str
"""An axis, the whole, or what is set apart."""

WHOLE, APART = "all of it", "entries far above the others"
LONGEST = 4096
FLOOR = 1e-3  # a slice below this share of the whole is judged as if it had it: rounding of the whole reaches as far
_CHANCE = 1e-6
_FAR, _LARGE = 10, 1000.0  # in powers of two, above all others; and in itself
_MOST_DISTINCT = 8


class Place(NamedTuple):
    """Where a ratio is largest."""

    ratio: float
    key: Key = WHOLE
    at: int = 0

    def __str__(self) -> str:
        return self.key if isinstance(self.key, str) else f"place {self.at} of axis {self.key}"


@dataclass(frozen=True, eq=False)
class Slices:
    """One number, at least zero, per slice: by axis, an array with the length of the axis; for the whole one of 1.

    `counts` say, by axis, of how many entries each number is the largest.
    """

    numbers: Mapping[Key, Array] = field(default_factory=dict)
    counts: Mapping[Key, int] = field(default_factory=dict)

    @classmethod
    def single(cls, number: float) -> Slices:
        return cls({WHOLE: np.asarray([number], np.float64)})

    @classmethod
    def largest(cls, array: Array, apart: Array | None = None, unit: Array | None = None) -> Slices:
        """The largest of an array of magnitudes in each slice, without those that a mask sets apart.

        Those count relative to `unit`, their own sizes.
        """
        numbers: dict[Key, Array] = {}
        if apart is not None and unit is not None:
            numbers[APART] = np.asarray([(array[apart] / unit[apart]).max(initial=0.0)])
            array = np.where(apart, 0.0, array)
        numbers[WHOLE] = np.asarray([array.max(initial=0.0)])
        for axis, size in enumerate(array.shape):
            if 1 < size <= LONGEST and array.size > size:
                others = tuple(other for other in range(array.ndim) if other != axis)
                numbers[axis] = np.asarray(array.max(axis=others, initial=0.0))
            elif 1 < size <= LONGEST:
                numbers[axis] = array.reshape(-1)
        return cls(numbers, {axis: array.size // size for axis, size in enumerate(array.shape) if axis in numbers})

    @property
    def whole(self) -> float:
        return float(self.numbers[WHOLE][0]) if WHOLE in self.numbers else 0.0

    def join(self, other: Slices) -> Slices:
        """The larger number of both in each slice; an axis whose length differs is left out."""
        numbers = {key: np.maximum(a, b) for key, (a, b) in self._beside(other).items()}
        counts = {key: self.counts[key] + other.counts[key] for key in self.counts.keys() & other.counts.keys()}
        return Slices(numbers, counts)

    def meet(self, other: Slices) -> Slices:
        """The smaller number of both in each slice; an axis whose length differs is left out."""
        return Slices({key: np.minimum(a, b) for key, (a, b) in self._beside(other).items()})

    def of_whole(self, number: float) -> Slices:
        """The same with another number for the whole."""
        return Slices({**self.numbers, WHOLE: np.asarray([number])})

    def _beside(self, other: Slices) -> dict[Key, tuple[Array, Array]]:
        shared = [key for key in self.numbers if key in other.numbers]
        pairs = {key: (self.numbers[key], other.numbers[key]) for key in shared}
        return {key: pair for key, pair in pairs.items() if pair[0].shape == pair[1].shape}

    def shares(self) -> Slices:
        """Every number relative to that of the whole."""
        whole = self.whole or 1.0
        shares = {key: number / whole if key != APART else number for key, number in self.numbers.items()}
        return Slices(shares, self.counts)

    def to_judge_by(self, shares: Slices) -> Slices:
        """The sizes that errors are held against: every slice has the share of this whole that is given.

        Few entries may be small by chance: n normal numbers of size s stay below 1.25 p^(1/n) s with probability p.
        """
        margins = {key: max(1.0, _CHANCE ** (-1 / max(count, 1)) / 1.25) for key, count in shares.counts.items()}
        sizes = {
            key: self.whole * np.clip(share * margins.get(key, 1.0), FLOOR, 1.0)
            for key, share in shares.numbers.items()
        }
        return Slices({**sizes, WHOLE: np.asarray([self.whole]), APART: np.ones(1)})

    def plus(self, number: float) -> Slices:
        return Slices({key: own + number for key, own in self.numbers.items()})

    def times(self, factor: float) -> Slices:
        return Slices({key: number * factor for key, number in self.numbers.items()})

    def less(self, number: float) -> Slices:
        """What of each number is past another one."""
        return Slices({key: np.maximum(own - number, 0.0) for key, own in self.numbers.items()})

    def over(self, bounds: Slices) -> Place:
        """Where these numbers are largest relative to bounds; infinite where a bound of zero is passed."""
        worst = Place(0.0)
        for key, (number, bound) in self._beside(bounds).items():
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = np.where(number == 0, 0.0, number / bound)
            at = int(ratios.argmax()) if ratios.size else 0
            if ratios.size and not ratios[at] <= worst.ratio:
                worst = Place(float(ratios[at]), key, at)
        return worst

    def within(self, bounds: Slices) -> bool:
        """Whether no number is past its bound."""
        return all(bool((number <= bound).all()) for number, bound in self._beside(bounds).values())

    def number(self, place: Place) -> float:
        """The number at a place; that of the whole where there is none."""
        found = self.numbers.get(place.key)
        return self.whole if found is None or place.at >= found.size else float(found[place.at])


def far_above(magnitudes: Array) -> Array | None:
    """A mask of the entries that are a thousand times all others, or more, and hold few different numbers; or None.

    They stand for something else than a size: the score of what is masked, the largest number there is.
    """
    large = magnitudes[magnitudes >= _LARGE]
    if not large.size or large.size == magnitudes.size:
        return None
    for number in np.unique(large)[:_MOST_DISTINCT]:
        below = magnitudes[magnitudes < number].max(initial=0.0)
        if 0 < below <= number * 2.0**-_FAR and np.unique(magnitudes[magnitudes >= number]).size <= _MOST_DISTINCT:
            return np.asarray(magnitudes >= number)
    return None
