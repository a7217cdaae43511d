"""What is counted or measured of two models, before and after, with units and the change: the tables of a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bnfold.results import Latency, Report

_BYTES_PER_MB = 1_000_000
_BYTES_PER_KB = 1_000
_HIDDEN_CHANGE = 0.0005
_MANIFOLD = 9.0


@dataclass(frozen=True)
class Measure:
    """One row: what it is, both values with their unit, and the change in words; all of it text."""

    label: str
    before: str
    after: str
    change: str = ""


def of_graph(report: Report) -> tuple[Measure, ...]:
    """What the model holds, and the size of its file; `after` is empty in every row if there is none yet."""
    before, after = report.before, report.after
    counts = (
        ("BatchNorm operators", before.batch_norms, after.batch_norms if after else None),
        ("Convolutions", before.convs, after.convs if after else None),
        ("Matrix products (Gemm, MatMul)", before.linears, after.linears if after else None),
        ("All operators", before.nodes, after.nodes if after else None),
    )
    rows = [_count(label, old, new) for label, old, new in counts]
    rows += _size("File size", before.file_bytes, after.file_bytes if after else None)
    return tuple(rows)


def of_files(latency: Iterable[Latency]) -> tuple[Measure, ...]:
    """The sizes of two files that were compared, as far as they are known."""
    sizes = {(row.file_before_bytes, row.file_after_bytes) for row in latency}
    return tuple(row for before, after in sizes for row in _size("File size", before, after))


def of_latency(row: Latency) -> tuple[Measure, ...]:
    """What one combination of provider and optimisation level took: times of runs, of starting, memory."""
    rows = [
        _time("Median run", row.before_ms, row.after_ms),
        _time("90 % of runs within", row.before_p90_ms, row.after_p90_ms),
        _time("99 % of runs within", row.before_p99_ms, row.after_p99_ms),
        _time("Session creation", row.init_before_ms, row.init_after_ms),
    ]
    if row.first_run_before_ms is not None and row.first_run_after_ms is not None:
        rows.append(_time("First run", row.first_run_before_ms, row.first_run_after_ms))
    rows += _size("Peak memory", row.memory_before_bytes, row.memory_after_bytes)
    return tuple(rows)


def _count(label: str, before: int, after: int | None) -> Measure:
    if after is None:
        return Measure(label, str(before), "")
    return Measure(label, str(before), str(after), _signed(after - before))


def _size(label: str, before: int | None, after: int | None) -> Iterator[Measure]:
    if before is not None:
        large = max(before, after or 0) >= _BYTES_PER_MB
        unit, scale = ("MB", _BYTES_PER_MB) if large else ("kB", _BYTES_PER_KB)
        yield _compared(label, before / scale, None if after is None else after / scale, unit)


def _time(label: str, before: float, after: float) -> Measure:
    return _compared(label, before, after, "ms")


def _compared(label: str, before: float, after: float | None, unit: str) -> Measure:
    if after is None:
        return Measure(label, f"{figure(before)} {unit}", "")
    return Measure(label, f"{figure(before)} {unit}", f"{figure(after)} {unit}", _percent(before, after))


def _percent(before: float, after: float) -> str:
    if not (math.isfinite(before) and math.isfinite(after)) or before <= 0:
        return ""
    change = after / before - 1
    if change > _MANIFOLD:
        return f"{change + 1:.0f} times"
    if abs(change) < _HIDDEN_CHANGE:
        return "0.0 %"
    return f"{'+' if change > 0 else '−'}{100 * abs(change):.1f} %"  # noqa: RUF001 - a real minus sign


def _signed(number: int) -> str:
    return f"{number:+d}".replace("-", "−") if number else "0"  # noqa: RUF001


def figure(value: float) -> str:
    """About three digits, never in powers of ten."""
    decimals = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 1 else 4
    return f"{value:.{decimals}f}"
