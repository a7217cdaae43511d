"""How far one array is from another, and how far it may be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Array
from bnfold.results import Quantiles
from bnfold.slices import Slices, far_above

_RTOL = {"float16": 1e-2, "bfloat16": 1e-2, "float32": 1e-4, "float64": 1e-9}
# Smallest normal numbers: below them a type has no relative precision and hardware may flush to zero. Subnormals of
# float16 are ordinary numbers in networks, so that there it is four times their spacing.
_ATOL = {"float16": 2.0**-22, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}

_FIVE = 5


@dataclass(frozen=True)
class Tolerance:
    """The bound on an error, `atol + rtol * max|reference|`. Types other than floats default to equality."""

    rtol: float
    atol: float

    def bound(self, max_ref: float) -> float:
        return self.atol + self.rtol * max_ref

    def bounds(self, sizes: Slices) -> Slices:
        """The bound of every slice of an array whose slices are judged by these sizes."""
        return sizes.times(self.rtol).plus(self.atol)


@dataclass(frozen=True)
class Gap:
    """The difference between a reference and a candidate array.

    Attributes:
        problem: why the two cannot be compared as numbers, or None.
        max_abs: largest `|candidate - reference|` over finite entries; infinite where shapes or types differ.
        max_ref: largest `|reference|` over finite entries.
        errors, sizes: the same by slice; of floats alone, else of the whole.
        mismatches: number of entries that differ at all.
        finite: number of finite entries of the reference.
        cosine: of the angle between the two as vectors, finite entries only; None for a zero vector or non-numbers.
        snr_db: energy of the reference over that of the error, in decibels; None without an error, or for non-numbers.
        abs_error, rel_error: quantiles of `|candidate - reference|`, and of it over `|reference|` entry by entry.
        top1_hits, top1_rows: of shape (N, classes), rows with the same largest class, and rows in all; else zero.
        top5_hits: of the five largest classes of every row, how many are the same; `has_five` where there are more.
    """

    problem: str | None = None
    max_abs: float = 0.0
    max_ref: float = 0.0
    mismatches: int = 0
    finite: int = 0
    cosine: float | None = None
    top1_hits: int = 0
    top1_rows: int = 0
    top5_hits: int = 0
    has_five: bool = False
    snr_db: float | None = None
    abs_error: Quantiles | None = None
    rel_error: Quantiles | None = None
    errors: Slices = field(default_factory=Slices)
    sizes: Slices = field(default_factory=Slices)

    def __post_init__(self) -> None:
        for name, number in (("errors", self.max_abs), ("sizes", self.max_ref)):
            if not getattr(self, name).numbers:
                object.__setattr__(self, name, Slices.single(number))


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


def distance(exact: Array, answer: Array) -> Gap:
    """How far a float answer of any type is from an exact one, where both are finite.

    An answer may overflow where the exact one does not, but not the other way round.
    """
    if exact.shape != answer.shape:
        return Gap(f"shape {answer.shape} instead of {exact.shape}", max_abs=np.inf)
    finite = np.isfinite(exact) & np.isfinite(answer)
    if np.count_nonzero(finite) < np.count_nonzero(np.isfinite(answer)):
        return Gap("not finite in float64, where the runtime's answer is", max_abs=np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.where(finite, np.abs(answer.astype(np.float64) - exact), 0.0)
    size = np.where(finite, np.abs(exact), 0.0)
    errors, sizes = _by_slice(error, size)
    return Gap(
        max_abs=float(error.max(initial=0.0)),
        max_ref=float(size.max(initial=0.0)),
        finite=int(np.count_nonzero(finite)),
        errors=errors,
        sizes=sizes,
    )


def larger(a: Gap, b: Gap) -> Gap:
    """The worse of two gaps in each respect."""
    worse = a if a.max_abs >= b.max_abs else b
    errors = a.errors.join(b.errors) if a.errors.numbers.keys() == b.errors.numbers.keys() else worse.errors
    problem, mismatches = a.problem or b.problem, max(a.mismatches, b.mismatches)
    return replace(worse, problem=problem, mismatches=mismatches, errors=errors)


def sizes_of(array: Array) -> Slices:
    """The sizes of a float array, of finite entries, slice by slice."""
    size = np.where(np.isfinite(array), np.abs(array.astype(np.float64)), 0.0)
    return Slices.largest(size, far_above(size), size)


def _by_slice(error: Array, size: Array) -> tuple[Slices, Slices]:
    """The errors and the sizes of an array, both magnitudes, slice by slice."""
    apart = far_above(size)
    return Slices.largest(error, apart, size), Slices.largest(size, apart, size)


def _compare_exact(reference: Array, candidate: Array) -> Gap:
    differing = int(np.count_nonzero(reference != candidate))
    wide = reference.astype(np.float64)
    distance = np.abs(candidate.astype(np.float64) - wide).max(initial=0.0)
    # Neighbouring 64-bit integers can round to the same float64.
    max_abs = max(float(distance), 1.0) if differing else 0.0
    return Gap(max_abs=max_abs, max_ref=float(np.abs(wide).max(initial=0.0)), mismatches=differing, finite=wide.size)


def _compare_floats(reference: Array, candidate: Array) -> Gap:
    finite = np.isfinite(reference)
    hits, rows, five = _top_classes(reference, candidate)
    if not np.array_equal(finite, np.isfinite(candidate)) or not np.array_equal(
        reference[~finite], candidate[~finite], equal_nan=True
    ):
        problem = _non_finite_problem(reference, candidate)
        finite &= np.isfinite(candidate)
    else:
        problem = None
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = np.where(finite, np.abs(candidate - reference), 0.0)
    errors, sizes = _by_slice(gaps, np.where(finite, np.abs(reference), 0.0))
    expected, got, error = reference[finite], candidate[finite], gaps[finite]
    return Gap(
        problem=problem,
        max_abs=float(error.max(initial=0.0)),
        max_ref=float(np.abs(expected).max(initial=0.0)),
        mismatches=int(np.count_nonzero(expected != got)),
        finite=expected.size,
        cosine=_cosine(expected, got),
        top1_hits=hits,
        top1_rows=rows,
        top5_hits=five,
        has_five=rows > 0 and reference.shape[1] > _FIVE,
        snr_db=_snr_db(expected, error),
        abs_error=_quantiles(error),
        rel_error=_quantiles(_ratios(error, np.abs(expected))),
        errors=errors,
        sizes=sizes,
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


def _snr_db(expected: Array, error: Array) -> float | None:
    largest, signal = error.max(initial=0.0), np.abs(expected).max(initial=0.0)
    if largest == 0 or signal == 0 or not np.isfinite(largest):
        return None
    # Scaled apart, or squares of large entries would overflow.
    ratio = np.linalg.norm(expected / signal) / np.linalg.norm(error / largest)
    return float(20 * (np.log10(ratio) + np.log10(signal) - np.log10(largest)))


def _ratios(error: Array, size: Array) -> Array:
    """The error of every entry relative to it; of an entry that is zero, zero or infinite."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(error == 0, 0.0, error / size)


def _quantiles(values: Array) -> Quantiles | None:
    """The higher of two neighbours where a quantile falls between: nothing is interpolated, infinities are kept."""
    if not values.size:
        return None
    return Quantiles(*map(float, np.quantile(values, (0.5, 0.9, 0.99, 0.999), method="higher")))


def _top_classes(reference: Array, candidate: Array) -> tuple[int, int, int]:
    """Rows with the same largest class, rows, and classes that are among the five largest in both."""
    if reference.ndim != 2 or reference.shape[1] < 2:
        return 0, 0, 0
    usable = ~np.isnan(reference).any(axis=1) & ~np.isnan(candidate).any(axis=1)
    rows = int(np.count_nonzero(~np.isnan(reference).any(axis=1)))
    a, b = reference[usable], candidate[usable]
    same = a.argmax(axis=1) == b.argmax(axis=1)
    if reference.shape[1] <= _FIVE:
        return int(np.count_nonzero(same)), rows, 0
    first, second = (np.argpartition(array, -_FIVE, axis=1)[:, -_FIVE:] for array in (a, b))
    five = sum(np.isin(x, y).sum() for x, y in zip(first, second, strict=True))
    return int(np.count_nonzero(same)), rows, int(five)
