"""Activations, comparisons, selections and other operators that bend a value."""

from __future__ import annotations

from typing import Any

import numpy as np

from generators.grown.affine import operand_shape
from generators.grown.constants import constant, scalar
from generators.grown.engines import evaluate
from generators.grown.indexing import first, maybe_negative
from generators.grown.scope import Scope, Value

JUMPS = ("Hardmax", "Sign", "Round", "Floor", "Ceil")
PLAIN = ("Relu", "Sigmoid", "Tanh", "Abs", "Softplus", "Softsign", "Exp", "Erf", "Sin", "Identity", "Selu", "Elu")


def activation(scope: Scope) -> Value | None:
    dice = scope.dice
    value = scope.subject()
    if value is None:
        return None
    dtype = scope.world.dtype
    kind = dice.weighted(
        [("Relu", 5), ("LeakyRelu", 3), ("PRelu", 3), ("plain", 4), ("Clip", 2), ("Dropout", 2), ("new", 2), ("Abs", 2)]
    )
    if kind in ("Relu", "Abs"):
        return first(scope.add(kind, [value]))
    if kind == "LeakyRelu":
        return first(scope.add(kind, [value], alpha=dice.pick([None, 0.2, -0.3, 1.0, 0.0])))
    if kind == "PRelu":
        shape = operand_shape(scope, value.shape)
        return first(scope.add(kind, [value, constant(scope, dice.factor(shape, dtype))]))
    if kind == "Clip":
        return _clip(scope, value)
    if kind == "Dropout":
        return _dropout(scope, value)
    if kind == "new":
        return _new(scope, value)
    return first(scope.add(dice.pick(PLAIN), [value]))


def _clip(scope: Scope, value: Value) -> Value | None:
    dice, dtype = scope.dice, scope.world.dtype
    low, high = dice.weighted([((0.0, 6.0), 2), ((-1.0, 1.0), 2), ((None, 0.5), 1), ((0.0, None), 2)])
    if scope.opset < 11:
        return first(scope.add("Clip", [value], min=low, max=high))
    bounds = [None if n is None else constant(scope, np.asarray(n, dtype), 0.2) for n in (low, high)]
    return first(scope.add("Clip", [value, *(bounds if bounds[1] else bounds[:1])]))


def _dropout(scope: Scope, value: Value) -> Value | None:
    dice = scope.dice
    if scope.opset < 12:
        return first(scope.add("Dropout", [value], ratio=0.5 if dice.chance(0.5) else None))
    inputs: list[Value | None] = [value]
    if dice.chance(0.5):
        ratio = constant(scope, np.asarray(0.5, np.float32), 0.1, 0) if dice.chance(0.6) else None
        mode = [constant(scope, np.asarray(False), 0)] if ratio is None or dice.chance(0.4) else []
        inputs += [ratio, *mode]
    return first(scope.add("Dropout", inputs, *dice.pick([(1, 0)] * 5 + [(2, 0), (1, 1)])))


def _new(scope: Scope, value: Value) -> Value | None:
    """Activations of newer opsets; an older one has a plain activation instead."""
    table: list[tuple[str, int, dict[str, Any]]] = [
        ("HardSwish", 14, {}),
        ("Gelu", 20, {}),
        ("Mish", 18, {}),
        ("Celu", 12, {"alpha": 1.5}),
        ("ThresholdedRelu", 10, {"alpha": 0.3}),
        ("Swish", 24, {}),
        ("HardSigmoid", 6, {"alpha": 0.3}),
        ("Shrink", 9, {"lambd": 0.3, "bias": 0.1}),
        ("Elu", 6, {"alpha": 0.5}),
    ]
    op, since, more = scope.dice.pick(table)
    return first(scope.add(op, [value], **more)) if scope.opset >= since else first(scope.add("Relu", [value]))


def along_axis(scope: Scope) -> Value | None:
    """Softmax and its kin, LRN, or MeanVarianceNormalization."""
    dice = scope.dice
    value = scope.subject(1)
    if value is None or 0 in value.shape:
        return None
    axis = maybe_negative(scope, dice.between(0, value.rank - 1), value.rank)
    op = dice.weighted(
        [("Softmax", 4), ("LogSoftmax", 1), ("Hardmax", 0.5), ("LRN", 0.7), ("Mvn", 0.7), ("ArgMax", 0.7)]
    )
    if op == "LRN":
        return first(scope.add(op, [value], size=3)) if value.rank >= 3 else None
    if op == "Mvn":
        return first(scope.add("MeanVarianceNormalization", [value], axes=[0, 2, 3])) if value.rank == 4 else None
    if op in ("Hardmax", "ArgMax"):
        return stable(scope, op, [value], axis=axis)
    return first(scope.add(op, [value], axis=None if dice.chance(0.15) else axis))


def select(scope: Scope) -> Value | None:
    """A comparison, and a Where by it; or a Where by a constant mask."""
    dice, dtype = scope.dice, scope.world.dtype
    value = scope.subject()
    if value is None or scope.opset < 9:
        return None
    if dice.chance(0.4):
        shape = operand_shape(scope, value.shape)
        mask: Value | None = constant(scope, np.asarray(dice.stream.random(shape) < 0.5), 0)
    else:
        other = scope.other(value) if dice.chance(0.3) else constant(scope, np.asarray(0.05, dtype))
        mask = stable(scope, dice.pick(["Greater", "Less"]), [value, other])
    if mask is None:
        return None
    sides = [value, scope.other(value) if dice.chance(0.6) else constant(scope, dice.normal(value.shape[-1:], dtype))]
    return first(scope.add("Where", [mask, *dice.shuffled(sides)]))


