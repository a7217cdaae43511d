"""Which of two models is faster, and is the difference real?

`contest` lets the models take turns; `stats` turns the rounds into a ratio, an interval and a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bnfold.checks.contest import Contest, Role, Segment
from bnfold.checks.feeds import Feed, make_feeds
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import ModelFile, OptLevel, Session, open_session, resolve_providers
from bnfold.checks.stats import median_ratio, verdict
from bnfold.errors import ModelError
from bnfold.results import Latency

Progress = Callable[[str, float], None]
"""Called with the name of the stage and the fraction of it that is done, 0 to 1."""

_LEVELS: tuple[OptLevel, ...] = ("disable", "all")
_LABELS: Mapping[Role, str] = {"original": "the original", "folded": "the folded model", "control": "the original"}


def bench(
    original: ModelFile, folded: ModelFile, options: CheckOptions, *, progress: Progress | None = None
) -> tuple[Latency, ...]:
    """Time both models on every provider of `options`, without graph optimisations and with all of them.

    Each combination takes `options.bench_seconds`, a quarter more on a machine that others use too, plus the time to
    open three sessions and warm them up; it is longer where a few runs of each model are. The input is a drawn one, of
    batch 1 where the batch is free, or the user's where none can be drawn. ORT must be able to load both models safely
    without optimisations (see `verify`).

    Raises:
        UsageError: if an option does not fit the model or the machine.
        ModelError: if ORT cannot load or run one of the models.
        MissingDependency: if ORT is not installed.
    """
    combinations = [(provider, level) for provider in resolve_providers(options.providers) for level in _LEVELS]
    results = []
    for number, (provider, level) in enumerate(combinations):

        def advance(fraction: float, number: int = number) -> None:
            if progress is not None:
                progress("bench", (number + fraction) / len(combinations))

        def opener(role: Role, *, spinning: bool, provider: str = provider, level: OptLevel = level) -> Session:
            return open_session(
                folded if role == "folded" else original,
                provider,
                level,
                intra_op_num_threads=options.intra_op_num_threads,
                tf32=True,
                deterministic=False,
                spinning=spinning,
                label=_LABELS[role],
            )

        contest = Contest(opener, lambda session: _runnable_feed(session, options), options.bench_seconds, options.seed)
        segments = contest.run(advance)
        results.append(_latency(provider, level, segments, contest.init_ms, np.random.default_rng(options.seed)))
        advance(1.0)
    return tuple(results)


def _runnable_feed(session: Session, options: CheckOptions) -> Feed:
    """A drawn feed on which the original runs, or else the user's first."""
    feeds = make_feeds(session.inputs, replace(options, check_n=1))
    for feed in reversed(feeds[1:]):
        try:
            session.run(feed.values)
        except ModelError:
            continue
        return feed
    return feeds[0]


def _latency(
    provider: str,
    level: OptLevel,
    segments: list[Segment],
    init_ms: Mapping[Role, list[float]],
    rng: np.random.Generator,
) -> Latency:
    ratio = median_ratio(_by_opening(segments, lambda segment: segment.ratios), rng)
    control = median_ratio(_by_opening(segments, lambda segment: segment.control_ratios), rng)
    before_ms = [ms for segment in segments for ms in segment.run_ms["original"]]
    after_ms = [ms for segment in segments for ms in segment.run_ms["folded"]]
    before, after = (tuple(np.percentile(times_ms, range(101)).tolist()) for times_ms in (before_ms, after_ms))
    return Latency(
        provider=provider,
        opt_level=level,
        before_ms=before[50],
        after_ms=after[50],
        ratio=ratio.value,
        ci95=(ratio.low, ratio.high),
        init_before_ms=_steady_median([init_ms["original"], init_ms["control"]]),
        init_after_ms=_steady_median([init_ms["folded"]]),
        verdict=verdict(ratio, control),
        control_ratio=control.value,
        control_ci95=(control.low, control.high),
        before_p90_ms=before[90],
        before_p99_ms=before[99],
        after_p90_ms=after[90],
        after_p99_ms=after[99],
        runs=len(before_ms),
        before_quantiles_ms=before,
        after_quantiles_ms=after,
    )


def _by_opening(segments: list[Segment], values: Callable[[Segment], Sequence[object]]) -> list[NDArray[np.float64]]:
    """Values of all segments that ran in the same sessions, together."""
    openings = dict.fromkeys(segment.opening for segment in segments)
    return [
        np.array([value for segment in segments if segment.opening == opening for value in values(segment)], np.float64)
        for opening in openings
    ]


def _steady_median(times_ms: list[list[float]]) -> float:
    """The median, without the first times, which also read files and start libraries, where there are others."""
    return float(np.median([ms for times in times_ms for ms in times[1:] or times]))
