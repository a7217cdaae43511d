"""The tables of a report as grids of cells, shared by the terminal and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from bnfold.report import words
from bnfold.report.words import error_size, printable
from bnfold.results import Border, Counts, Latency, Quantiles, Report, Verification

_BYTES_PER_MB = 1_000_000
_GRAPH_LABELS = ("BatchNorm", "Conv", "linear (Gemm, MatMul)", "nodes", "file size [MB]")


@dataclass(frozen=True)
class Grid:
    """A header and rows of the same length; `align` holds one letter per column, l or r."""

    header: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]


def graph_grid(report: Report) -> Grid:
    """What the model holds before and, where there is an after, after; with the session creation times measured."""
    rows = [*zip(_GRAPH_LABELS, _graph_cells(report.before), _graph_cells(report.after), strict=True)]
    rows += _session_rows(report.latency)
    name = printable(PurePath(report.source.path).name) if report.source.path else "model"
    if report.after is None:
        return Grid((name, "count"), "lr", tuple((label, before) for label, before, _ in rows if before))
    return Grid((name, "before", "after"), "lrr", tuple(row for row in rows if row[1] or row[2]))


def _graph_cells(counts: Counts | None) -> tuple[str, ...]:
    if counts is None:
        return ("",) * len(_GRAPH_LABELS)
    return (
        str(counts.batch_norms),
        str(counts.convs),
        str(counts.linears),
        str(counts.nodes),
        _megabytes(counts.file_bytes),
    )


def cost_grid(latency: Iterable[Latency]) -> Grid:
    """What else than latency two models cost: size, session creation, first runs, memory; as far as it was measured."""
    rows = tuple(latency)
    sizes = {(row.file_before_bytes, row.file_after_bytes) for row in rows}
    cells = [("file size [MB]", *map(_megabytes, pair)) for pair in sizes]
    for row in rows:
        cells += [(f"{what}, {words.setting(row)}", before, after) for what, before, after in _costs(row)]
    return Grid(("", "before", "after"), "lrr", tuple(cell for cell in cells if cell[1] or cell[2]))


def _session_rows(latency: Iterable[Latency]) -> list[tuple[str, str, str]]:
    return [
        (
            f"session creation [ms], {words.setting(row)}",
            _figure(row.init_before_ms),
            _figure(row.init_after_ms),
        )
        for row in latency
    ]


def _costs(row: Latency) -> Iterator[tuple[str, str, str]]:
    yield "session creation [ms]", _figure(row.init_before_ms), _figure(row.init_after_ms)
    if row.first_run_before_ms is not None and row.first_run_after_ms is not None:
        yield "first run [ms]", _figure(row.first_run_before_ms), _figure(row.first_run_after_ms)
    if row.memory_before_bytes is not None and row.memory_after_bytes is not None:
        yield "peak memory [MB]", _megabytes(row.memory_before_bytes), _megabytes(row.memory_after_bytes)


def _megabytes(size: int | None) -> str:
    return "" if size is None else _figure(size / _BYTES_PER_MB)


def _figure(value: float) -> str:
    """About three digits, never in powers of ten."""
    decimals = 1 if value >= 100 else 2 if value >= 1 else 4
    return f"{value:.{decimals}f}"


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.3f}-{bounds[1]:.3f}"


def output_grid(verification: Verification) -> Grid:
    """Every output with its error, its tolerance and what stands beside the verdict as information."""
    header = (
        "output",
        "error",
        "allowed",
        "relative error",
        "noise floor",
        "cosine",
        "top-1 agreement",
        "passes with rtol",
        "verdict",
    )
    rows = tuple(
        (
            printable(output.name),
            error_size(output.max_abs),
            error_size(output.tolerance),
            error_size(output.max_rel),
            "" if output.noise_floor is None else error_size(output.noise_floor),
            "" if output.cosine is None else f"{output.cosine:.8f}",
            "" if output.top1_agreement is None else f"{100 * output.top1_agreement:.2f} %",
            "" if output.smallest_rtol is None else error_size(output.smallest_rtol),
            "same" if output.passed else "DIFFERS",
        )
        for output in verification.outputs
    )
    return _without_empty_columns(Grid(header, "lrrrrrrrl", rows))


def spread_grid(verification: Verification) -> Grid:
    """Of every float output, how its errors are spread, and how far each model lies from the answer in float64."""
    header = (
        "spread of errors",
        *(f"{kind} {part}" for kind in ("abs", "rel") for part in ("50 %", "90 %", "99 %", "99.9 %")),
        "SNR [dB]",
        "top-5 agreement",
        "original's own error",
        "folded model's",
        "difference in float64",
    )
    rows = []
    for output in verification.outputs:
        if output.abs_error is None and output.exact_difference is None:
            continue
        exact = (output.exact_before, output.exact_after, output.exact_difference)
        rows.append(
            (
                printable(output.name),
                *_quantile_cells(output.abs_error),
                *_quantile_cells(output.rel_error),
                "" if output.snr_db is None else f"{output.snr_db:.1f}",
                "" if output.top5_agreement is None else f"{100 * output.top5_agreement:.2f} %",
                *("" if value is None else error_size(value) for value in exact),
            )
        )
    return _without_empty_columns(Grid(header, "l" + "r" * (len(header) - 1), tuple(rows)))


def _quantile_cells(quantiles: Quantiles | None) -> tuple[str, ...]:
    if quantiles is None:
        return ("",) * 4
    return tuple(map(error_size, (quantiles.p50, quantiles.p90, quantiles.p99, quantiles.p999)))


def border_grid(border: Border) -> Grid:
    """Every output with the errors of each form of the model, and that of the exporter with what it is allowed."""
    header = ("output", *border.forms, "exporter's error", "allowed", "verdict")
    rows = tuple(
        (
            printable(output.name),
            *map(error_size, (output.eager, output.exported, output.folded, output.export_error, output.tolerance)),
            "same" if output.passed else "DIFFERS",
        )
        for output in border.outputs
    )
    return Grid(header, "lrrrrrl", rows)


def latency_grid(latency: Iterable[Latency], *, tails: bool) -> Grid:
    """The medians with their ratio, interval and verdict; `tails` adds the percentiles, the control and the
    smallest difference that would have been found.
    """
    header = ["latency [ms]", "before", "after", "ratio", "95 % CI", "verdict"]
    align = "lrrrrl"
    if tails:
        header += [
            "p90 before",
            "p90 after",
            "p99 before",
            "p99 after",
            "control",
            "control 95 % CI",
            "detects",
            "runs",
        ]
        align += "rrrrrrrr"
    rows = []
    for row in latency:
        cells = [
            words.setting(row) + (", processor time" if row.clock == "cpu" else ""),
            _figure(row.before_ms),
            _figure(row.after_ms),
            f"{row.ratio:.3f}",
            _interval(row.ci95),
            words.latency_verdict(row),
        ]
        if tails:
            cells += [
                _figure(row.before_p90_ms),
                _figure(row.after_p90_ms),
                _figure(row.before_p99_ms),
                _figure(row.after_p99_ms),
                f"{row.control_ratio:.3f}",
                _interval(row.control_ci95),
                "" if row.minimum_effect is None else words.percentage(row.minimum_effect),
                str(row.runs),
            ]
        rows.append(tuple(cells))
    return Grid(tuple(header), align, tuple(rows))


def _without_empty_columns(grid: Grid) -> Grid:
    used = [i for i in range(len(grid.header)) if any(row[i] for row in grid.rows)]
    return Grid(
        tuple(grid.header[i] for i in used),
        "".join(grid.align[i] for i in used),
        tuple(tuple(row[i] for i in used) for row in grid.rows),
    )
