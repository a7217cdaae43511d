"""Operators that move elements and compute nothing: index maps with usual and unusual attributes."""

from __future__ import annotations

import numpy as np

from generators.grown.constants import constant, integers, scalar
from generators.grown.scope import Scope, Value


def first(made: tuple[Value, ...]) -> Value | None:
    return made[0] if made else None


def maybe_negative(scope: Scope, axis: int, rank: int, since: int = 11) -> int:
    return axis - rank if scope.opset >= since and scope.dice.chance(0.35) else axis


def transpose(scope: Scope) -> Value | None:
    value = scope.subject(1)
    if value is None:
        return None
    perm = scope.dice.shuffled(range(value.rank))
    if scope.dice.chance(0.2):
        return first(scope.add("Transpose", [value]))
    return first(scope.add("Transpose", [value], perm=perm))


def slice_(scope: Scope) -> Value | None:
    """Slice with negative, unsorted axes, steps of either sign, and bounds far outside."""
    dice = scope.dice
    value = scope.subject(1)
    if value is None:
        return None
    axes = dice.some(range(value.rank))[:2]
    starts, ends, steps = [], [], []
    for axis in axes:
        size = value.shape[axis]
        stride = dice.weighted([(1, 6), (2, 1), (-1, 2), (-2, 1)])
        if scope.opset < 10 or any(array.shape[axis] == 0 for array in value.arrays):
            # The shape inference of onnx aborts at a negative step where there is nothing to step over.
            stride = 1
        low, high = sorted((dice.between(0, size), dice.between(0, size)))
        if dice.chance(0.6) or low == high:
            low, high = 0, size
        start, end = (low, high) if stride > 0 else (high - 1, low - 1)
        if stride > 0 and high == size and dice.chance(0.4):
            end = 2**31 - 1 if dice.chance(0.5) else size + 5
        if stride < 0 and end < 0:
            end = -(2**31) if dice.chance(0.5) else -size - 1
        elif stride > 0 and start > 0 and dice.chance(0.3):
            start -= size
        starts.append(start)
        ends.append(end)
        steps.append(stride)
    named = [maybe_negative(scope, axis, value.rank, 10) for axis in axes]
    if scope.opset < 10:
        return first(scope.add("Slice", [value], starts=starts, ends=ends, axes=axes))
    inputs: list[Value | None] = [value, integers(scope, starts), integers(scope, ends)]
    if sorted(axes) == list(range(len(axes))) == axes and len(axes) == value.rank and dice.chance(0.5):
        inputs.append(None)
    else:
        inputs.append(integers(scope, named))
    if set(steps) != {1} or dice.chance(0.5):
        inputs.append(integers(scope, steps))
    elif inputs[-1] is None and dice.chance(0.5):
        inputs.pop()
    return first(scope.add("Slice", inputs))


