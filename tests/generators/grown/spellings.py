"""Operators behind which a constant hides: each gives the same data, or nearly so, from other constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from generators.grown.dice import Array
from generators.grown.engines import is_float
from generators.grown.scope import Scope, Value

Make = Callable[[Array], Value]


def spell(scope: Scope, array: Array, make: Make) -> Value | None:
    """One operator that computes `array` from constants that `make` makes; None where it does not run."""
    options = list(INDEXED)
    if is_float(array):
        options += COMPUTED
    if np.unique(array).size == 1:
        options += [(_constant_of_shape, 3.0), (_expand, 4.0)]
    made = scope.dice.weighted(options)(scope, array, make)
    return made[0] if made else None


def _ints(make: Make, numbers: list[int]) -> Value:
    return make(np.asarray(numbers, np.int64).reshape(-1))


def _identity(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    return scope.add("Identity", [make(array)])


def _cast(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if array.dtype == bool:
        return scope.add("Not", [make(~array)])
    # A narrower type would round the folded constants more than the judge expects of the wider one.
    kinds: list[Any] = [np.float64, np.float32] if is_float(array) else [np.int32, np.int64]
    if array.dtype == np.int8:
        return scope.add("Identity", [make(array)])
    kinds = [kind for kind in kinds if kind != array.dtype and np.dtype(kind).itemsize >= array.dtype.itemsize]
    if not kinds:
        return scope.add("Identity", [make(array)])
    inner = make(array.astype(scope.dice.pick(kinds)))
    target = scope.world.dtype if is_float(array) else array.dtype
    if scope.opset >= 15 and scope.dice.chance(0.3):
        like = [value for value in scope.visible() if value.is_float and value.array.dtype == target]
        if like:
            # The type is read of a value that is computed, and only the type.
            return scope.add("CastLike", [inner, scope.dice.pick(like)])
    return scope.add("Cast", [inner], to=_code(array.dtype))


def _code(dtype: np.dtype) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def _transpose(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    perm = scope.dice.shuffled(range(array.ndim))
    inner = make(np.ascontiguousarray(array.transpose(np.argsort(perm)) if perm else array))
    reverse = perm == list(range(array.ndim))[::-1]
    return scope.add("Transpose", [inner], perm=None if reverse else perm or None)


def _reshape(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    shape = list(array.shape)
    inner = array.ravel() if scope.dice.chance(0.5) else array.reshape([*shape, 1] if array.ndim < 4 else shape)
    target = list(shape)
    if target and scope.dice.chance(0.4) and array.size:
        target[scope.dice.between(0, len(target) - 1)] = -1
    return scope.add("Reshape", [make(inner), _ints(make, target)])


def _unsqueeze(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    ones = [axis for axis, size in enumerate(array.shape) if size == 1]
    if not ones:
        at = scope.dice.between(0, array.ndim)
        return _by_axes(scope, "Squeeze", make(np.expand_dims(array, at)), [at], make)
    axes = sorted(scope.dice.some(ones))
    inner = make(array.reshape([size for axis, size in enumerate(array.shape) if axis not in axes]))
    if scope.dice.chance(0.3) and scope.opset >= 11:
        axes = [axis - array.ndim for axis in axes]
    return _by_axes(scope, "Unsqueeze", inner, axes, make)


def _by_axes(scope: Scope, op: str, inner: Value, axes: list[int], make: Make) -> tuple[Value, ...]:
    if scope.opset < 13:
        return scope.add(op, [inner], axes=axes)
    return scope.add(op, [inner, _ints(make, axes)])


def _expand(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if scope.opset < 8:
        return ()
    shape = [size if scope.dice.chance(0.4) else 1 for size in array.shape]
    while shape and shape[0] == 1 and scope.dice.chance(0.5):
        del shape[0]
    inner = make(np.full(shape, array.ravel()[0], array.dtype))
    return scope.add("Expand", [inner, _ints(make, list(array.shape))])


def _constant_of_shape(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if scope.opset < 9:
        return ()
    fill = numpy_helper.from_array(array.ravel()[:1])
    bare = array.dtype == np.float32 and array.ravel()[0] == 0
    return scope.add("ConstantOfShape", [_ints(make, list(array.shape))], value=None if bare else fill)


def _concat(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if not array.ndim:
        return ()
    axis = scope.dice.between(0, array.ndim - 1)
    cut = scope.dice.between(0, array.shape[axis])
    parts = [make(np.ascontiguousarray(part)) for part in np.split(array, [cut], axis)]
    return scope.add("Concat", parts, axis=axis - (array.ndim if scope.opset >= 11 and scope.dice.chance(0.3) else 0))


def _slice(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if not array.ndim:
        return ()
    axis, size = (at := scope.dice.between(0, array.ndim - 1)), array.shape[at]
    before = scope.dice.between(0, 2)
    junk = np.ones([*array.shape[:axis], before, *array.shape[axis + 1 :]], array.dtype)
    whole = np.concatenate([junk, array, junk], axis)
    if scope.opset < 10:
        return scope.add("Slice", [make(whole)], starts=[before], ends=[before + size], axes=[axis])
    if scope.dice.chance(0.4) and before + size > 0 and whole.shape[axis] > 0:
        whole = np.ascontiguousarray(np.flip(whole, axis))
        bounds = [before + size - 1, before - 1 if before else -(2**31)]
        return scope.add("Slice", [make(whole), *(_ints(make, [n]) for n in (*bounds, axis, -1))])
    return scope.add("Slice", [make(whole), *(_ints(make, [n]) for n in (before, before + size, axis))])


def _gather(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if not array.ndim:
        table = np.concatenate([array.reshape(1), array.reshape(1) + 1]).astype(array.dtype)
        return scope.add("Gather", [make(table), make(np.asarray(0, np.int64))])
    axis = scope.dice.between(0, array.ndim - 1)
    order = scope.dice.shuffled(range(array.shape[axis]))
    inner = make(np.ascontiguousarray(np.take(array, np.argsort(order), axis)))
    at = [index - len(order) if scope.opset >= 11 and scope.dice.chance(0.2) else index for index in order]
    return scope.add("Gather", [inner, _ints(make, at)], axis=axis)


def _tile(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if not array.ndim or 1 not in array.shape:
        return ()
    repeats = [1] * array.ndim
    return scope.add("Tile", [make(array), _ints(make, repeats)])


def _split(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if not array.ndim or not array.size or scope.opset >= 18:
        return ()
    axis = scope.dice.between(0, array.ndim - 1)
    return scope.add("Split", [make(np.concatenate([array, array], axis))], outputs=2, axis=axis)


def _where(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if scope.opset < 9:
        return ()
    mask = scope.dice.stream.random(array.shape) < 0.5
    left = np.where(mask, array, np.ones_like(array)).astype(array.dtype)
    right = np.where(mask, np.ones_like(array), array).astype(array.dtype)
    return scope.add("Where", [make(np.asarray(mask)), make(left), make(right)])


def _root(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if array.size and array.min() <= 0:
        return scope.add("Neg", [make(-array)])
    return scope.add("Sqrt", [make(array * array)])


def _reciprocal(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if array.size and np.abs(array).min() < 0.1:
        return scope.add("Neg", [make(-array)])
    inverse = (1 / array).astype(array.dtype)
    if scope.dice.chance(0.5):
        return scope.add("Div", [make(np.ones((), array.dtype)), make(inverse)])
    return scope.add("Reciprocal", [make(inverse)])


def _power(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    if array.size and array.min() <= 0.1:
        return ()
    return scope.add("Pow", [make(np.sqrt(array)), make(np.asarray(2, array.dtype))])


def _pair(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    other = scope.dice.positive(array.shape[scope.dice.between(0, array.ndim) :], array.dtype)
    op = scope.dice.pick(["Mul", "Add", "Sub", "Div"])
    rest = {"Mul": array / other, "Add": array - other, "Sub": array + other, "Div": array * other}[op]
    return scope.add(op, [make(np.asarray(rest, array.dtype)), make(other)])


def _dequantized(scope: Scope, array: Array, make: Make) -> tuple[Value, ...]:
    """Whole numbers with a scale for all or one per slice along an axis: the nearest data that these can tell."""
    if scope.opset < 10 or array.dtype != np.float32 or not array.size or np.abs(array).min() < 0.05:
        return ()
    step = np.float32(np.abs(array).max() / 100)
    whole = np.clip(np.rint(array / step), -127, 127).astype(np.int8)
    if scope.opset >= 13 and array.ndim and scope.dice.chance(0.5):
        axis = scope.dice.between(0, array.ndim - 1)
        steps = np.full(array.shape[axis], step, np.float32)
        return scope.add("DequantizeLinear", [make(whole), make(steps)], axis=axis)
    zero = [make(np.asarray(0, np.int8))] if scope.dice.chance(0.5) else []
    return scope.add("DequantizeLinear", [make(whole), make(np.asarray(step)), *zero])


INDEXED = [
    (_identity, 2.0),
    (_cast, 2.0),
    (_transpose, 2.0),
    (_reshape, 2.0),
    (_unsqueeze, 2.0),
    (_concat, 1.0),
    (_slice, 1.5),
    (_gather, 1.5),
    (_tile, 0.5),
    (_split, 0.5),
    (_where, 0.7),
]
COMPUTED = [(_root, 1.5), (_reciprocal, 1.0), (_power, 0.5), (_pair, 1.5), (_dequantized, 0.7)]
