"""The sentences of a report, shared by the terminal and Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bnfold.results import (
    Accuracy,
    Border,
    Certificate,
    Culprit,
    Environment,
    Latency,
    OutputDifference,
    Proof,
    Report,
    Site,
    Verification,
)

# A difference of this size would matter to many who fold BatchNorms.
_LARGE_EFFECT = 0.05
_OPT_LEVELS = {"disable": "not optimised", "all": "optimised", "eager": "eager"}


def printable(text: str) -> str:
    """The text with every control character, line break and lone surrogate escaped.

    Names come from the model; one with a terminal's escape sequence in it must not reach the terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def error_size(value: float) -> str:
    """An error or a tolerance to two digits: 1.2e-06."""
    return "0" if value == 0 else f"{value:.1e}"


def setting(row: Latency) -> str:
    """Where a time was measured: the provider, whether the runtime's own graph optimisations were on; batch and threads
    where they were asked for.
    """
    parts = [row.provider.removesuffix("ExecutionProvider"), _OPT_LEVELS[row.opt_level]]
    if row.batch_size is not None:
        parts.append(f"batch {row.batch_size}")
    if row.intra_op_num_threads is not None:
        parts.append(counted(row.intra_op_num_threads, "thread"))
    return ", ".join(parts)


def is_plan(report: Report) -> bool:
    """Whether the report is one of `inspect`: nothing was verified and nothing written."""
    return report.output_path is None and report.verification is None


def summary(report: Report) -> tuple[str, ...]:
    """How many BatchNorms, and how many affine chains where there are any, fold."""
    outcome = "would fold" if is_plan(report) else "folded"
    norms = report.batch_norms
    chains = tuple(site for site in report.sites if site.op == "affine")
    if norms:
        folded = sum(site.folded for site in norms)
        lines = [f"{folded} of {counted(len(norms), 'BatchNorm')} {outcome}"]
    elif report.before.batch_norms:
        lines = [f"none of the {counted(report.before.batch_norms, 'BatchNorm')} was selected"]
    else:
        lines = ["no BatchNorm found"]
    if chains:
        lines.append(f"affine chains: {sum(site.folded for site in chains)} of {len(chains)} {outcome}")
    return tuple(lines)


def folded_site(site: Site) -> str:
    """Where a folded site went: `bn1: backward into conv1 through Reshape`."""
    parts = [f"{printable(site.name)}:"]
    if site.direction:
        parts.append(site.direction)
    if site.into:
        parts.append(_target(site))
    if site.through:
        parts.append("through " + ", ".join(map(printable, site.through)))
    return " ".join(parts)


def folded_sentence(site: Site, plan: bool) -> str:
    """What became of a folded site, as a sentence of its own."""
    verb = "Would fold" if plan else "Folded"
    if site.direction == "shortened":
        verb = "Would be" if plan else "Was"
    ways = {"split": "in both directions", "merged": "together with other affine operators"}
    parts = [verb, ways.get(site.direction or "", site.direction or "")]
    if site.into:
        parts.append(_target(site))
    text = " ".join(part for part in parts if part)
    if site.through:
        text += ", through " + ", ".join(map(printable, site.through))
    if site.added_bytes:
        text += f"; adds at most {site.added_bytes} bytes to the file"
    return f"{text}."


def _target(site: Site) -> str:
    """Where a fold went; of a chain that became shorter, what is left."""
    return ("to " if site.direction == "shortened" else "into ") + ", ".join(map(printable, site.into))


def certificate(proof: Certificate) -> str:
    """What running the cut-out of one fold in float64 showed."""
    if proof.status == "not run" or proof.error is None:
        return f"the fold alone was not run in float64: {printable(proof.detail or 'nobody says why')}"
    verdict = "equal to" if proof.status == "proven" else "NOT equal to"
    figures = f"relative error {error_size(proof.error)}"
    if proof.rounding is not None:
        figures += f", its constants rounded by {error_size(proof.rounding)} in the file"
    return f"run alone in float64, the fold is {verdict} what was there ({figures})"


def kept_sentence(site: Site) -> str:
    """Why a site stays, as a sentence of its own."""
    blocked = f"Blocked by {printable(site.blocker)}: " if site.blocker else ""
    detail = printable(site.detail or "no detail is known")
    return f"{blocked}{detail if blocked else detail[:1].upper() + detail[1:]}."


@dataclass(frozen=True)
class KeptGroup:
    """Sites that stay with one reason, one blocking node and one sentence."""

    reason: str
    names: tuple[str, ...]
    blocker: str | None
    detail: str | None

    def sentence(self) -> str:
        """Why these sites stay, for print, without their names."""
        blocked = f"blocked by {printable(self.blocker)}" if self.blocker else ""
        return ": ".join(part for part in (blocked, printable(self.detail or "")) if part)


