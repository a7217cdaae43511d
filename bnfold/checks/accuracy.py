"""Top-1 hits on labelled data, before and after."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.checks.session import Array
from bnfold.results import Accuracy

Hits = dict[str, list[int]]
"""By output: hits of the original, hits of the folded model, labelled rows."""


def accuracies(hits: Hits) -> tuple[Accuracy, ...]:
    return tuple(Accuracy(name, before, after, total) for name, (before, after, total) in hits.items())


def count_hits(hits: Hits, labels: Array, expected: Mapping[str, Array], answers: Mapping[str, Array]) -> None:
    """Add what each classifying output gets right of the first rows, whose classes are `labels`."""
    for name in expected:
        before, after = _classes(expected[name], labels.size), _classes(answers.get(name), labels.size)
        if before is None or after is None:
            continue
        counts = hits.setdefault(name, [0, 0, 0])
        counts[0] += int(np.count_nonzero(before == labels))
        counts[1] += int(np.count_nonzero(after == labels))
        counts[2] += labels.size


def _classes(output: Array | None, rows: int) -> Array | None:
    """The class chosen in each of the first `rows` rows: of scores (N, classes), or of class numbers (N,) or (N, 1)."""
    if output is None or output.ndim == 0 or output.shape[0] < rows:
        return None
    if output.dtype.kind == "f" and output.ndim == 2 and output.shape[1] > 1:
        return np.asarray(output[:rows].argmax(axis=1))
    if output.dtype.kind in "iu" and output.size == output.shape[0]:
        return output.reshape(-1)[:rows]
    return None
