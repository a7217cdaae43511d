"""Random choices and data for graphs, which depend on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from generators import dice
from generators.dice import T

Array = np.ndarray[Any, Any]


class Dice(dice.Dice):
    """Choices and data for graphs."""

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        total = sum(weight for _, weight in options)
        at = float(self.stream.random()) * total
        for option, weight in options:
            at -= weight
            if at < 0:
                return option
        return options[-1][0]

    def some(self, options: Sequence[T], low: int = 1) -> list[T]:
        """A subset of at least `low` elements, in random order."""
        return self.shuffled(options)[: self.between(min(low, len(options)), len(options))]

    def split(self, total: int, parts: int) -> list[int]:
        """Sizes that sum up to `total`; some of them may be 0."""
        cuts = sorted(self.between(0, total) for _ in range(parts - 1))
        return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]

    def normal(self, shape: Sequence[int], dtype: Any = np.float32) -> Array:
        """Data away from zero, so that rounding decides no comparison."""
        data = self.stream.standard_normal(tuple(shape))
        return np.asarray(data + 0.1 * np.sign(data)).astype(dtype)

    def positive(self, shape: Sequence[int], dtype: Any = np.float32) -> Array:
        return np.asarray(self.stream.uniform(0.4, 1.8, tuple(shape))).astype(dtype)

    def decade(self, decades: int) -> float:
        """A power of ten between the two that are so many decades away from one."""
        return 10.0 ** self.between(-decades, decades)

    def factor(self, shape: Sequence[int], dtype: Any = np.float32) -> Array:
        """Factors of either sign that neither vanish nor explode."""
        size = self.stream.uniform(0.4, 1.8, tuple(shape))
        sign = np.where(self.stream.random(tuple(shape)) < (0.35 if self.chance(0.6) else 0.0), -1.0, 1.0)
        return np.asarray(size * sign).astype(dtype)
