"""Which of two models is faster, and is the difference real?

`contest` lets the models take turns; `finding` says what that proves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bnfold.checks.bench_feed import bench_feed
from bnfold.checks.contest import Contest, Opener
from bnfold.checks.feed import Feed
from bnfold.checks.finding import Finding, clocks_of, find
from bnfold.checks.memory import peak_growth
from bnfold.checks.options import BENCH_SECONDS, CheckOptions
from bnfold.checks.session import (
    ModelFile,
    OptLevel,
    Session,
    TimedRunner,
    open_session,
    resolve_options,
    resolve_providers,
)
from bnfold.checks.turns import Role, Segment, runs_ms
from bnfold.results import Latency

Progress = Callable[[str, float], None]
"""Called with the name of the stage and the fraction of it that is done, 0 to 1."""

LEVELS: tuple[OptLevel, ...] = ("disable", "all")


@dataclass(frozen=True)
class Setting:
    """What is measured: one row of the result."""

    provider: str
    opt_level: OptLevel | Literal["eager"]
    threads: int | None
    batch_size: int | None
    provider_options: Mapping[str, str]


def bench(
    original: ModelFile,
    folded: ModelFile,
    options: CheckOptions,
    *,
    levels: Sequence[OptLevel] = LEVELS,
    names: tuple[str, str] = ("the original", "the folded model"),
    memory: bool = False,
    progress: Progress | None = None,
) -> tuple[Latency, ...]:
    """Time both models on every provider, batch size and number of threads of `options`, without graph optimisations
    and with all of them.

    Each combination takes `options.bench_seconds` at most, a quarter more on a machine that others use too, plus the
    time to open three sessions and warm them up; it is longer where a few runs of each model are, and shorter, two
    seconds on a quiet machine, where 5 % of difference would have been found by then. One that is not begun by the time
    that `options.ends` is left out. The input is a drawn one, of batch 1 where the batch is free and none is asked for,
    or the user's where none can be drawn. ORT must be able to load both models safely without optimisations (see
    `verify`). With `memory`, each model is also run in a process of its own, to see how much memory it needs. `names`
    are what messages call the models.

    Raises:
        UsageError: if an option does not fit the model or the machine.
        ModelError: if ORT cannot load or run one of the models.
        MissingDependency: if ORT is not installed.
    """
    providers = resolve_providers(options.providers)
    own = resolve_options(options.provider_options, providers)
    settings: list[tuple[OptLevel, Setting]] = [
        (level, Setting(provider, level, threads, batch, own.get(provider, {})))
        for provider in providers
        for threads in options.bench_threads or (options.intra_op_num_threads,)
        for batch in options.batch_sizes or (None,)
        for level in levels
    ]
    results: list[Latency] = []
    for number, (level, setting) in enumerate(settings):
        if results and time.monotonic() > options.ends:
            break
        advance = _part_of(progress, number, len(settings))
        opener = _on_runtime((original, folded), names, level, setting)
        latency, feed = _measured(opener, setting, options, advance)
        if memory:
            before, after = (
                peak_growth(
                    model,
                    setting.provider,
                    level,
                    feed.values,
                    intra_op_num_threads=setting.threads,
                    provider_options=setting.provider_options,
                )
                for model in (original, folded)
            )
            latency = replace(latency, memory_before_bytes=before, memory_after_bytes=after)
        results.append(latency)
        advance(1.0)
    return tuple(results)


def bench_elsewhere(
    opened: Callable[[Role], TimedRunner],
    provider: str,
    options: CheckOptions,
    *,
    progress: Progress | None = None,
) -> tuple[Latency, ...]:
    """The same of two models that something else than ONNX Runtime runs, as it comes: a row per batch size.

    `opened` makes the model of a role anew; the threads are those of `provider`, and are not put to sleep.

    Raises:
        UsageError: if an option does not fit the model.
        ModelError: if one of the models cannot be run.
    """
    settings = [Setting(provider, "eager", None, batch, {}) for batch in options.batch_sizes or (None,)]

    def opener(role: Role, *, spinning: bool) -> TimedRunner:
        return opened(role)

    return tuple(
        _measured(opener, setting, options, _part_of(progress, number, len(settings)), may_sleep=False)[0]
        for number, setting in enumerate(settings)
    )


def _part_of(progress: Progress | None, number: int, count: int) -> Callable[[float], None]:
    def advance(fraction: float) -> None:
        if progress is not None:
            progress("bench", (number + fraction) / count)

    return advance


def _on_runtime(
    models: tuple[ModelFile, ModelFile], names: tuple[str, str], level: OptLevel, setting: Setting
) -> Opener:
    def opener(role: Role, *, spinning: bool) -> Session:
        which = int(role == "folded")
        return open_session(
            models[which],
            setting.provider,
            level,
            intra_op_num_threads=setting.threads,
            provider_options=setting.provider_options,
            tf32=True,
            deterministic=False,
            spinning=spinning,
            label=names[which],
        )

    return opener


def _measured(
    opener: Opener,
    setting: Setting,
    options: CheckOptions,
    advance: Callable[[float], None],
    *,
    may_sleep: bool = True,
) -> tuple[Latency, Feed]:
    set_to: dict[str, str] = {}

    def noted(role: Role, *, spinning: bool) -> TimedRunner:
        session = opener(role, spinning=spinning)
        set_to.update(session.provider_options)
        return session

    def examine(segments: Sequence[Segment], spinning: bool) -> Finding:
        return find(segments, clocks_of(setting.provider, spinning), np.random.default_rng(options.seed))

    contest = Contest(
        noted,
        lambda session: bench_feed(session, options, setting.batch_size),
        lambda segments, spinning: examine(segments, spinning).precise,
        options.bench_seconds or BENCH_SECONDS,
        options.seed,
        ends=options.ends,
        may_sleep=may_sleep,
    )
    segments = contest.run(advance)
    latency = _latency(setting, options, contest, segments, examine(segments, contest.spinning))
    return replace(latency, provider_options=tuple(set_to.items())), contest.feed


def _latency(
    setting: Setting, options: CheckOptions, contest: Contest, segments: Sequence[Segment], finding: Finding
) -> Latency:
    before_ms, after_ms = (runs_ms(segments, role, finding.clock) for role in ("original", "folded"))
    before, after = (tuple(np.percentile(times_ms, range(101)).tolist()) for times_ms in (before_ms, after_ms))
    init, first = contest.init_ms, contest.first_run_ms
    return Latency(
        provider=setting.provider,
        opt_level=setting.opt_level,
        before_ms=before[50],
        after_ms=after[50],
        ratio=finding.ratio.value,
        ci95=finding.ratio.interval,
        init_before_ms=_steady_median(init["original"], init["control"]),
        init_after_ms=_steady_median(init["folded"]),
        verdict=finding.verdict,
        control_ratio=finding.control.value,
        control_ci95=finding.control.interval,
        before_p90_ms=before[90],
        before_p99_ms=before[99],
        after_p90_ms=after[90],
        after_p99_ms=after[99],
        runs=len(before_ms),
        clock=finding.clock,
        minimum_effect=finding.minimum_effect,
        wall_ratio=finding.wall.value,
        wall_ci95=finding.wall.interval,
        segments=len(segments) + contest.dropped,
        disturbed_segments=contest.dropped,
        sleeping_workers=not contest.spinning,
        openings=len(contest.init_ms["folded"]),
        seconds=contest.spent_s,
        first_run_before_ms=_steady_median(first["original"], first["control"]),
        first_run_after_ms=_steady_median(first["folded"]),
        bench_seconds=contest.seconds,
        seed=options.seed,
        before_quantiles_ms=before,
        after_quantiles_ms=after,
        batch_size=setting.batch_size,
        intra_op_num_threads=setting.threads,
    )


def _steady_median(*times_ms: list[float]) -> float:
    """The median, without the first times, which also read files and start libraries, where there are others."""
    return float(np.median([ms for times in times_ms for ms in times[1:] or times]))
