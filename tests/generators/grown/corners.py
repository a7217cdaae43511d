"""Rarer structures: operators that do nothing, products of a value with itself, tied tables, computed filters."""

from __future__ import annotations

import numpy as np

from generators.grown import affine, linear
from generators.grown.constants import constant, integers
from generators.grown.indexing import first, maybe_negative
from generators.grown.pointwise import stable
from generators.grown.scope import Scope, Value

NOTHINGS = (
    *("Sum", "Max", "Mean", "Concat", "Transpose", "Reshape", "Expand", "Tile", "Pad", "Slice", "Gather", "Cast"),
    *("Identity", "Dropout", "Resize", "AveragePool", "MaxPool", "Clip", "Squeeze", "Flatten", "LeakyRelu", "Pow"),
)


def nothing(scope: Scope) -> Value | None:
    """An operator that gives its input back, because of its attributes or because it has one input alone."""
    dice = scope.dice
    value = scope.subject(1, 5)
    if value is None:
        return None
    axis = dice.between(0, value.rank - 1)
    kind = dice.pick(NOTHINGS)
    if kind in ("Sum", "Max", "Mean", "Identity"):
        return first(scope.add(kind, [value]))
    if kind == "Concat":
        return first(scope.add(kind, [value], axis=maybe_negative(scope, axis, value.rank)))
    if kind == "Transpose":
        return first(scope.add(kind, [value], perm=list(range(value.rank))))
    if kind == "Reshape":
        return first(scope.add(kind, [value, integers(scope, [0] * value.rank)]))
    if kind == "Expand" and scope.opset >= 8:
        return first(scope.add(kind, [value, integers(scope, [1] * dice.between(1, value.rank))]))
    if kind == "Tile":
        return first(scope.add(kind, [value, integers(scope, [1] * value.rank)]))
    if kind == "Pad" and scope.opset >= 11:
        return first(scope.add(kind, [value, integers(scope, [0] * (2 * value.rank))], mode=dice.pick([None, "edge"])))
    if kind == "Slice" and scope.opset >= 10:
        return first(scope.add(kind, [value, *(integers(scope, [n]) for n in (0, 2**31 - 1, axis))]))
    if kind == "Gather" and not value.varies:
        return first(scope.add(kind, [value, integers(scope, range(value.shape[axis]))], axis=axis))
    if kind == "Cast":
        code = {"float32": 1, "float16": 10, "float64": 11, "bfloat16": 16}[value.array.dtype.name]
        return first(scope.add(kind, [value], to=code))
    if kind in ("AveragePool", "MaxPool") and value.rank >= 3 and 0 not in value.shape:
        return first(scope.add(kind, [value], kernel_shape=[1] * (value.rank - 2)))
    if kind == "Resize" and scope.opset >= 13 and value.rank == 4 and 0 not in value.shape:
        table = constant(scope, np.ones(4, np.float32), 0, 0)
        return first(scope.add(kind, [value, None, table], mode=dice.pick(["nearest", "linear"])))
    if kind == "Clip" and scope.opset >= 11:
        return first(scope.add(kind, [value]))
    if kind == "Squeeze" and 1 not in value.shape:
        return first(scope.add(kind, [value]))
    if kind == "Flatten" and value.rank == 2:
        return first(scope.add(kind, [value]))
    if kind == "LeakyRelu":
        return first(scope.add(kind, [value], alpha=1.0))
    if kind == "Pow":
        return first(scope.add(kind, [value, constant(scope, np.asarray(1, scope.world.dtype), 0.2)]))
    return first(scope.add("Dropout", [value]))


def itself(scope: Scope) -> Value | None:
    """A value meets itself: a product with its own transpose, a sum with itself, a quotient, a gate."""
    dice = scope.dice
    value = scope.subject(2, 4)
    if value is None:
        return None
    kind = dice.pick(["MatMul", "Gemm", "Einsum", "Concat", "Add", "Sub", "Mul", "Where", "Norm"])
    if kind in ("MatMul", "Gemm") and value.rank == 2 and scope.opset >= 11:
        if kind == "Gemm":
            return first(scope.add(kind, [value, value, value] if dice.chance(0.3) else [value, value], transB=1))
        turned = first(scope.add("Transpose", [value]))
        return first(scope.add(kind, [value, turned])) if turned else None
    if kind == "Einsum" and scope.opset >= 12 and value.rank == 3:
        return first(scope.add(kind, [value, value], equation=dice.pick(["bij,bkj->bik", "bij,bij->bi", "bij,bij->j"])))
    if kind == "Concat":
        return first(scope.add(kind, [value, value], axis=dice.between(0, value.rank - 1)))
    if kind == "Where" and scope.opset >= 9:
        zero = constant(scope, np.asarray(0.02, scope.world.dtype), 0, 0)
        mask = stable(scope, "Greater", [value, zero])
        small = affine.step(scope, value, "Mul", []) if mask else None
        return first(scope.add(kind, [mask, value, small])) if small else None
    if kind == "Norm":
        return _centred(scope, value)
    return first(scope.add(kind if kind in ("Add", "Mul") else "Add", [value, value]))


