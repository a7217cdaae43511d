"""Constants, plain and hidden behind operators that compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from generators.grown import spellings
from generators.grown.dice import Array
from generators.grown.engines import is_float
from generators.grown.scope import Scope, Value


def constant(scope: Scope, array: Array, hide: float | None = None, reuse: float | None = None) -> Value:
    """A value with the data of `array`, or near them; perhaps one that others read already."""
    dice = scope.dice
    if is_float(array) and dice.chance(scope.world.reuse if reuse is None else reuse):
        kin = [value for value in _pool(scope) if _alike(value, array)]
        if kin:
            return dice.pick(kin)
    value = _hidden(scope, array, scope.world.hide if hide is None else hide)
    value.marks.add("constant")
    return value


def integers(scope: Scope, numbers: Sequence[int], hide: float | None = None) -> Value:
    """A one-dimensional constant of integers, as of a shape."""
    chance = 0.4 * scope.world.hide if hide is None else hide
    return constant(scope, np.asarray(numbers, np.int64).reshape(-1), chance)


def scalar(scope: Scope, number: int) -> Value:
    return constant(scope, np.asarray(number, np.int64), 0.1)


def shared_pair(scope: Scope, array: Array) -> tuple[Value, Value]:
    """Two constants, which may be the same value."""
    first = constant(scope, array)
    return first, first if scope.dice.chance(0.2) else constant(scope, array)


def _pool(scope: Scope) -> list[Value]:
    return [value for value in scope.visible() if "constant" in value.marks]


def _alike(value: Value, array: Array) -> bool:
    """Whether a constant may stand in for another: the same type and shape, and no sign that is not asked for."""
    own = value.array
    if own.dtype != array.dtype or own.shape != array.shape or own.size == 0 or array.size == 0:
        return False
    return bool(np.min(own) > 0 or np.min(array) <= 0)


def _hidden(scope: Scope, array: Array, hide: float) -> Value:
    if scope.dice.chance(hide):
        hidden = spellings.spell(scope, array, lambda inner: _hidden(scope, inner, 0.6 * hide))
        if hidden is not None and hidden.shape == array.shape and hidden.array.dtype == array.dtype:
            return hidden
    bottom = leaf(scope, array)
    bottom.marks.add("constant")
    return bottom


def leaf(scope: Scope, array: Array) -> Value:
    """A constant without inputs: an initializer of this graph or of an outer one, a Constant node, or a formal."""
    dice = scope.dice
    if scope.kind == "function":
        if is_float(array) and dice.chance(0.4) and scope.parent is not None:
            actual = constant(scope.parent, array)
            formal = Value(scope.world.namer.fresh("p"), list(actual.arrays), fixed=True, marks={"constant"})
            scope.formals.append((formal, actual))
            scope.values.append(formal)
            return formal
        return _node(scope, array) or _initializer(scope, array)
    if scope.parent is not None and dice.chance(0.4):
        return constant(scope.parent, array)
    if dice.chance(0.3):
        made = _node(scope, array)
        if made is not None:
            return made
    if scope.parent is not None and scope.world.ir_version < 4:
        # An initializer that is no input is newer than this version.
        return constant(scope.parent, array)
    return _initializer(scope, array)


def _initializer(scope: Scope, array: Array) -> Value:
    value = Value(scope.world.namer.fresh("c"), [array], fixed=True)
    if scope.kind == "function":
        # There are no initializers in a function: this is the Constant node that needs no evaluation.
        node = helper.make_node("Constant", [], [value.name], value=numpy_helper.from_array(array))
        scope.nodes.append(node)
        scope.values.append(value)
        return value
    scope.initializers.append(tensor_of(scope, array, value.name))
    free = scope.kind == "graph" and scope.world.ir_version >= 4 and scope.world.feeds > 1
    if free and is_float(array) and scope.dice.chance(0.04):
        value.marks.add("overridable")
        value.arrays = [array, array * np.asarray(1.5, array.dtype)]
    scope.values.append(value)
    return value


def tensor_of(scope: Scope, array: Array, name: str) -> TensorProto:
    """The tensor, with raw bytes or with numbers."""
    if scope.dice.chance(0.2) and array.dtype in (np.float32, np.float64, np.int64):
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor(name, kind, array.shape, array.ravel().tolist())
    return numpy_helper.from_array(array, name)


def _node(scope: Scope, array: Array) -> Value | None:
    """A Constant node, in one of its spellings."""
    attributes: dict[str, Any] = {"value": tensor_of(scope, array, "" if scope.dice.chance(0.7) else "value")}
    short = scope.opset >= 12 and scope.dice.chance(0.4)
    if short and array.ndim <= 1 and array.size > 0 and array.dtype in (np.float32, np.int64):
        kind = "float" if array.dtype == np.float32 else "int"
        attributes = {f"value_{kind}s": array.tolist()} if array.ndim else {f"value_{kind}": array.item()}
    elif short and array.ndim in (1, 2) and array.dtype == np.float32 and scope.dice.chance(0.2):
        attributes = {"sparse_value": _sparse(array)}
    made = scope.add("Constant", [], **attributes)
    return made[0] if made else None


def _sparse(array: Array) -> onnx.SparseTensorProto:
    at = np.flatnonzero(array).astype(np.int64)
    values = numpy_helper.from_array(array.ravel()[at], "values")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(at, "indices"), list(array.shape))
