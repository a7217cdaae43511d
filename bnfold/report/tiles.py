"""The answers on top of a page: how much folded, is it the same function, is it faster; in a word and a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bnfold.report import words
from bnfold.results import Comparison, Latency, Report, Verification

Tone = Literal["good", "bad", "plain"]


@dataclass(frozen=True)
class Tile:
    """One question with its answer; `lines` say how it was come by. `share` is what a bar shows, between 0 and 1.

    `reasons` are those for which sites stay, with how many, the most frequent first.
    """

    question: str
    answer: str
    tone: Tone
    lines: tuple[str, ...] = ()
    share: float | None = None
    reasons: tuple[tuple[str, int], ...] = ()


def of(result: Report | Comparison) -> tuple[Tile, ...]:
    """The tiles of a page, in the order in which people ask."""
    if isinstance(result, Comparison):
        tiles = [_equality(result.verification, "the two models are")] if result.verification else []
        return (*tiles, _speed(result.latency)) if result.latency else tuple(tiles)
    folded = _folded(result)
    if words.is_plan(result):
        return (folded,)
    changed = any(site.folded for site in result.sites)
    tiles = [folded, _equality(result.verification, "the folded model is") if result.verification else _UNVERIFIED]
    if result.latency or changed:
        tiles.append(_speed(result.latency))
    return tuple(tiles)


_UNVERIFIED = Tile("Same function?", "Not checked", "plain", ("The models were not run against each other.",))


def _folded(report: Report) -> Tile:
    question = "BatchNorms that would fold" if words.is_plan(report) else "BatchNorms folded"
    norms = report.batch_norms
    folded = sum(site.folded for site in norms)
    reasons = Counter(site.reason or "unsupported" for site in report.kept).most_common()
    lines = words.summary(report)[1:]
    if not norms:
        chains = [site for site in report.sites if site.op == "affine"]
        if not chains:
            return Tile(question, "None found", "plain", words.summary(report))
        folded, norms = sum(site.folded for site in chains), tuple(chains)
        question = question.replace("BatchNorms", "Hand-written BatchNorms")
    tone: Tone = "good" if folded == len(norms) else "plain"
    return Tile(question, f"{folded} of {len(norms)}", tone, lines, folded / len(norms), tuple(reasons))


def _equality(verification: Verification, subject: str) -> Tile:
    question = "Same function?"
    if not verification.passed:
        failed = sum(not output.passed for output in verification.outputs)
        differ = f"{failed} of {words.counted(len(verification.outputs), 'output')} beyond the tolerance"
        return Tile(question, "No", "bad", (differ, f"tried on {words.counted(len(verification.inputs), 'input')}"))
    if not verification.outputs:
        return Tile(question, "Yes", "good", (verification.reference,))
    worst = words.most_of_tolerance(verification)
    lines = [
        f"largest error {words.error_size(worst.max_abs)}, allowed {words.error_size(worst.tolerance)}",
        f"tried on {words.counted(len(verification.inputs), 'input')}, "
        f"compared {words.counted(len(verification.outputs), 'output')}",
    ]
    if verification.taken_back:
        lines.append(f"{words.counted(len(verification.taken_back), 'fold')} taken back to get there")
    return Tile(question, "Yes", "good", tuple(lines))


def _speed(latency: Sequence[Latency]) -> Tile:
    if not latency:
        return Tile("Faster?", "Not measured", "plain", ())
    first, *others = sorted(latency, key=lambda row: row.opt_level != "all")  # what is deployed comes first
    answer, tone = _spoken(first)
    lines = [f"{words.setting(first)}: {_interval(first)}"]
    lines += [f"{words.setting(row)}: {_spoken(row)[0].lower()}, {_interval(row)}" for row in others]
    return Tile("Faster?", answer, tone, tuple(lines))


def _spoken(row: Latency) -> tuple[str, Tone]:
    if row.verdict == "no measurable difference":
        verdict = words.latency_verdict(row)
        return verdict[:1].upper() + verdict[1:], "plain"
    return f"{row.ratio:.2f} times the speed", "good" if row.verdict == "faster" else "bad"


def _interval(row: Latency) -> str:
    clock = "by processor time, " if row.clock == "cpu" else ""
    return f"{clock}95 % interval {row.ci95[0]:.3f} to {row.ci95[1]:.3f}"
