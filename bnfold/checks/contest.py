"""How the time of a measurement is spent on one provider at one level: in segments, until it is precise enough.

Sessions are opened anew between segments, where that is cheap: every opening has its own luck with memory. After four
segments, what is there is asked whether it is precise; if so, that is all, or else it goes on for as long as it may. A
measurement that stops where its interval is narrow claims no more than one of fixed length, unlike one that stops where
a difference shows.

ONNX Runtime's worker threads spin while they wait, unless told to sleep. On a machine that others use too, spinning
threads lose their cores in the middle of a run, and what is timed is the scheduler: runs have been seen to take six
times their time. So a segment in which that happens is dropped; where as many are dropped as are kept, early on, all
that follows runs with sleeping workers, and nothing is dropped any more. The times of the folded model have no say in
that.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bnfold.checks.feed import Feed
from bnfold.checks.session import TimedRunner
from bnfold.checks.turns import ROLES, Role, Run, Segment, take_turns, warm_up

_LEAST_SEGMENTS = 4
_LONGEST_SEGMENT_S = 0.5
_OPENING_SHARE = 1 / 3  # time to open and warm sessions anew, of that in which they run
_EARLY = 0.25  # of the time budget


class Opener(Protocol):
    """Opens the session of a role, with worker threads that spin or sleep while they wait."""

    def __call__(self, role: Role, *, spinning: bool) -> TimedRunner: ...


def _by_role() -> dict[Role, list[float]]:
    return {role: [] for role in ROLES}


@dataclass
class Contest:
    """One provider, one optimisation level.

    Attributes:
        precise: whether segments are enough, whose workers spun or slept.
        seconds: time to spend at most, after the first warm-up.
        ends: the time of `time.monotonic()` after which nothing more is begun.
        may_sleep: whether workers can be put to sleep; if not, what others disturb is dropped for as long as it lasts.
        init_ms, first_run_ms: times of session creation, and of first runs, one of every opening.
        spinning: whether ONNX Runtime's workers spin while they wait.
        dropped: number of segments that others disturbed.
        spent_s: time that segments took, dropped ones too.
        feed: what the models run on.
    """

    opener: Opener
    choose_feed: Callable[[TimedRunner], Feed]
    precise: Callable[[Sequence[Segment], bool], bool]
    seconds: float
    seed: int
    init_ms: dict[Role, list[float]] = field(default_factory=_by_role)
    first_run_ms: dict[Role, list[float]] = field(default_factory=_by_role)
    may_sleep: bool = True
    ends: float = math.inf
    spinning: bool = True
    dropped: int = 0
    spent_s: float = 0.0
    feed: Feed = field(default_factory=lambda: Feed("not chosen yet", {}))
    _runners: dict[Role, Run] = field(default_factory=dict)

    def run(self, advance: Callable[[float], None]) -> list[Segment]:
        """At least one segment of at least one round.

        Where the workers are put to sleep, the time begins anew: the whole takes a quarter longer.
        """
        order = random.Random(self.seed)  # noqa: S311 - shuffles turns, keeps no secret
        opening, opening_s, reopening_s = 0, self._open(order), 0.0
        length = min(_LONGEST_SEGMENT_S, self.seconds / _LEAST_SEGMENTS)
        start = time.perf_counter()
        end = start + self.seconds
        done = 0.0

        def tick() -> None:
            nonlocal done
            done = min(1.0, max(done, 1.0 - (end - time.perf_counter()) / self.seconds))
            advance(done)

        segments: list[Segment] = []
        disturbed: list[Segment] = []
        while True:
            began = time.perf_counter()
            segment = Segment(opening, self.spinning)
            take_turns(self._runners, min(began + length, end), order, segment, tick)
            now = time.perf_counter()
            self.spent_s += now - began
            (disturbed if self.spinning and segment.contended else segments).append(segment)
            early = now < start + _EARLY * self.seconds or len(segments) + len(disturbed) == 1
            is_late = time.monotonic() > self.ends
            sleep = self.may_sleep and self.spinning and early and len(disturbed) >= max(1, len(segments))
            if is_late:
                break
            if sleep:
                self.dropped += len(segments)  # they are of another kind
                segments, self.spinning, end = [], False, now + self.seconds
            elif now >= end or (len(segments) >= _LEAST_SEGMENTS and self.precise(segments, self.spinning)):
                break
            if sleep or reopening_s + opening_s <= _OPENING_SHARE * (now - start - reopening_s):
                opening, opening_s = opening + 1, self._open(order)
                reopening_s += opening_s
        self.dropped += len(disturbed)
        return segments or disturbed

    def _open(self, order: random.Random) -> float:
        """A session of every role, warm; returns the seconds that this took."""
        began = time.perf_counter()
        self._runners.clear()  # never six at a time
        sessions = {role: self.opener(role, spinning=self.spinning) for role in order.sample(ROLES, len(ROLES))}
        if not self.init_ms["original"]:
            self.feed = self.choose_feed(sessions["original"])
        for role, session in sessions.items():
            self.init_ms[role].append(session.init_ms)
            self._runners[role] = session.runner(self.feed.values)
            self.first_run_ms[role].append(warm_up(self._runners[role]))
        return time.perf_counter() - began
