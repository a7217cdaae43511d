"""What segments of a contest say, and by which clock.

The verdict is by the wall clock, which is what a user waits for. Where other programs kept taking the cores, and the
wall clock cannot tell 5 % for that, it is by processor time, if that can tell less. How widely the ratios spread
decides, and the original against itself; which model is faster does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from bnfold.checks.session import CPU
from bnfold.checks.stats import RatioEstimate, Verdict, median_ratio, minimum_effect, verdict
from bnfold.checks.turns import CLOCKS, Clock, Segment, counts_processor_time

TARGET_EFFECT = 0.05
"""A measurement that can tell as little as this is precise enough."""


@dataclass(frozen=True)
class Finding:
    """Ratios before / after and of the original against itself by one clock, and the former by the wall clock.

    `shared` says that other programs took the cores.
    """

    clock: Clock
    ratio: RatioEstimate
    control: RatioEstimate
    wall: RatioEstimate
    shared: bool

    @property
    def verdict(self) -> Verdict:
        return verdict(self.ratio, self.control, shared=self.shared)

    @property
    def minimum_effect(self) -> float | None:
        return minimum_effect(self.ratio, self.control, shared=self.shared)

    @property
    def precise(self) -> bool:
        return self.minimum_effect is not None and self.minimum_effect <= TARGET_EFFECT


def find(segments: Sequence[Segment], clocks: Sequence[Clock], rng: np.random.Generator) -> Finding:
    """By the first of these clocks that is precise, or else by the one that comes nearest; the wall's is the first."""
    shared = any(segment.contended or not segment.spinning for segment in segments)
    openings = [list(group) for _, group in groupby(segments, key=lambda segment: segment.opening)]
    findings: list[Finding] = []
    for clock in clocks:
        ratio = median_ratio([np.concatenate([s.ratios(clock) for s in group]) for group in openings], rng)
        control = median_ratio([np.concatenate([s.control_ratios(clock) for s in group]) for group in openings], rng)
        findings.append(Finding(clock, ratio, control, findings[0].ratio if findings else ratio, shared))
        if findings[-1].precise:
            return findings[-1]
    return min(findings, key=lambda finding: np.inf if finding.minimum_effect is None else finding.minimum_effect)


def clocks_of(provider: str, spinning: bool) -> tuple[Clock, ...]:
    """The clocks whose times say something: a GPU's work and a spinning thread's are not processor time."""
    return CLOCKS if provider == CPU and not spinning and counts_processor_time() else CLOCKS[:1]
