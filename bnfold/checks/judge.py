"""The verdict on one output.

Per input tried, with `bound = atol + rtol * max|reference|` and `s` the largest change of the original's own answer
when its inputs move to neighbouring floating-point numbers:

1. `max|Δ| <= bound`: the output passes there.
2. `bound < max|Δ| <= 3 s`: set aside. The original does not hold its own answer to that tolerance there, so that the
   input cannot tell rounding from a fault. Correct folds of the one network in fourteen that needed this (mobileone_s0,
   on ordinary inputs) were measured at `max|Δ| / s` up to 1.5.
3. Otherwise, and where shapes, types, NaN or infinities differ: the output fails.

The output as a whole passes if it fails nowhere, passes somewhere, and the reference was a finite number somewhere.
The tolerance is never widened: what is set aside counts for nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from bnfold.checks.compare import Gap, Tolerance
from bnfold.results import OutputDifference

Status = Literal["passed", "set aside", "failed"]
Movement = Callable[[int], Gap]
"""The largest change of the original's output over that many nudges of its inputs."""

_ALLOWED_MOVEMENTS = 3.0
_NUDGES = 8
# Two nudges underestimate eight by less than this on every network measured: beyond it the other six would be wasted.
_GLANCE_NUDGES = 2
_HOPELESS_MOVEMENTS = 50.0


@dataclass(frozen=True)
class Case:
    """One output on one input and one provider."""

    feed: str
    provider: str
    gap: Gap
    bound: float
    status: Status
    moved: float | None = None

    @property
    def ratio(self) -> float:
        """The error in units of the bound; infinite where it cannot be measured."""
        if self.gap.problem is not None:
            return math.inf
        if self.bound == 0:
            return math.inf if self.gap.max_abs else 0.0
        return self.gap.max_abs / self.bound


def judge(feed: str, provider: str, gap: Gap, tolerance: Tolerance, movement: Movement) -> Case:
    """Steps 1 to 3 of the module's docstring. `movement` is called only if step 1 does not decide."""
    bound = tolerance.bound(gap.max_ref)
    if gap.problem is None and gap.max_abs <= bound:
        return Case(feed, provider, gap, bound, "passed")
    glance = movement(_GLANCE_NUDGES)
    if not _explains(glance, gap, _HOPELESS_MOVEMENTS):
        return Case(feed, provider, gap, bound, "failed", glance.max_abs)
    moved = movement(_NUDGES)
    status: Status = "set aside" if _explains(moved, gap, _ALLOWED_MOVEMENTS) else "failed"
    return Case(feed, provider, gap, bound, status, moved.max_abs)


def _explains(moved: Gap, gap: Gap, factor: float) -> bool:
    """Whether the original's own movement is of the kind and size of the gap."""
    if gap.problem is not None:
        return moved.problem == gap.problem
    if moved.problem is not None:
        return False
    return gap.max_abs <= factor * moved.max_abs and gap.mismatches <= factor * moved.mismatches


@dataclass
class OutputScore:
    """Everything seen of one output. `noise` holds, by feed, the error of the original at full optimisation."""

    name: str
    tolerance: Tolerance
    cases: list[Case] = field(default_factory=list)
    noise: dict[str, float] = field(default_factory=dict)

    def result(self) -> OutputDifference:
        """The verdict, told by the case that came nearest to its bound or furthest past it."""
        deciding = [case for case in self.cases if case.status != "set aside"]
        worst = max(deciding or self.cases, key=lambda case: case.ratio)
        detail = self._failure(worst, decided=bool(deciding))
        cosines = [case.gap.cosine for case in self.cases if case.gap.cosine is not None]
        rows = sum(case.gap.top1_rows for case in self.cases)
        return OutputDifference(
            name=self.name,
            max_abs=worst.gap.max_abs,
            max_rel=max(_relative(case.gap) for case in self.cases),
            tolerance=worst.bound,
            passed=detail is None,
            noise_floor=self.noise.get(worst.feed),
            cosine=min(cosines, default=None),
            top1_agreement=sum(case.gap.top1_hits for case in self.cases) / rows if rows else None,
            smallest_rtol=self._smallest_rtol(deciding),
            detail=detail if detail is not None else self._remark(worst),
        )

    def _failure(self, worst: Case, decided: bool) -> str | None:
        if worst.status == "failed":
            where = f"on input '{worst.feed}' ({worst.provider})"
            if worst.gap.problem is not None:
                return f"{worst.gap.problem} {where}"
            return f"error {worst.gap.max_abs:.2g} {where}, {worst.bound:.2g} allowed"
        if not any(case.gap.finite for case in self.cases):
            return "the original gives no finite value on any input tried, which proves nothing: give --input-data"
        if not decided:
            return f"undecided: {self._set_aside()}; allow more with --rtol or --atol, or give --input-data"
        return None

    def _remark(self, worst: Case) -> str | None:
        remarks = []
        if any(case.status == "set aside" for case in self.cases):
            remarks.append(self._set_aside())
        noise = self.noise.get(worst.feed, 0.0)
        if noise > _ALLOWED_MOVEMENTS * worst.bound:
            remarks.append(
                f"ONNX Runtime's own optimisations change the original by {noise:.2g}, "
                f"more than the {worst.bound:.2g} allowed here: its doing, not the fold's"
            )
        return "; ".join(remarks) or None

    def _set_aside(self) -> str:
        aside = [case for case in self.cases if case.status == "set aside"]
        moved = max(case.moved or 0.0 for case in aside)
        feeds = ", ".join(dict.fromkeys(f"'{case.feed}'" for case in aside))
        return (
            f"input {feeds} set aside, where rounding its last digit alone moves the original's answer by {moved:.2g}"
        )

    def _smallest_rtol(self, deciding: list[Case]) -> float | None:
        smallest = 0.0
        for case in deciding:
            excess = case.gap.max_abs - self.tolerance.atol
            if case.gap.problem is not None or (excess > 0 and case.gap.max_ref == 0):
                return None
            if excess > 0:
                smallest = max(smallest, excess / case.gap.max_ref)
        return smallest if deciding else None


def _relative(gap: Gap) -> float:
    """The error relative to the largest reference value; the largest float stands for more than it can hold."""
    if gap.max_abs == 0 or math.isinf(gap.max_abs):
        return gap.max_abs
    return min(gap.max_abs / max(gap.max_ref, sys.float_info.min), sys.float_info.max)
