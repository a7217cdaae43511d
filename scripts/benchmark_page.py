"""What the benchmark found, as Markdown: the tables of the README, and the page with every figure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from benchmark_rows import (
    LEVELS,
    MEASURES,
    ORIGINAL,
    OURS,
    OURS_TOO,
    Result,
    Row,
    failure,
    measured,
    not_won,
    row_from_json,
    standing,
    total,
)

Found = dict[str, Any]
"""The content of benchmark.json: `about` the run, and its `rows`."""

_LONGEST_WORDS = 160


def page(found: Found) -> str:
    """Everything: the section of the README, then faults, and each output's own figures."""
    rows = rows_of(found)
    name = found["about"]["settings"]["name"]
    left = f"![What every tool leaves in every model]({name}-left.svg)"
    return "\n\n".join(["# Benchmark", section(found), left, *faults(rows), "## Every output", everything(rows)]) + "\n"


def section(found: Found, folder: str = "") -> str:
    """What the README shows; `folder` is that of the page and its pictures, as a prefix of their names."""
    rows = rows_of(found)
    tools = list(found["about"]["tools"])
    name = found["about"]["settings"]["name"]
    levels = [level for level in LEVELS if any(level in r.speeds for row in rows for r in row.results.values())]
    parts = [_about(found, rows), summary(rows, tools, levels), _notes(tools, levels)]
    if levels:
        parts.append(f"![Time of every output by that of bnfold's]({folder}{name}-latency.svg)")
    parts += [left_table(rows, tools), standings(rows)]
    if folder:
        parts.append(f"[Every output, and what is wrong with it]({folder}{name}.md)")
    return "\n\n".join(parts)


def _notes(tools: Sequence[str], levels: Sequence[str]) -> str:
    words = (
        "Left: BatchNorms and chains that spell one; a model without a right answer counts with all it had. Time and "
        "memory: of a conversion as a whole process, geometric mean of the ratio to bnfold's; bnfold runs without its "
        "own verification and measurement here, for the others have none. Files with operators of "
        "ONNX Runtime's own (*) run nowhere else, and what is left in them cannot be counted: a BatchNorm that it "
        "cannot fold becomes a convolution of its own. They compete where its optimisations are on."
    )
    if OURS_TOO in tools:
        words += f" {OURS_TOO} runs onnxsim first, and does not compete."
    if levels:
        words += (
            " Latency: of the outputs that are right, geometric mean of the ratio to bnfold's output, in contests of "
            "two in turns; above 1 bnfold's output is faster."
        )
    return words


def rows_of(found: Found) -> list[Row]:
    return [row_from_json(fields) for fields in found["rows"]]


def _about(found: Found, rows: Sequence[Row]) -> str:
    about, settings = found["about"], found["about"]["settings"]
    named = {
        name: version for name, version in about["tools"].items() if name != OURS_TOO and not name.startswith("ORT")
    }
    versions = ", ".join(f"{name} {version}" for name, version in named.items())
    batch_norms, chains = sum(row.batch_norms for row in rows), sum(row.chains for row in rows)
    sites = f"{_counted(batch_norms, 'BatchNorm')} and {_counted(chains, 'chain')}"
    load = "" if about["load"] is None else f" (load average at the start {about['load']:.1f})"
    words = [
        f"{_counted(len(rows), 'model')} with {sites}; {versions}; "
        f"ONNX Runtime {about['runtime']}, Python {about['python']}.",
        f"{about['machine']}{load}; {_counted(settings['rounds'], 'round')} of conversions",
    ]
    words[1] += f", contests of {settings['seconds']:g} s or more." if settings["latency"] else "."
    if about["missing"]:
        words.append(f"Not installed, left out: {', '.join(about['missing'])}.")
    rare = {name: sum(name in row.not_for for row in rows) for name in about["tools"]}
    words += [
        f"{name}: no source for {count} of the models (n/a)."
        for name, count in rare.items()
        if count and count < len(rows)
    ]
    words += [f"{name}: no source for any of the models." for name, count in rare.items() if count == len(rows)]
    return " ".join(words)


