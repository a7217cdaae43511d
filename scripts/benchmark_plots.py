"""What the benchmark found, as pictures: what every tool leaves in every model, and how fast its outputs are."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark_page import Found, rows_of
from benchmark_rows import LEVELS, ORIGINAL, OURS, Row

# Without these every run would write other bytes, and every letter would be an outline.
_STYLE = {"svg.hashsalt": "bnfold", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
_MARKERS = "osD^vPX*<>"
_INCH_A_ROW = 0.34
_MARGIN = 1.15
_NARROW = (0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7, 2)
_WIDE = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1, 1.4, 2, 3, 5, 8, 12, 20, 50)
_CROWDED = 2.8


def draw(found: Found, folder: Path) -> bool:
    """Write the pictures that the rows have figures for; returns False where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib

    matplotlib.use("Agg")
    name = found["about"]["settings"]["name"]
    rows = [row for row in rows_of(found) if row.unjudged is None]
    tools = [tool for tool in found["about"]["tools"] if any(tool in row.results for row in rows)]
    with matplotlib.rc_context(_STYLE):
        if rows:
            _save(_left(rows, tools), folder / f"{name}-left.svg")
        if any(result.speeds for row in rows for result in row.results.values()):
            _save(_latency(rows, tools), folder / f"{name}-latency.svg")
    return True


def _left(rows: Sequence[Row], tools: Sequence[str]) -> Any:
    """A field per model and tool: the number of sites left, and their share of what there was as the colour."""
    import matplotlib.pyplot as plt
    import numpy as np

    shares = np.full((len(rows), len(tools)), np.nan)
    figure, axes = plt.subplots(figsize=(1.9 + 0.85 * len(tools), 1.1 + _INCH_A_ROW * len(rows)), layout="constrained")
    for y, row in enumerate(rows):
        for x, tool in enumerate(tools):
            result = row.results.get(tool)
            if result is None:
                text = "n/a"
            elif result.problem is not None:
                text = "fails"
            elif not result.passed:
                text = "wrong"
            else:
                text = f"{result.left}{'*' * bool(result.domains)}"
                shares[y, x] = (result.left or 0) / max(row.sites, 1)
            style = {"color": "firebrick", "weight": "bold"} if text in ("fails", "wrong") else {}
            axes.text(x, y, text, ha="center", va="center", **style)
    axes.imshow(shares, cmap="Oranges", vmin=0, vmax=1.4, aspect="auto")
    axes.set_xticks(range(len(tools)), tools, rotation=20, ha="right")
    axes.set_yticks(range(len(rows)), [f"{row.model} ({row.sites})" for row in rows])
    axes.tick_params(length=0)
    axes.set_title("BatchNorms and chains that spell one, left in the output (of)", loc="left", fontsize=9)
    axes.spines[:].set_visible(False)
    return figure


def _latency(rows: Sequence[Row], tools: Sequence[str]) -> Any:
    """A panel per level, a line per model: the time of every right output by that of bnfold's, with its interval."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rivals = [ORIGINAL, *(tool for tool in tools if tool != OURS)]
    size = (9.0, 1.5 + 1.15 * _INCH_A_ROW * len(rows))
    figure, panels = plt.subplots(1, len(LEVELS), figsize=size, sharey=True, layout="constrained")
    colours = plt.get_cmap("tab10")
    for axes, (level, title) in zip(panels, LEVELS.items(), strict=True):
        axes.axvline(1.0, color="black", linewidth=1)
        for number, rival in enumerate(rivals):
            points = [
                (y, result.speeds[level])
                for y, row in enumerate(rows)
                if (result := row.results.get(rival)) is not None and level in result.speeds
            ]
            if not points:
                continue
            shift = 0.6 * (number / max(len(rivals) - 1, 1) - 0.5)
            ratios = [speed.ratio for _, speed in points]
            axes.errorbar(
                ratios,
                [y + shift for y, _ in points],
                xerr=(
                    [max(speed.ratio - speed.ci95[0], 0) for _, speed in points],
                    [max(speed.ci95[1] - speed.ratio, 0) for _, speed in points],
                ),
                fmt=_MARKERS[number % len(_MARKERS)],
                color="black" if rival == ORIGINAL else colours(number - 1),
                markersize=4,
                elinewidth=0.8,
                label=rival,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        low, high = _reach(rows, level)
        axes.set_xlim(low, high)
        axes.set_xticks([value for value in (_WIDE if high > _CROWDED * low else _NARROW) if low <= value <= high])
        axes.set_title(f"ONNX Runtime, {title}", loc="left", fontsize=9)
        axes.set_xlabel("time / time of bnfold's output (right of 1: bnfold's is faster)", fontsize=8)
        axes.grid(axis="x", color="lightgrey", linewidth=0.5)
        for y in range(1, len(rows), 2):
            axes.axhspan(y - 0.5, y + 0.5, color="whitesmoke", zorder=0)
    panels[0].set_yticks(range(len(rows)), [row.model for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(rivals), 8), fontsize=8, frameon=False)
    return figure


def _reach(rows: Sequence[Row], level: str) -> tuple[float, float]:
    """From the lowest to the highest ratio, and some more; an interval may go further."""
    ratios = [result.speeds[level].ratio for row in rows for result in row.results.values() if level in result.speeds]
    return min(ratios, default=1.0) / _MARGIN, max(ratios, default=1.0) * _MARGIN


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
