"""The original's own answers, and how firmly it holds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from bnfold.checks.compare import Gap, Tolerance, compare, larger, sizes_of
from bnfold.checks.feed import Feed, nudged, scaled
from bnfold.checks.feeds import make_feeds
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Array, Runner
from bnfold.checks.shapes import contradictions, shape_text
from bnfold.errors import ModelError
from bnfold.slices import Slices

Answers = Mapping[str, Array]

_KEPT_BYTES = 256 * 2**20
_GENTLER = (0.3, 0.1)
_GLANCE = 2
# Correct folds have been seen to differ by 8 times what a few nudges move the original by.
_FIRM = 0.1
_SHARE = 0.25  # of the time that is left, since the other model runs as often, and more


class Baseline:
    """Feeds on which the original runs, with its answers.

    Drawn inputs are chosen by looking at the original alone. One on which it cannot run is left out. One that drives it
    to NaN or infinity, as happens with float16, or a large one on which rounding moves its answer by a tenth of the
    tolerance, is replaced by itself at 0.3 or 0.1 times the size where that cures it.

    Attributes:
        session: the original, on the CPU without graph optimisations.
        feeds: what it is compared on.
        contradictions: where the sizes that were given contradict the names that the model gives to sizes.

    Raises:
        UsageError: if the options do not fit the model's inputs.
        ModelError: if the original cannot run on the user's data, or on no drawn feed.
    """

    def __init__(
        self,
        session: Runner,
        tolerances: Mapping[str, Tolerance],
        options: CheckOptions,
        advance: Callable[[int, int], None],
    ) -> None:
        self.session = session
        self.feeds: list[Feed] = []
        self._tolerances = tolerances
        self._seed = options.seed
        self._answers: dict[str, Answers] = {}
        self._kept_bytes = 0
        self._movements: dict[tuple[str, int], dict[str, Gap]] = {}
        self._left_out: dict[str, str] = {}
        self._shares: dict[str, Slices | None] = {}
        first_error: ModelError | None = None
        candidates = make_feeds(session.inputs, options)
        self._deadline = options.until(_SHARE)
        for done, feed in enumerate(candidates):
            if self.feeds and feed.source is None and self._is_late:
                self._left_out[feed.label] = "the time set for the whole was over"
                continue
            try:
                self._add(feed, may_scale=feed.source is None and options.val_range is None)
            except ModelError as error:
                if feed.source is not None:
                    raise
                first_error = first_error or error
                self._left_out[feed.label] = "the original cannot run on it"
            advance(done + 1, len(candidates))
        if not self.feeds and first_error is not None:
            raise ModelError(f"{first_error}{_guessed_sizes(session, candidates[0], options)}") from first_error
        shapes = {name: array.shape for name, array in self.feeds[0].values.items()}
        self.contradictions = contradictions(session.inputs, shapes)

    @property
    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def answers(self, feed: Feed) -> Answers:
        """The original's outputs; run again where they are too many to be kept."""
        if feed.label in self._answers:
            return self._answers[feed.label]
        answers = self.session.run(feed.values)
        size = sum(array.nbytes for array in answers.values())
        if self._kept_bytes + size <= _KEPT_BYTES:
            self._answers[feed.label] = answers
            self._kept_bytes += size
        return answers

    def shares(self, name: str) -> Slices | None:
        """The largest share of an output's whole that each of its slices has, over all feeds; None for no floats."""
        if name not in self._shares:
            found: Slices | None = None
            for feed in self.feeds:
                array = self.answers(feed).get(name)
                if array is not None and array.dtype.kind == "f":
                    own = sizes_of(array).shares()
                    found = own if found is None else found.join(own)
            self._shares[name] = found
        return self._shares[name]

    def movement(self, feed: Feed, nudges: int) -> Mapping[str, Gap]:
        """By output, the largest change of the original's answer over `nudges` nudges of its inputs."""
        key = (feed.label, nudges)
        if key not in self._movements:
            rng = np.random.default_rng(self._seed)
            expected = self.answers(feed)
            largest: dict[str, Gap] = {}
            for _ in range(nudges):
                answers = self.session.run(nudged(feed, self.session.inputs, rng).values)
                for name, array in answers.items():
                    if name in expected:
                        largest[name] = larger(largest.get(name, Gap()), compare(expected[name], array))
            self._movements[key] = largest
        return self._movements[key]

    def inputs_tried(self) -> tuple[str, ...]:
        """The feeds in words; all parts of a file together."""
        drawn = [feed.label for feed in self.feeds if feed.source is None]
        parts = [feed for feed in self.feeds if feed.source is not None]
        words = []
        if parts:
            words.append(f"file {parts[0].source}" + (f", in {len(parts)} parts" if len(parts) > 1 else ""))
        left_out = [f"{label} (left out: {why})" for label, why in self._left_out.items()]
        return (*words, *drawn, *left_out)

    def _add(self, feed: Feed, may_scale: bool) -> None:
        if may_scale and not (self._is_finite(feed) and self._is_firm(feed)):
            feed = self._gentler(feed)
        self.answers(feed)
        self.feeds.append(feed)

    def _gentler(self, feed: Feed) -> Feed:
        """The largest version that gives finite and firm answers, or else finite ones, or else `feed`."""
        versions = [feed, *(scaled(feed, self.session.inputs, factor) for factor in _GENTLER)]
        finite = [version for version in versions if self._is_finite(version)]
        return next((version for version in finite if self._is_firm(version)), finite[0] if finite else feed)

    def _is_finite(self, feed: Feed) -> bool:
        return all(np.isfinite(array).all() for array in self.answers(feed).values() if array.dtype.kind == "f")

    def _is_firm(self, feed: Feed) -> bool:
        """Whether rounding leaves the original's answers to a large feed where they are; no other is asked for that."""
        if not feed.large or self._is_late:
            return True
        return all(
            gap.problem is None and gap.max_abs <= _FIRM * self._tolerances[name].bound(gap.max_ref)
            for name, gap in self.movement(feed, _GLANCE).items()
            if name in self._tolerances
        )


def _guessed_sizes(session: Runner, feed: Feed, options: CheckOptions) -> str:
    """What to add to an error that guessed sizes may have caused; what has no axes may be of an unknown rank."""
    named = options.input_shapes
    guessed = [
        f"{info.name} {shape_text(feed.values[info.name].shape)}"
        for info in session.inputs
        if not (info.shape and all(isinstance(size, int) for size in info.shape))
        and not {info.name, ""}.intersection(named)
    ]
    return f"; the sizes of {', '.join(guessed)} were guessed: give yours with --input-shape" if guessed else ""
