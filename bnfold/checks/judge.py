"""The verdict on one output.

Per input tried: O and F are the answers of the original and of the folded model as ONNX Runtime gives them, O* and F*
the same in float64, with the weights that are stored and without any rounding in between. `bound` is
`atol + rtol * max|O|`. Where both models can be run in float64:

1. `max|F* - O*| > bound`: the functions differ, and the output fails, whatever rounding makes of it. (Only in
   a model with jumps, such as rounding to integers, the input is set aside where moving the original's weights by half
   a step of their type moves O* as much.)
2. Otherwise `max|F - O| <= bound` or `max|F - O*| <= bound`: the output passes there.
3. Otherwise `max|F - O*| <= 3 max|O - O*|`: it passes too. The runtime rounds both answers by that much, the original's
   own error is of the same size, and by step 1 the functions agree.
4. Otherwise it fails: the folded model rounds worse than the original.

Where they cannot, with `s` the largest change of O when its inputs move to neighbouring floating-point numbers:

5. `max|F - O| <= bound`: the output passes there.
6. `max|F - O| <= 3 s`: set aside. The original does not hold its own answer to that tolerance there, so that the input
   cannot tell rounding from a fault. Correct folds of the one network in fourteen that needed this (mobileone_s0, on
   ordinary inputs) were measured at `max|F - O| / s` up to 1.5.
7. Otherwise it fails; and always where shapes, types, NaN or infinities differ.

The output as a whole passes if it fails nowhere, passes somewhere, and the reference was a finite number somewhere.
The tolerance is never widened: what is set aside counts for nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from bnfold.checks.compare import Gap, Tolerance
from bnfold.results import OutputDifference

Status = Literal["passed", "set aside", "failed"]
Movement = Callable[[int], Gap]
"""The largest change of the original's output over that many nudges of its inputs."""

_ALLOWED_MOVEMENTS = 3.0
_ALLOWED_ROUNDING = 3.0
_NUDGES = 8
# Two nudges underestimate eight by less than this on every network measured: beyond it the other six would be wasted.
_GLANCE_NUDGES = 2
_HOPELESS_MOVEMENTS = 50.0


@dataclass(frozen=True)
class Exactly:
    """Where the answers lie in float64: O (`before`) and F (`after`) from O*, and F* from O* (`between`).

    `weights_moved` gives the largest change of O* when the original's weights move by half a step of their type.
    """

    before: Gap
    after: Gap
    between: Gap
    weights_moved: Callable[[], float]


@dataclass(frozen=True)
class Case:
    """One output on one input and one provider. `error` is what was held against the bound."""

    feed: str
    provider: str
    gap: Gap
    bound: float
    status: Status
    error: float
    moved: float | None = None
    exactly: Exactly | None = None
    rounded: bool = False

    @property
    def ratio(self) -> float:
        """The error in units of the bound; infinite where it cannot be measured."""
        if self.gap.problem is not None:
            return math.inf
        if self.bound == 0:
            return math.inf if self.error else 0.0
        return self.error / self.bound


def judge(
    feed: str, provider: str, gap: Gap, tolerance: Tolerance, movement: Movement, exactly: Exactly | None = None
) -> Case:
    """Steps 1 to 7 of the module's docstring. `movement` is called only if nothing before step 6 decides."""
    bound = tolerance.bound(gap.max_ref)
    if exactly is not None and gap.problem is None:
        return _judge_exactly(Case(feed, provider, gap, bound, "passed", gap.max_abs, exactly=exactly), exactly)
    case = Case(feed, provider, gap, bound, "failed", gap.max_abs)
    if gap.problem is None and gap.max_abs <= bound:
        return replace(case, status="passed")
    glance = movement(_GLANCE_NUDGES)
    if not _explains(glance, gap, _HOPELESS_MOVEMENTS):
        return replace(case, moved=glance.max_abs)
    moved = movement(_NUDGES)
    status: Status = "set aside" if _explains(moved, gap, _ALLOWED_MOVEMENTS) else "failed"
    return replace(case, status=status, moved=moved.max_abs)


