"""Every output of a candidate on every feed, judged.

All feeds are run first, which costs little; then, those on which the two models differ most first, the feeds are run in
float64 as far as time allows, and the cases are judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from bnfold.checks.accuracy import Hits, accuracies, count_hits
from bnfold.checks.baseline import Answers, Baseline
from bnfold.checks.compare import Gap, compare, distance, tolerance_for
from bnfold.checks.exact import ExactAnswers
from bnfold.checks.feed import Feed
from bnfold.checks.judge import Case, Exactly, OutputScore, judge
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Runner
from bnfold.results import Accuracy
from bnfold.slices import Slices

# Below a quarter of the bound no fault past the bound can hide: rounding would have to take three quarters of it away.
_GRAY = 0.25


def examine(
    baseline: Baseline,
    candidate: Runner,
    scores: dict[str, OutputScore],
    options: CheckOptions,
    exact: ExactAnswers,
    advance: Callable[[int, int], None],
) -> tuple[Accuracy, ...]:
    """Judge every output on every feed, into `scores`, and count the hits on labelled data.

    Raises ModelError if the candidate cannot be run.
    """
    hits: Hits = {}
    gaps: dict[str, dict[str, Gap]] = {}
    steps = 2 * len(baseline.feeds)
    for done, feed in enumerate(baseline.feeds):
        expected, answers = baseline.answers(feed), candidate.run(feed.values)
        gaps[feed.label] = {name: _gap(name, expected, answers) for name in dict.fromkeys((*expected, *answers))}
        for name in gaps[feed.label]:
            if name not in scores:  # an element of a sequence
                dtype = str((expected if name in expected else answers)[name].dtype)
                scores[name] = OutputScore(name, tolerance_for(name, dtype, options))
        if feed.labels is not None:
            count_hits(hits, feed.labels, expected, answers)
        advance(done + 1, steps)

    def urgency(feed: Feed) -> tuple[float, int]:
        found = gaps[feed.label].items()
        use = max((_use(gap, scores[name], baseline.shares(name)) for name, gap in found), default=0.0)
        return -use if use > _GRAY else 0.0, sum(array.size for array in feed.values.values())

    cases: dict[str, list[tuple[str, Case]]] = {}
    for done, feed in enumerate(sorted(baseline.feeds, key=urgency)):
        urgent = urgency(feed)[0] < 0
        cases[feed.label] = list(_judged(baseline, candidate, feed, gaps[feed.label], scores, exact, urgent))
        advance(len(baseline.feeds) + done + 1, steps)
    for feed in baseline.feeds:
        for name, case in cases[feed.label]:
            scores[name].cases.append(case)
    return accuracies(hits)


def _judged(
    baseline: Baseline,
    candidate: Runner,
    feed: Feed,
    gaps: Mapping[str, Gap],
    scores: Mapping[str, OutputScore],
    exact: ExactAnswers,
    urgent: bool,
) -> Iterator[tuple[str, Case]]:
    pair = exact.on(feed, urgent=urgent)
    answers = candidate.run(feed.values) if pair else {}
    for name, gap in gaps.items():

        def movement(nudges: int, name: str = name) -> Gap:
            return baseline.movement(feed, nudges).get(name, Gap("missing", max_abs=math.inf))

        exactly = _exactly(name, baseline.answers(feed), answers, pair, exact, feed) if pair else None
        shares = baseline.shares(name)
        yield name, judge(feed.label, candidate.provider, gap, scores[name].tolerance, movement, exactly, shares)


def _exactly(
    name: str, expected: Answers, answers: Answers, pair: tuple[Answers, Answers], exact: ExactAnswers, feed: Feed
) -> Exactly | None:
    """How everything lies to the exact answers; None for what is no float."""
    original, folded = pair
    known = all(name in some for some in (expected, answers, original, folded))
    if not known or expected[name].dtype.kind != "f" or original[name].dtype.kind != "f":
        return None
    return Exactly(
        before=distance(original[name], expected[name]),
        after=distance(original[name], answers[name]),
        between=compare(original[name], folded[name]),
        weights_moved=lambda: exact.moved_by_weights(feed, name, original[name]),
        rounding=lambda: exact.moved_by_rounding(feed, name, original[name]),
        is_enough=exact.is_enough,
        beside_stored=lambda: exact.beside_stored(feed, name, answers[name]),
        jumps=exact.jumps,
        proven=exact.proven,
    )


def _use(gap: Gap, score: OutputScore, shares: Slices | None) -> float:
    """How much of its bound the slice takes up in which a gap is largest."""
    if gap.problem is not None:
        return math.inf
    sizes = gap.sizes.to_judge_by(gap.sizes.shares() if shares is None else shares)
    return gap.errors.over(score.tolerance.bounds(sizes)).ratio


def _gap(name: str, expected: Answers, answers: Answers) -> Gap:
    if name not in answers:
        return Gap("missing", max_abs=math.inf)
    if name not in expected:
        return Gap("not in the original", max_abs=math.inf)
    return compare(expected[name], answers[name])
