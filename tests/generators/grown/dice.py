"""Random choices that depend on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Array = np.ndarray[Any, Any]


class Dice:
    """A stream of random choices. The same seed gives the same stream on every machine."""

    def __init__(self, seed: int) -> None:
        self.stream = np.random.Generator(np.random.PCG64(seed))

    def chance(self, probability: float) -> bool:
        return bool(self.stream.random() < probability)

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return int(self.stream.integers(low, high + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.stream.integers(len(options)))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        total = sum(weight for _, weight in options)
        at = float(self.stream.random()) * total
        for option, weight in options:
            at -= weight
            if at < 0:
                return option
        return options[-1][0]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return [options[int(at)] for at in self.stream.permutation(len(options))]

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
