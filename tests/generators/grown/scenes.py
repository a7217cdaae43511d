"""Small scenes in which a fold is possible, or nearly so: branches that meet again in front of a norm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from generators.grown import affine, corners, indexing, joins, linear, pointwise, shaping, windows
from generators.grown.constants import constant, integers
from generators.grown.indexing import first
from generators.grown.scope import Scope, Value

Move = Callable[[Scope], Value | None]


def fork(scope: Scope) -> Value | None:
    """Two or three branches from one value or from several, a join of them, and a norm or a chain behind it."""
    dice, world = scope.dice, scope.world
    root = scope.subject(2, 4)
    if root is None:
        return None
    before, world.grip = world.grip, 1.0
    ends = []
    for _ in range(dice.weighted([(2, 4), (3, 1)])):
        start = root if dice.chance(0.75) else scope.other(root)
        scope.focus = start
        end = start
        for _ in range(dice.between(0, 3)):
            made = dice.weighted(KEEPING)(scope)
            if made is not None and made.is_float and made.array.dtype == world.dtype:
                scope.focus = end = made
        ends.append(end)
    world.grip = before
    joined = _join(scope, ends)
    if joined is None:
        return None
    scope.focus = joined
    if dice.chance(0.2):
        scope.focus = dice.weighted(KEEPING)(scope) or joined
        if scope.focus.array.dtype != world.dtype:
            scope.focus = joined
    return affine.batch_norm(scope, scope.focus) if dice.chance(0.5) else affine.chain(scope, scope.focus)


def _join(scope: Scope, ends: list[Value]) -> Value | None:
    dice = scope.dice
    op = dice.weighted(
        [("Add", 5), ("Concat", 4), ("Sub", 2), ("Sum", 2), ("Mul", 1.5), ("Max", 1), ("Mean", 0.7), ("Where", 1)]
    )
    if op == "Concat":
        return first(scope.add(op, ends, axis=dice.between(0, max(ends[0].rank - 1, 0))))
    if op in ("Sum", "Max", "Mean"):
        return first(scope.add(op, ends))
    if op == "Where" and scope.opset >= 9:
        shape = affine.operand_shape(scope, ends[0].shape)
        mask = constant(scope, np.asarray(dice.stream.random(shape) < 0.5), 0)
        return first(scope.add(op, [mask, *ends[:2]]))
    result: Value | None = ends[0]
    for end in ends[1:]:
        result = first(scope.add(op if op != "Where" else "Add", [result, end])) if result else None
    return result


def pointwise_linear(scope: Scope) -> Value | None:
    """A linear operator that keeps the shape: a convolution of size one, a square matrix."""
    dice = scope.dice
    value = scope.subject(2, 5)
    if value is None or not all(value.shape):
        return None
    if value.rank >= 3 and dice.chance(0.6):
        channels = value.shape[1]
        group = channels if dice.chance(0.25) else 1
        ones = [1] * (value.rank - 2)
        if dice.chance(0.25):
            ones = [3] * (value.rank - 2)
        table = linear.weight(scope, [channels, channels // group, *ones])
        pads = [1] * (2 * len(ones)) if ones[0] == 3 else None
        inputs = [value, table, *linear.bias(scope, [channels])]
        return first(scope.add("Conv", inputs, group=group if group > 1 else None, pads=pads))
    if value.rank == 2 and dice.chance(0.5):
        size = value.shape[1]
        inputs = [
            value,
            linear.weight(scope, [size, size]),
            *linear.bias(scope, [size], 0.3 if scope.opset >= 11 else 0),
        ]
        return first(scope.add("Gemm", inputs, transB=dice.pick([None, 1])))
    left = dice.chance(0.3)
    size = value.shape[-2 if left else -1]
    table = linear.weight(scope, [size, size])
    return first(scope.add("MatMul", [table, value] if left else [value, table]))


def square_transpose(scope: Scope) -> Value | None:
    """A transposition of two axes, mostly of one size."""
    value = scope.subject(2, 5)
    if value is None:
        return None
    one, two = scope.dice.shuffled(range(value.rank))[:2]
    perm = list(range(value.rank))
    perm[one], perm[two] = two, one
    return first(scope.add("Transpose", [value], perm=perm))


def squeeze_and_excite(scope: Scope) -> Value | None:
    """A gate per channel that is computed of the means of the channels."""
    value = scope.subject(3, 4)
    if value is None or not all(value.shape):
        return None
    pooled = first(scope.add("GlobalAveragePool", [value]))
    if pooled is None:
        return None
    scope.focus = pooled
    inner = pointwise_linear(scope) or pooled
    if scope.dice.chance(0.4):
        scope.focus = inner
        inner = affine.batch_norm(scope, inner) or inner
    gated = first(scope.add(scope.dice.pick(["Sigmoid", "Relu", "HardSigmoid", "Identity"]), [inner]))
    return first(scope.add("Mul", scope.dice.shuffled([value, gated]))) if gated else None


def shuffle_channels(scope: Scope) -> Value | None:
    """Reshape, Transpose, Reshape: the channels in groups change places."""
    dice = scope.dice
    value = scope.subject(3, 4)
    if value is None or not all(value.shape):
        return None
    channels, rest = value.shape[1], list(value.shape[2:])
    groups = dice.pick([n for n in range(1, channels + 1) if channels % n == 0])
    lead = 0 if dice.chance(0.5) else value.shape[0]
    split = first(scope.add("Reshape", [value, integers(scope, [lead, groups, channels // groups, *rest])]))
    if split is None:
        return None
    perm = [0, 2, 1, *range(3, split.rank)] if dice.chance(0.8) else [0, 1, 2, *dice.shuffled(range(3, split.rank))]
    moved = first(scope.add("Transpose", [split], perm=perm))
    if moved is None:
        return None
    back = list(value.shape)
    back[dice.between(0, 1)] = -1
    return first(scope.add("Reshape", [moved, integers(scope, back)]))


def sandwich(scope: Scope) -> Value | None:
    """A linear operator, one to four others of any kind, and a norm or a chain; or the other way round."""
    dice, world = scope.dice, scope.world
    before, world.grip = world.grip, 1.0
    ends: list[Move] = [dice.pick(LINEARS), affine.batch_norm if dice.chance(0.5) else affine.chain]
    if dice.chance(0.4):
        ends.reverse()
    result = None
    for move in (ends[0], *(dice.pick(PASSERS) for _ in range(dice.between(1, 3))), ends[1]):
        made = move(scope)
        if made is not None and made.is_float and made.array.dtype == world.dtype and not made.fixed:
            scope.focus = result = made
    world.grip = before
    return result


LINEARS: list[Move] = [
    linear.convolution,
    linear.convolution,
    linear.transposed,
    linear.gemm,
    linear.matmul,
    linear.matmul,
    linear.einsum,
    linear.normalisation,
    linear.recurrent,
    pointwise_linear,
]
PASSERS: list[Move] = [
    indexing.transpose,
    indexing.slice_,
    indexing.split,
    indexing.gather,
    indexing.pointwise_gather,
    indexing.blocks,
    indexing.blocks,
    indexing.repeated,
    indexing.rare,
    shaping.flatten,
    shaping.squeeze,
    shaping.unsqueeze,
    shaping.reshape,
    shaping.reshape,
    shaping.reshape_computed,
    shuffle_channels,
    square_transpose,
    joins.add_two,
    joins.many,
    joins.concat,
    joins.gate,
    joins.stack,
    windows.pool,
    windows.pool,
    windows.pad,
    windows.resize,
    windows.reduce,
    windows.reduce,
    pointwise.activation,
    pointwise.activation,
    pointwise.select,
    pointwise.round_trip,
    corners.nothing,
    affine.one,
]
KEEPING: list[tuple[Move, float]] = [
    (pointwise_linear, 5),
    (affine.batch_norm, 2),
    (affine.chain, 2),
    (square_transpose, 2),
    (pointwise.activation, 2),
    (linear.convolution, 1),
    (joins.gate, 0.7),
    (squeeze_and_excite, 0.7),
    (shuffle_channels, 1),
    (windows.pool, 0.5),
    (windows.pad, 0.5),
    (indexing.slice_, 0.7),
]