def _judge_exactly(case: Case, exactly: Exactly) -> Case:
    """Steps 1 to 4."""
    between, bound = exactly.between.max_abs, case.bound
    if exactly.between.problem is not None:
        return replace(case, status="failed", error=math.inf)
    if between > bound:
        moved = exactly.weights_moved()
        status: Status = "set aside" if between <= _ALLOWED_MOVEMENTS * moved else "failed"
        return replace(case, status=status, error=between, moved=moved)
    nearest = min(case.gap.max_abs, exactly.after.max_abs)
    if nearest <= bound:
        return replace(case, error=max(between, nearest))
    if exactly.after.max_abs <= _ALLOWED_ROUNDING * exactly.before.max_abs:
        return replace(case, error=between, rounded=True)
    return replace(case, status="failed", error=nearest)


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
        failure = self._failure(worst, decided=bool(deciding))
        exactly = [case.exactly for case in self.cases if case.exactly is not None]
        rows = sum(case.gap.top1_rows for case in self.cases)
        five_rows = sum(case.gap.top1_rows for case in self.cases if case.gap.has_five)
        return OutputDifference(
            name=self.name,
            max_abs=worst.error,
            max_rel=max(_relative(case.gap, case.error) for case in self.cases),
            tolerance=worst.bound,
            passed=failure is None,
            noise_floor=self.noise.get(worst.feed),
            cosine=_smallest(case.gap.cosine for case in self.cases),
            top1_agreement=sum(case.gap.top1_hits for case in self.cases) / rows if rows else None,
            smallest_rtol=self._smallest_rtol(deciding),
            detail=failure if failure is not None else self._remark(),
            input=worst.feed,
            abs_error=worst.gap.abs_error,
            rel_error=worst.gap.rel_error,
            snr_db=_smallest(case.gap.snr_db for case in self.cases),
            top5_agreement=sum(case.gap.top5_hits for case in self.cases) / (5 * five_rows) if five_rows else None,
            exact_before=max((item.before.max_abs for item in exactly), default=None),
            exact_after=max((item.after.max_abs for item in exactly), default=None),
            exact_difference=max((item.between.max_abs for item in exactly), default=None),
        )

    def own_noise(self) -> tuple[float, float] | None:
        """The largest error of the original at full optimisation that is past three times the bound, and the bound."""
        found = [(self.noise.get(case.feed, 0.0), case.bound) for case in self.cases]
        return max((pair for pair in found if pair[0] > _ALLOWED_MOVEMENTS * pair[1]), default=None)

    def _failure(self, worst: Case, decided: bool) -> str | None:
        if worst.status == "failed":
            where = f"on input '{worst.feed}' ({worst.provider})"
            if worst.gap.problem is not None:
                return f"{worst.gap.problem} {where}"
            if worst.exactly is not None and worst.exactly.between.problem is not None:
                return f"in float64, {worst.exactly.between.problem} {where}"
            if worst.exactly is not None and worst.exactly.between.max_abs > worst.bound:
                return f"in float64 the models differ by {worst.error:.2g} {where}, {worst.bound:.2g} allowed"
            return f"error {worst.error:.2g} {where}, {worst.bound:.2g} allowed{_own_error(worst)}"
        if not any(case.gap.finite for case in self.cases):
            nothing = "the original gives no finite value, or none at all, on any input tried, which proves nothing"
            return f"{nothing}: give --input-data"
        if not decided:
            return f"undecided: {self._set_aside()}; allow more with --rtol or --atol, or give --input-data"
        return None

    def _remark(self) -> str | None:
        remarks = []
        if any(case.status == "set aside" for case in self.cases):
            remarks.append(self._set_aside())
        rounded = [case for case in self.cases if case.rounded and case.exactly is not None]
        if rounded:
            worst = max(rounded, key=lambda case: case.exactly.after.max_abs if case.exactly else 0.0)
            remarks.append(
                f"on input {_feeds(rounded)} ONNX Runtime's rounding alone passes the {worst.bound:.2g} allowed"
                f"{_own_error(worst)}; in float64 the models differ by {worst.error:.2g}"
            )
        return "; ".join(remarks) or None

    def _set_aside(self) -> str:
        aside = [case for case in self.cases if case.status == "set aside"]
        moved = max(case.moved or 0.0 for case in aside)
        what = "its last digit" if aside[0].exactly is None else "the last digit of the weights"
        return (
            f"input {_feeds(aside)} set aside, where rounding {what} alone moves the original's answer by {moved:.2g}"
        )

    def _smallest_rtol(self, deciding: list[Case]) -> float | None:
        smallest = 0.0
        for case in deciding:
            excess = case.error - self.tolerance.atol
            if case.gap.problem is not None or (excess > 0 and case.gap.max_ref == 0) or math.isinf(excess):
                return None
            if excess > 0:
                smallest = max(smallest, excess / case.gap.max_ref)
        return smallest if deciding else None


def _feeds(cases: list[Case]) -> str:
    return ", ".join(dict.fromkeys(f"'{case.feed}'" for case in cases))


def _own_error(case: Case) -> str:
    if case.exactly is None:
        return ""
    before, after = case.exactly.before.max_abs, case.exactly.after.max_abs
    return f" (from the exact answer, the original is off by {before:.2g}, the folded model by {after:.2g})"


def _smallest(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _relative(gap: Gap, error: float) -> float:
    """An error relative to the largest reference value; the largest float stands for more than it can hold."""
    if error == 0 or math.isinf(error):
        return error
    return min(error / max(gap.max_ref, sys.float_info.min), sys.float_info.max)