def _centred(scope: Scope, value: Value) -> Value | None:
    """A value less its own mean: the mean reads what the difference reads."""
    axis = value.rank - 1
    axes: list[Value | None] = [integers(scope, [axis])] if scope.opset >= 18 else []
    mean = first(scope.add("ReduceMean", [value, *axes], axes=None if axes else [axis], keepdims=1))
    return first(scope.add("Sub", [value, mean])) if mean else None


def attention(scope: Scope) -> Value | None:
    """Queries, keys and values from one value, with norms or chains behind some of them."""
    dice = scope.dice
    value = scope.subject(2, 4)
    if value is None or not all(value.shape):
        return None
    parts = []
    for _ in range(3):
        scope.focus = value
        table = linear.weight(scope, [value.shape[-1], value.shape[-1]])
        part = first(scope.add("MatMul", [value, table]))
        if part is None:
            return None
        if dice.chance(0.5):
            part = affine.chain(scope, part) if dice.chance(0.6) else affine.batch_norm(scope, part)
        parts.append(part)
    query, key, content = parts
    if query is None or key is None or content is None:
        return None
    turned = first(scope.add("Transpose", [key], perm=[*range(key.rank - 2), key.rank - 1, key.rank - 2]))
    score = first(scope.add("MatMul", [query, turned])) if turned else None
    if score is None:
        return None
    score = affine.step(scope, score, "Mul", []) or score
    if dice.chance(0.7):
        score = first(scope.add("Softmax", [score], axis=-1 if scope.opset >= 11 else score.rank - 1)) or score
    return first(scope.add("MatMul", [score, content]))


def tied(scope: Scope) -> Value | None:
    """One table that is read in two ways: by two linear operators, or as data as well."""
    dice, dtype = scope.dice, scope.world.dtype
    value = scope.subject(2, 4)
    if value is None or not all(value.shape):
        return None
    size = value.shape[-1]
    table = constant(scope, dice.normal([size, size], dtype), reuse=0.0)
    made = first(scope.add("MatMul", [value, table]))
    if made is None:
        return None
    if dice.chance(0.6):
        made = affine.chain(scope, made) or made
    kind = dice.pick(["turned", "data", "shape", "again", "rows"])
    if kind == "turned":
        turned = first(scope.add("Transpose", [table]))
        return first(scope.add("MatMul", [made, turned])) if turned else made
    if kind == "data":
        return first(scope.add("Add", [made, table]))
    if kind == "shape" and scope.opset >= 9:
        shape = first(scope.add("Shape", [table]))
        zeros = first(scope.add("ConstantOfShape", [shape])) if shape and dtype == np.float32 else None
        return first(scope.add("Add", [made, zeros])) if zeros else made
    if kind == "rows":
        row = first(scope.add("Gather", [table, constant(scope, np.asarray(0, np.int64), 0)]))
        return first(scope.add("Mul", [made, row])) if row else made
    return first(scope.add("MatMul", [made, table]))


def filter_of_data(scope: Scope) -> Value | None:
    """A convolution or product whose weight is computed from a value, with something constant on the way."""
    dice = scope.dice
    value = scope.subject(3, 4)
    if value is None or not all(value.shape):
        return None
    rows = value.shape[1]
    pooled = first(scope.add("GlobalAveragePool", [value]))
    if pooled is None:
        return None
    table = constant(scope, dice.normal([dice.between(1, 3), rows, *[1] * (value.rank - 2)], scope.world.dtype))
    mean = first(scope.add("Gather", [pooled, constant(scope, np.asarray([0], np.int64), 0)], axis=0))
    made = first(scope.add("Mul", [table, mean])) if mean else None
    if made is None:
        return None
    if dice.chance(0.5):
        made = affine.chain(scope, made) or made
    inputs = [value, made, *linear.bias(scope, [made.shape[0] if made.rank else 1])]
    result = first(scope.add("Conv", inputs))
    return affine.batch_norm(scope, result) if result and dice.chance(0.6) else result


def jump(scope: Scope) -> Value | None:
    """Sign, Round, Floor and Ceil, where no element is near a jump."""
    value = scope.subject()
    if value is None:
        return None
    op = scope.dice.pick(["Sign", "Round", "Floor", "Ceil"]) if scope.opset >= 11 else "Floor"
    return stable(scope, op, [value])
