"""Ratios of paired times, with an interval, and what may be said of them.

Times on a shared machine are neither normal nor independent: neighbouring rounds meet the same neighbours, and every
newly opened session has its own luck with memory. So the ratio is a median; its interval is a bootstrap of blocks of
rounds within resampled openings of the sessions (a hierarchical block bootstrap, percentile method); and what the
original does against itself is the yardstick.
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
# Openings of one and the same model differ by 1 % (standard deviation, measured), and hence two medians of n by
# 1 % * sqrt(1.5 / n), the original's being over twice as many: less than about three times that is not claimed.
_LUCK_OF_ONE_OPENING = 0.035


@dataclass(frozen=True)
class RatioEstimate:
    """A median ratio and its 95 % interval, from so many blocks of rounds in so many openings of the sessions."""

    value: float
    low: float
    high: float
    blocks: int
    openings: int


def median_ratio(openings: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> RatioEstimate:
    """Median and interval of ratios: per opening of the sessions one array, of shape (rounds,) or (rounds, k).

    Rounds are in order of time; the k ratios of one round stay together.
    """
    logs = [np.log(ratios) for ratios in openings]
    counts = np.array([min(max(1, _BLOCKS // len(logs)), len(values)) for values in logs])
    blocks = np.array(
        [np.median(block) for values, n in zip(logs, counts, strict=True) for block in np.array_split(values, n)]
    )
    firsts = np.cumsum(counts) - counts
    drawn = rng.integers(len(logs), size=(_RESAMPLES, len(logs), 1))
    within = rng.random((_RESAMPLES, len(logs), counts.max())) * counts[drawn]
    medians = np.median(blocks[firsts[drawn] + within.astype(np.intp)], axis=(1, 2))
    low, high = np.quantile(medians, (0.025, 0.975))
    value = np.median(np.concatenate([values.ravel() for values in logs]))
    # The median of all rounds and that of their blocks differ a little: the interval holds both.
    low, high = min(low, value), max(high, value)
    return RatioEstimate(float(np.exp(value)), float(np.exp(low)), float(np.exp(high)), blocks.size, len(logs))


def verdict(ratio: RatioEstimate, control: RatioEstimate) -> Verdict:
    """What may be said of a ratio before / after, given that of the original against itself.

    A difference is claimed only if the whole interval lies on one side of 1 and further from 1 than the control's
    ratio, in either direction, and the ratio itself further from 1 than the luck of opening sessions takes it: 3.5 %
    for one opening, less by the square root of their number.
    """
    if min(ratio.blocks, control.blocks) < _LEAST_BLOCKS:
        return "no measurable difference"
    reach = max(control.value, 1 / control.value)
    luck = 1 + _LUCK_OF_ONE_OPENING / math.sqrt(ratio.openings)
    if ratio.low > reach and ratio.value > luck:
        return "faster"
    if ratio.high < 1 / reach and ratio.value < 1 / luck:
        return "slower"
    return "no measurable difference"