def top(scope: Scope) -> Value | None:
    """The largest or the smallest elements along an axis."""
    dice = scope.dice
    value = scope.subject(1)
    if value is None or 0 in value.shape:
        return None
    axis = dice.between(0, value.rank - 1)
    count = dice.between(1, value.shape[axis])
    if scope.opset < 10:
        return stable(scope, "TopK", [value], 2, axis=axis, k=count)
    table = constant(scope, np.asarray([count], np.int64), 0)
    smallest = 0 if scope.opset >= 11 and dice.chance(0.4) else None
    return stable(scope, "TopK", [value, table], 2, axis=axis, largest=smallest)


def round_trip(scope: Scope) -> Value | None:
    """A cast to another type and back, with something in between or not."""
    dice = scope.dice
    value = scope.subject()
    if value is None:
        return None
    kinds = [np.float64, np.float32, np.float16]
    target = dice.pick([kind for kind in kinds if kind != value.array.dtype])
    codes = {np.dtype(np.float64): 11, np.dtype(np.float32): 1, np.dtype(np.float16): 10}
    if value.array.dtype not in codes:
        return None
    half = scope.add("Cast", [value], to=codes[np.dtype(target)])
    if half and dice.chance(0.5):
        half = scope.add(dice.pick(["Relu", "Neg", "Identity", "Transpose"]), [half[0]]) or half
    return first(scope.add("Cast", [half[0]], to=codes[value.array.dtype])) if half else None


def rounded(scope: Scope) -> Value | None:
    """Quantized and back: a value that was rounded on the way, as in a network that is trained for it."""
    dice = scope.dice
    value = scope.subject()
    if value is None or scope.opset < 13 or scope.world.dtype != np.float32:
        return None
    size = float(np.abs(value.array).max(initial=0.1)) / 100
    inputs = [constant(scope, np.asarray(size, np.float32), 0.1, 0)]
    if dice.chance(0.6):
        inputs.append(constant(scope, np.asarray(dice.between(-3, 3), np.int8), 0))
    whole = stable(scope, "QuantizeLinear", [value, *inputs])
    return first(scope.add("DequantizeLinear", [whole, *inputs])) if whole else None


def power(scope: Scope) -> Value | None:
    """Powers, roots and quotients by a computed value, where these are finite."""
    dice, dtype = scope.dice, scope.world.dtype
    value = scope.subject()
    if value is None:
        return None
    kind = dice.pick(["square", "root", "over", "mod", "one"])
    if kind == "square":
        return first(scope.add("Pow", [value, constant(scope, np.asarray(2, dtype), 0.2)]))
    if kind == "root":
        if value.array.size and float(np.abs(value.array).min()) < 0.1:
            return None
        positive = first(scope.add("Abs", [value]))
        return first(scope.add("Sqrt", [positive])) if positive else None
    if kind == "one":
        return first(scope.add("Pow", [value, constant(scope, np.asarray(1, dtype), 0.2)]))
    safe = first(scope.add("Exp", [value]))
    return first(scope.add("Div", [scope.other(value), safe])) if safe else None


def stable(scope: Scope, op: str, inputs: list[Value | None], outputs: int = 1, **more: Any) -> Value | None:
    """Add an operator that jumps, if a small change of its inputs does not make it jump."""
    mark = scope.mark
    made = scope.add(op, inputs, outputs, **more)
    if not made:
        return None
    node = scope.nodes[-1]
    moved = {}
    for value in inputs:
        if value is None:
            continue
        moved[value.name] = value.arrays
        if value.is_float and not value.fixed:
            moved[value.name] = [_moved(scope, array) for array in value.arrays]
    answers = evaluate(node, moved, scope.context())
    whole = [item for item in made if not item.is_float or op in JUMPS]
    jumps = answers is None
    for item in whole:
        at = list(node.output).index(item.name)
        jumps = jumps or any(
            not np.array_equal(*pair) for pair in zip(item.arrays, answers[at] if answers else [], strict=True)
        )
    if jumps:
        scope.undo(mark)
        return None
    return made[0]


def _moved(scope: Scope, array: Any) -> Any:
    size = float(np.abs(array.astype(np.float64)).max(initial=0.0))
    noise = scope.dice.stream.uniform(-0.01, 0.01, array.shape)
    return (array.astype(np.float64) + size * noise).astype(array.dtype)


def index_of(scope: Scope) -> Value | None:
    """OneHot or a gather by an index that is computed."""
    value = scope.subject(1, 3)
    if value is None or 0 in value.shape:
        return None
    axis = scope.dice.between(0, value.rank - 1)
    at = stable(scope, "ArgMax", [value], axis=axis, keepdims=1)
    if at is None or scope.opset < 11:
        return None
    if scope.dice.chance(0.5):
        return first(scope.add("GatherElements", [value, at], axis=axis))
    pair = constant(scope, np.asarray([0.5, 1.5], scope.world.dtype), 0)
    return first(scope.add("OneHot", [at, scalar(scope, value.shape[axis]), pair], axis=-1))
