"""Operators of several computed values: sums, concatenations, gates, stacks, sequences."""

from __future__ import annotations

import numpy as np

from generators.grown.constants import constant, integers
from generators.grown.indexing import first, maybe_negative
from generators.grown.scope import Scope, Value


def add_two(scope: Scope) -> Value | None:
    """Add or Sub of two values, which may be one and the same."""
    value = scope.subject()
    if value is None:
        return None
    pair = [value, value if scope.dice.chance(0.12) else scope.other(value)]
    if scope.dice.chance(0.4):
        pair.reverse()
    return first(scope.add("Add" if scope.dice.chance(0.7) else "Sub", pair))


def many(scope: Scope) -> Value | None:
    """Sum, Mean, Max or Min of one to four values and constants."""
    dice = scope.dice
    value = scope.subject()
    if value is None:
        return None
    inputs = [value]
    for _ in range(dice.between(0, 3)):
        kind = dice.weighted([("other", 4), ("same", 1), ("constant", 2)])
        if kind == "constant":
            shape = [size if dice.chance(0.5) else 1 for size in value.shape]
            inputs.append(constant(scope, dice.normal(shape, scope.world.dtype)))
        else:
            inputs.append(value if kind == "same" else scope.other(value))
    return first(scope.add(dice.pick(["Sum", "Sum", "Mean", "Max", "Min"]), dice.shuffled(inputs)))


def concat(scope: Scope) -> Value | None:
    dice = scope.dice
    value = scope.subject(1)
    if value is None:
        return None
    axis = dice.between(0, value.rank - 1)
    rest = [*value.shape[:axis], *value.shape[axis + 1 :]]
    fitting = [
        item
        for item in scope.floats(value.rank, value.rank)
        if [*item.shape[:axis], *item.shape[axis + 1 :]] == rest and item is not value
    ]
    inputs = [value]
    for _ in range(dice.between(1, 2)):
        kind = dice.weighted([("other", 5), ("same", 1), ("constant", 1)])
        if kind == "other" and fitting:
            inputs.append(dice.pick(fitting[-5:]))
        elif kind == "constant":
            shape = list(value.shape)
            shape[axis] = dice.between(0 if dice.chance(0.1) else 1, 2)
            inputs.append(constant(scope, dice.normal(shape, scope.world.dtype)))
        else:
            inputs.append(value)
    return first(scope.add("Concat", dice.shuffled(inputs), axis=maybe_negative(scope, axis, value.rank)))


def gate(scope: Scope) -> Value | None:
    """A product or quotient of two computed values, perhaps with an activation on one side."""
    dice = scope.dice
    value = scope.subject()
    if value is None:
        return None
    kind = dice.weighted([("self", 1), ("silu", 2), ("other", 4), ("squeeze", 2)])
    side = value
    if kind == "silu":
        side = first(scope.add(dice.pick(["Sigmoid", "Tanh", "Relu", "HardSigmoid"]), [value])) or value
    elif kind == "other":
        side = scope.other(value)
    elif kind == "squeeze" and value.rank > 2 and 0 not in value.shape:
        pooled = first(scope.add("GlobalAveragePool", [value]))
        side = (first(scope.add("Sigmoid", [pooled])) if pooled else None) or value
    pair = [value, side] if dice.chance(0.5) else [side, value]
    made = scope.add("Mul", pair)
    scope.focus = made[0] if made else value
    return first(made)


def stack(scope: Scope) -> Value | None:
    """Several values, each with a new axis, side by side."""
    dice = scope.dice
    value = scope.subject(0, 3)
    if value is None:
        return None
    axis = dice.between(0, value.rank)
    parts = []
    for item in (value, scope.other(value)):
        if item.shape != value.shape:
            item = value
        axes: list[Value | None] = [integers(scope, [axis])] if scope.opset >= 13 else []
        made = scope.add("Unsqueeze", [item, *axes], axes=None if axes else [axis])
        parts += made
    if len(parts) < 2:
        return None
    return first(scope.add("Concat", parts, axis=axis))


def sequence(scope: Scope) -> Value | None:
    """A way through a sequence of tensors."""
    dice = scope.dice
    value = scope.subject(1, 4)
    if value is None or scope.opset < 11 or 0 in value.shape:
        return None
    axis = dice.between(0, value.rank - 1)
    if dice.chance(0.5):
        items = scope.add("SplitToSequence", [value], axis=axis)
    else:
        other = scope.other(value)
        items = scope.add("SequenceConstruct", [value, other if other.shape == value.shape else value])
    if not items:
        return None
    if dice.chance(0.5):
        return first(scope.add("ConcatFromSequence", items, axis=axis))
    at = constant(scope, np.asarray(0, np.int64), 0)
    return first(scope.add("SequenceAt", [items[0], at]))
