"""A report as text for the terminal, or for the pipe or file that stands in for it."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnfold.report import words
from bnfold.report.tables import Grid, border_grid, cost_grid, graph_grid, latency_grid, output_grid, spread_grid
from bnfold.results import Comparison, Environment, Latency, Report, Verification

# Wide enough that no line of a report that goes into a pipe is ever broken or cut.
_UNBOUNDED = 100_000
_ASCII = str.maketrans({"─": "-"})
_JUSTIFY = {"l": "left", "r": "right"}


@dataclass(frozen=True)
class Screen:
    """Where text goes: its width in columns, whether styles are shown, and its encoding."""

    width: int
    styled: bool
    encoding: str

    @classmethod
    def of(cls, stream: TextIO) -> Screen:
        """The terminal that `stream` is; anything else gets neither styles nor a width."""
        encoding = getattr(stream, "encoding", None) or "utf-8"
        if not stream.isatty():
            return cls(_UNBOUNDED, False, encoding)
        styled = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(shutil.get_terminal_size().columns, styled, encoding)


def render(result: Report | Comparison, screen: Screen, *, verbose: bool = False) -> str:
    """The whole text, its last line ended; every character of it can be encoded for `screen`."""
    page = _Page(screen)
    if isinstance(result, Report):
        _report(page, result, verbose)
    else:
        _comparison(page, result, verbose)
    return page.text()


class _Page:
    """Collects styled lines and tables. Names in them are text, never markup."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._file = io.StringIO()
        self._console = Console(
            file=self._file,
            width=screen.width,
            force_terminal=screen.styled,
            color_system="auto" if screen.styled else None,
            legacy_windows=False,
            highlight=False,
        )

    def line(self, text: str, style: str = "", indent: int = 0) -> None:
        # Continuation lines of a wrapped sentence stand under its beginning.
        self._console.print(Padding(Text(text, style), (0, 0, 0, indent), expand=False))

    def lines(self, texts: Iterable[str], style: str = "", indent: int = 0) -> None:
        for text in texts:
            self.line(text, style, indent)

    def gap(self) -> None:
        self._console.print()

    def table(self, grid: Grid) -> None:
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for title, letter in zip(grid.header, grid.align, strict=True):
            table.add_column(Text(title), justify=_JUSTIFY[letter], overflow="fold")  # type: ignore[arg-type]
        for row in grid.rows:
            table.add_row(*map(Text, row))
        self._console.print(table)

    def text(self) -> str:
        text = "\n".join(line.rstrip() for line in self._file.getvalue().split("\n"))
        if not self._screen.encoding.lower().startswith("utf"):
            text = text.translate(_ASCII)
        return text.encode(self._screen.encoding, "backslashreplace").decode(self._screen.encoding)


def _report(page: _Page, report: Report, verbose: bool) -> None:
    plan = words.is_plan(report)
    page.table(graph_grid(report))
    page.gap()
    page.lines(words.summary(report), "bold")
    if plan or verbose:
        page.lines((words.folded_site(site) for site in report.sites if site.folded), indent=2)
    _kept(page, report)
    page.lines(f"note: {words.printable(note)}" for note in report.notes)
    if plan:
        return
    page.lines(words.certificates(report))
    if report.verification:
        page.gap()
        _verification(page, report.verification, "the folded model is", verbose)
    elif any(site.folded for site in report.sites):
        page.line("not verified: the folded model was not compared with the original", "yellow")
    if report.latency:
        page.gap()
        _latency(page, report.latency, ("the original", "the folded model"), verbose)
        page.gap()
    else:
        page.line("latency not measured")
    _environment(page, report.environment, verbose)
    if verbose and words.duration(report):
        page.line(f"took {words.duration(report)}")
    page.line(f"written: {words.printable(report.output_path)}" if report.output_path else "nothing was written")


def _kept(page: _Page, report: Report) -> None:
    if not report.kept:
        return
    page.line(f"{words.kept_summary(report)}:", "bold")
    reason = None
    for group in words.kept_groups(report):
        if group.reason != reason:
            page.line(group.reason, "yellow", indent=2)
            reason = group.reason
        names = ", ".join(map(words.printable, group.names))
        sentence = group.sentence()
        page.line(f"{names}: {sentence}" if sentence else names, indent=4)


def _comparison(page: _Page, comparison: Comparison, verbose: bool) -> None:
    if comparison.verification:
        page.table(output_grid(comparison.verification))
        page.gap()
        _verdict(page, comparison.verification, "the two models are", verbose)
    if comparison.latency:
        page.table(cost_grid(comparison.latency))
        page.gap()
        names = words.printable(comparison.original), words.printable(comparison.other)
        _latency(page, comparison.latency, names, verbose)
    _environment(page, comparison.environment, verbose)


def _latency(page: _Page, latency: tuple[Latency, ...], names: tuple[str, str], verbose: bool) -> None:
    page.table(latency_grid(latency, tails=verbose))
    page.gap()
    page.lines(words.latency(row, *names) for row in latency)
    page.lines(words.provider_settings(latency))
    disturbance = words.disturbance(latency)
    if disturbance:
        page.line(disturbance, "yellow")


def _environment(page: _Page, environment: Environment | None, verbose: bool) -> None:
    if verbose and environment is not None:
        page.line(f"machine: {words.environment(environment)}")


def _verification(page: _Page, verification: Verification, subject: str, verbose: bool) -> None:
    if verbose or not verification.passed:
        page.table(output_grid(verification))
        page.gap()
    _verdict(page, verification, subject, verbose)


def _verdict(page: _Page, verification: Verification, subject: str, verbose: bool) -> None:
    page.line(words.verdict(verification, subject), "green" if words.fold_passed(verification) else "bold red")
    page.lines(words.failures(verification), indent=2)
    if verification.proof:
        page.line(words.proof(verification.proof))
        page.lines(words.open_parts(verification.proof), indent=2)
    if verification.taken_back:
        page.line(words.taken_back(verification), "yellow")
    page.lines(map(words.culprit, verification.culprits), indent=2)
    named = len(verification.accuracy) > 1
    page.lines(words.accuracy(score, named=named) for score in verification.accuracy)
    page.lines(f"note: {words.printable(note)}" for note in verification.notes)
    if verification.border:
        page.gap()
        page.line(f"errors, against {words.printable(verification.border.reference)}:")
        page.table(border_grid(verification.border))
        page.gap()
        page.line(words.border(verification.border), "green" if verification.border.passed else "bold red")
        page.lines(words.border_failures(verification.border), indent=2)
    if verbose:
        spread = spread_grid(verification)
        if spread.rows:
            page.table(spread)
            page.gap()
        page.line(f"reference: {words.printable(verification.reference)}")
        if verification.exact:
            page.line(f"beside it: {words.printable(verification.exact)}")
        page.lines(f"input: {words.printable(text)}" for text in verification.inputs)
