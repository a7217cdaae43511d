"""Readers of the shape or the type of a value, and second readers of its data."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from generators.grown.affine import batch_norm, chain
from generators.grown.constants import constant
from generators.grown.indexing import first
from generators.grown.scope import Scope, Value


def shape_reader(scope: Scope) -> Value | None:
    """Something that depends on the shape or the type of a value alone, joined to another value or not."""
    dice, dtype = scope.dice, scope.world.dtype
    value = scope.subject()
    if value is None:
        return None
    kind = dice.pick(["fill", "size", "like", "eye", "bare", "expand"])
    if kind == "bare":
        start = dice.between(-2, 1) if scope.opset >= 15 and dice.chance(0.4) else None
        return first(scope.add("Shape" if start is not None else dice.pick(["Shape", "Size"]), [value], start=start))
    if kind == "fill" and scope.opset >= 9:
        shape = scope.add("Shape", [value])
        number = numpy_helper.from_array(np.asarray([dice.pick([0.0, 1.0, 0.7])], dtype))
        full = first(scope.add("ConstantOfShape", shape, value=number)) if shape else None
        return _joined(scope, value, full)
    if kind == "expand" and scope.opset >= 8:
        shape = scope.add("Shape", [value])
        small = constant(scope, dice.factor([value.shape[-1]] if value.rank and dice.chance(0.5) else [], dtype))
        return _joined(scope, value, first(scope.add("Expand", [small, shape[0]])) if shape else None)
    if kind == "size":
        size = scope.add("Size", [value])
        number = scope.add("Cast", size, to=_float_code(scope)) if size else ()
        scaled = scope.add("Mul", [number[0], constant(scope, np.asarray(0.02, dtype))]) if number else ()
        return _joined(scope, value, first(scaled))
    if kind == "like" and scope.opset >= 15:
        number = constant(scope, np.asarray(dice.between(1, 3), np.int64), 0)
        return _joined(scope, value, first(scope.add("CastLike", [number, value])))
    if kind == "eye" and scope.opset >= 9 and value.rank == 2:
        return _joined(scope, value, first(scope.add("EyeLike", [value], k=dice.pick([None, 1, -1]))))
    return None


def _float_code(scope: Scope) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(scope.world.dtype)))


def _joined(scope: Scope, value: Value, made: Value | None) -> Value | None:
    """What was read of the shape comes back into a value: this one, or another."""
    if made is None:
        return None
    dice = scope.dice
    partner = value if dice.chance(0.6) else scope.other(value)
    op = dice.pick(["Mul", "Add", "Add", "Div", "Sub"])
    if op == "Div" and float(np.abs(made.array).min(initial=1.0)) < 0.1:
        op = "Add"
    return first(scope.add(op, [partner, made]))


def second_reader(scope: Scope) -> Value | None:
    """One more reader of a value in the middle; the value in focus stays in focus."""
    dice = scope.dice
    focus = scope.focus
    found = [value for value in scope.floats() if not value.fixed and value.readers][-6:]
    if not found:
        return None
    value = dice.pick(found)
    made = first(scope.add(dice.pick(["Relu", "Neg", "Identity", "Sigmoid", "Shape"]), [value]))
    if dice.chance(0.7):
        scope.focus = focus
    return made


def grid(scope: Scope) -> Value | None:
    """A chain or a norm whose input is a constant: a grid of coordinates, a table of positions."""
    dice, dtype = scope.dice, scope.world.dtype
    value = scope.subject(1, 4)
    if value is None:
        return None
    shape = [size if dice.chance(0.7) else 1 for size in value.shape]
    table = constant(scope, dice.normal(shape, dtype), 0.6)
    if scope.opset >= 11 and dice.chance(0.3) and dtype == np.float32:
        bounds = [constant(scope, np.asarray(n, np.float32), 0, 0) for n in (0, value.shape[-1], 1)]
        made = scope.add("Range", bounds)
        table = made[0] if made else table
    move = batch_norm if table.rank >= 2 and dice.chance(0.1) else chain
    result = move(scope, table)
    if result is None:
        return None
    if dice.chance(0.2):
        return result
    return first(scope.add(dice.pick(["Add", "Mul", "Sub"]), dice.shuffled([value, result])))
