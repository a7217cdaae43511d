"""What often stands between a use and its next partner: a flattening, a computed shape, a turn of the axes, a join."""

from __future__ import annotations

import numpy as np

from generators.sandwich.build import Build, Value
from generators.sandwich.partners import AFFINE, LINEAR, above, fits_above


def bridged(build: Build, x: Value) -> Value:
    """The value in another shape, by an operator whose result hangs on the shape that the value has."""
    if x.rank == 0 or 0 in x.shape:
        return x
    return build.pick((_flattened, _reshaped, _computed, _turned, _grown, _averaged, _cut))(build, x)


def joined(build: Build, x: Value, other: Value | None) -> Value:
    """The value and another one, by an operator of two branches; `other` is a value further up, if there is one."""
    if x.rank == 0 or 0 in x.shape:
        return x
    op = build.pick(("Add", "Add", "Sub", "Concat", "Concat", "Sum", "Max", "Mul"))
    axis = build.between(0, x.rank - 1)
    shape = list(x.shape)
    if op == "Concat":
        shape[axis] = build.between(1, 3)
    elif op in ("Add", "Sub", "Mul") and build.chance(0.4):
        shape = [size if build.chance(0.6) else 1 for size in shape][build.pick((0, 0, min(1, x.rank - 1))) :]
    if other is None or other.dtype != x.dtype or not _joins(op, axis, x.shape, other.shape) or build.chance(0.3):
        if x.dtype != build.dtype:
            return x
        kinds = [kind for kind in (*AFFINE, *LINEAR) if fits_above(kind, tuple(shape))]
        other = above(build, [build.pick(kinds)] if build.chance(0.8) else [], tuple(shape))
    pair = [x, other] if build.chance(0.6) else [other, x]
    if op == "Concat":
        result = [a + b if at == axis else a for at, (a, b) in enumerate(zip(x.shape, other.shape, strict=True))]
        return build.add(op, pair, result, x.dtype, axis=axis)
    return build.add(op, pair, np.broadcast_shapes(x.shape, other.shape), x.dtype)


def _joins(op: str, axis: int, shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    if op == "Concat":
        return len(shape) == len(other) and all(
            a == b or at == axis for at, (a, b) in enumerate(zip(shape, other, strict=True))
        )
    if op in ("Sum", "Max"):
        return shape == other
    try:
        return len(np.broadcast_shapes(shape, other)) >= 0 and 0 not in other
    except ValueError:
        return False


def _flattened(build: Build, x: Value) -> Value:
    axis = build.between(0, x.rank)
    shape = (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
    return build.add("Flatten", [x], shape, x.dtype, axis=axis)


def _reshaped(build: Build, x: Value) -> Value:
    target = list(x.shape)
    at = build.between(0, x.rank - 1)
    if build.chance(0.5) and x.rank >= 2:
        at = build.between(0, x.rank - 2)
        target[at : at + 2] = [target[at] * target[at + 1]]
    else:
        size = target[at]
        factor = build.pick([f for f in range(1, size + 1) if size % f == 0])
        target[at : at + 1] = [factor, size // factor]
    written = list(target)
    if build.chance(0.4):
        written[build.between(0, len(written) - 1)] = -1
    for place, size in enumerate(x.shape[: len(written)]):
        if written[place] == size and build.chance(0.4):
            written[place] = 0
    return build.add("Reshape", [x, build.const(np.array(written, np.int64))], target, x.dtype)


def _computed(build: Build, x: Value) -> Value:
    """A Reshape to the sizes that Shape gives, one of them open: what exporters write for view and flatten."""
    kept = build.between(1, x.rank)
    sizes = build.add("Shape", [x], (x.rank,), np.int64)
    parts = []
    for axis in range(kept):
        number = build.const(np.array(axis), plain=True)
        size = build.add("Gather", [sizes, number], (), np.int64, axis=0)
        if build.opset >= 13:
            axes = build.const(np.array([0]), plain=True)
            parts.append(build.add("Unsqueeze", [size, axes], (1,), np.int64))
        else:
            parts.append(build.add("Unsqueeze", [size], (1,), np.int64, axes=[0]))
    parts.append(build.const(np.array([-1]), plain=True))
    target = build.add("Concat", parts, (kept + 1,), np.int64, axis=0)
    shape = (*x.shape[:kept], int(np.prod(x.shape[kept:])))
    return build.add("Reshape", [x, target], shape, x.dtype)


def _turned(build: Build, x: Value) -> Value:
    order = [int(axis) for axis in build.rng.permutation(x.rank)]
    return build.add("Transpose", [x], [x.shape[axis] for axis in order], x.dtype, perm=order)


def _grown(build: Build, x: Value) -> Value:
    if x.rank > 4:
        return _turned(build, x)
    axis = build.between(0, x.rank)
    shape = (*x.shape[:axis], 1, *x.shape[axis:])
    if build.opset >= 13:
        return build.add("Unsqueeze", [x, build.const(np.array([axis]))], shape, x.dtype)
    return build.add("Unsqueeze", [x], shape, x.dtype, axes=[axis])


def _averaged(build: Build, x: Value) -> Value:
    axis, keep = build.between(0, x.rank - 1), build.pick((0, 1))
    shape = (*x.shape[:axis], *(1,) * keep, *x.shape[axis + 1 :])
    op = build.pick(("ReduceMean", "ReduceSum"))
    by_input = build.opset >= (18 if op == "ReduceMean" else 13)
    if by_input:
        return build.add(op, [x, build.const(np.array([axis]))], shape, x.dtype, keepdims=keep)
    return build.add(op, [x], shape, x.dtype, axes=[axis], keepdims=keep)


def _cut(build: Build, x: Value) -> Value:
    axis = build.between(0, x.rank - 1)
    size = x.shape[axis]
    start = build.between(0, size - 1)
    end = build.pick((size, size + 5, -1) if start < size - 1 else (size, size + 5))
    length = (size - 1 if end == -1 else size) - start
    shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    if build.opset < 10:
        return build.add("Slice", [x], shape, x.dtype, starts=[start], ends=[end], axes=[axis])
    parts = [build.const(np.array([number])) for number in (start, end, axis)]
    return build.add("Slice", [x, *parts], shape, x.dtype)
