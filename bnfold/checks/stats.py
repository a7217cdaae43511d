"""Ratios of paired times, with an interval, and what may be said of them.

Times on a shared machine are neither normal nor independent: neighbouring rounds meet the same neighbours, and every
newly opened session has its own luck with memory. So the ratio is a median; its interval is a bootstrap of blocks of
rounds within resampled openings of the sessions (a hierarchical block bootstrap, percentile method); and what the
original does against itself is the yardstick.
"""

from __future__ import annotations

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
_SMALLEST_CLAIM = 0.02


@dataclass(frozen=True)
class RatioEstimate:
    """A median ratio and its 95 % interval; `blocks` is the number of values that the interval rests on."""

    value: float
    low: float
    high: float
    blocks: int


def median_ratio(openings: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> RatioEstimate:
    """Median and interval of ratios, one array of shape (rounds,) per opening of the sessions, in order of time."""
    logs = [np.log(ratios) for ratios in openings]
    per_opening = max(1, min(_BLOCKS // len(logs), *(len(values) for values in logs)))
    blocks = np.array([[np.median(block) for block in np.array_split(values, per_opening)] for values in logs])
    which_opening = rng.integers(len(logs), size=(_RESAMPLES, len(logs), 1))
    which_block = rng.integers(per_opening, size=(_RESAMPLES, len(logs), per_opening))
    medians = np.median(blocks[which_opening, which_block], axis=(1, 2))
    low, high = np.quantile(medians, (0.025, 0.975))
    value = np.median(np.concatenate(logs))
    # The median of all rounds and that of their blocks differ a little: the interval holds both.
    low, high = min(low, value), max(high, value)
    return RatioEstimate(float(np.exp(value)), float(np.exp(low)), float(np.exp(high)), blocks.size)


def verdict(ratio: RatioEstimate, control: RatioEstimate) -> Verdict:
    """What may be said of a ratio before / after, given that of the original against itself.

    A difference is claimed only if the interval excludes 1 and the ratio lies further from 1 than 2 % and than either
    end of the control's interval.
    """
    if min(ratio.blocks, control.blocks) < _LEAST_BLOCKS:
        return "no measurable difference"
    reach = max(1 + _SMALLEST_CLAIM, control.high, 1 / control.low)
    if ratio.low > 1 and ratio.value > reach:
        return "faster"
    if ratio.high < 1 and ratio.value < 1 / reach:
        return "slower"
    return "no measurable difference"