def split(scope: Scope) -> Value | None:
    dice = scope.dice
    value = scope.subject(1)
    if value is None:
        return None
    axis = dice.between(0, value.rank - 1)
    size = value.shape[axis]
    parts = dice.between(1, min(3, max(1, size)))
    sizes = [size // parts] * parts
    sizes[-1] += size - sum(sizes)
    if dice.chance(0.3):
        sizes = dice.split(size, parts)
    named = maybe_negative(scope, axis, value.rank)
    inputs, more = [value], {}
    if scope.opset >= 18 and parts > 1 and size % parts and dice.chance(0.3):
        # The last part is smaller then.
        made = scope.add("Split", [value], parts, axis=named, num_outputs=parts)
        return dice.pick(made) if made else None
    if size % parts == 0 and sizes == [size // parts] * parts and dice.chance(0.5):
        if scope.opset >= 18:
            more["num_outputs"] = parts
    elif scope.opset >= 13:
        inputs.append(integers(scope, sizes))
    else:
        more["split"] = sizes
    made = scope.add("Split", inputs, parts, axis=None if axis == 0 and dice.chance(0.3) else named, **more)
    if not made:
        return None
    if dice.chance(0.4) and len(made) > 1:
        pieces = dice.shuffled(made) if dice.chance(0.4) else list(made)
        joined = scope.add("Concat", pieces, axis=axis)
        return first(joined) or made[0]
    return dice.pick(made)


def gather(scope: Scope) -> Value | None:
    """Gather with one index or several, negative and repeated ones."""
    dice = scope.dice
    value = scope.subject(1)
    if value is None:
        return None
    axis = dice.between(0, value.rank - 1)
    size = value.shape[axis]
    kind = dice.weighted([("permuted", 2), ("any", 2), ("scalar", 2), ("table", 1)])
    if kind == "permuted":
        data = np.asarray(dice.shuffled(range(size)), np.int64)
    else:
        shape = {"any": [dice.between(1, 4)], "scalar": [], "table": [dice.between(1, 2), dice.between(1, 3)]}[kind]
        data = dice.stream.integers(0, max(size, 1), shape).astype(np.int64)
    if scope.opset >= 11 and dice.chance(0.3):
        data = data - size * (dice.stream.random(data.shape) < 0.5).astype(np.int64)
    if dice.chance(0.3):
        data = data.astype(np.int32)
    at = constant(scope, np.asarray(data), 0.2)
    return first(scope.add("Gather", [value, at], axis=maybe_negative(scope, axis, value.rank)))


def pointwise_gather(scope: Scope) -> Value | None:
    """GatherElements, GatherND, ScatterElements or ScatterND."""
    dice = scope.dice
    value = scope.subject(1, 4)
    if value is None or scope.opset < 11 or 0 in value.shape:
        return None
    axis = dice.between(0, value.rank - 1)
    size = value.shape[axis]
    kind = dice.pick(["GatherElements", "GatherND", "ScatterElements", "ScatterND"])
    if kind in ("GatherElements", "ScatterElements"):
        order = dice.stream.random(value.shape).argsort(axis).astype(np.int64)
        if kind == "GatherElements" and dice.chance(0.4):
            order = np.broadcast_to(
                order[tuple(slice(0, 1) if a != axis else slice(None) for a in range(order.ndim))], value.shape
            )
        order = np.ascontiguousarray(order - (size if dice.chance(0.2) else 0))
        inputs = [value, constant(scope, order, 0.1)]
    else:
        depth = dice.between(1, value.rank)
        rows = dice.between(1, 3) if kind == "GatherND" else 1
        table = np.stack([dice.stream.integers(0, dim, [rows]) for dim in value.shape[:depth]], -1).astype(np.int64)
        inputs = [value, constant(scope, table, 0.1)]
        if kind == "ScatterND":
            inputs.append(_update(scope, value, [rows, *value.shape[depth:]]))
        return first(scope.add(kind, inputs))
    if kind == "ScatterElements":
        inputs.append(_update(scope, value, list(order.shape)))
    return first(scope.add(kind, inputs, axis=maybe_negative(scope, axis, value.rank)))


def _update(scope: Scope, value: Value, shape: list[int]) -> Value:
    found = [item for item in scope.floats() if list(item.shape) == shape]
    if found and scope.dice.chance(0.6):
        return scope.dice.pick(found)
    return constant(scope, scope.dice.normal(shape, value.array.dtype))


def blocks(scope: Scope) -> Value | None:
    """DepthToSpace or SpaceToDepth."""
    value = scope.subject(4, 4)
    if value is None:
        return None
    if value.shape[1] % 4 == 0 and value.shape[1] and scope.dice.chance(0.6):
        mode = scope.dice.pick([None, "DCR", "CRD"]) if scope.opset >= 11 else None
        return first(scope.add("DepthToSpace", [value], blocksize=2, mode=mode))
    if value.shape[2] % 2 == 0 and value.shape[3] % 2 == 0:
        return first(scope.add("SpaceToDepth", [value], blocksize=2))
    return first(scope.add("SpaceToDepth", [value], blocksize=1))


def repeated(scope: Scope) -> Value | None:
    """Tile or Expand, also along the channels."""
    dice = scope.dice
    value = scope.subject(1, 4)
    if value is None:
        return None
    if dice.chance(0.5):
        return first(scope.add("Tile", [value, integers(scope, [dice.between(1, 2) for _ in value.shape])]))
    if scope.opset < 8:
        return None
    target = [dice.pick([1, *scope.world.sizes]) if size == 1 else dice.pick([1, size]) for size in value.shape]
    if dice.chance(0.3) and value.rank < 5:
        target = [dice.between(1, 2), *target]
    elif dice.chance(0.2):
        target = target[dice.between(0, len(target)) :]
    return first(scope.add("Expand", [value, integers(scope, target)]))


def rare(scope: Scope) -> Value | None:
    """ReverseSequence, Trilu, CumSum, Compress, CenterCropPad, a roll of two slices."""
    dice = scope.dice
    value = scope.subject(2, 5)
    if value is None or 0 in value.shape:
        return None
    kind = dice.pick(["ReverseSequence", "Trilu", "CumSum", "Compress", "CenterCropPad", "Roll"])
    axis = dice.between(0, value.rank - 1)
    if kind == "ReverseSequence" and scope.opset >= 10:
        swap = dice.between(0, 1)
        lengths = constant(scope, dice.stream.integers(1, value.shape[swap] + 1, [value.shape[1 - swap]]), 0.1)
        return first(scope.add(kind, [value, lengths], batch_axis=1 - swap, time_axis=swap))
    if kind == "Trilu" and scope.opset >= 14:
        diagonal = [scalar(scope, dice.between(-2, 2))] if dice.chance(0.6) else []
        return first(scope.add(kind, [value, *diagonal], upper=dice.pick([None, 0, 1])))
    if kind == "CumSum" and scope.opset >= 11:
        at = scalar(scope, maybe_negative(scope, axis, value.rank))
        return first(scope.add(kind, [value, at], exclusive=dice.pick([None, 1]), reverse=dice.pick([None, 1])))
    if kind == "Compress" and scope.opset >= 9:
        mask = np.asarray(dice.stream.random(value.shape[axis]) < 0.6)
        mask[0] = True
        return first(scope.add(kind, [value, constant(scope, mask, 0)], axis=maybe_negative(scope, axis, value.rank)))
    if kind == "CenterCropPad" and scope.opset >= 18:
        target = max(1, value.shape[axis] + dice.between(-1, 1))
        return first(scope.add(kind, [value, integers(scope, [target])], axes=[axis]))
    if kind == "Roll" and scope.opset >= 10 and value.shape[axis] > 1:
        cut = dice.between(1, value.shape[axis] - 1)
        tail = scope.add("Slice", [value, *(integers(scope, [n]) for n in (cut, 2**31 - 1, axis))])
        head = scope.add("Slice", [value, *(integers(scope, [n]) for n in (0, cut, axis))])
        return first(scope.add("Concat", [tail[0], head[0]], axis=axis)) if head and tail else None
    return first(scope.add("Identity", [value]))