def summary(rows: Sequence[Row], tools: Iterable[str], levels: Sequence[str]) -> str:
    """One row per tool; latency at these levels."""
    titles = [
        "tool",
        "left",
        "wrong",
        "no output",
        "time",
        "memory",
        *(f"latency, {LEVELS[level]}" for level in levels),
    ]
    body = []
    for tool in (*tools, ORIGINAL) if levels else tools:
        sums = total(tool, rows)
        if not sums.models:
            continue
        foreign = any(row.results[tool].domains for row in rows if tool in row.results)
        of = "" if sums.models == len(rows) else f" (of {sums.models})"
        body.append(
            [
                f"{tool}{'*' if foreign else ''}{of}",
                f"{sums.left} of {sums.sites}",
                str(sums.wrong),
                str(sums.failed),
                _ratio(sums.time),
                _ratio(sums.memory),
                *(_ratio(1.0 if tool == OURS else sums.latency[level]) for level in levels),
            ]
        )
    return table(titles, body, right_from=1)


def left_table(rows: Sequence[Row], tools: Iterable[str]) -> str:
    """One row per model: what every tool leaves of its sites."""
    shown = [tool for tool in tools if any(tool in row.results for row in rows)]
    body = [
        [
            row.model,
            _sites(row.batch_norms, row.chains),
            *(_left(row.results.get(tool)) for tool in shown),
        ]
        for row in rows
    ]
    return table(["left in", "of", *shown], body, right_from=1)


def standings(rows: Sequence[Row]) -> str:
    """How many rows bnfold wins, and which it does not."""
    judged = [row for row in rows if row.unjudged is None]
    lines = []
    for measure, title in MEASURES.items():
        hows = [standing(row, measure)[0] for row in judged if measured(row, measure)]
        if hows:
            won, even, lost = (hows.count(how) for how in ("won", "even", "lost"))
            lines.append(f"{title} {won} won, {even} even, {lost} lost")
    text = f"By model, bnfold against the best right answer: {'; '.join(lines)}." if lines else ""
    losses = not_won(rows)
    if losses:
        text += "\nNot won:\n\n" + "\n".join(f"- {line}" for line in losses)
    return text.strip()


def faults(rows: Sequence[Row]) -> list[str]:
    """Every wrong answer and every tool that failed, named; empty without any."""
    lines = [
        f"- {row.model}, {name}: {_short(why)}"
        for row in rows
        if row.unjudged is None
        for name, result in row.results.items()
        if (why := failure(result) or result.speed_problem) is not None
    ]
    return ["Wrong answers and failures:\n\n" + "\n".join(lines)] if lines else []


def everything(rows: Sequence[Row]) -> str:
    """One row per output."""
    titles = ["model", "tool", "left", "relative error", "time, s", "memory, MiB"]
    titles += [f"latency by bnfold's, {title}" for title in LEVELS.values()]
    body = []
    for row in rows:
        for name, result in row.results.items():
            error = "" if result.max_rel is None else f"{result.max_rel:.1e}"
            verdict = f"**{error or 'fails'}**" if failure(result) else error
            cells = [row.model, name, _left(result), verdict, _number(result.seconds), _number(result.peak_mib)]
            body.append([*cells, *(_latency(row, name, level) for level in LEVELS)])
    return table(titles, body, right_from=2)


def _latency(row: Row, tool: str, level: str) -> str:
    """A tool's ratio; of bnfold's output the time, as it was beside the original."""
    if tool == OURS:
        beside = row.results[ORIGINAL].speeds.get(level)
        return f"{beside.ours_ms:.3g} ms" if beside else ""
    speed = row.results[tool].speeds.get(level)
    return f"{speed.ratio:.2f} ({speed.ci95[0]:.2f} to {speed.ci95[1]:.2f})" if speed else ""


def table(titles: Sequence[str], body: Iterable[Sequence[str]], right_from: int) -> str:
    """A Markdown table whose columns are aligned to the right from one of them on."""
    rule = ["---" if at < right_from else "---:" for at in range(len(titles))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *body))


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _left(result: Result | None) -> str:
    if result is None:
        return "n/a"
    if result.problem is not None:
        return "fails"
    if result.passed is False:
        return "wrong" if result.max_rel is None else f"wrong ({result.max_rel:.2g})"
    if result.batch_norms is None or result.chains is None:
        return "?"
    return _sites(result.batch_norms, result.chains) + "*" * bool(result.domains)


def _sites(batch_norms: int, chains: int) -> str:
    return f"{batch_norms} + {chains}" if chains else str(batch_norms)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _short(text: str) -> str:
    """One line that Markdown takes as it is."""
    plain = re.sub(r"([|*_<>`])", r"\\\1", " ".join(text.split()))
    return plain if len(plain) <= _LONGEST_WORDS else plain[: _LONGEST_WORDS - 1] + "…"
