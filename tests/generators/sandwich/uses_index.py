"""Uses of the operators that pick, place or order elements, and of the running sums."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from generators.sandwich.use import Draft, Maker, given, index


def gathers(m: Maker) -> Iterator[Draft]:
    """Gather, GatherElements, GatherND, Compress, ReverseSequence."""
    picks = (
        ((2, 4, 3, 5), 1, [0, 2]),
        ((2, 4, 3, 5), 1, [3, 2, 1, 0]),
        ((2, 4, 3, 5), 1, 2),
        ((2, 4, 3, 5), 1, [[0, 1], [2, 3]]),
        ((2, 4, 3, 5), 0, [1, 0, 1]),
        ((2, 4, 3, 5), 3, [[4]]),
        ((2, 4, 3, 5), -1, [0, 4]),
        ((2, 4, 3, 5), -3, [1]),
        ((2, 4, 3, 5), 1, []),
        ((3, 3, 3), 1, [0, 1, 2]),
        ((3, 3, 3), 1, [[0, 1, 2]]),
        ((3, 3, 3), 0, 1),
        ((4,), 0, 3),
        ((4,), 0, [[2, 1]]),
        ((4, 3), 0, [[[1, 0]]]),
        ((4, 3), 1, 0),
    )
    for shape, axis, places in picks:
        since = 7 if axis >= 0 else 11
        yield Draft("Gather", (m.x(*shape), index(places)), {"axis": axis}, since=since)
        yield Draft("Gather", (m.x(*shape), index(places, np.int32)), {"axis": axis}, since=since)
        if np.size(places):
            yield Draft("Gather", (m.x(*shape), index(np.array(places) - shape[axis])), {"axis": axis}, since=11)
    yield Draft("Gather", (m.x(4, 3), index([1, 1, 2])))
    yield Draft("Gather", (index([2, 3, 4]), index(1)), {"axis": 0})
    yield Draft("Gather", (index([2, 3, 4]), index([0, -1])), {"axis": 0}, since=11)
    for shape, axis, places in (
        ((3, 3), 1, [[0, 1], [2, 0], [1, 1]]),
        ((3, 3), 0, [[0, -1, 1]]),
        ((3, 3), -1, [[2, 1, 0]]),
        ((2, 3, 2), 1, [[[0, 1]], [[2, -3]]]),
        ((2, 3), 1, [[1]]),
        ((4,), 0, [3, 3, 0, 1, 2]),
    ):
        yield Draft("GatherElements", (m.x(*shape), index(places)), {"axis": axis})
    for shape, places, batch in (
        ((2, 3, 4), [[0, 1], [1, 2]], 0),
        ((2, 3, 4), [[[0]], [[1]]], 0),
        ((2, 3, 4), [[1], [2]], 1),
        ((2, 3, 4), [[0, -1], [2, 3]], 1),
        ((2, 3, 4), [1, 2, 3], 0),
        ((2, 3, 4), [[[3], [0], [1]], [[-1], [2], [2]]], 2),
        ((3, 3), [[0], [2]], 0),
        ((3, 3), [[0], [2], [1]], 1),
        ((4,), [[0], [3]], 0),
    ):
        yield Draft("GatherND", (m.x(*shape), index(places)), {"batch_dims": batch} if batch else {})
    for shape, axis, flags in (
        ((2, 4, 3), 1, [1, 0, 1, 1]),
        ((2, 4, 3), 1, [0, 1]),
        ((2, 4, 3), 0, [1, 1]),
        ((2, 4, 3), -1, [1, 0, 1]),
        ((2, 4, 3), None, [0, 1, 1, 0, 0, 1]),
        ((3, 3), 1, [1, 0, 0]),
        ((3, 3), 1, [0, 0, 0]),
    ):
        flag = given(flags, bool, "index")
        yield Draft(
            "Compress", (m.x(*shape), flag), {} if axis is None else {"axis": axis}, since=11 if axis == -1 else 7
        )
    for shape, setting in (
        ((4, 3, 2), {}),
        ((4, 3, 2), {"batch_axis": 1, "time_axis": 0}),
        ((3, 4, 2), {"batch_axis": 0, "time_axis": 1}),
        ((3, 3), {"batch_axis": 0, "time_axis": 1}),
        ((3, 3), {}),
    ):
        batch = shape[setting.get("batch_axis", 1)]
        steps = shape[setting.get("time_axis", 0)]
        for lengths in ([steps] * batch, [1 + at % steps for at in range(batch)]):
            yield Draft("ReverseSequence", (m.x(*shape), index(lengths)), setting)


def scatters(m: Maker) -> Iterator[Draft]:
    """Scatter, ScatterElements, ScatterND, TensorScatter, OneHot, Trilu."""
    for shape, axis, places in (
        ((3, 4), 1, [[0, 2], [1, 3]]),
        ((3, 4), 0, [[0, 2, 1, 1]]),
        ((3, 4), -1, [[3], [0], [1]]),
        ((3, 3), 0, [[2, -1, 0]]),
        ((2, 3, 2), 1, [[[0, 1]], [[2, 2]]]),
        ((4,), 0, [3, 1]),
    ):
        updates = m.w(*np.shape(places))
        since = 11 if axis < 0 or np.min(places) < 0 else 7
        yield Draft("Scatter", (m.x(*shape), index(places), updates), {"axis": axis}, since=since)
        yield Draft("ScatterElements", (m.x(*shape), index(places), updates), {"axis": axis})
        yield Draft("ScatterElements", (m.w(*shape), index(places), m.x(*np.shape(places))), {"axis": axis})
        for reduction in ("none", "add", "mul", "max", "min"):
            setting = {"axis": axis, "reduction": reduction}
            yield Draft("ScatterElements", (m.x(*shape), index(places), updates), setting, since=_known(reduction))
    twice = index([[1, 1, 1, 1], [1, 0, 1, 1]])
    for reduction in ("add", "mul", "max", "min"):
        yield Draft("ScatterElements", (m.x(3, 4), twice, m.w(2, 4)), {"reduction": reduction}, since=_known(reduction))
    for shape, places in (
        ((4, 3, 2), [[0], [2]]),
        ((4, 3, 2), [[0, 1], [2, 2]]),
        ((4, 3, 2), [[0, 1, 1], [-1, -1, 0]]),
        ((4, 3, 2), [1, 2]),
        ((3, 3), [[0], [2], [1]]),
        ((3, 3), [[[0], [2]]]),
    ):
        held = np.shape(places)[:-1] + shape[np.shape(places)[-1] :]
        yield Draft("ScatterND", (m.x(*shape), index(places), m.w(*held)))
        yield Draft("ScatterND", (m.w(*shape), index(places), m.x(*held)))
        for reduction in ("none", "add", "mul", "max", "min"):
            inputs = (m.x(*shape), index(places), m.w(*held))
            yield Draft("ScatterND", inputs, {"reduction": reduction}, since=_known(reduction))
    for mode in ("linear", "circular"):
        yield Draft("TensorScatter", (m.x(2, 1, 4, 5), m.w(2, 1, 2, 5), index([1, 2])), {"mode": mode})
        yield Draft("TensorScatter", (m.x(2, 4, 5), m.x(2, 1, 5)), {"mode": mode})
        yield Draft("TensorScatter", (m.x(2, 3, 4), m.x(2, 3, 1), index([3, 0])), {"mode": mode, "axis": 2})
    for places, setting in (
        ([0, 2, 1], {}),
        ([0, 2, 1], {"axis": 0}),
        ([0, 2, 1], {"axis": 1}),
        ([0, -1, 5], {"axis": -1}),
        ([-4, -3, 3], {}),
        ([[0, 1], [2, 0]], {"axis": -2}),
        ([[0, 1], [2, 0]], {"axis": 0}),
        ([[0, 1], [2, 0]], {"axis": 1}),
        ([2.0, 1.0], {}),
    ):
        for depth in (index(3), index([3])):
            for on in (given([0.0, 1.0], role="weight"), given([-0.5, 2.0], role="weight"), index([5, -2])):
                kind = np.float32 if np.asarray(places).dtype.kind == "f" else np.int64
                since = 11 if np.min(places) < 0 else 9
                yield Draft("OneHot", (given(places, kind), depth, on), setting, since=since)
    for shape in ((4, 5), (3, 3), (2, 3, 4), (3, 1)):
        for upper in ({}, {"upper": 0}, {"upper": 1}):
            yield Draft("Trilu", (m.x(*shape),), upper)
            for k in (1, -1, 0, 7, -7):
                yield Draft("Trilu", (m.x(*shape), index(k)), upper)
    yield Draft("Trilu", (m.x(4, 5), index([1])))


def _known(reduction: str) -> int:
    return 18 if reduction in ("max", "min") else 16


def orders(m: Maker) -> Iterator[Draft]:
    """TopK, ArgMax, ArgMin, Unique, NonZero."""
    for shape, axis in (((2, 4, 3), 1), ((2, 4, 3), -1), ((3, 3), 0), ((5,), 0)):
        both = (True, True)
        yield Draft("TopK", (m.x(*shape),), {"k": 2, "axis": axis}, both, since=7 if axis >= 0 else 11)
        yield Draft("TopK", (m.x(*shape), index([2])), {"axis": axis}, both)
        for largest in (0, 1):
            setting = {"axis": axis, "largest": largest, "sorted": 1}
            yield Draft("TopK", (m.x(*shape), index([2])), setting, both)
        yield Draft("TopK", (m.x(*shape), index([shape[axis]])), {"axis": axis}, (True, True))
    yield Draft("TopK", (m.x(2, 4), index([0])), {}, (True, True))
    tied = given([[1.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    yield Draft("TopK", (tied, index([2])), {}, (True, True))
    for op in ("ArgMax", "ArgMin"):
        for axis in (0, 1, -1):
            for keep in (0, 1):
                setting = {"axis": axis, "keepdims": keep}
                since = 7 if axis >= 0 else 11
                yield Draft(op, (m.x(2, 4, 3),), setting, since=since)
                yield Draft(op, (given([[2.0, 2.0, 1.0], [1.0, 2.0, 2.0]]),), setting, since=since)
                yield Draft(op, (given([[2.0, 2.0, 1.0], [1.0, 2.0, 2.0]]),), {**setting, "select_last_index": 1})
        yield Draft(op, (m.x(2, 4, 3),))
    doubled = given([2.0, -1.0, 2.0, 3.0, -1.0])
    table = given([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0], [2.0, 3.0, 2.0]])
    for flag in ({}, {"sorted": 0}, {"sorted": 1}):
        yield Draft("Unique", (doubled,), flag)
        yield Draft("Unique", (doubled,), flag, (True, True, True, True))
        yield Draft("Unique", (table,), flag)
        for axis in (0, 1, -1):
            yield Draft("Unique", (table,), {"axis": axis, **flag}, (True, True, True, True))
    yield Draft("NonZero", (given([[1.0, 0.0, 2.0], [0.0, -1.0, 0.0]]),))
    yield Draft("NonZero", (given(2.0),))
    yield Draft("NonZero", (given(0.0),))
    yield Draft("NonZero", (m.bools(3, 2),))
    boxes = given([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 10, 1, 11], [0, 10.1, 1, 11.1]]])
    scores = given([[[0.9, 0.75, 0.6, 0.95]]])
    limits = (index([3]), given([0.5]), given([0.0]))
    yield Draft("NonMaxSuppression", (boxes, scores, *limits))
    yield Draft("NonMaxSuppression", (boxes, scores, *limits), {"center_point_box": 1})
    yield Draft("NonMaxSuppression", (boxes, scores, index([2])))


def running(m: Maker) -> Iterator[Draft]:
    """CumSum and CumProd."""
    for op in ("CumSum", "CumProd"):
        for shape, axis in (((2, 3, 4), 1), ((2, 3, 4), -1), ((2, 3, 4), 0), ((3, 3), 1), ((5,), 0), ((2, 0), 1)):
            for setting in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
                yield Draft(op, (m.x(*shape), index(axis)), setting)
            yield Draft(op, (m.x(*shape), index(axis, np.int32)))
        yield Draft(op, (m.x(2, 3), index([1])))
        yield Draft(op, (m.ints(4), index(0)))
