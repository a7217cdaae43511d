"""The verdict on one output.

Per input tried: O and F are the answers of the original and of the folded model as ONNX Runtime gives them, O* and F*
the same in float64, with the weights that are stored and without any rounding in between. Errors are held against their
bounds slice by slice (`bnfold.slices`): the whole, every channel, every place along another short axis has a bound of
its own, `atol + rtol * size`, its size the share of the whole that it has been seen to have on any input.

How much rounding can do to an answer is taken relative to the sizes of the slices, and from the slice where it does
most: a slice may hold a single number, which happens to be rounded well.

Float64 decides only where it agrees with the runtime on the original: `|O - O*|` is within the bounds, or at most ten
times what rounding can do, which is seen by running O* with every value moved by half a step. Then, in every slice:

1. `|F* - O*|` past the bound: the functions differ, and the output fails, whatever rounding makes of it. Two things
   are excused by `w`, how far O* moves when the original's weights move by half a step of their type. Where the bound
   of the whole is kept, a single slice may be off by 3 w: a channel that is small by cancellation is as exact as the
   weights that cancel (and by any amount where the models are proven part by part to be one function, so that nothing
   but the rounding of weights is left). And in a model with jumps, such as rounding to integers, the input is set
   aside where w is as large as the difference.
2. Otherwise `|F - O|` or `|F - O*|` within the bound: the output passes there.
3. Otherwise `|F - O*| <= 3 |O - O*|`: it passes too. The runtime rounds both answers by that much, the original's
   own error is of the same size, and by step 1 the functions agree. So it does where F* is that of the folded
   constants as they were before they were rounded to a type coarser than the output's, and F lies so to float64 with
   the constants as they are stored: they hold no more.
4. Otherwise it fails: the folded model rounds worse than the original. (Across the border of a framework it passes:
   there, the runtime's rounding is on the folded side alone, and by step 1 the file is the function that was exported.)

Where float64 does not agree with the runtime, the float64 interpreter is wrong, which is told; the case is then decided
as where a model cannot be run so. With `s` the largest change of O when its inputs move:

5. `|F - O|` within the bounds: the output passes there.
6. `|F - O| <= 3 s`: set aside. The original does not hold its own answer to that tolerance there, so that the input
   cannot tell rounding from a fault. Correct folds of the one network in fourteen that needed this (mobileone_s0, on
   ordinary inputs) were measured at `|F - O| / s` up to 1.5.
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
from bnfold.slices import WHOLE, Place, Slices

Status = Literal["passed", "set aside", "failed"]
Movement = Callable[[int], Gap]
"""The largest change of the original's output over that many nudges of its inputs."""

_ALLOWED_MOVEMENTS = 3.0
_ALLOWED_ROUNDING = 3.0
_AGREEING_ROUNDINGS = 10.0
_NUDGES = 8
# Two nudges underestimate eight by less than this on every network measured: beyond it the other six would be wasted.
_GLANCE_NUDGES = 2
_HOPELESS_MOVEMENTS = 50.0


@dataclass(frozen=True)
class Exactly:
    """Where the answers lie in float64: O (`before`) and F (`after`) from O*, and F* from O* (`between`).

    `weights_moved` gives the largest change of O* when the original's weights move by half a step of their type,
    `rounding` that when every value does; None where float64 is believed whatever the runtime says. `is_enough` says
    that the runtime's rounding counts for nothing. `beside_stored` gives F from float64 with constants as they are
    stored, where F* is another. `jumps` says whether O* is not continuous, `proven` whether both are one function but
    for the rounding of weights.
    """

    before: Gap
    after: Gap
    between: Gap
    weights_moved: Callable[[], Gap]
    rounding: Callable[[], Gap | None] = lambda: None
    is_enough: bool = False
    beside_stored: Callable[[], Gap | None] = lambda: None
    jumps: bool = False
    proven: bool = False


@dataclass(frozen=True)
class Case:
    """One output on one input and one provider.

    `sizes` are those that errors are judged by, and `decided` the errors that were held against the `bounds`, from
    float64 if `by_float64`. `disputed` says that float64 did not agree with the runtime on the original.
    """

    feed: str
    provider: str
    gap: Gap
    sizes: Slices
    bounds: Slices
    status: Status
    decided: Slices
    by_float64: bool = False
    disputed: bool = False
    moved: float | None = None
    exactly: Exactly | None = None
    rounded: bool = False

    @property
    def place(self) -> Place:
        """Where it came nearest to its bound or went furthest past it; infinite where errors cannot be measured."""
        return self.decided.over(self.bounds) if self.gap.problem is None else Place(math.inf)

    @property
    def error(self) -> float:
        """The error there."""
        return self.decided.number(self.place)

    @property
    def bound(self) -> float:
        """The bound there."""
        return self.bounds.number(self.place)