def kept_groups(report: Report) -> tuple[KeptGroup, ...]:
    """The kept sites, those of one reason together, those of one detail in one group; in order of appearance."""
    by_reason: dict[str, dict[tuple[str | None, str | None], list[str]]] = {}
    for site in report.kept:
        details = by_reason.setdefault(site.reason or "unsupported", {})
        details.setdefault((site.blocker, site.detail), []).append(site.name)
    return tuple(
        KeptGroup(reason, tuple(names), blocker, detail)
        for reason, details in by_reason.items()
        for (blocker, detail), names in details.items()
    )


def kept_summary(report: Report) -> str:
    """How many sites stay: `2 BatchNorms and 1 affine chain stay`."""
    norms = sum(site.op == "BatchNormalization" for site in report.kept)
    chains = len(report.kept) - norms
    parts = [counted(norms, "BatchNorm")] if norms else []
    parts += [counted(chains, "affine chain")] if chains else []
    verb = "stays" if norms + chains == 1 else "stay"
    return f"{' and '.join(parts)} {verb}"


def verdict(verification: Verification, subject: str) -> str:
    """The verdict on equality in plain words; `subject` is who is, or is not, "the same function"."""
    inputs = counted(len(verification.inputs), "input")
    if not fold_passed(verification):
        failed = sum(not output.passed for output in verification.outputs)
        verb = "differs" if failed == 1 else "differ"
        total = counted(len(verification.outputs), "output")
        wrong = verification.proof.wrong if verification.proof else ()
        if not failed and wrong:
            parts = counted(len(wrong), "part")
            return f"NOT verified: {subject} not the same function ({parts} wrong, which no input tried shows)"
        return f"NOT verified: {subject} not the same function ({failed} of {total} {verb}; {inputs})"
    if not verification.outputs:
        return f"verified: {subject} the same function ({inputs})"
    worst = most_of_tolerance(verification)
    relative = max(output.max_rel for output in verification.outputs)
    return (
        f"verified: {subject} the same function (largest error {error_size(worst.max_abs)}, "
        f"tolerance {error_size(worst.tolerance)}, relative error {error_size(relative)}, {inputs})"
    )


def most_of_tolerance(verification: Verification) -> OutputDifference:
    """The output that comes nearest to what it may differ by, or goes furthest past it."""
    return max(verification.outputs, key=_use_of_tolerance)


def fold_passed(verification: Verification) -> bool:
    """The verdict on the fold alone: one that failed for the exporter's sake is none on the fold."""
    outputs = verification.outputs
    blamed = verification.border is not None and not verification.border.passed
    wrong = verification.proof is not None and bool(verification.proof.wrong)
    return verification.passed or (blamed and not wrong and all(output.passed for output in outputs))


def border(border: Border) -> str:
    """Whether what an exporter made of a model is still the model, in plain words."""
    form = border.forms[1]
    if border.passed:
        return f"the {form} computes what {border.forms[0]} does"
    wrong = [printable(output.name) for output in border.outputs if not output.passed]
    return f"the {form} does NOT compute what {border.forms[0]} does, which is the exporter's doing: {', '.join(wrong)}"


def border_failures(border: Border) -> tuple[str, ...]:
    """One line for every output that an exporter got wrong."""
    return tuple(
        f"{printable(output.name)}: {printable(output.detail)}"
        for output in border.outputs
        if not output.passed and output.detail
    )


def _use_of_tolerance(output: OutputDifference) -> float:
    if math.isnan(output.max_abs) or output.tolerance == 0:
        return 0.0 if output.max_abs == 0 else math.inf
    return output.max_abs / output.tolerance


def proof(proof: Proof) -> str:
    """What was found of the parts in which two models differ."""
    if not proof.parts:
        return "part by part: both compute everything in the same way from the same weights"
    text = f"part by part: {proof.proven} of {counted(proof.parts, 'changed part')} proven in float64"
    if proof.proven:
        text += f" (largest error {error_size(proof.error)})"
    return f"{text}; everything else is the same, byte for byte"


def wrong_parts(proof: Proof) -> tuple[str, ...]:
    """One line for every part that is wrong."""
    return tuple(f"wrong: {printable(reason)}" for _, reason in proof.wrong)


def duration(report: Report) -> str:
    """How long a conversion took; empty where nobody looked."""
    if report.seconds is None or report.seconds_allowed is None:
        return ""
    return f"{report.seconds:.1f} s in all, of {report.seconds_allowed:g} s allowed (--seconds)"


def open_parts(proof: Proof) -> tuple[str, ...]:
    """One line for every part that is neither proven nor wrong."""
    return tuple(f"not proven: {printable(value)}: {printable(reason)}" for value, reason in proof.open)


def failures(verification: Verification) -> tuple[str, ...]:
    """One line for every part that is wrong and for every output that differs."""
    parts = wrong_parts(verification.proof) if verification.proof else ()
    return parts + tuple(
        f"{printable(output.name)}: error {error_size(output.max_abs)}, allowed {error_size(output.tolerance)}"
        + (f"; {printable(output.detail)}" if output.detail else "")
        for output in verification.outputs
        if not output.passed
    )


