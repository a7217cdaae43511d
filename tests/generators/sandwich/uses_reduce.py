"""Uses of the reductions, and of the operators that normalise along axes without parameters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from generators.sandwich.use import Draft, Maker, given, index, words

REDUCTIONS = tuple(
    sorted(
        words(
            "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
            "ReduceSumSquare"
        )
    )
)

AXES: tuple[tuple[tuple[int, ...], list[int]], ...] = (
    ((2, 3, 4, 5), [2, 3]),
    ((2, 3, 4, 5), [1]),
    ((2, 3, 4, 5), [3, 2]),
    ((2, 3, 4, 5), [-1]),
    ((2, 3, 4, 5), [-1, 1]),
    ((2, 3, 4, 5), [0, 1, 2, 3]),
    ((3, 3, 3), [0, 2]),
    ((3, 3, 3), [1]),
    ((5,), [0]),
    ((2, 0, 3), [0]),
    ((2, 0, 3), [1]),
    ((2, 1, 3), [1]),
)


def reductions(m: Maker) -> Iterator[Draft]:
    """The Reduce operators: axes as attribute, as input, empty or absent."""
    for op in REDUCTIONS:
        low = 0.2 if op == "ReduceLogSum" else None
        for shape, axes in AXES:
            since = 7 if min(axes) >= 0 else 11
            for keep in (0, 1):
                x = m.x(*shape, low=low, high=2.0)
                yield Draft(op, (x,), {"axes": axes, "keepdims": keep}, since=since)
                yield Draft(op, (x, index(axes)), {"keepdims": keep})
            yield Draft(op, (m.x(*shape, low=low, high=2.0), index(axes)))
        for shape in ((2, 3, 4), (3, 3), ()):
            for keep in (0, 1):
                x = m.x(*shape, low=low, high=2.0)
                yield Draft(op, (x,), {"keepdims": keep})
                yield Draft(op, (x, index([])), {"keepdims": keep})
                for noop in (0, 1):
                    setting = {"keepdims": keep, "noop_with_empty_axes": noop}
                    yield Draft(op, (x,), setting)
                    yield Draft(op, (x, index([])), setting)
                    yield Draft(op, (x, None), setting)
                    if shape:
                        yield Draft(op, (x, index([1])), setting)
        yield Draft(op, (m.x(2, 3, 4, dtype=np.float64, low=low, high=2.0),), {"keepdims": 0})
    for op in ("ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceSumSquare", "ReduceL1"):
        yield Draft(op, (index([2, 3, 4]),), {"keepdims": 0})
        yield Draft(op, (index([2, 3, 4]), index([0])), {"keepdims": 1})
        yield Draft(op, (given([7, -3, 4], np.int32),), {"keepdims": 1})
    for op in ("ReduceMax", "ReduceMin"):
        yield Draft(op, (given([[True, False], [False, False]], bool), index([1])), {"keepdims": 0})


def softmaxes(m: Maker) -> Iterator[Draft]:
    """Softmax and its kin: before opset 13 they flatten at the axis."""
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for shape in ((2, 3, 4), (3, 3), (2, 3, 4, 5), (4,)):
            yield Draft(op, (m.x(*shape),))
            for axis in range(-len(shape), len(shape)):
                yield Draft(op, (m.x(*shape),), {"axis": axis}, since=7 if axis >= 0 else 11)
        yield Draft(op, (m.x(0, 3),), {"axis": 1})
    yield Draft("Hardmax", (given([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]]),), {"axis": 1})
    for p in (1, 2):
        for axis in (-1, 0, 1):
            yield Draft("LpNormalization", (m.x(2, 3, 4),), {"p": p, "axis": axis})
    yield Draft("LpNormalization", (m.x(3, 3),))
    yield Draft("LpNormalization", (given([[0.0, 0.0], [3.0, 4.0]]),))
    yield Draft("MeanVarianceNormalization", (m.x(2, 3, 4, 5),))
    for axes in ([0, 2, 3], [1], [0, 1, 2, 3], [2, 3], [-1]):
        yield Draft("MeanVarianceNormalization", (m.x(2, 3, 4, 5),), {"axes": axes})
    for shape in ((2, 3, 4, 5), (1, 1, 3, 3)):
        yield Draft("GlobalAveragePool", (m.x(*shape),))
        yield Draft("GlobalMaxPool", (m.x(*shape),))
        for p in ({}, {"p": 1}, {"p": 3}):
            yield Draft("GlobalLpPool", (m.x(*shape),), p)
    for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        yield Draft(op, (m.x(3, 3, 3),))
        yield Draft(op, (m.x(2, 3, 2, 2, 2),))
        yield Draft(op, (m.x(2, 3),))
    yield Draft("Det", (m.x(3, 3),))
    yield Draft("Det", (m.x(2, 3, 3),))