def judge(
    feed: str,
    provider: str,
    gap: Gap,
    tolerance: Tolerance,
    movement: Movement,
    exactly: Exactly | None = None,
    shares: Slices | None = None,
) -> Case:
    """Steps 1 to 7 of the module's docstring. `movement` is called only if nothing before decides.

    `shares` are the largest that slices have been seen to have of the whole; None stands for those of this input.
    """
    sizes = gap.sizes.to_judge_by(gap.sizes.shares() if shares is None else shares)
    bounds = tolerance.bounds(sizes)
    case = Case(feed, provider, gap, sizes, bounds, "failed", gap.errors, exactly=exactly)
    if exactly is not None and gap.problem is None:
        if _agrees(exactly, case):
            return _judge_exactly(case, exactly)
        case = replace(case, disputed=True)
    if gap.problem is None and gap.errors.within(bounds):
        return replace(case, status="passed")
    glance = movement(_GLANCE_NUDGES)
    if not _explains(glance, case, _HOPELESS_MOVEMENTS):
        return replace(case, moved=glance.max_abs)
    moved = movement(_NUDGES)
    status: Status = "set aside" if _explains(moved, case, _ALLOWED_MOVEMENTS) else "failed"
    return replace(case, status=status, moved=moved.max_abs)


def _agrees(exactly: Exactly, case: Case) -> bool:
    """Whether float64 and the runtime compute the same of the original, up to rounding."""
    before = exactly.before
    if before.problem is not None:
        return False
    if before.errors.within(case.bounds):
        return True
    rounding = exactly.rounding()
    return rounding is None or before.errors.within(_with_rounding(case, rounding, _AGREEING_ROUNDINGS))


def _with_rounding(case: Case, rounding: Gap, factor: float) -> Slices:
    """The bounds, or where that is more, so many times what rounding does."""
    ratio = rounding.errors.over(case.sizes).ratio
    errors = case.sizes.times(ratio) if math.isfinite(ratio) else rounding.errors  # of an answer that is zero
    return case.bounds.join(errors.times(factor))


def _judge_exactly(case: Case, exactly: Exactly) -> Case:
    """Steps 1 to 4."""
    between, bounds = exactly.between, case.bounds
    case = replace(case, by_float64=True)
    if between.problem is not None:
        return replace(case, decided=Slices.single(math.inf))
    if not between.errors.within(bounds):
        is_rounding = exactly.proven and between.errors.whole <= bounds.whole
        moved = between if is_rounding else exactly.weights_moved()
        case = replace(case, decided=between.errors, moved=moved.max_abs)
        bounds = _with_rounding(case, moved, _ALLOWED_MOVEMENTS).of_whole(bounds.whole)
        if not between.errors.within(bounds):
            is_jump = exactly.jumps and between.max_abs <= _ALLOWED_MOVEMENTS * moved.max_abs
            return replace(case, status="set aside" if is_jump else "failed")
        case = replace(case, bounds=bounds)
    nearest = case.gap.errors.meet(exactly.after.errors)
    if nearest.within(bounds):
        by_float64 = not case.gap.errors.within(bounds)
        return replace(case, status="passed", decided=between.errors.join(nearest), by_float64=by_float64)
    allowed = _with_rounding(case, exactly.before, _ALLOWED_ROUNDING)
    if exactly.is_enough or nearest.within(allowed) or _is_as_stored(exactly, allowed):
        return replace(case, status="passed", decided=between.errors, rounded=True)
    return replace(case, decided=nearest)


def _is_as_stored(exactly: Exactly, allowed: Slices) -> bool:
    stored = exactly.beside_stored()
    return stored is not None and stored.problem is None and stored.errors.within(allowed)


