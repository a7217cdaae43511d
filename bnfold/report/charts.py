"""Charts as SVG to stand inside a page, drawn by matplotlib.

Decisions. Colours are stand-ins that become CSS variables, so that a chart follows the page from light to dark. Text
stays text, in the page's face. No chart holds a name from a model: names stand beside it as HTML, where they can wrap.
Every chart is about 340 px wide, so that it needs no shrinking on a phone.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bnfold.results import Latency, OutputDifference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_WIDTH = 340
_POINTS_PER_INCH = 72
_MARGIN = 22  # px, room for half a label of the axis
_BELOW = 36  # px for the labels of the horizontal axis
_COLOURS = {"ink": "#010101", "muted": "#020202", "line": "#030303", "before": "#040404", "after": "#050505"}
_COLOURS |= {"bad": "#060606", "good": "#070707"}
_LEAST_RUNS = 10
_LEAST_BINS, _MOST_BINS = 8, 40
_REACH = 4
_MOST_STEPS = 5  # of an axis: labels of eight digits still stand apart

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bnfold",
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.edgecolor": _COLOURS["line"],
    "axes.labelcolor": _COLOURS["muted"],
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,  # a label is a number, not what is to be added to one
    "axes.spines.top": False,
    "axes.spines.right": False,
    "ytick.color": _COLOURS["muted"],
    "ytick.labelcolor": _COLOURS["muted"],
    "xtick.color": _COLOURS["muted"],
    "xtick.labelcolor": _COLOURS["muted"],
    "text.color": _COLOURS["ink"],
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def distribution(row: Latency) -> str:
    """How the times of single runs of both models are spread; empty where their quantiles mean little."""
    both = row.before_quantiles_ms, row.after_quantiles_ms
    if row.runs < _LEAST_RUNS or not all(len(quantiles) == 101 for quantiles in both):
        return ""
    low, high = _range(both)
    bins = min(_MOST_BINS, max(_LEAST_BINS, row.runs))
    width = (high - low or high * 0.01 or 1.0) / bins
    edges = [low + width * at for at in range(bins + 1)]
    with _axes(150) as (axes, svg):
        for quantiles, colour in zip(both, ("before", "after"), strict=True):
            middles = [(a + b) / 2 for a, b in pairwise(quantiles)]
            axes.hist(middles, edges, histtype="stepfilled", color=_COLOURS[colour], alpha=0.3, linewidth=0)
            axes.hist(middles, edges, histtype="step", color=_COLOURS[colour], linewidth=1.2)
            axes.axvline(quantiles[50], color=_COLOURS[colour], linewidth=1.5, linestyle="--")
        axes.set_xlabel("processor time of one run [ms]" if row.clock == "cpu" else "time of one run [ms]")
        axes.set_xlim(low - width, high + width)
    return "".join(svg)


def percent_beyond(row: Latency) -> int:
    """How many percent of the runs of either model are too slow to be in the drawing of their distribution."""
    both = row.before_quantiles_ms, row.after_quantiles_ms
    _, high = _range(both)
    return max(sum(quantile > high for quantile in quantiles[:100]) for quantiles in both)


def _range(both: Sequence[Sequence[float]]) -> tuple[float, float]:
    """From the fastest run to a few times the spread of the middle half beyond the slower median.

    Further out are runs that something else on the machine disturbed; with them the drawing would show nothing else.
    """
    low = min(quantiles[0] for quantiles in both)
    reach = max(quantiles[50] + _REACH * (quantiles[75] - quantiles[25]) for quantiles in both)
    return low, min(max(reach, low * 1.01), max(quantiles[100] for quantiles in both))


def ratio(row: Latency) -> str:
    """The ratio of times with its interval, and that of the original against itself, about the line of no change."""
    marks = ((row.ratio, row.ci95, "after"), (row.control_ratio, row.control_ci95, "muted"))
    bounds = [bound for _, interval, _ in marks for bound in interval] + [1.0]
    if not all(math.isfinite(bound) and bound > 0 for bound in bounds):
        return ""
    margin = max(0.02, 0.12 * (max(bounds) - min(bounds)))
    with _axes(96) as (axes, svg):
        axes.axvline(1.0, color=_COLOURS["line"], linewidth=1.2)
        for height, (value, (low, high), colour) in zip((1, 0), marks, strict=True):
            axes.plot([low, high], [height, height], color=_COLOURS[colour], linewidth=3, solid_capstyle="round")
            axes.plot([value], [height], "o", color=_COLOURS[colour], markersize=7)
        axes.set_ylim(-0.6, 1.6)
        axes.set_xlim(min(bounds) - margin, max(bounds) + margin)
        axes.set_xlabel("times the speed (1: the same)")
    return "".join(svg)


def error_limits(outputs: Iterable[OutputDifference]) -> tuple[float, float] | None:
    """Powers of ten between which the errors of all these outputs lie; None where there is nothing to draw."""
    values = [value for output in outputs for value, *_ in _marks(output)]
    values += [output.tolerance for output in outputs if _drawable(output.tolerance)]
    if not values:
        return None
    return _powers_around(values)


def _powers_around(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around positive numbers, with room on both sides."""
    return 10.0 ** math.floor(math.log10(min(values)) - 0.3), 10.0 ** math.ceil(math.log10(max(values)) + 0.3)


