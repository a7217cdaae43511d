"""Uses of the operators that arrange elements."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from generators.sandwich.use import Draft, Maker, index

INT_MAX, INT_MIN = np.iinfo(np.int64).max, np.iinfo(np.int64).min


def reshapes(m: Maker) -> Iterator[Draft]:
    """Reshape and Flatten."""
    targets: tuple[tuple[tuple[int, ...], list[int]], ...] = (
        ((2, 3, 4, 5), [2, 3, 20]),
        ((2, 3, 4, 5), [0, -1]),
        ((2, 3, 4, 5), [0, 0, -1]),
        ((2, 3, 4, 5), [0, 0, 20]),
        ((2, 3, 4, 5), [-1, 60]),
        ((2, 3, 4, 5), [2, -1, 0, 5]),
        ((2, 3, 4, 5), [-1]),
        ((2, 3, 4, 5), [6, 0, 2, 5]),
        ((2, 3, 4, 5), [0, 3, 2, 2, 5]),
        ((2, 3, 4, 5), [1, 2, 3, 4, 5]),
        ((2, 3, 4, 5), [2, 1, 3, -1]),
        ((2, 3, 4, 5), [4, 3, 2, 5]),
        ((2, 3, 4, 5), [5, 4, 3, 2]),
        ((3, 3, 3, 3), [3, 3, 9]),
        ((3, 3, 3, 3), [9, 3, 3]),
        ((3, 3, 3, 3), [0, -1, 3]),
        ((4, 6), [2, 2, 2, 3]),
        ((4, 6), [6, 4]),
        ((4, 6), [0, 2, 3]),
        ((4, 6), [-1, 2, 3]),
        ((4, 6), [4, 6, 1, 1]),
        ((4, 6), [0, -1, 1, 1]),
        ((4, 6), [1, 0, -1]),
        ((6,), [2, 3]),
        ((6,), [1, -1, 1, 1]),
        ((1,), []),
        ((1, 1, 1), []),
        ((), [1]),
        ((), [-1]),
        ((), [1, 1, 1]),
        ((0, 3), [0, 3]),
        ((0, 3), [3, 0]),
        ((2, 0, 3), [0, -1]),
        ((2, 0, 3), [3, 0, 5]),
        ((1, 3, 1, 1), [3]),
        ((1, 3, 1, 1), [0, 0]),
        ((1, 1, 3), [0, 3, 1]),
    )
    for shape, target in targets:
        size = int(np.prod([shape[at] if d == 0 and at < len(shape) else d for at, d in enumerate(target) if d != -1]))
        if -1 in target or size == np.prod(shape):
            yield Draft("Reshape", (m.x(*shape), index(target)))
    for shape, target in (((0, 3, 4), [3, 4, 0]), ((2, 0, 3), [7, 0]), ((2, 3), [3, 2]), ((0, 3), [0]), ((2, 3), [-1])):
        yield Draft("Reshape", (m.x(*shape), index(target)), {"allowzero": 1})
    yield Draft("Reshape", (m.ints(6), index([2, 3])))
    for shape in ((2, 3, 4, 5), (3, 3, 3, 3), (5, 4), (4,), (2, 0, 3)):
        yield Draft("Flatten", (m.x(*shape),))
        for axis in range(-len(shape), len(shape) + 1):
            yield Draft("Flatten", (m.x(*shape),), {"axis": axis}, since=11 if axis < 0 else 7)
    yield Draft("Flatten", (m.x(),), {"axis": 0})
    yield Draft("Flatten", (m.x(3, 1, 1, 1),))


def squeezes(m: Maker) -> Iterator[Draft]:
    """Squeeze, Unsqueeze and Transpose."""
    drops: tuple[tuple[tuple[int, ...], list[int] | None], ...] = (
        ((1, 3, 1, 5), [0]),
        ((1, 3, 1, 5), [0, 2]),
        ((1, 3, 1, 5), [2, 0]),
        ((1, 3, 1, 5), [-2]),
        ((1, 3, 1, 5), [-2, 0]),
        ((1, 3, 1, 5), None),
        ((1, 1, 1), [1]),
        ((1, 1, 1), [2, 1, 0]),
        ((1, 1), None),
        ((2, 3), None),
        ((), None),
        ((2, 3, 1, 1), [3, 2]),
        ((2, 3, 1, 1), [-1, -2]),
        ((1,), [0]),
        ((1, 0, 1), [0]),
        ((2, 3), []),
    )
    for shape, axes in drops:
        since = 11 if axes is not None and any(axis < 0 for axis in axes) else 7
        yield Draft("Squeeze", (m.x(*shape),), {} if axes is None else {"axes": axes}, since=since, until=12)
        if axes is None:
            yield Draft("Squeeze", (m.x(*shape),), since=13)
            yield Draft("Squeeze", (m.x(*shape), None), since=13)
        else:
            yield Draft("Squeeze", (m.x(*shape), index(axes)))
    grows = (
        ((3, 4), [0]),
        ((3, 4), [1]),
        ((3, 4), [2]),
        ((3, 4), [-1]),
        ((3, 4), [0, 3]),
        ((3, 4), [3, 0]),
        ((3, 4), [2, 3]),
        ((3, 4), [3, 2, 0]),
        ((3, 4), [-1, 0]),
        ((3, 4), [-1, 1]),
        ((3, 4), [-3, -1]),
        ((3,), [1, 2]),
        ((3,), [2, 1]),
        ((3,), [0, 2, 3]),
        ((3,), [3, 0, 2]),
        ((3,), [-2, -1]),
        ((), [0]),
        ((), [-1]),
        ((), [0, 1, 2]),
        ((2, 3, 4), [1, 3]),
        ((2, 3, 4), [4, 1]),
        ((3, 3), [1, 2]),
        ((2, 0), [1]),
        ((3, 4), []),
    )
    for shape, axes in grows:
        since = 11 if any(axis < 0 for axis in axes) else 7
        yield Draft("Unsqueeze", (m.x(*shape),), {"axes": axes}, since=since)
        yield Draft("Unsqueeze", (m.x(*shape), index(axes)))
    yield Draft("Unsqueeze", (m.ints(), index([0])))
    yield Draft("Unsqueeze", (m.ints(3), index([1])))
    yield Draft("Squeeze", (m.ints(1), index([0])))
    for shape in ((2, 3, 4), (3, 3, 3), (4, 3), (2, 3, 4, 5), (5,), (), (2, 1, 3, 2, 2)):
        yield Draft("Transpose", (m.x(*shape),))
        orders = list(itertools.permutations(range(len(shape))))
        for order in orders if len(shape) <= 3 else orders[1 :: 5 if len(shape) == 4 else 23]:
            if order:
                yield Draft("Transpose", (m.x(*shape),), {"perm": list(order)})


def joins(m: Maker) -> Iterator[Draft]:
    """Concat and Split."""
    for shape in ((2, 3, 4, 5), (3, 3, 3), (2, 3), (4,)):
        for axis in range(-len(shape), len(shape)):
            since = 11 if axis < 0 else 7
            wide = list(shape)
            wide[axis] += 2
            yield Draft("Concat", (m.x(*shape), m.w(*wide)), {"axis": axis}, since=since)
            if axis >= 0:
                yield Draft("Concat", (m.w(*wide), m.x(*shape)), {"axis": axis}, since=since)
    yield Draft("Concat", (m.x(2, 3),), {"axis": 1})
    yield Draft("Concat", (m.x(2, 3, 4), m.w(2, 1, 4), m.w(2, 2, 4)), {"axis": 1})
    yield Draft("Concat", (m.x(2, 3, 4), m.x(2, 3, 4)), {"axis": 1})
    yield Draft("Concat", (m.x(2, 0, 4), m.w(2, 2, 4)), {"axis": 1})
    yield Draft("Concat", (m.x(0, 3), m.w(2, 3)), {"axis": 0})
    yield Draft("Concat", (index([2]), index([3]), index([4])), {"axis": 0})
    yield Draft("Concat", (index([2, 3]), index([-1])), {"axis": 0})
    splits: tuple[tuple[tuple[int, ...], int, list[int]], ...] = (
        ((2, 6, 3), 1, [2, 4]),
        ((2, 6, 3), 1, [3, 3]),
        ((2, 6, 3), -2, [1, 5]),
        ((6, 3), 0, [1, 2, 3]),
        ((6,), 0, [6]),
        ((2, 6, 3), 1, [6, 0]),
        ((2, 0, 3), 1, [0, 0]),
        ((3, 3, 3), 2, [1, 2]),
        ((3, 3, 3), -1, [2, 1]),
    )
    for shape, axis, sizes in splits:
        outputs, since = (True,) * len(sizes), 11 if axis < 0 else 7
        yield Draft("Split", (m.x(*shape),), {"axis": axis, "split": sizes}, outputs, since=since)
        yield Draft("Split", (m.x(*shape), index(sizes)), {"axis": axis}, outputs)
    for count, axis, shape in ((2, 1, (2, 6, 3)), (3, 1, (2, 6, 3)), (2, 0, (4, 3)), (1, 1, (2, 3)), (3, -1, (3, 3))):
        since = 11 if axis < 0 else 7
        yield Draft("Split", (m.x(*shape),), {"axis": axis}, (True,) * count, since=since, until=17)
        yield Draft("Split", (m.x(*shape),), {"axis": axis, "num_outputs": count}, (True,) * count)
    for count, shape, axis in ((2, (2, 5, 3), 1), (3, (2, 8), 1), (4, (7,), 0), (3, (4, 7), -1)):
        yield Draft("Split", (m.x(*shape),), {"axis": axis, "num_outputs": count}, (True,) * count)
    yield Draft("Split", (m.x(4, 3),), {}, (True, True), until=17)


def slices(m: Maker) -> Iterator[Draft]:
    """Slice, as attributes and as inputs."""
    plain: tuple[tuple[tuple[int, ...], list[int], list[int], list[int] | None], ...] = (
        ((2, 6, 4, 5), [1], [5], [1]),
        ((2, 6, 4, 5), [0, 1], [2, 4], None),
        ((2, 6, 4, 5), [-4], [-1], [1]),
        ((2, 6, 4, 5), [2], [1000], [1]),
        ((2, 6, 4, 5), [1, 2], [4, 4], [3, 1]),
        ((2, 6, 4, 5), [0], [INT_MAX], [2]),
        ((3, 3, 3), [1, 0, 0], [3, 3, 2], [0, 1, 2]),
        ((3, 3, 3), [0], [2], [2]),
        ((6,), [-3], [INT_MAX], [0]),
        ((6,), [4], [2], [0]),
        ((6,), [0], [1], [0]),
        ((3, 4), [1000], [INT_MAX], [1]),
        ((3, 4), [-1000], [2], [1]),
    )
    for shape, starts, ends, axes in plain:
        extra = {} if axes is None else {"axes": axes}
        yield Draft("Slice", (m.x(*shape),), {"starts": starts, "ends": ends, **extra})
        tail = () if axes is None else (index(axes),)
        yield Draft("Slice", (m.x(*shape), index(starts), index(ends), *tail))
        if axes is not None:
            inputs = tuple(index(part, np.int32) for part in (starts, np.minimum(ends, 2**31 - 1), axes))
            yield Draft("Slice", (m.x(*shape), *inputs))
            yield Draft(
                "Slice", (m.x(*shape), index(starts), index(ends), index(np.array(axes) - len(shape))), since=11
            )
    stepped: tuple[tuple[tuple[int, ...], list[int], list[int], list[int] | None, list[int]], ...] = (
        ((2, 6, 4), [0], [6], [1], [2]),
        ((2, 6, 4), [1], [6], [1], [3]),
        ((2, 6, 4), [5], [0], [1], [-1]),
        ((2, 6, 4), [-1], [-1000], [1], [-1]),
        ((2, 6, 4), [-1], [INT_MIN], [1], [-2]),
        ((2, 6, 4), [INT_MAX], [INT_MIN], [2], [-1]),
        ((2, 6, 4), [3, 5], [0, 1], [2, 1], [-1, -2]),
        ((2, 6, 4), [0, 0, 0], [2, 6, 4], None, [1, 2, 3]),
        ((3, 3, 3), [2], [-4], [-2], [-1]),
        ((3, 3, 3), [0], [3], [1], [1000]),
        ((3, 3, 3), [0], [3], [1], [INT_MAX]),
        ((6,), [1], [3], [0], [-1]),
        ((6,), [10], [2], [0], [-1]),
    )
    for shape, starts, ends, axes, steps in stepped:
        middle = index(axes) if axes is not None else None
        yield Draft("Slice", (m.x(*shape), index(starts), index(ends), middle, index(steps)))
    yield Draft("Slice", (index([2, 3, 4, 5]), index([1]), index([3]), index([0])))
    yield Draft("Slice", (index([2, 3, 4, 5]), index([-1]), index([INT_MIN]), index([0]), index([-1])))
    yield Draft("Slice", (index([2, 3, 4, 5]),), {"starts": [2], "ends": [INT_MAX], "axes": [0]})


def spreads(m: Maker) -> Iterator[Draft]:
    """Expand, Tile, DepthToSpace, SpaceToDepth."""
    for shape, target in (
        ((3, 1), [3, 4]),
        ((3, 1), [2, 1, 6]),
        ((3, 1), [1, 1]),
        ((3, 1), [1]),
        ((3, 4), [3, 1]),
        ((2, 3, 1, 1), [2, 3, 4, 5]),
        ((2, 3, 1, 1), [1, 1, 2, 2]),
        ((1, 3, 1, 1), [4, 1, 1, 2]),
        ((3,), [2, 3]),
        ((3, 1), [3, 3]),
        ((), [2, 3]),
        ((), []),
        ((1,), [1, 1, 1, 5]),
        ((1, 3), [0, 3]),
        ((1,), [0]),
    ):
        yield Draft("Expand", (m.x(*shape), index(target)))
    yield Draft("Expand", (m.ints(1), index([3])))
    for shape, repeats in (
        ((2, 3), [1, 2]),
        ((2, 3), [2, 1]),
        ((2, 3, 4, 5), [1, 1, 2, 2]),
        ((2, 3, 1, 1), [1, 1, 4, 5]),
        ((1, 3, 1), [2, 2, 2]),
        ((3, 3), [1, 1]),
        ((3,), [3]),
        ((2, 3), [0, 1]),
        ((), []),
        ((0, 3), [2, 2]),
    ):
        yield Draft("Tile", (m.x(*shape), index(repeats)))
    for shape in ((2, 8, 3, 2), (1, 4, 1, 1), (4, 4, 4, 4), (2, 12, 3, 3)):
        yield Draft("DepthToSpace", (m.x(*shape),), {"blocksize": 2})
        for mode in ("DCR", "CRD"):
            yield Draft("DepthToSpace", (m.x(*shape),), {"blocksize": 2, "mode": mode})
    yield Draft("DepthToSpace", (m.x(1, 18, 1, 2),), {"blocksize": 3})
    yield Draft("DepthToSpace", (m.x(2, 3, 2, 2),), {"blocksize": 1})
    for shape in ((2, 3, 4, 6), (4, 4, 4, 4), (1, 1, 2, 2)):
        yield Draft("SpaceToDepth", (m.x(*shape),), {"blocksize": 2})
        for mode in ("DCR", "CRD"):
            yield Draft("SpaceToDepth", (m.x(*shape),), {"blocksize": 2, "mode": mode})
    yield Draft("SpaceToDepth", (m.x(2, 3, 2, 2),), {"blocksize": 1})
