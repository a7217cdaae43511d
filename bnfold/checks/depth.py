"""How an error develops on the way down a graph: for a report, not for a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from bnfold.checks.compare import compare
from bnfold.checks.feeds import make_feeds
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import ModelFile, open_session
from bnfold.errors import ModelError


def depth(
    original: ModelFile, folded: ModelFile, names: Iterable[str], options: CheckOptions
) -> tuple[tuple[str, float], ...]:
    """Per value that both models hand out as a tensor of numbers, `max|folded - original| / max|original|`.

    On the first input that verification uses, on ORT's CPU provider without graph optimisations. Empty where ORT
    cannot run the models so.
    """
    threads = options.intra_op_num_threads
    try:
        session = open_session(original, intra_op_num_threads=threads, label="the original")
        feed = make_feeds(session.inputs, replace(options, check_n=min(options.check_n, 1)))[0]
        expected = session.run(feed.values)
        del session
        found = open_session(folded, intra_op_num_threads=threads, label="the folded model").run(feed.values)
    except ModelError:
        return ()
    points = []
    for name in names:
        if name in expected and name in found and expected[name].dtype.kind == "f":
            gap = compare(expected[name], found[name])
            if gap.problem is None and gap.max_ref > 0 and math.isfinite(gap.max_abs):
                points.append((name, gap.max_abs / gap.max_ref))
    return tuple(points)