def errors(output: OutputDifference, limits: tuple[float, float]) -> str:
    """Where the errors of one output lie between nothing and what is allowed, on a logarithmic axis."""
    marks = _marks(output)
    with _axes(92) as (axes, svg):
        if _drawable(output.tolerance):
            axes.axvspan(limits[0], output.tolerance, color=_COLOURS["good"], alpha=0.12, linewidth=0)
            axes.axvline(output.tolerance, color=_COLOURS["good"], linewidth=1.5)
        drawn = [value for value, _, kind in marks if kind == "quantile"]
        if drawn:
            axes.plot([min(drawn), max(drawn)], [0, 0], color=_COLOURS["after"], linewidth=3, alpha=0.5)
        for value, label, kind in marks:
            colour = "muted" if kind == "noise" else "after" if output.passed else "bad"
            shape = {"noise": "D", "largest": "o", "quantile": "|"}[kind]
            axes.plot([value], [0], shape, color=_COLOURS[colour], markersize=7 if kind == "largest" else 9)
            if label:
                axes.annotate(label, (value, 0), (0, -13), textcoords="offset points", ha="center", fontsize=9)
        axes.set_xscale("log")
        _in_powers(axes.xaxis)
        axes.set_xlim(*limits)
        axes.set_ylim(-1, 1)
        axes.set_xlabel("absolute error")
    return "".join(svg)


def _marks(output: OutputDifference) -> list[tuple[float, str, str]]:
    """The values to mark on the axis of errors, each with a label and its kind; zero has no place there."""
    marks: list[tuple[float | None, str, str]] = [(output.noise_floor, "", "noise"), (output.max_abs, "", "largest")]
    if output.abs_error:
        spread = output.abs_error
        marks += [(spread.p50, "50 %", "quantile"), (spread.p99, "99 %", "quantile"), (spread.p999, "", "quantile")]
    return [(value, label, kind) for value, label, kind in marks if value is not None and _drawable(value)]


def _drawable(value: float) -> bool:
    """Whether a value has a place on a logarithmic axis; matplotlib overflows far outside the range of float32."""
    return 1e-40 < value < 1e40


def growth(values: Sequence[float]) -> str:
    """How an error changes from value to value down the graph, on a logarithmic axis."""
    points = [(at, value) for at, value in enumerate(values, 1) if _drawable(value)]
    if len(points) < 2:
        return ""
    from matplotlib.ticker import MaxNLocator

    with _axes(150, left=58) as (axes, svg):
        axes.plot(*zip(*points, strict=True), "o-", color=_COLOURS["after"], markersize=3.5, linewidth=1.5)
        axes.set_yscale("log")
        axes.set_ylim(*_powers_around([value for _, value in points]))
        _in_powers(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("place in the graph")
        axes.set_ylabel("relative error")
    return "".join(svg)


def _in_powers(axis: Axis) -> None:
    """Label whole powers of ten, at most seven of them, as 1e-06."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))


@contextmanager
def _axes(height: int, *, left: int = _MARGIN) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on, `left` px from the edge; their SVG is in the list afterwards."""
    # It warns, through logging, of slow first starts and of home directories that cannot be written.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    svg: list[str] = []
    with rc_context():
        rcdefaults()  # whatever the user has set for figures of his own
        rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
        bounds = (left / _WIDTH, _BELOW / height, 1 - (left + _MARGIN) / _WIDTH, 1 - (_BELOW + 6) / height)
        axes = figure.add_axes(bounds)
        axes.xaxis.set_major_locator(MaxNLocator(_MOST_STEPS))
        if left <= _MARGIN:
            axes.yaxis.set_visible(False)
            axes.spines["left"].set_visible(False)
        yield axes, svg
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_figure(buffer, metadata={"Date": None})
        svg.append(_for_a_page(buffer.getvalue()))


def _for_a_page(svg: str) -> str:
    """The SVG element alone: nothing that would act on the rest of the page, colours as the page's variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg class="chart" viewBox="\1" aria-hidden="true">', svg)
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)  # places, not labels
    svg = re.sub(r">\s+<", "><", svg.strip())
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def with_ids(svg: str, prefix: str) -> str:
    """The chart with ids that no other chart of the page has, and none that nobody refers to."""
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: f' id="{prefix}{match[1]}"' if match[1] in used else "", svg)
    return re.sub(r"(url\(|href=\")#", rf"\g<1>#{prefix}", svg)
