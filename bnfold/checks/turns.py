"""Original, folded model and the original once more, as a control, taking turns.

The order of turns is random, so that whatever else the machine does hits all three alike. Every run is timed by two
clocks: the wall's, and that of the processor time of all threads of this process together. Where other programs want
the cores too, a run is interrupted, and the wall clock goes on: measured with four busy processes on two cores, ratios
of runs of 10 ms scatter five to ten times as far by the wall as by processor time. While worker threads spin, however,
their processor time says nothing.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnfold.checks.environment import usable_cores

Role = Literal["original", "folded", "control"]
Clock = Literal["wall", "cpu"]
Run: TypeAlias = Callable[[], object]
Times: TypeAlias = tuple[float, float]
"""What the clocks showed, in `CLOCKS`' order."""

ROLES: tuple[Role, ...] = ("original", "folded", "control")
CLOCKS: tuple[Clock, ...] = ("wall", "cpu")
_WARM_RUNS = 3
_STILL_WARMING = 0.95
_LONGEST_WARM_UP_S = 0.1
_SHORTEST_TURN_S = 0.001
# Where others take the cores and fill the caches, many short turns tell more in a given time than fewer long ones.
_SHORTEST_SHARED_TURN_S = 0.0003
_CLEARLY_SLOW_S = 0.1
_MOST_RUNS_A_TURN = 16
# Involuntary context switches per second and core. Measured: 0 to 7 on a quiet machine, 40 to 200 on a shared one.
_CONTENDED_SWITCHES = 20.0
# Interquartile range of the logarithm of control ratios; for what the operating system does not see, such as a busy
# host of a virtual machine. Measured: 0.02 to 0.16 on a quiet machine, 0.3 and more on a shared one.
_CONTENDED_SCATTER = 0.2
_LEAST_ROUNDS_TO_TELL = 4
# Windows counts processor time in ticks of 16 ms.
_FINE_RESOLUTION_S = 1e-5


@dataclass
class Segment:
    """Times of the rounds of one segment, all in the same sessions: those of this `opening`.

    `turns_ms` holds each round's three turns, in the order of `ROLES`, by the two clocks; `runs_ms` every timed run.
    `switches` counts how often a thread lost its core involuntarily, per second and core. `spinning` says what the
    worker threads do while they wait.
    """

    opening: int
    spinning: bool = True
    switches: float = 0.0
    turns_ms: list[tuple[Times, ...]] = field(default_factory=list)
    runs_ms: dict[Role, list[Times]] = field(default_factory=lambda: {role: [] for role in ROLES})

    def ratios(self, clock: Clock) -> NDArray[np.float64]:
        """Before / after of each round, once with either run of the original, of shape (rounds, 2)."""
        original, folded, control = self._by(clock)
        return np.stack([original / folded, control / folded], axis=1)

    def control_ratios(self, clock: Clock) -> NDArray[np.float64]:
        """The ratio of the two runs of the original of each round, of shape (rounds,)."""
        original, _, control = self._by(clock)
        return np.asarray(original / control)

    def _by(self, clock: Clock) -> NDArray[np.float64]:
        times = np.array(self.turns_ms, np.float64)[:, :, CLOCKS.index(clock)]
        return np.maximum(times, _FINE_RESOLUTION_S).T

    @property
    def contended(self) -> bool:
        """Whether something else took the processor away."""
        if self.switches > _CONTENDED_SWITCHES:
            return True
        if len(self.turns_ms) < _LEAST_ROUNDS_TO_TELL:
            return False
        low, high = np.quantile(np.log(self.control_ratios("wall")), (0.25, 0.75))
        return bool(high - low > _CONTENDED_SCATTER)


def runs_ms(segments: Sequence[Segment], role: Role, clock: Clock) -> list[float]:
    """What every timed run of a role took by a clock."""
    which = CLOCKS.index(clock)
    return [times[which] for segment in segments for times in segment.runs_ms[role]]


def counts_processor_time() -> bool:
    """Whether this system counts processor time finely enough to time a run by it."""
    return time.get_clock_info("process_time").resolution <= _FINE_RESOLUTION_S


def warm_up(run: Run) -> float:
    """Run until the times no longer fall, or 0.1 s have passed. Returns what the first run took, in ms."""
    start = time.perf_counter()
    first = best = _timed_ms(run)[0]
    not_better = 0
    while not_better < _WARM_RUNS and time.perf_counter() - start < _LONGEST_WARM_UP_S:
        ms = _timed_ms(run)[0]
        not_better = 0 if ms < _STILL_WARMING * best else not_better + 1
        best = min(best, ms)
    return first


def take_turns(
    runners: Mapping[Role, Run], deadline: float, order: random.Random, segment: Segment, tick: Callable[[], None]
) -> None:
    """Add rounds to the segment until the deadline, at least one."""
    shortest_s = _SHORTEST_TURN_S if segment.spinning else _SHORTEST_SHARED_TURN_S
    runs = {role: _runs_a_turn(run, shortest_s) for role, run in runners.items()}
    began, switches = time.perf_counter(), _involuntary_switches()
    with _no_garbage_collection():
        while not segment.turns_ms or time.perf_counter() < deadline:
            turn_ms: dict[Role, Times] = {}
            for role in order.sample(ROLES, len(ROLES)):
                times = [_timed_ms(runners[role]) for _ in range(runs[role])]
                if len(times) > 1:
                    del times[0]  # it finds the caches full of another model
                segment.runs_ms[role] += times
                wall, cpu = np.median(times, axis=0)
                turn_ms[role] = (float(wall), float(cpu))
            segment.turns_ms.append(tuple(turn_ms[role] for role in ROLES))
            tick()
    core_seconds = (time.perf_counter() - began) * usable_cores()
    segment.switches = (_involuntary_switches() - switches) / core_seconds


def _runs_a_turn(run: Run, shortest_s: float) -> int:
    """One run of a slow model; of a fast one, as many as make a turn longer than what disturbs a clock."""
    seconds = _timed_ms(run)[0] / 1e3
    if seconds < _CLEARLY_SLOW_S:
        seconds = min(seconds, _timed_ms(run)[0] / 1e3)
    if seconds >= shortest_s:
        return 1
    return min(_MOST_RUNS_A_TURN, 1 + int(shortest_s / max(seconds, 1e-9)))


def _timed_ms(run: Run) -> Times:
    cpu = time.process_time_ns()
    wall = time.perf_counter_ns()
    run()
    wall = time.perf_counter_ns() - wall
    cpu = time.process_time_ns() - cpu
    return wall / 1e6, cpu / 1e6


def _involuntary_switches() -> int:
    """How often a thread of this process has lost its core although it had work; 0 where nobody counts."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


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