def _explains(moved: Gap, case: Case, factor: float) -> bool:
    """Whether the original's own movement is of the kind and size of the gap."""
    gap = case.gap
    if gap.problem is not None:
        return moved.problem == gap.problem
    if moved.problem is not None or gap.mismatches > factor * moved.mismatches:
        return False
    return gap.errors.within(_with_rounding(case, moved, factor))


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
        worst = max(deciding or self.cases, key=lambda case: case.place.ratio)
        failure = self._failure(worst, decided=bool(deciding))
        exactly = [case.exactly for case in self.cases if case.exactly is not None]
        rows = sum(case.gap.top1_rows for case in self.cases)
        five_rows = sum(case.gap.top1_rows for case in self.cases if case.gap.has_five)
        place = worst.place
        return OutputDifference(
            name=self.name,
            max_abs=worst.gap.max_abs,
            max_rel=max(_relative(case.gap) for case in self.cases),
            tolerance=worst.bounds.whole,
            passed=failure is None,
            decided_by="float64" if worst.by_float64 else "runtime",
            place=None if place.key == WHOLE else str(place),
            place_error=worst.error,
            place_tolerance=worst.bound,
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

    @property
    def disputed(self) -> list[Case]:
        """The cases in which float64 does not agree with the runtime on the original."""
        return [case for case in self.cases if case.disputed]

    def own_noise(self) -> tuple[float, float] | None:
        """The largest error of the original at full optimisation that is past three times the bound, and the bound."""
        found = [(self.noise.get(case.feed, 0.0), case.bounds.whole) for case in self.cases]
        return max((pair for pair in found if pair[0] > _ALLOWED_MOVEMENTS * pair[1]), default=None)

    def _failure(self, worst: Case, decided: bool) -> str | None:
        if worst.status == "failed":
            where = f"on input '{worst.feed}' ({worst.provider})"
            if worst.gap.problem is not None:
                return f"{worst.gap.problem} {where}"
            if worst.exactly is not None and worst.by_float64 and worst.exactly.between.problem is not None:
                return f"in float64, {worst.exactly.between.problem} {where}"
            at = "" if worst.place.key == WHOLE else f" at {worst.place}"
            if worst.exactly is not None and worst.by_float64 and worst.decided is worst.exactly.between.errors:
                return f"in float64 the models differ by {worst.error:.2g}{at} {where}, {worst.bound:.2g} allowed"
            return f"error {worst.error:.2g}{at} {where}, {worst.bound:.2g} allowed{_own_error(worst)}"
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
        rounded = [case for case in self.cases if case.rounded or (case.by_float64 and case.status == "passed")]
        if rounded:
            worst = max(rounded, key=lambda case: case.gap.errors.over(case.bounds).ratio)
            place = worst.gap.errors.over(worst.bounds)
            remarks.append(
                f"on input {_feeds(rounded)} ONNX Runtime's rounding alone passes the "
                f"{worst.bounds.number(place):.2g} allowed{_own_error(worst)}; "
                f"in float64 the models differ by {worst.exactly.between.max_abs if worst.exactly else 0.0:.2g}"
            )
        return "; ".join(remarks) or None

    def _set_aside(self) -> str:
        aside = [case for case in self.cases if case.status == "set aside"]
        moved = max(case.moved or 0.0 for case in aside)
        what = "the last digit of the weights" if aside[0].by_float64 else "its last digit"
        return (
            f"input {_feeds(aside)} set aside, where rounding {what} alone moves the original's answer by {moved:.2g}"
        )

    def _smallest_rtol(self, deciding: list[Case]) -> float | None:
        """The smallest relative tolerance with which all of these would pass, if there is one."""
        smallest = 0.0
        for case in deciding:
            ratio = case.decided.less(self.tolerance.atol).over(case.sizes).ratio
            if case.gap.problem is not None or not math.isfinite(ratio):
                return None
            smallest = max(smallest, ratio)
        return smallest if deciding else None


def _feeds(cases: list[Case]) -> str:
    return ", ".join(dict.fromkeys(f"'{case.feed}'" for case in cases))


def _own_error(case: Case) -> str:
    if case.exactly is None or case.disputed:
        return ""
    before, after = case.exactly.before.max_abs, case.exactly.after.max_abs
    return f" (from the exact answer, the original is off by {before:.2g}, the folded model by {after:.2g})"


def _smallest(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _relative(gap: Gap) -> float:
    """An error relative to the largest reference value; the largest float stands for more than it can hold."""
    if gap.max_abs == 0 or math.isinf(gap.max_abs):
        return gap.max_abs
    return min(gap.max_abs / max(gap.max_ref, sys.float_info.min), sys.float_info.max)
