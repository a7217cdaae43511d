"""Both models in float64: the answers against which rounding is told from a fault.

Who can run a model so is given from outside (`ExactModel`); here is how often that is worth its time. Decisions: inputs
on which the float answers of the two models differ by more than a quarter of the tolerance come first and are given
eight times the time of `CheckOptions.exact_seconds`, since they decide, and so is the first input of all; the others
are run while there is time, and not at all where the models are proven to be one function part by part.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np

from bnfold.checks.compare import Gap, distance, larger
from bnfold.checks.feed import Feed
from bnfold.checks.session import Array, TensorInfo
from bnfold.errors import ModelError

Answers = Mapping[str, Array]

ENGINE = "float64 (bnfold's own interpreter)"
_URGENT = 8.0
_KEPT_BYTES = 256 * 2**20
_NUDGES = 3
_ROUNDINGS = 2


@dataclass(frozen=True)
class Nudge:
    """Every weight is moved by up to half a step of its stored type, up or down; with `everywhere`, so is every input
    and whatever an operator computes, by half a step of the model's coarsest type: as much as rounding can do.
    """

    seed: int
    everywhere: bool = False


class ExactModel(Protocol):
    """A model that can be run in float64, whatever types it declares.

    `is_believed` says that its answers are those of the library that made the model, and need no runtime beside them.
    """

    is_believed: bool

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What it asks for, in order."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What it gives, in order."""

    @property
    def foreign(self) -> str | None:
        """The type of an operator that every run meets and that is none of the standard, if there is one."""

    @property
    def jumps(self) -> bool:
        """Whether its runs met operators that are not continuous, such as rounding to integers."""

    def run(self, feeds: Answers, deadline: float, nudge: Nudge | None = None) -> Answers | str:
        """The outputs, or why there are none. `deadline` is a time of `time.monotonic()`."""

    def parting(self, feeds: Answers) -> str | None:
        """The first operator whose result in float64 is not the runtime's; None where none is found."""


@dataclass(frozen=True)
class ExactPair:
    """The original and the folded model, to be run in float64.

    `is_enough` says that they need not agree beyond that, as the runtime of the second is no part of what is compared.
    `stored` is the folded model with its constants as they are stored, where `folded` has them as they were before they
    were rounded to a type that is coarser than an output's.
    `proven` says that they are known to be one function, but for the rounding of the folded weights.
    """

    original: ExactModel
    folded: ExactModel
    is_enough: bool = False
    stored: ExactModel | None = None
    proven: bool = False


class ExactRunner:
    """A model in float64 in the place of a session: for types that ONNX Runtime has no operators for."""

    provider = ENGINE

    def __init__(self, model: ExactModel, label: str) -> None:
        self._model = model
        self._label = label
        self.inputs, self.outputs = model.inputs, model.outputs

    def run(self, feeds: Answers) -> dict[str, Array]:
        """All outputs by name. Raises ModelError where the model cannot be run."""
        answers = self._model.run(feeds, np.inf)
        if isinstance(answers, str):
            raise ModelError(f"{self._label} cannot be run in float64 either: {answers}")
        return dict(answers)


class ExactAnswers:
    """What a pair answers on each feed, as far as time allows."""

    def __init__(self, pair: ExactPair | None, seconds: float, deadline: float = math.inf) -> None:
        self._pair = pair if seconds > 0 else None
        self.is_enough = pair is not None and pair.is_enough
        self._seconds = seconds
        self._deadline = deadline
        self._spent = 0.0
        self._kept: dict[str, tuple[Answers, Answers]] = {}
        self._kept_bytes = 0
        self._moved: dict[str, Answers] = {}
        self._ran: set[str] = set()
        self.reason: str | None = None if self._pair else "it was not asked for"

    def on(self, feed: Feed, *, urgent: bool) -> tuple[Answers, Answers] | None:
        """The original's and the folded model's answers, or None."""
        if feed.label in self._kept:
            return self._kept[feed.label]
        unneeded = 0.0 if self.proven else 1.0
        allowed = self._seconds * (_URGENT if urgent or not self._ran else unneeded)
        if self._pair is None or self._spent >= allowed or time.monotonic() > self._deadline:
            self.reason = self.reason or "the time set for it is over"
            return None
        pair = self._pair
        begin = time.monotonic()
        deadline = min(begin + allowed - self._spent, self._deadline)
        original = pair.original.run(feed.values, deadline)
        folded = pair.folded.run(feed.values, deadline) if not isinstance(original, str) else original
        self._spent += time.monotonic() - begin
        if isinstance(original, str) or isinstance(folded, str):
            self.reason = self.reason or str(folded)
            return None
        size = sum(array.nbytes for answers in (original, folded) for array in answers.values())
        if self._kept_bytes + size <= _KEPT_BYTES:
            self._kept[feed.label] = original, folded
            self._kept_bytes += size
        self._ran.add(feed.label)
        return original, folded

    def beside_stored(self, feed: Feed, name: str, answer: Array) -> Gap | None:
        """How an answer of the folded model lies to float64 with the constants that are stored, where that differs."""
        stored = self._pair.stored.run(feed.values, np.inf) if self._pair and self._pair.stored else ""
        return None if isinstance(stored, str) or name not in stored else distance(stored[name], answer)

    @property
    def proven(self) -> bool:
        """Whether the models are one function, but for the rounding of the folded weights."""
        return self._pair is not None and self._pair.proven

    @property
    def jumps(self) -> bool:
        """Whether the original's runs met operators that are not continuous."""
        return self._pair is not None and self._pair.original.jumps

    def moved_by_weights(self, feed: Feed, name: str, exact: Array) -> Gap:
        """The largest change of an output of the original in float64 when its weights move by half a step."""
        return self._moved_by([Nudge(seed) for seed in range(_NUDGES)], feed, name, exact)

    def moved_by_rounding(self, feed: Feed, name: str, exact: Array) -> Gap | None:
        """How far rounding takes an output of the original; None where its answers are believed as they are."""
        if self._pair is None or self._pair.original.is_believed:
            return None
        return self._moved_by([Nudge(seed, everywhere=True) for seed in range(_ROUNDINGS)], feed, name, exact)

    def _moved_by(self, nudges: Sequence[Nudge], feed: Feed, name: str, exact: Array) -> Gap:
        moved = [self._nudged(feed, nudge).get(name) for nudge in nudges] if self._pair else []
        gaps = [distance(exact, answer) for answer in moved if answer is not None and answer.shape == exact.shape]
        return reduce(larger, gaps, Gap())

    def _nudged(self, feed: Feed, nudge: Nudge) -> Answers:
        key = f"{nudge} {feed.label}"
        if key not in self._moved and self._pair is not None:
            answers = self._pair.original.run(feed.values, np.inf, nudge)
            self._moved[key] = {} if isinstance(answers, str) else answers
        return self._moved[key]

    def parting(self, feed: Feed) -> str:
        """Where float64 and the runtime part on the original, in words."""
        found = self._pair.original.parting(feed.values) if self._pair else None
        return f"first at {found}" if found else "at no operator by itself"

    def text(self, feeds: int) -> str:
        """What was run, in words."""
        if self._ran:
            return f"both models in {ENGINE} too, on {len(self._ran)} of {feeds} inputs"
        return f"not run in float64: {self.reason or 'there was no input'}"
