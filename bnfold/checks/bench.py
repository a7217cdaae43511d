"""Which of two models is faster, and is the difference real?

Original, folded model and the original once more, as a control, take turns in random order, so that whatever else the
machine does hits all three alike; `stats` turns the rounds into a ratio, an interval and a verdict.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from bnfold.checks.feeds import Feed, make_feeds
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import ModelFile, OptLevel, Session, open_session, resolve_providers
from bnfold.checks.stats import median_ratio, verdict
from bnfold.errors import ModelError
from bnfold.results import Latency

Progress = Callable[[str, float], None]
"""Called with the name of the stage and the fraction of it that is done, 0 to 1."""

Role = Literal["original", "folded", "control"]
Runners = Mapping[Role, Callable[[], object]]

_ROLES: tuple[Role, ...] = ("original", "folded", "control")
_LABELS: Mapping[Role, str] = {"original": "the original", "folded": "the folded model", "control": "the original"}
_LEVELS: tuple[OptLevel, ...] = ("disable", "all")
_MOST_OPENINGS = 4
_REOPENING_SHARE = 0.25  # of the time budget, for opening and warming sessions again
_WARM_RUNS = 3
_STILL_WARMING = 0.95
_LONGEST_WARM_UP_S = 0.1
_SHORTEST_TURN_S = 0.001
_MOST_RUNS_A_TURN = 16


@dataclass
class _Record:
    """All times of a contest, in milliseconds, and one array of ratios per opening of the sessions."""

    init_ms: dict[Role, list[float]] = field(default_factory=lambda: {role: [] for role in _ROLES})
    run_ms: dict[Role, list[float]] = field(default_factory=lambda: {role: [] for role in _ROLES})
    ratios: list[list[float]] = field(default_factory=list)
    control_ratios: list[list[float]] = field(default_factory=list)


def bench(
    original: ModelFile, folded: ModelFile, options: CheckOptions, *, progress: Progress | None = None
) -> tuple[Latency, ...]:
    """Time both models on every provider of `options`, without graph optimisations and with all of them.

    Each combination takes `options.bench_seconds`, plus the time to open three sessions once; it is longer where a few
    runs of each model are. The input is a drawn one, of batch 1 where the batch is free, or the user's where none can
    be drawn. ORT must be able to load both models safely without optimisations (see `verify`).

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

        def opened(role: Role, provider: str = provider, level: OptLevel = level) -> Session:
            return open_session(
                folded if role == "folded" else original,
                provider,
                level,
                intra_op_num_threads=options.intra_op_num_threads,
                tf32=True,
                deterministic=False,
                label=_LABELS[role],
            )

        record = _contest(opened, options, advance)
        results.append(_latency(provider, level, record, options.seed))
    return tuple(results)


def _contest(opened: Callable[[Role], Session], options: CheckOptions, advance: Callable[[float], None]) -> _Record:
    """Open the three sessions several times over, where that is cheap, and let them take turns in between."""
    record = _Record()
    order = random.Random(options.seed)  # noqa: S311 - shuffles turns, keeps no secret
    sessions = _open_all(opened, order, record)
    feed = _runnable_feed(sessions["original"], options)
    runners, warm_s = _warm_runners(sessions, feed)
    once_s = warm_s + sum(session.init_ms for session in sessions.values()) / 1e3
    openings = 1 + min(_MOST_OPENINGS - 1, int(_REOPENING_SHARE * options.bench_seconds / once_s))
    began = time.perf_counter()
    end = began + options.bench_seconds

    def tick() -> None:
        advance(min(1.0, (time.perf_counter() - began) / options.bench_seconds))

    for opening in range(openings):
        if opening > 0:
            del sessions, runners  # never six at a time
            sessions = _open_all(opened, order, record)
            runners, _ = _warm_runners(sessions, feed)
        now = time.perf_counter()
        _take_turns(runners, now + (end - now) / (openings - opening), order, record, tick)
    return record


def _open_all(opened: Callable[[Role], Session], order: random.Random, record: _Record) -> dict[Role, Session]:
    sessions = {role: opened(role) for role in order.sample(_ROLES, len(_ROLES))}
    for role, session in sessions.items():
        record.init_ms[role].append(session.init_ms)
    return sessions


