"""Original, folded model and the original once more, as a control, taking turns on one provider at one level.

The order of turns is random, so that whatever else the machine does hits all three alike. The time is cut into
segments; sessions are opened anew between them, where that is cheap: every opening has its own luck with memory.

ONNX Runtime's worker threads spin while they wait, unless told to sleep. On a machine that others use too, spinning
threads lose their cores in the middle of a run, and what is timed is the scheduler: runs have been seen to take six
times their time. So a segment in which that happens is dropped; where it is the very first one, all that follows runs
with sleeping workers. The times of the folded model have no say in that.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from bnfold.checks.feed import Feed
from bnfold.checks.session import Session

Role = Literal["original", "folded", "control"]
Runners = Mapping[Role, Callable[[], object]]

ROLES: tuple[Role, ...] = ("original", "folded", "control")
_SEGMENTS = 4
_REOPENING_SHARE = 0.25  # of the time budget
_WARM_RUNS = 3
_STILL_WARMING = 0.95
_LONGEST_WARM_UP_S = 0.1
_SHORTEST_TURN_S = 0.001
_MOST_RUNS_A_TURN = 16
# Involuntary context switches per second and core. Measured: 0 to 7 on a quiet machine, 40 to 200 on a shared one.
_CONTENDED_SWITCHES = 20.0
# Interquartile range of the logarithm of control ratios; for what the operating system does not see, such as a busy
# host of a virtual machine. Measured: 0.02 to 0.16 on a quiet machine, 0.3 and more on a shared one.
_CONTENDED_SCATTER = 0.2
_LEAST_ROUNDS_TO_TELL = 4


class Opener(Protocol):
    """Opens the session of a role, with worker threads that spin or sleep while they wait."""

    def __call__(self, role: Role, *, spinning: bool) -> Session: ...


@dataclass
class Segment:
    """Times of the rounds of one segment.

    `ratios` holds before / after of each round, once with either run of the original; `control_ratios` those two runs'
    own ratio; `run_ms` every timed run. `switches` counts how often a thread lost its core involuntarily, per second
    and core.
    """

    opening: int
    switches: float = 0.0
    ratios: list[tuple[float, float]] = field(default_factory=list)
    control_ratios: list[float] = field(default_factory=list)
    run_ms: dict[Role, list[float]] = field(default_factory=lambda: {role: [] for role in ROLES})

    @property
    def contended(self) -> bool:
        """Whether something else took the processor away."""
        if self.switches > _CONTENDED_SWITCHES:
            return True
        if len(self.control_ratios) < _LEAST_ROUNDS_TO_TELL:
            return False
        low, high = np.quantile(np.log(self.control_ratios), (0.25, 0.75))
        return bool(high - low > _CONTENDED_SCATTER)


@dataclass
class Contest:
    """One provider, one optimisation level. Times of session creation are kept of every opening."""

    opener: Opener
    choose_feed: Callable[[Session], Feed]
    seconds: float
    seed: int
    init_ms: dict[Role, list[float]] = field(default_factory=lambda: {role: [] for role in ROLES})

    def run(self, advance: Callable[[float], None]) -> list[Segment]:
        """At least one segment of at least one round, as many as fit into `seconds` after the first warm-up.

        Where the first one is dropped, `seconds` begin anew: the whole takes a quarter longer.
        """
        order = random.Random(self.seed)  # noqa: S311 - shuffles turns, keeps no secret
        sessions = self._open(order, spinning=True)
        feed = self.choose_feed(sessions["original"])
        runners, warm_s = _warm(sessions, feed)
        opening_s = warm_s + sum(session.init_ms for session in sessions.values()) / 1e3
        reopenings = min(_SEGMENTS - 1, int(_REOPENING_SHARE * self.seconds / opening_s))
        end = time.perf_counter() + self.seconds
        done = 0.0

        def tick() -> None:
            nonlocal done
            done = min(1.0, max(done, 1.0 - (end - time.perf_counter()) / self.seconds))
            advance(done)

        opening, spinning = 0, True
        kept: list[Segment] = []
        dropped: list[Segment] = []
        for number in range(_SEGMENTS):
            shared_machine = spinning and not kept and bool(dropped)
            if shared_machine or (number > 0 and opening < reopenings):
                opening, spinning = opening + 1, spinning and not shared_machine
                del sessions, runners  # never six at a time
                sessions = self._open(order, spinning=spinning)
                runners, _ = _warm(sessions, feed)
            now = time.perf_counter()
            if shared_machine:
                end = now + self.seconds
            if now >= end and (kept or dropped):
                break
            segment = _take_turns(runners, now + (end - now) / (_SEGMENTS - number), order, Segment(opening), tick)
            (dropped if spinning and segment.contended else kept).append(segment)
        return kept or dropped

    def _open(self, order: random.Random, *, spinning: bool) -> dict[Role, Session]:
        sessions = {role: self.opener(role, spinning=spinning) for role in order.sample(ROLES, len(ROLES))}
        for role, session in sessions.items():
            self.init_ms[role].append(session.init_ms)
        return sessions


def _warm(sessions: Mapping[Role, Session], feed: Feed) -> tuple[Runners, float]:
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
    runners: Runners, deadline: float, order: random.Random, segment: Segment, tick: Callable[[], None]
) -> Segment:
    """Rounds until the deadline, at least one."""
    runs = {role: _runs_a_turn(run) for role, run in runners.items()}
    began, switches = time.perf_counter(), _involuntary_switches()
    with _no_garbage_collection():
        while not segment.ratios or time.perf_counter() < deadline:
            median_ms: dict[Role, float] = {}
            for role in order.sample(ROLES, len(ROLES)):
                turn_ms = [_seconds(runners[role]) * 1e3 for _ in range(runs[role])]
                if len(turn_ms) > 1:
                    del turn_ms[0]  # it finds the caches full of another model
                segment.run_ms[role] += turn_ms
                median_ms[role] = statistics.median(turn_ms)
            segment.ratios.append(
                (median_ms["original"] / median_ms["folded"], median_ms["control"] / median_ms["folded"])
            )
            segment.control_ratios.append(median_ms["original"] / median_ms["control"])
            tick()
    core_seconds = (time.perf_counter() - began) * (os.cpu_count() or 1)
    segment.switches = (_involuntary_switches() - switches) / core_seconds
    return segment


def _runs_a_turn(run: Callable[[], object]) -> int:
    """One run of a slow model; of a fast one, as many as make a turn longer than what disturbs a clock."""
    seconds = min(_seconds(run), _seconds(run))
    if seconds >= _SHORTEST_TURN_S:
        return 1
    return min(_MOST_RUNS_A_TURN, 1 + int(_SHORTEST_TURN_S / max(seconds, 1e-9)))


def _involuntary_switches() -> int:
    """How often a thread of this process has lost its core although it had work; 0 where nobody counts."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e9


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the collector from running inside a timed call."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
