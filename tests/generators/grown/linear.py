"""Linear operators with all their attributes, mostly with constant weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from generators.grown.constants import constant, integers
from generators.grown.scope import Scope, Value


def weight(scope: Scope, shape: list[int]) -> Value:
    """A weight: nearly always a constant, once in a while computed from an input."""
    if scope.dice.chance(0.03):
        found = [value for value in scope.floats() if list(value.shape) == shape and not value.fixed]
        if found:
            return scope.dice.pick(found)
    size = max(1, int(np.prod(shape[1:])))
    data = scope.dice.normal(shape, scope.world.dtype)
    scale = scope.dice.decade(scope.world.decades) / np.sqrt(size)
    return constant(scope, (data * scale).astype(data.dtype))


def bias(scope: Scope, shape: list[int], absent: float = 0.4) -> list[Value | None]:
    """No bias, an empty name, or a bias."""
    if scope.dice.chance(absent):
        return [] if scope.dice.chance(0.8) else [None]
    return [constant(scope, scope.dice.normal(shape, scope.world.dtype))]


def _windows(scope: Scope, value: Value) -> dict[str, Any]:
    """Attributes that convolutions share: kernel, strides, dilations, padding."""
    dice, spatial = scope.dice, value.rank - 2
    kernel = [dice.weighted([(1, 3), (2, 2), (3, 2)]) for _ in range(spatial)]
    out: dict[str, Any] = {"kernel": kernel}
    if dice.chance(0.4):
        out["strides"] = [dice.between(1, 2) for _ in kernel]
    if dice.chance(0.25):
        out["dilations"] = [dice.between(1, 2) for _ in kernel]
    kind = dice.weighted([("none", 5), ("pads", 3), ("auto", 1), ("zeros", 0.5), ("valid", 0.5)])
    if kind == "pads":
        out["pads"] = [dice.between(0, 1) for _ in range(2 * spatial)]
    elif kind == "zeros":
        out["pads"] = [0] * (2 * spatial)
    elif kind != "none":
        out["auto_pad"] = dice.pick(["SAME_UPPER", "SAME_LOWER"]) if kind == "auto" else dice.pick(["VALID", "NOTSET"])
    return out


def _groups(scope: Scope, channels: int) -> int:
    divisors = [n for n in range(1, channels + 1) if channels % n == 0] or [1]
    if scope.dice.chance(0.5):
        return 1
    return channels if channels and scope.dice.chance(0.5) else scope.dice.pick(divisors)


def convolution(scope: Scope) -> Value | None:
    dice = scope.dice
    value = scope.subject(3, 5)
    if value is None:
        return None
    more = _windows(scope, value)
    kernel = more.pop("kernel")
    channels = value.shape[1]
    group = _groups(scope, channels)
    out = group * dice.between(1, 2) if group > 1 else dice.pick(scope.world.sizes) or 1
    shape = [out, channels // group, *kernel]
    inputs = [value, weight(scope, shape), *bias(scope, [out])]
    if dice.chance(0.5):
        more["kernel_shape"] = kernel
    made = scope.add("Conv", inputs, group=group if group > 1 or dice.chance(0.3) else None, **more)
    return made[0] if made else None


def transposed(scope: Scope) -> Value | None:
    dice = scope.dice
    value = scope.subject(3, 4)
    if value is None:
        return None
    more = _windows(scope, value)
    kernel = more.pop("kernel")
    channels = value.shape[1]
    group = _groups(scope, channels)
    each = dice.pick([1, 2, 3])
    if "strides" in more and dice.chance(0.3):
        more["output_padding"] = [dice.between(0, stride - 1) for stride in more["strides"]]
    if dice.chance(0.1):
        more["output_shape"] = [size + dice.between(0, 2) for size in value.shape[2:]]
    inputs = [value, weight(scope, [channels, each, *kernel]), *bias(scope, [each * group])]
    if dice.chance(0.5):
        more["kernel_shape"] = kernel
    made = scope.add("ConvTranspose", inputs, group=group if group > 1 or dice.chance(0.3) else None, **more)
    return made[0] if made else None


def gemm(scope: Scope) -> Value | None:
    dice, dtype = scope.dice, scope.world.dtype
    value = scope.subject(2, 2)
    if value is None:
        value = scope.subject(3, 5)
        made = scope.add("Flatten", [value], axis=dice.between(0, value.rank)) if value is not None else ()
        if not made:
            return None
        value = made[0]
    size = dice.pick(scope.world.sizes) or 1
    swap = dice.chance(0.2)
    own, wide = (dice.between(0, 1) for _ in range(2))
    inner = value.shape[0 if bool(own) != swap else 1]
    shape = [size, inner] if bool(wide) != swap else [inner, size]
    outer = value.shape[1 if bool(own) != swap else 0]
    rows, columns = (size, outer) if swap else (outer, size)
    table = weight(scope, shape)
    inputs: list[Value | None] = [table, value] if swap else [value, table]
    if scope.opset < 11 or dice.chance(0.7):
        options = [[columns], [1, columns], [rows, columns], [rows, 1], [1], []]
        inputs.append(
            constant(scope, dice.normal(dice.weighted(list(zip(options, (5, 2, 1, 1, 1, 1), strict=True))), dtype))
        )
        if dice.chance(0.05):
            inputs[-1] = scope.other(value)
    first, second = (wide, own) if swap else (own, wide)
    made = scope.add(
        "Gemm",
        inputs,
        transA=first or None,
        transB=second or None,
        alpha=dice.pick([0.5, -1.5, 2.0]) if dice.chance(0.3) else None,
        beta=dice.pick([0.5, -1.5, 0.0]) if dice.chance(0.3) else None,
    )
    return made[0] if made else None


def matmul(scope: Scope) -> Value | None:
    """MatMul with the constant on either side, of rank 1 to 4, and perhaps a bias behind it."""
    dice, dtype = scope.dice, scope.world.dtype
    value = scope.subject(1, 5)
    if value is None:
        return None
    left = dice.chance(0.3)
    size = dice.pick(scope.world.sizes)
    inner = value.shape[-2] if left and value.rank > 1 else value.shape[-1]
    shape = [size, inner] if left else [inner, size]
    kind = dice.weighted([("plain", 6), ("vector", 1), ("batched", 2)])
    if kind == "vector":
        shape = [inner]
    elif kind == "batched":
        lead = [dim if dice.chance(0.6) else 1 for dim in value.shape[:-2]]
        if dice.chance(0.2):
            lead = [dice.between(1, 2), *lead]
        while lead and dice.chance(0.3):
            del lead[0]
        shape = [*lead, *shape]
    table = weight(scope, shape)
    made = scope.add("MatMul", [table, value] if left else [value, table])
    if made and dice.chance(0.4) and made[0].rank:
        offset = constant(scope, dice.normal([made[0].shape[-1]], dtype))
        pair = [offset, made[0]] if dice.chance(0.4) else [made[0], offset]
        return next(iter(scope.add("Add", pair)), made[0])
    return made[0] if made else None


def einsum(scope: Scope) -> Value | None:
    """Einsum of a value and a constant, with equations of every kind: sums, outer products, diagonals, dots."""
    dice = scope.dice
    value = scope.subject(1, 4)
    if value is None or scope.opset < 12:
        return None
    letters = dice.shuffled("abcdefgABCxyz")
    own = letters[: value.rank]
    spare = letters[value.rank :]
    sizes = dict(zip(own, value.shape, strict=True))
    if dice.chance(0.06) and value.rank > 1 and value.shape[0] == value.shape[1]:
        own = [own[0], own[0], *own[2:]]
    shared = dice.some(sorted(set(own)), low=0)[:2]
    fresh = spare[: dice.between(0, 2)]
    for letter in fresh:
        sizes[letter] = dice.pick(scope.world.sizes) or 1
    other = dice.shuffled([*shared, *fresh])
    table = weight(scope, [sizes[letter] for letter in other])
    summed = [letter for letter in shared if dice.chance(0.6)]
    kept = [letter for letter in dict.fromkeys([*own, *other]) if letter not in summed]
    if dice.chance(0.15) and kept:
        kept.pop()
    result = dice.shuffled(kept) if dice.chance(0.4) else kept
    one, two, end = "".join(own), "".join(other), "".join(result)
    if dice.chance(0.15) and value.rank > 1 and own[0] not in other and own[0] == (result or [""])[0]:
        one, end = "..." + one[1:], "..." + end[1:]
    swap = dice.chance(0.3)
    equation = f"{two},{one}->{end}" if swap else f"{one},{two}->{end}"
    if dice.chance(0.1):
        equation = equation.split("->")[0]
    if dice.chance(0.2):
        equation = equation.replace(",", " , ").replace("->", " -> ")
    made = scope.add("Einsum", [table, value] if swap else [value, table], equation=equation)
    return made[0] if made else None


def recurrent(scope: Scope) -> Value | None:
    """A small LSTM, GRU or RNN, perhaps with a chain along the features in front of it."""
    dice = scope.dice
    value = scope.subject(3, 3)
    if value is None or not all(value.shape):
        return None
    if dice.chance(0.6):
        for op in dice.pick([("Mul",), ("Mul", "Add"), ("Sub", "Div"), ("Add",)]):
            data = dice.factor([value.shape[2]], scope.world.dtype)
            value = next(iter(scope.add(op, [value, constant(scope, data)])), value)
    op = dice.pick(["LSTM", "GRU", "RNN"])
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    hidden, ways = 2, dice.between(1, 2)
    inputs = [value, weight(scope, [ways, gates * hidden, value.shape[2]])]
    inputs += [weight(scope, [ways, gates * hidden, hidden]), *bias(scope, [ways, 2 * gates * hidden])]
    more: dict[str, Any] = {"direction": "bidirectional" if ways == 2 else dice.pick([None, "forward", "reverse"])}
    if scope.opset >= 14 and dice.chance(0.15):
        more["layout"] = 1
    if op == "GRU" and dice.chance(0.4):
        more["linear_before_reset"] = 1
    if dice.chance(0.2):
        start = constant(scope, dice.normal([ways, value.shape[1], hidden], scope.world.dtype))
        inputs += [None] * (5 - len(inputs)) + [start]
    skipped = dice.chance(0.3)
    made = scope.add(op, inputs, 1 if skipped else dice.between(1, 2), hidden_size=hidden, **more)
    if made and dice.chance(0.4) and scope.opset >= 13:
        narrow = scope.add("Squeeze", [made[0], integers(scope, [1])])
        return narrow[0] if narrow else made[0]
    return made[0] if made else None


def normalisation(scope: Scope) -> Value | None:
    """InstanceNormalization and its kin, whose scale and bias can take an affine map."""
    dice, dtype = scope.dice, scope.world.dtype
    value = scope.subject(2, 4)
    if value is None or not all(value.shape):
        return None
    op = dice.pick(["InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "LpNorm"])
    channels = value.shape[1]
    if op == "InstanceNormalization":
        if value.rank < 3:
            return None
        shapes, more = [[channels]] * 2, {"epsilon": 1e-2}
    elif op == "GroupNormalization" and scope.opset >= 21:
        groups = _groups(scope, channels)
        shapes, more = [[channels]] * 2, {"num_groups": groups, "epsilon": 1e-2}
    elif op == "LayerNormalization" and scope.opset >= 17:
        axis = dice.between(-value.rank, value.rank - 1)
        full = list(value.shape[axis:])
        shapes, more = [full] * dice.between(1, 2), {"axis": axis, "epsilon": 1e-2}
    elif op == "RMSNormalization" and scope.opset >= 23:
        axis = dice.between(-value.rank, -1)
        shapes, more = [list(value.shape[axis:])], {"axis": axis, "epsilon": 1e-2}
    elif op == "LpNorm" or scope.opset < 18:
        made = scope.add("LpNormalization", [value], axis=dice.between(0, value.rank - 1), p=dice.between(1, 2))
        return made[0] if made else None
    else:
        return None
    inputs = [value, *(constant(scope, dice.factor(shape, dtype)) for shape in shapes)]
    made = scope.add(op, inputs, **more)
    return made[0] if made else None
