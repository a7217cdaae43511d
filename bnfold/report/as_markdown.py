"""A report as Markdown, to be attached to a change or a release: everything that the terminal says with --verbose."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bnfold.report import words
from bnfold.report.tables import Grid, border_grid, cost_grid, graph_grid, latency_grid, output_grid, spread_grid
from bnfold.results import Border, Comparison, Environment, Latency, Report, Verification

_LINK = re.compile(r"\](?=[(\[:])")
_RULE = {"l": "---", "r": "---:"}


def dumps(result: Report | Comparison) -> str:
    """Markdown text with a line break at the end."""
    lines = _report(result) if isinstance(result, Report) else _comparison(result)
    return "\n".join(lines) + "\n"


def _report(report: Report) -> Iterator[str]:
    source = report.source
    yield f"# bnfold {'inspect' if words.is_plan(report) else 'convert'}: {_code(source.path or 'model')}"
    yield ""
    origin = f"bnfold {report.version}"
    origin += f", opset {source.opset}, IR version {source.ir_version}" if source.opset is not None else ""
    yield origin + (f", SHA-256 `{source.sha256}`" if source.sha256 else "")
    yield ""
    yield from _table(graph_grid(report))
    yield ""
    yield from _items(words.summary(report))
    if report.output_path:
        yield f"- written: {_code(report.output_path)}"
    elif not words.is_plan(report):
        yield "- nothing was written"
    yield from _items(words.certificates(report))
    yield from _items(report.notes)
    if words.duration(report):
        yield f"- took {words.duration(report)}"
    yield from _sites(report)
    if report.verification:
        yield from _verification(report.verification, "the folded model is")
    if report.latency:
        yield from _latency(report.latency, "the original", "the folded model")
    yield from _environment(report.environment)


def _comparison(comparison: Comparison) -> Iterator[str]:
    original, other = _code(comparison.original), _code(comparison.other)
    yield f"# bnfold {'verify' if comparison.verification else 'bench'}: {original}, {other}"
    yield ""
    yield f"bnfold {comparison.version}"
    if comparison.verification:
        yield from _verification(comparison.verification, "the two models are")
    if comparison.latency:
        yield from _heading("Cost")
        yield from _table(cost_grid(comparison.latency))
        yield from _latency(comparison.latency, original, other)
    yield from _environment(comparison.environment)


def _sites(report: Report) -> Iterator[str]:
    folded = [site for site in report.sites if site.folded]
    if folded:
        would = "Would fold" if words.is_plan(report) else "Folded"
        yield from _heading(would)
        rows = tuple(
            (
                _code(site.name),
                site.op,
                str(site.direction or ""),
                ", ".join(map(_code, site.into)),
                ", ".join(map(_code, site.through)),
            )
            for site in folded
        )
        yield from _table(Grid(("site", "kind", "direction", "into", "through"), "lllll", rows), escaped=True)
    if report.kept:
        yield from _heading("Stay")
        rows = tuple(
            (_code(site.name), site.op, f"`{site.reason}`", _code(site.blocker or ""), _text(site.detail or ""))
            for site in report.kept
        )
        yield from _table(Grid(("site", "kind", "reason", "blocked by", "why"), "lllll", rows), escaped=True)


def _verification(verification: Verification, subject: str) -> Iterator[str]:
    yield from _heading("Verification")
    yield words.verdict(verification, subject)
    yield ""
    yield f"Reference: {_text(verification.reference)}"
    yield ""
    if verification.exact:
        yield f"Beside it: {_text(verification.exact)}"
        yield ""
    yield from _table(output_grid(verification))
    yield ""
    spread = spread_grid(verification)
    if spread.rows:
        yield from _table(spread)
        yield ""
    yield from _items(words.failures(verification))
    if verification.proof:
        yield from _items((words.proof(verification.proof), *words.open_parts(verification.proof)))
    if verification.taken_back:
        yield from _items((words.taken_back(verification),))
    yield from _items(map(words.culprit, verification.culprits))
    named = len(verification.accuracy) > 1
    yield from _items(words.accuracy(score, named=named) for score in verification.accuracy)
    yield from _items(f"note: {text}" for text in verification.notes)
    yield from _items(f"input: {text}" for text in verification.inputs)
    if verification.border:
        yield from _border(verification.border)


def _border(border: Border) -> Iterator[str]:
    yield from _heading("Against PyTorch")
    yield f"{_text(words.border(border))}; errors, against {_text(border.reference)}:"
    yield ""
    yield from _table(border_grid(border))
    yield ""
    yield from _items(words.border_failures(border))


def _latency(latency: tuple[Latency, ...], before: str, after: str) -> Iterator[str]:
    yield from _heading("Latency")
    yield from _table(latency_grid(latency, tails=True))
    yield ""
    yield from _items(words.latency(row, before, after) for row in latency)
    yield from _items(words.provider_settings(latency))
    disturbance = words.disturbance(latency)
    if disturbance:
        yield from _items((disturbance,))


def _environment(environment: Environment | None) -> Iterator[str]:
    if environment is not None:
        yield from _heading("Machine")
        yield _text(words.environment(environment))


def _heading(text: str) -> Iterator[str]:
    yield from ("", f"## {text}", "")


def _items(texts: Iterator[str] | tuple[str, ...]) -> Iterator[str]:
    return (f"- {_text(text)}" for text in texts)


def _table(grid: Grid, *, escaped: bool = False) -> Iterator[str]:
    yield _row(grid.header)
    yield _row(tuple(_RULE[letter] for letter in grid.align))
    for row in grid.rows:
        yield _row(row if escaped else tuple(map(_text, row)))


def _row(cells: tuple[str, ...]) -> str:
    inner = " | ".join(cell.replace("|", "\\|") for cell in cells)
    return f"| {inner} |"


def _text(text: str) -> str:
    """Text with the model's or the user's words in it, as one line that can open no tag and no link."""
    return _LINK.sub(r"\\]", words.printable(text)).replace("<", "&lt;")


def _code(text: str) -> str:
    """The text as a code span: between more backticks than it holds in a row."""
    if not text:
        return ""
    ticks = "`" * (1 + max(map(len, _runs_of_backticks(text)), default=0))
    pad = " " if "`" in text else ""
    return f"{ticks}{pad}{words.printable(text)}{pad}{ticks}"


def _runs_of_backticks(text: str) -> list[str]:
    return "".join(c if c == "`" else " " for c in text).split()
