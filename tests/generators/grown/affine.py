"""BatchNorms and chains of Mul, Add, Sub, Div and Neg by constants, in every spelling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generators.grown.constants import constant, shared_pair
from generators.grown.dice import Array
from generators.grown.scope import Scope, Value


def batch_norm(scope: Scope, value: Value | None = None) -> Value | None:
    """A BatchNorm behind a value: mostly in eval mode, with parameters of every sign."""
    dice, dtype = scope.dice, scope.world.dtype
    value = value or scope.subject(2, 5)
    if value is not None and value.fixed and dice.chance(0.7):
        value = scope.subject(2, 5)
    if value is None or value.rank < 1:
        return None
    size = value.shape[1] if value.rank > 1 else 1
    scale = dice.factor([size], dtype)
    kind = dice.weighted([("any", 6), ("zero", 0.6), ("ones", 1), ("positive", 2), ("equal", 1)])
    if kind == "zero" and size:
        scale[dice.between(0, size - 1)] = 0
    elif kind == "ones":
        scale = np.ones([size], dtype)
    elif kind == "positive":
        scale = np.abs(scale)
    elif kind == "equal" and size:
        scale = np.full([size], scale[0], dtype)
    shift, mean = dice.normal([size], dtype), dice.normal([size], dtype)
    if dice.chance(0.25):
        shift, mean = np.zeros_like(shift), np.zeros_like(mean)
    gamma = constant(scope, scale)
    if dice.chance(0.12):
        parameters = [gamma] * 3
    else:
        parameters = [gamma, *shared_pair(scope, shift)]
        if not np.array_equal(shift, mean):
            parameters[2] = constant(scope, mean)
    variance = dice.positive([size], dtype)
    epsilon = dice.weighted([(None, 4), (1e-3, 3), (0.5, 1), (0.0, 0.5), (1e-12, 0.5)])
    if dice.chance(0.05) and size and epsilon != 0.0:
        variance[0], epsilon = 0, 0.25
    parameters.append(constant(scope, variance))
    if dice.chance(0.03):
        # A parameter that is computed from an input.
        found = [item for item in scope.floats(1, 1) if item.shape == (size,) and not item.fixed]
        if found:
            parameters[dice.between(0, 2)] = dice.pick(found)
    if dice.chance(0.05) and float(np.min(parameters[0].array, initial=1.0)) > 0:
        parameters[3] = parameters[0]
    if dtype == np.float16 and scope.opset >= 15 and dice.chance(0.4):
        # Parameters may be of a wider type than the data.
        whole = np.float32
        parameters[:2] = [constant(scope, item.array.astype(whole)) for item in parameters[:2]]
        parameters[2:] = [constant(scope, item.array.astype(whole)) for item in parameters[2:]]
    return _norm_node(scope, value, parameters, epsilon)


def _norm_node(scope: Scope, value: Value, parameters: list[Value], epsilon: float | None) -> Value | None:
    dice = scope.dice
    more = {"momentum": 0.9 if dice.chance(0.3) else None, "epsilon": epsilon}
    outputs = 1
    if scope.opset < 9 and dice.chance(0.3):
        more["spatial"] = dice.between(0, 1)
    if scope.opset >= 14 and dice.chance(0.3):
        more["training_mode"] = 0
        if dice.chance(0.08):
            # ONNX Runtime writes the running statistics over these two, so that nobody else may read them.
            more["training_mode"], outputs = 1, 3
            parameters[2:] = [constant(scope, parameters[at].array.copy(), 0, 0) for at in (2, 3)]
            for value_of in parameters[2:]:
                value_of.marks.discard("constant")
    made = scope.add("BatchNormalization", [value, *parameters], outputs, **more)
    return made[0] if made else None


def operand_shape(scope: Scope, shape: Sequence[int]) -> list[int]:
    """The shape of a constant that broadcasts against `shape`; now and then it broadcasts the value."""
    dice, rank = scope.dice, len(shape)
    kind = dice.weighted(
        [("channel", 5), ("axis", 3), ("scalar", 1), ("one", 0.7), ("full", 0.5), ("two", 0.5), ("grow", 0.8)]
    )
    if kind == "scalar" or rank == 0:
        return [] if dice.chance(0.7) else [1] * dice.between(1, 2)
    if kind == "one":
        return [1] * dice.between(1, rank)
    if kind == "full":
        return list(shape)
    axis = 1 if kind == "channel" and rank > 1 else dice.between(0, rank - 1)
    out = [size if at == axis else 1 for at, size in enumerate(shape)]
    if kind == "two":
        out[dice.between(0, rank - 1)] = shape[dice.between(0, rank - 1)]
    if kind == "grow":
        at = dice.between(0, rank - 1)
        out[at] = shape[at] if shape[at] != 1 else dice.pick(scope.world.sizes)
        if rank < 5 and dice.chance(0.4):
            out = [1 if dice.chance(0.6) else dice.pick(scope.world.sizes), *out]
        return out
    while out and out[0] == 1 and dice.chance(0.6):
        del out[0]
    return out


def chain(scope: Scope, value: Value | None = None) -> Value | None:
    """One to five operators by constants, on either side; sometimes they compose to the identity."""
    value = value or scope.subject()
    if value is None:
        return None
    kind = scope.dice.weighted([("any", 6), ("pair", 3), ("identity", 1.2), ("formula", 2)])
    if kind == "identity":
        return _identity(scope, value)
    if kind == "formula":
        return _formula(scope, value)
    if kind == "pair":
        shape = operand_shape(scope, value.shape)
        scaled = step(scope, value, scope.dice.pick(["Mul", "Div"]), shape)
        return step(scope, scaled, scope.dice.pick(["Add", "Sub"]), shape) if scaled else None
    for _ in range(scope.dice.between(1, 4)):
        following = step(scope, value)
        if following is None:
            break
        value = following
    return value


def step(
    scope: Scope, value: Value, op: str | None = None, shape: list[int] | None = None, other: Value | None = None
) -> Value | None:
    """One operator of a chain."""
    dice, dtype = scope.dice, scope.world.dtype
    op = op or dice.weighted([("Mul", 4), ("Add", 4), ("Sub", 2), ("Div", 2), ("Neg", 1)])
    if op == "Neg":
        made = scope.add("Neg", [value])
        return made[0] if made else None
    if other is None:
        shape = operand_shape(scope, value.shape) if shape is None else shape
        data = dice.factor(shape, dtype) if op in ("Mul", "Div") else dice.normal(shape, dtype)
        data = _special(scope, op, data)
        if op in ("Mul", "Div") and scope.world.decades:
            data = (data * dice.decade(scope.world.decades)).astype(dtype)
        other = constant(scope, data)
    if op == "Div" and float(np.abs(other.array).min(initial=1.0)) < 0.1 * 10.0**-scope.world.decades:
        op = "Mul"
    first = dice.chance(0.35)
    if op == "Div" and first:
        # A constant over a value is no chain, and it is harmless where no element is near zero.
        first = dice.chance(0.2) and float(np.abs(value.array).min(initial=1.0)) > 0.1
    made = scope.add(op, [other, value] if first else [value, other])
    return made[0] if made else None


def one(scope: Scope) -> Value | None:
    """A chain of one operator."""
    value = scope.subject()
    return step(scope, value) if value is not None else None


def _special(scope: Scope, op: str, data: Array) -> Array:
    """Now and then the neutral number, one value for all, or a zero."""
    kind = scope.dice.weighted([("as it is", 7), ("neutral", 0.7), ("equal", 1), ("zero", 0.3), ("minus", 0.4)])
    neutral = 1.0 if op in ("Mul", "Div") else 0.0
    if kind == "neutral":
        data[...] = neutral
    elif kind == "equal" and data.size:
        data[...] = data.ravel()[0]
    elif kind == "minus" and op in ("Mul", "Div"):
        data[...] = -1
    elif kind == "zero" and op == "Mul" and data.size:
        data.ravel()[0] = 0
    return data


def _identity(scope: Scope, value: Value) -> Value | None:
    """A chain that is the identity: x*c/c, x+c-c, -(-x), c-(c-x), or x*c*(1/c)."""
    dice = scope.dice
    kind = dice.weighted([("factor", 0.2), ("shift", 1), ("neg", 1), ("mirror", 1), ("inverse", 0.2)])
    shape = operand_shape(scope, value.shape)
    dtype = scope.world.dtype
    if kind == "neg":
        half = step(scope, value, "Neg")
        return step(scope, half, "Neg") if half else None
    if kind == "mirror":
        other = constant(scope, dice.normal(shape, dtype))
        for _ in range(2):
            made = scope.add("Sub", [other, value])
            if not made:
                return None
            value = made[0]
        return value
    first, second = ("Mul", "Div") if kind != "shift" else ("Add", "Sub")
    other = constant(scope, dice.factor(shape, dtype))
    if float(np.abs(other.array).min(initial=1.0)) < 0.1:
        return None
    half = step(scope, value, first, other=other)
    if half is None:
        return None
    if dice.chance(0.3):
        half = _between(scope, half)
    if kind == "inverse":
        return step(scope, half, "Mul", other=constant(scope, (1 / other.array).astype(dtype)))
    return step(scope, half, second, other=other)


def _between(scope: Scope, value: Value) -> Value:
    """Something harmless in the middle of a chain."""
    made = scope.add(scope.dice.pick(["Identity", "Neg", "Relu", "Abs"]), [value])
    return made[0] if made else value


def _formula(scope: Scope, value: Value) -> Value | None:
    """A normalisation written out: (x - mean) / sqrt(var + eps) * gamma + beta, in some order."""
    dice, dtype = scope.dice, scope.world.dtype
    rank = value.rank
    if rank == 0:
        return None
    axis = 1 if rank > 1 and dice.chance(0.6) else dice.between(0, rank - 1)
    shape = [size if at == axis else 1 for at, size in enumerate(value.shape)][axis if dice.chance(0.7) else 0 :]
    mean, beta = shared_pair(scope, dice.normal(shape, dtype))
    gamma = constant(scope, dice.factor(shape, dtype))
    variance = constant(scope, dice.positive(shape, dtype))
    summed = scope.add("Add", [variance, constant(scope, np.asarray(1e-3, dtype))])
    root = scope.add("Sqrt", summed) if summed else ()
    if not root:
        return None
    if dice.chance(0.3):
        inverse = scope.add("Reciprocal", root)
        factor = scope.add("Mul", [inverse[0], gamma]) if inverse else ()
        if not factor:
            return None
        offset = scope.add("Mul", [mean, factor[0]])
        shift = scope.add("Sub", [beta, offset[0]]) if offset else ()
        scaled = step(scope, value, "Mul", other=factor[0])
        return step(scope, scaled, "Add", other=shift[0]) if scaled and shift else None
    result: Value | None = value
    for op, other in (("Sub", mean), ("Div", root[0]), ("Mul", gamma), ("Add", beta)):
        if result is not None:
            result = step(scope, result, op, other=other)
    return result
