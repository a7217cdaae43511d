"""Operators that change the shape alone, with shapes as constants or computed of the shapes of values."""

from __future__ import annotations

import math

import numpy as np

from generators.grown.affine import chain
from generators.grown.constants import constant, integers
from generators.grown.indexing import first, maybe_negative
from generators.grown.scope import Scope, Value


def by_axes(scope: Scope, op: str, value: Value, axes: list[int]) -> Value | None:
    if scope.opset < 13:
        return first(scope.add(op, [value], axes=axes))
    return first(scope.add(op, [value, integers(scope, axes)]))


def flatten(scope: Scope) -> Value | None:
    value = scope.subject()
    if value is None:
        return None
    axis = scope.dice.between(0, value.rank)
    if scope.opset >= 11 and scope.dice.chance(0.2) and axis < value.rank:
        axis -= value.rank
    return first(scope.add("Flatten", [value], axis=None if axis == 1 else axis))


def squeeze(scope: Scope) -> Value | None:
    value = scope.subject(1)
    if value is None:
        return None
    ones = [axis for axis, size in enumerate(value.shape) if size == 1]
    if not ones:
        return unsqueeze(scope)
    if scope.dice.chance(0.2):
        return first(scope.add("Squeeze", [value]))
    axes = [maybe_negative(scope, axis, value.rank) for axis in scope.dice.some(ones)]
    return by_axes(scope, "Squeeze", value, axes)


def unsqueeze(scope: Scope) -> Value | None:
    value = scope.subject(0, 3)
    if value is None:
        return None
    rank = value.rank + scope.dice.between(1, 2)
    axes = scope.dice.shuffled(range(rank))[: rank - value.rank]
    if scope.opset < 11:
        axes = sorted(axes)
    return by_axes(scope, "Unsqueeze", value, [maybe_negative(scope, axis, rank) for axis in axes])


def _target(scope: Scope, shape: tuple[int, ...]) -> list[int]:
    """A shape of as many elements: merged, split, with ones, or shuffled."""
    dice = scope.dice
    dims = list(shape)
    for _ in range(dice.between(1, 3)):
        kind = dice.weighted([("merge", 4), ("split", 3), ("one", 1), ("drop", 1), ("shuffle", 0.7)])
        if kind == "merge" and len(dims) > 1:
            at = dice.between(0, len(dims) - 2)
            dims[at : at + 2] = [dims[at] * dims[at + 1]]
        elif kind == "split" and dims and len(dims) < 5:
            at = dice.between(0, len(dims) - 1)
            size = dims[at]
            factors = [n for n in range(1, size + 1) if size % n == 0] or [1]
            factor = dice.pick(factors)
            dims[at : at + 1] = [factor, size // factor]
        elif kind == "one" and len(dims) < 5:
            dims.insert(dice.between(0, len(dims)), 1)
        elif kind == "drop" and 1 in dims:
            dims.remove(1)
        elif kind == "shuffle":
            dims = dice.shuffled(dims)
    return dims


def reshape(scope: Scope) -> Value | None:
    """Reshape to a constant shape, with 0, -1 and allowzero."""
    dice = scope.dice
    value = scope.subject()
    if value is None:
        return None
    dims = _target(scope, value.shape)
    spelled = list(dims)
    for at, size in enumerate(dims):
        if at < value.rank and value.shape[at] == size and dice.chance(0.35):
            spelled[at] = 0
    free = [at for at, size in enumerate(spelled) if size != 0]
    if free and dice.chance(0.45) and math.prod(dims):
        spelled[dice.pick(free)] = -1
    allow = None
    if scope.opset >= 14 and dice.chance(0.15):
        allow = 1
        spelled = [dims[at] if size == 0 else size for at, size in enumerate(spelled)]
    return first(scope.add("Reshape", [value, integers(scope, spelled)], allowzero=allow))


def reshape_back(scope: Scope) -> Value | None:
    """Reshape to the shape that another value of as many elements has, read by Shape."""
    dice = scope.dice
    value = scope.subject()
    if value is None:
        return None
    size = value.array.size
    models = [item for item in scope.floats() if item.array.size == size and item.shape != value.shape] or [value]
    shape = scope.add("Shape", [dice.pick(models)])
    if not shape:
        return None
    return first(scope.add("Reshape", [value, shape[0]]))


def reshape_computed(scope: Scope) -> Value | None:
    """Reshape to a shape that is put together of parts of the value's own shape and of constants."""
    dice = scope.dice
    value = scope.subject(1)
    if value is None:
        return None
    shape = scope.add("Shape", [value])
    if not shape:
        return None
    dims = _target(scope, value.shape)
    parts: list[Value] = []
    for size in dims:
        places = [at for at, own in enumerate(value.shape) if own == size]
        if places and dice.chance(0.6):
            index = constant(scope, np.asarray([dice.pick(places)], np.int64), 0.1)
            parts += scope.add("Gather", [shape[0], index])
        else:
            parts.append(integers(scope, [size]))
    if parts and dice.chance(0.4) and math.prod(dims):
        parts[dice.between(0, len(parts) - 1)] = integers(scope, [-1])
    if not parts:
        return None
    target = scope.add("Concat", parts, axis=0) if len(parts) > 1 or dice.chance(0.5) else (parts[0],)
    return first(scope.add("Reshape", [value, target[0]])) if target else None


def there_and_back(scope: Scope) -> Value | None:
    """Two shape changes, of which the second undoes the first, or nearly so."""
    dice = scope.dice
    value = scope.subject(2, 4)
    if value is None:
        return None
    if dice.chance(0.5):
        perm = dice.shuffled(range(value.rank))
        half = first(scope.add("Transpose", [value], perm=perm))
        if half is None:
            return None
        back = [int(n) for n in np.argsort(perm)] if dice.chance(0.7) else perm
        scope.focus = _middle(scope, half)
        return first(scope.add("Transpose", [scope.focus], perm=back))
    half = first(scope.add("Reshape", [value, integers(scope, _target(scope, value.shape))]))
    if half is None:
        return None
    scope.focus = _middle(scope, half)
    if scope.focus.array.size != value.array.size:
        return scope.focus
    return first(scope.add("Reshape", [scope.focus, integers(scope, value.shape)]))


def _middle(scope: Scope, value: Value) -> Value:
    if scope.dice.chance(0.5):
        return value
    return chain(scope, value) or value
