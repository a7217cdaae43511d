"""Both models in float64: the answers against which rounding is told from a fault.

Who can run a model so is given from outside (`ExactModel`); here is how often that is worth its time. Decisions: inputs
on which the float answers of the two models differ by more than a quarter of the tolerance come first and are given
eight times the time of `CheckOptions.exact_seconds`, since they decide, and so is the first input of all; the others
are run while there is time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bnfold.checks.feed import Feed
from bnfold.checks.session import Array, TensorInfo
from bnfold.errors import ModelError

Answers = Mapping[str, Array]

ENGINE = "float64 (bnfold's own interpreter)"
_URGENT = 8.0
_KEPT_BYTES = 256 * 2**20
_NUDGES = 3


class ExactModel(Protocol):
    """A model that can be run in float64, whatever types it declares."""

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

    def run(self, feeds: Answers, deadline: float, nudge: int | None = None) -> Answers | str:
        """The outputs, or why there are none. `deadline` is a time of `time.monotonic()`.

        With `nudge`, a seed, every weight is first moved by up to half a step of its stored type, up or down.
        """


@dataclass(frozen=True)
class ExactPair:
    """The original and the folded model, to be run in float64."""

    original: ExactModel
    folded: ExactModel


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

    def __init__(self, pair: ExactPair | None, seconds: float) -> None:
        self._pair = pair if seconds > 0 else None
        self._seconds = seconds
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
        allowed = self._seconds * (_URGENT if urgent or not self._ran else 1.0)
        if self._pair is None or self._spent >= allowed:
            self.reason = self.reason or "the time set for it is over"
            return None
        pair = self._pair
        begin = time.monotonic()
        deadline = begin + allowed - self._spent
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

    def moved_by_weights(self, feed: Feed, name: str, exact: Array) -> float:
        """The largest change of an output of the original in float64 when its weights move by half a step.

        Zero for a model without jumps, however sensitive: there, what is past the tolerance is past it.
        """
        largest = 0.0
        if self._pair is None or not self._pair.original.jumps:
            return largest
        for seed in range(_NUDGES):
            key = f"{seed} {feed.label}"
            if key not in self._moved:
                answers = self._pair.original.run(feed.values, np.inf, seed)
                self._moved[key] = {} if isinstance(answers, str) else answers
            if name in self._moved[key] and self._moved[key][name].shape == exact.shape:
                with np.errstate(invalid="ignore"):
                    largest = max(largest, float(np.nanmax(np.abs(self._moved[key][name] - exact), initial=0.0)))
        return largest

    def text(self, feeds: int) -> str:
        """What was run, in words."""
        if self._ran:
            return f"both models in {ENGINE} too, on {len(self._ran)} of {feeds} inputs"
        return f"not run in float64: {self.reason or 'there was no input'}"