def culprit(culprit: Culprit) -> str:
    """What a bad fold does by itself, and where its error goes."""
    name = printable(culprit.site)
    if culprit.error is None:
        return f"{name}: what it does by itself could not be run in float64"
    text = f"{name}: by itself it is off by {error_size(culprit.error)} of the value's size in float64"
    if culprit.growth:
        way = ", ".join(f"{printable(value)} {error_size(error)}" for value, error in culprit.growth)
        text += f"; through the graph: {way}"
    return text


def certificates(report: Report) -> tuple[str, ...]:
    """How many folds are proven, and one line for every one that is not; empty where that was not asked for."""
    sites = [site for site in report.sites if site.certificate is not None]
    if not sites:
        return ()
    proven = [site.certificate for site in sites if site.certificate and site.certificate.status == "proven"]
    errors = [certificate.error for certificate in proven if certificate.error is not None]
    largest = f" (largest error {error_size(max(errors))} in float64)" if errors else ""
    lines = [f"certificates: {len(proven)} of {counted(len(sites), 'fold')} proven{largest}"]
    for site in sites:
        if site.certificate and site.certificate.status != "proven":
            lines.append(
                f"{printable(site.name)}: {site.certificate.status}: {printable(site.certificate.detail or '')}"
            )
    return tuple(lines)


def taken_back(verification: Verification) -> str:
    """Which folds were undone, because with them the outputs differed."""
    names = ", ".join(map(printable, verification.taken_back))
    return f"taken back, because the outputs differed with them: {names}"


def accuracy(score: Accuracy, *, named: bool) -> str:
    """Top-1 accuracy before and after; with the output's name where there is more than one."""
    output = f" of output {printable(score.output)}" if named else ""
    if score.total == 0:
        return f"accuracy{output}: no labelled samples"
    before, after = (100 * hits / score.total for hits in (score.correct_before, score.correct_after))
    return (
        f"accuracy{output} on {counted(score.total, 'labelled sample')}: {before:.2f} % before, {after:.2f} % after "
        f"({score.correct_before} of {score.total}, {score.correct_after} of {score.total})"
    )


def latency(row: Latency, before: str, after: str) -> str:
    """What one row of the benchmark means in words; `before` and `after` name the models."""
    clock = " by processor time" if row.clock == "cpu" else ""
    interval = f"95 % interval {row.ci95[0]:.3f} to {row.ci95[1]:.3f}"
    if row.verdict != "no measurable difference":
        speed = f"{row.ratio:.3f} times the speed of {before}"
        return f"{setting(row)}: {after} is {row.verdict}, {speed}{clock} ({interval})"
    control = f"{before} against itself {row.control_ci95[0]:.3f} to {row.control_ci95[1]:.3f}"
    figures = f"ratio {row.ratio:.3f}, {interval}; {control}"
    if row.minimum_effect is None:
        return f"{setting(row)}: too few runs to tell anything{clock} ({figures})"
    if row.minimum_effect > _LARGE_EFFECT:
        unseen = f"not measured well enough to tell less than {percentage(row.minimum_effect)}"
        return f"{setting(row)}: no measurable difference{clock}, but {unseen} ({figures})"
    return f"{setting(row)}: no measurable difference of {percentage(row.minimum_effect)} or more{clock} ({figures})"


def latency_verdict(row: Latency) -> str:
    """The verdict in a few words, for a table: never "no difference" where hardly any would have been seen."""
    if row.verdict != "no measurable difference":
        return row.verdict
    if row.minimum_effect is None or row.minimum_effect > _LARGE_EFFECT:
        return "not measured well"
    return row.verdict


def percentage(fraction: float) -> str:
    """A share or a difference to two digits: `2.3 %`."""
    percent = 100 * fraction
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def disturbance(rows: Iterable[Latency]) -> str | None:
    """What other programs did to a measurement, and what was done about it; None where they did nothing."""
    rows = tuple(rows)
    dropped = sum(row.disturbed_segments for row in rows)
    asleep = any(row.sleeping_workers for row in rows)
    if not dropped and not asleep:
        return None
    parts = [f"{dropped} of {counted(sum(row.segments for row in rows), 'segment')} dropped"]
    if asleep:
        parts.append("worker threads slept instead of spinning")
    if any(row.clock == "cpu" for row in rows):
        parts.append("processor time is compared where it says so")
    return f"other programs took the cores while latency was measured: {', '.join(parts)}"


def provider_settings(rows: Iterable[Latency]) -> tuple[str, ...]:
    """What each provider that has settings was set to: `CUDA: use_tf32=1`."""
    lines = (
        f"{row.provider.removesuffix('ExecutionProvider')}: "
        + ", ".join(f"{key}={value}" for key, value in row.provider_options)
        for row in rows
        if row.provider_options
    )
    return tuple(dict.fromkeys(map(printable, lines)))


def environment(where: Environment) -> str:
    """The machine and the versions."""
    load = "" if where.load is None else f", load {where.load:.1f}"
    return (
        f"{printable(where.cpu)}, {counted(where.cores, 'core')}{load}; {printable(where.os)}; "
        f"Python {where.python}, NumPy {where.numpy}, ONNX Runtime {where.onnxruntime}"
    )
