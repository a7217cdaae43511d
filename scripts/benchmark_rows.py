"""What the benchmark found, as values, and what may be said of it: who wins a row, and by what.

A row is a model. bnfold wins, ties or loses it by three measures:

- sites left: BatchNormalization nodes, and chains of operators that spell one, in the output. Fewer is better.
- speed, at each of two levels of ONNX Runtime's optimisation: a rival's output is faster or slower where
  `bnfold bench` on bnfold's output and the rival's says so, which is where the difference is larger than what the
  measurement can make up; else the two are even.

Only outputs that pass `bnfold verify` compete; the original is one of them where speed is concerned. An output with
operators that are not in the original's domains (ONNX Runtime writes its own) can be run by no other runtime, and
nobody knows what is left inside of them: a BatchNormalization that ONNX Runtime cannot fold becomes a depthwise
convolution of its own. Such an output competes only where ONNX Runtime's optimisations are on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

OURS = "bnfold"
OURS_TOO = "bnfold --simplify"
ORIGINAL = "original"
LEVELS = {"disable": "not optimised", "all": "optimised"}
MEASURES = {"left": "sites left", "disable": "speed, not optimised", "all": "speed, optimised"}
Standing = Literal["won", "even", "lost"]


@dataclass(frozen=True)
class Speed:
    """A rival's output timed against bnfold's own, in turns: `ratio` is the rival's time by bnfold's.

    Above 1 bnfold's output is the faster one. `verdict` is of the rival's output.
    """

    ours_ms: float
    ms: float
    ratio: float
    ci95: tuple[float, float]
    verdict: Literal["faster", "slower", "no measurable difference"]


@dataclass(frozen=True)
class Result:
    """What one tool made of one model.

    Attributes:
        problem: why there is no output, or None.
        passed: whether the output is the same function as the original; None where that could not be told.
        max_rel: its largest relative error; None where it has none that is a number.
        detail: what verification had to say about it.
        batch_norms, chains: sites left in it; None where it cannot be read.
        domains: of operators in it that the original does not use.
        seconds, peak_mib: medians over the runs; None where there is no output.
        speeds: by level; empty where it was not timed, `speed_problem` then says why if something went wrong.
    """

    problem: str | None = None
    passed: bool | None = None
    max_rel: float | None = None
    detail: str | None = None
    batch_norms: int | None = None
    chains: int | None = None
    domains: tuple[str, ...] = ()
    seconds: float | None = None
    peak_mib: float | None = None
    runs: int = 0
    speeds: dict[str, Speed] = field(default_factory=dict)
    speed_problem: str | None = None

    @property
    def left(self) -> int | None:
        if self.batch_norms is None or self.chains is None:
            return None
        return self.batch_norms + self.chains


@dataclass(frozen=True)
class Row:
    """One model: what the original holds, and what the tools made of it; `results` has the original as well.

    `unjudged` says why no output could be compared with the original, or is None. `not_for` names the tools that do
    not apply to this model.
    """

    model: str
    batch_norms: int
    chains: int
    results: dict[str, Result]
    unjudged: str | None = None
    not_for: tuple[str, ...] = ()

    @property
    def sites(self) -> int:
        return self.batch_norms + self.chains

    def rivals(self, measure: str) -> dict[str, Result]:
        """Those that compete with bnfold by a measure."""
        return {
            name: result
            for name, result in self.results.items()
            if name not in (OURS, OURS_TOO)
            and (name != ORIGINAL or measure != "left")
            and result.passed
            and not (measure != "all" and result.domains)
        }


def standing(row: Row, measure: str) -> tuple[Standing, tuple[str, ...]]:
    """How bnfold stands by a measure, and the rivals because of which: those that beat it, or are even with it.

    Lost, too, where bnfold's own output is not right, or where it was not timed.
    """
    ours, rivals = row.results.get(OURS), row.rivals(measure)
    if ours is None or not ours.passed:
        return "lost", tuple(rivals)
    beats, even = [], []
    for name, result in rivals.items():
        if measure == "left":
            if result.left is None or ours.left is None:
                continue
            beats += [name] * (result.left < ours.left)
            even += [name] * (result.left == ours.left)
        elif measure in result.speeds:
            verdict = result.speeds[measure].verdict
            beats += [name] * (verdict == "faster")
            even += [name] * (verdict == "no measurable difference")
    if beats:
        return "lost", tuple(beats)
    return ("even", tuple(even)) if even else ("won", ())


def measured(row: Row, measure: str) -> bool:
    """Whether a row has anything to compare by this measure."""
    return measure == "left" or any(measure in result.speeds for result in row.results.values())


def not_won(rows: Iterable[Row]) -> list[str]:
    """One line for every row and measure that bnfold loses, and for every row that it cannot even enter."""
    lines = []
    for row in rows:
        if row.unjudged is not None:
            lines.append(f"{row.model}: no output could be compared with the original: {row.unjudged}")
            continue
        ours = row.results[OURS]
        if not ours.passed:
            lines.append(f"{row.model}: bnfold gives no right answer: {failure(ours)}")
            continue
        for measure, title in MEASURES.items():
            how, names = standing(row, measure) if measured(row, measure) else ("even", ())
            if how == "lost":
                lines.append(f"{row.model}, {title}: " + ", ".join(_lead(row, measure, name) for name in names))
    return lines


def _lead(row: Row, measure: str, name: str) -> str:
    result = row.results[name]
    if measure == "left":
        return f"{name} leaves {result.left}, bnfold {row.results[OURS].left}"
    speed = result.speeds[measure]
    low, high = speed.ci95
    what = "the original takes" if name == ORIGINAL else f"the output of {name} takes"
    return f"{what} {speed.ratio:.2f} of the time of bnfold's ({low:.2f} to {high:.2f})"


def failure(result: Result) -> str | None:
    """What is wrong with a result, in a few words; None where nothing is."""
    if result.problem is not None:
        return result.problem
    if result.passed is not False:
        return None
    if result.max_rel is not None and 0 < result.max_rel < math.inf:
        return f"wrong answer, relative error {result.max_rel:.2g}"
    return result.detail or "wrong answer"


@dataclass(frozen=True)
class Total:
    """A tool over all models it applies to.

    `left` is of `sites` in the originals; a model without a right answer counts with all of its sites. `time`, `memory`
    and `latency` (by level) are geometric means of its ratio to bnfold, over the models where both are there, or None.
    """

    tool: str
    models: int
    right: int
    wrong: int
    failed: int
    left: int
    sites: int
    time: float | None
    memory: float | None
    latency: dict[str, float | None]


def total(tool: str, rows: Iterable[Row]) -> Total:
    """Sum up a tool."""
    pairs = [(row, row.results[tool]) for row in rows if tool in row.results and row.unjudged is None]
    right = [(row, result) for row, result in pairs if result.passed]

    def mean(values: Iterable[tuple[float | None, float | None]]) -> float | None:
        ratios = [a / b for a, b in values if a and b]
        return statistics.geometric_mean(ratios) if ratios else None

    return Total(
        tool=tool,
        models=len(pairs),
        right=len(right),
        wrong=sum(result.problem is None and result.passed is False for _, result in pairs),
        failed=sum(result.problem is not None for _, result in pairs),
        left=sum(result.left if result.passed and result.left is not None else row.sites for row, result in pairs),
        sites=sum(row.sites for row, _ in pairs),
        time=mean((result.seconds, row.results[OURS].seconds) for row, result in pairs),
        memory=mean((result.peak_mib, row.results[OURS].peak_mib) for row, result in pairs),
        latency={
            level: mean((result.speeds[level].ratio, 1.0) for _, result in right if level in result.speeds)
            for level in LEVELS
        },
    )


def row_from_json(fields: dict[str, Any]) -> Row:
    """A row as `dataclasses.asdict` and JSON leave it."""
    results = {}
    for name, item in fields["results"].items():
        speeds = {level: Speed(**{**speed, "ci95": tuple(speed["ci95"])}) for level, speed in item["speeds"].items()}
        results[name] = Result(**{**item, "domains": tuple(item["domains"]), "speeds": speeds})
    return Row(**{**fields, "results": results, "not_for": tuple(fields["not_for"])})


def row_to_json(row: Row) -> dict[str, Any]:
    """What JSON can hold of a row; numbers to four digits, for more than that was not measured."""
    return dict(_rounded(asdict(row)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
