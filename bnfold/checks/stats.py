"""Ratios of paired times, with an interval, and what may be said of them.

Times on a shared machine are neither normal nor independent: neighbouring rounds meet the same neighbours, and every
newly opened session has its own luck with memory. So the ratio is a median; its interval is a bootstrap of blocks of
rounds within resampled openings of the sessions (a hierarchical block bootstrap, percentile method), widened by the
luck of the openings, as far as that is known beforehand; and what the original does against itself is the yardstick.
What a measurement could not have seen is stated with it.

Two decisions were made on 15 recorded measurements of 20 s, of a model against itself, with load averages of 8 to 11 on
two cores. Blocks are of as many rounds each: as long as every opening had as many blocks, one that got a handful of
rounds made the interval useless. And openings are resampled only where there are four of equal length, or as much:
of two or three, a bootstrap knows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["faster", "slower", "no measurable difference"]

_RESAMPLES = 2000
_BLOCKS = 24
# Below this the percentile interval of a median is no 95 % interval, whatever the times.
_LEAST_BLOCKS = 6
_LEAST_OPENINGS = 4
# Openings of one and the same model differ by 1 % (standard deviation, measured), and hence two medians of n by
# 1 % * sqrt(1.5 / n), the original's being over twice as many.
_LUCK_OF_ONE_OPENING = 0.01 * math.sqrt(1.5)
_LEAST_CLAIM = 0.035  # about three times that
# Standard normal quantiles: of a 95 % interval's ends, and of what happens four times in five.
_TWO_SIDED_95 = 1.96
_ONE_SIDED_80 = 0.84


@dataclass(frozen=True)
class RatioEstimate:
    """A median ratio and its 95 % interval, from so many blocks of rounds in so many openings of the sessions.

    Openings of unequal length count as fewer: the square of the number of rounds / the sum of the squares.
    """

    value: float
    low: float
    high: float
    blocks: int
    openings: float

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high


def median_ratio(openings: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> RatioEstimate:
    """Median and interval of ratios: per opening of the sessions one array, of shape (rounds,) or (rounds, k).

    Rounds are in order of time; the k ratios of one round stay together.
    """
    logs = [np.log(ratios) for ratios in openings]
    rounds = np.array([len(values) for values in logs])
    effective = float(rounds.sum() ** 2 / np.square(rounds).sum())
    counts = np.clip(np.rint(rounds * _BLOCKS / rounds.sum()).astype(int), 1, rounds)
    blocks = [
        np.array([np.median(block) for block in np.array_split(values, n)])
        for values, n in zip(logs, counts, strict=True)
    ]
    medians = _resampled_medians(blocks if effective >= _LEAST_OPENINGS else [np.concatenate(blocks)], rng)
    low, high = np.quantile(medians, (0.025, 0.975))
    value = float(np.median(np.concatenate([values.ravel() for values in logs])))
    luck = _TWO_SIDED_95 * _LUCK_OF_ONE_OPENING / math.sqrt(effective)
    # The median of all rounds and that of their blocks differ a little: the interval holds both.
    low = value - math.hypot(max(0.0, value - low), luck)
    high = value + math.hypot(max(0.0, high - value), luck)
    return RatioEstimate(math.exp(value), math.exp(low), math.exp(high), int(counts.sum()), effective)


def _resampled_medians(groups: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> NDArray[np.float64]:
    """Medians of values in resampled groups, each of its own size."""
    sizes = np.array([len(group) for group in groups])
    padded = np.full((len(groups), sizes.max()), np.nan)
    for row, group in zip(padded, groups, strict=True):
        row[: len(group)] = group
    drawn = rng.integers(len(groups), size=(_RESAMPLES, len(groups)))
    within = (rng.random((*drawn.shape, sizes.max())) * sizes[drawn][:, :, None]).astype(np.intp)
    values = np.where(np.arange(sizes.max()) < sizes[drawn][:, :, None], padded[drawn[:, :, None], within], np.nan)
    return np.asarray(np.nanmedian(values.reshape(_RESAMPLES, -1), axis=1))


def verdict(ratio: RatioEstimate, control: RatioEstimate, *, shared: bool) -> Verdict:
    """What may be said of a ratio before / after, given that of the original against itself.

    A difference is claimed only if the whole interval lies on one side of 1 and further from 1 than the control's
    ratio, in either direction, and the ratio itself further from 1 than the luck of opening sessions takes it: 3.5 %
    for one opening, less by the square root of their number. On a `shared` machine it is 3.5 % for any number: there,
    a model has been seen 2 % from itself in each of six openings.
    """
    if min(ratio.blocks, control.blocks) < _LEAST_BLOCKS:
        return "no measurable difference"
    reach, least = _reach(control), _least_claim(ratio, shared)
    if ratio.low > reach and ratio.value > least:
        return "faster"
    if ratio.high < 1 / reach and ratio.value < 1 / least:
        return "slower"
    return "no measurable difference"


def minimum_effect(ratio: RatioEstimate, control: RatioEstimate, *, shared: bool) -> float | None:
    """The smallest relative difference that `verdict` finds four times in five, by the spread of these ratios.

    The minimum detectable effect at a power of 80 %: what the rule asks for, plus 0.84 standard errors, which are the
    interval's wider half / 1.96. None where the rule finds nothing. Says nothing of which model is faster.
    """
    if min(ratio.blocks, control.blocks) < _LEAST_BLOCKS:
        return None
    half = max(math.log(ratio.high / ratio.value), math.log(ratio.value / ratio.low))
    asked = max(math.log(_reach(control)) + half, math.log(_least_claim(ratio, shared)))
    return math.expm1(asked + _ONE_SIDED_80 * half / _TWO_SIDED_95)


def _reach(control: RatioEstimate) -> float:
    """How far the original is from itself, as a factor of 1 or more."""
    return max(control.value, 1 / control.value)


def _least_claim(ratio: RatioEstimate, shared: bool) -> float:
    return 1 + _LEAST_CLAIM / (1 if shared else math.sqrt(ratio.openings))