def _runnable_feed(session: Session, options: CheckOptions) -> Feed:
    """The first drawn feed, or else the user's; the original must run on it."""
    feeds = make_feeds(session.inputs, replace(options, check_n=1))
    for feed in reversed(feeds[1:]):
        try:
            session.run(feed.values)
        except ModelError:
            continue
        return feed
    return feeds[0]


def _warm_runners(sessions: Mapping[Role, Session], feed: Feed) -> tuple[Runners, float]:
    """A runner per session, run until its times no longer fall or 0.1 s have passed; and the seconds that this took."""
    began = time.perf_counter()
    runners: dict[Role, Callable[[], object]] = {}
    for role, session in sessions.items():
        run = session.runner(feed.values)
        start = time.perf_counter()
        best, not_better = _seconds(run), 0
        while not_better < _WARM_RUNS and time.perf_counter() - start < _LONGEST_WARM_UP_S:
            seconds = _seconds(run)
            not_better = 0 if seconds < _STILL_WARMING * best else not_better + 1
            best = min(best, seconds)
        runners[role] = run
    return runners, time.perf_counter() - began


def _take_turns(
    runners: Runners, deadline: float, order: random.Random, record: _Record, tick: Callable[[], None]
) -> None:
    """Rounds until the deadline, at least one, into `record`."""
    runs = {role: _runs_a_turn(run) for role, run in runners.items()}
    ratios: list[float] = []
    control_ratios: list[float] = []
    with _no_garbage_collection():
        while not ratios or time.perf_counter() < deadline:
            median_ms: dict[Role, float] = {}
            for role in order.sample(_ROLES, len(_ROLES)):
                turn_ms = [_seconds(runners[role]) * 1e3 for _ in range(runs[role])]
                if len(turn_ms) > 1:
                    del turn_ms[0]  # it finds the caches full of another model
                record.run_ms[role] += turn_ms
                median_ms[role] = float(np.median(turn_ms))
            # Both runs of the original make a better "before" than one, and one that the control says nothing about.
            before_ms = math.sqrt(median_ms["original"] * median_ms["control"])
            ratios.append(before_ms / median_ms["folded"])
            control_ratios.append(median_ms["original"] / median_ms["control"])
            tick()
    record.ratios.append(ratios)
    record.control_ratios.append(control_ratios)


def _runs_a_turn(run: Callable[[], object]) -> int:
    """One run of a slow model; of a fast one, as many as make a turn longer than what disturbs a clock."""
    seconds = min(_seconds(run), _seconds(run))
    if seconds >= _SHORTEST_TURN_S:
        return 1
    return min(_MOST_RUNS_A_TURN, 1 + int(_SHORTEST_TURN_S / max(seconds, 1e-9)))


def _latency(provider: str, level: OptLevel, record: _Record, seed: int) -> Latency:
    rng = np.random.default_rng(seed)
    ratio = median_ratio([np.array(ratios) for ratios in record.ratios], rng)
    control = median_ratio([np.array(ratios) for ratios in record.control_ratios], rng)
    before = np.percentile(record.run_ms["original"], (50, 90, 99))
    after = np.percentile(record.run_ms["folded"], (50, 90, 99))
    return Latency(
        provider=provider,
        opt_level=level,
        before_ms=float(before[0]),
        after_ms=float(after[0]),
        ratio=ratio.value,
        ci95=(ratio.low, ratio.high),
        init_before_ms=_init_ms(record, "original", "control"),
        init_after_ms=_init_ms(record, "folded"),
        verdict=verdict(ratio, control),
        control_ratio=control.value,
        control_ci95=(control.low, control.high),
        before_p90_ms=float(before[1]),
        before_p99_ms=float(before[2]),
        after_p90_ms=float(after[1]),
        after_p99_ms=float(after[2]),
        runs=len(record.run_ms["original"]),
    )


def _init_ms(record: _Record, *roles: Role) -> float:
    """The median; without the first time, which also reads files and starts libraries, where there are others."""
    times_ms = [ms for role in roles for ms in record.init_ms[role][1:] or record.init_ms[role]]
    return float(np.median(times_ms))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e9


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the collector from running inside a timed call."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
