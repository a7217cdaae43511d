"""How far one array is from another, and how far it may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Array

_RTOL = {"float16": 1e-2, "bfloat16": 1e-2, "float32": 1e-4, "float64": 1e-9}
# Smallest normal numbers: below them a type has no relative precision and hardware may flush to zero. Subnormals of
# float16 are ordinary numbers in networks, so that there it is four times their spacing.
_ATOL = {"float16": 2.0**-22, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}


@dataclass(frozen=True)
class Tolerance:
    """The bound on an error, `atol + rtol * max|reference|`. Types other than floats default to equality."""

    rtol: float
    atol: float

    def bound(self, max_ref: float) -> float:
        return self.atol + self.rtol * max_ref


@dataclass(frozen=True)
class Gap:
    """The difference between a reference and a candidate array.

    Attributes:
        problem: why the two cannot be compared as numbers, or None.
        max_abs: largest `|candidate - reference|` over finite entries; infinite where shapes or types differ.
        max_ref: largest `|reference|` over finite entries.
        mismatches: number of entries that differ at all.
        finite: number of finite entries of the reference.
        cosine: of the angle between the two as vectors, finite entries only; None for a zero vector or non-numbers.
        top1_hits, top1_rows: of shape (N, classes), rows with the same largest class, and rows in all; else zero.
    """

    problem: str | None = None
    max_abs: float = 0.0
    max_ref: float = 0.0
    mismatches: int = 0
    finite: int = 0
    cosine: float | None = None
    top1_hits: int = 0
    top1_rows: int = 0


def tolerance_for(name: str, dtype: str, options: CheckOptions) -> Tolerance:
    """What `options` allow for this output, or the default of its type."""
    rtol = options.output_rtol.get(name, options.rtol)
    atol = options.output_atol.get(name, options.atol)
    return Tolerance(
        rtol=_RTOL.get(dtype, 0.0) if rtol is None else rtol,
        atol=_ATOL.get(dtype, 0.0) if atol is None else atol,
    )


def compare(reference: Array, candidate: Array) -> Gap:
    """Measure `candidate` against `reference`, arrays of any shape and type."""
    if reference.dtype != candidate.dtype:
        return Gap(f"type {candidate.dtype} instead of {reference.dtype}", max_abs=np.inf)
    if reference.shape != candidate.shape:
        return Gap(f"shape {candidate.shape} instead of {reference.shape}", max_abs=np.inf)
    if reference.dtype.kind not in "fiub":
        differing = int(np.count_nonzero(reference != candidate))
        return Gap(max_abs=1.0 if differing else 0.0, mismatches=differing, finite=reference.size)
    if reference.dtype.kind != "f":
        return _compare_exact(reference, candidate)
    return _compare_floats(reference.astype(np.float64), candidate.astype(np.float64))


def _compare_exact(reference: Array, candidate: Array) -> Gap:
    differing = int(np.count_nonzero(reference != candidate))
    wide = reference.astype(np.float64)
    distance = np.abs(candidate.astype(np.float64) - wide).max(initial=0.0)
    # Neighbouring 64-bit integers can round to the same float64.
    max_abs = max(float(distance), 1.0) if differing else 0.0
    return Gap(max_abs=max_abs, max_ref=float(np.abs(wide).max(initial=0.0)), mismatches=differing, finite=wide.size)


def _compare_floats(reference: Array, candidate: Array) -> Gap:
    finite = np.isfinite(reference)
    hits, rows = _top1(reference, candidate)
    if not np.array_equal(finite, np.isfinite(candidate)) or not np.array_equal(
        reference[~finite], candidate[~finite], equal_nan=True
    ):
        problem = _non_finite_problem(reference, candidate)
        finite &= np.isfinite(candidate)
    else:
        problem = None
    expected, got = reference[finite], candidate[finite]
    with np.errstate(over="ignore"):
        max_abs = float(np.abs(got - expected).max(initial=0.0))
    return Gap(
        problem=problem,
        max_abs=max_abs,
        max_ref=float(np.abs(expected).max(initial=0.0)),
        mismatches=int(np.count_nonzero(expected != got)),
        finite=expected.size,
        cosine=_cosine(expected, got),
        top1_hits=hits,
        top1_rows=rows,
    )


def _non_finite_problem(reference: Array, candidate: Array) -> str:
    for what, test in (("NaN", np.isnan), ("infinite", np.isinf)):
        before, after = test(reference), test(candidate)
        if not np.array_equal(before, after):
            return f"{np.count_nonzero(after)} {what} entries instead of {np.count_nonzero(before)}, or in other places"
    return "infinite entries of the other sign"


def _cosine(a: Array, b: Array) -> float | None:
    largest_a, largest_b = np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0)
    if largest_a == 0 or largest_b == 0:
        return None
    unit_a, unit_b = a / largest_a, b / largest_b  # squares of large entries would overflow
    cosine = np.dot(unit_a, unit_b) / (np.linalg.norm(unit_a) * np.linalg.norm(unit_b))
    return float(np.clip(cosine, -1.0, 1.0))


def _top1(reference: Array, candidate: Array) -> tuple[int, int]:
    if reference.ndim != 2 or reference.shape[1] < 2:
        return 0, 0
    usable = ~np.isnan(reference).any(axis=1)
    same = reference[usable].argmax(axis=1) == candidate[usable].argmax(axis=1)
    return int(np.count_nonzero(same)), int(np.count_nonzero(usable))
