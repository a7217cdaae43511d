"""Random choices that depend on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """A stream of random choices. The same seed gives the same stream on every machine."""

    def __init__(self, seed: int) -> None:
        self.stream = np.random.default_rng(seed)

    def chance(self, probability: float) -> bool:
        return bool(self.stream.random() < probability)

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return int(self.stream.integers(low, high + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.stream.integers(len(options)))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return [options[int(at)] for at in self.stream.permutation(len(options))]
