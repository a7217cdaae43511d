"""`make(seed)` grows one random model and gives it with the data it was grown on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import oracle

from generators.grown import (
    affine,
    bodies,
    corners,
    functions,
    indexing,
    joins,
    linear,
    pointwise,
    readers,
    scenes,
    shaping,
    windows,
)
from generators.grown.dice import Array, Dice
from generators.grown.finish import model_of
from generators.grown.naming import Namer
from generators.grown.scope import Scope, Value, World

Move = Callable[[Scope], Value | None]

GROUPS: dict[str, tuple[tuple[Move, float], ...]] = {
    "affine": (
        (affine.batch_norm, 5),
        (affine.chain, 5),
        (scenes.pointwise_linear, 1.5),
        (scenes.shuffle_channels, 0.7),
        (scenes.squeeze_and_excite, 0.5),
    ),
    "linear": (
        (linear.convolution, 6),
        (linear.transposed, 3),
        (linear.gemm, 4),
        (linear.matmul, 5),
        (linear.einsum, 3),
        (linear.recurrent, 0.7),
        (linear.normalisation, 1.5),
    ),
    "index": (
        (indexing.transpose, 4),
        (indexing.slice_, 3),
        (indexing.split, 3),
        (indexing.gather, 3),
        (indexing.pointwise_gather, 1),
        (indexing.blocks, 1.5),
        (indexing.repeated, 2),
        (indexing.rare, 1.5),
    ),
    "shape": (
        (shaping.flatten, 2),
        (shaping.squeeze, 2),
        (shaping.unsqueeze, 2),
        (shaping.reshape, 5),
        (shaping.reshape_back, 1),
        (shaping.reshape_computed, 2),
        (shaping.there_and_back, 2),
    ),
    "join": (
        (joins.add_two, 5),
        (joins.many, 2),
        (joins.concat, 4),
        (joins.gate, 3),
        (joins.stack, 1),
        (joins.sequence, 0.7),
    ),
    "window": ((windows.pool, 4), (windows.pad, 3), (windows.resize, 2), (windows.reduce, 4)),
    "pointwise": (
        (pointwise.activation, 6),
        (pointwise.along_axis, 2),
        (pointwise.select, 2),
        (pointwise.top, 0.7),
        (pointwise.round_trip, 1),
        (pointwise.power, 1),
        (pointwise.rounded, 0.5),
        (pointwise.index_of, 0.5),
    ),
    "corner": (
        (corners.nothing, 4),
        (corners.itself, 2),
        (corners.attention, 0.7),
        (corners.tied, 1.5),
        (corners.filter_of_data, 0.7),
        (corners.jump, 0.5),
    ),
    "reader": ((readers.shape_reader, 3), (readers.second_reader, 3), (readers.grid, 2)),
}
SHARES = {
    "affine": 8,
    "linear": 4,
    "index": 2.5,
    "shape": 2.5,
    "join": 2,
    "window": 1.5,
    "pointwise": 2,
    "reader": 1,
    "corner": 1.5,
}

# After a move of these groups, one of that group follows at this rate, whatever the preferences of the model are.
LEANINGS = (
    (("linear",), "affine", 0.35),
    (("affine",), "linear", 0.25),
    (("index", "shape", "window", "join"), "affine", 0.2),
    (("index", "shape", "window", "join"), "linear", 0.12),
)


class Grower:
    """Draws moves, with preferences of its own, so that every model is biased in another way."""

    def __init__(self, dice: Dice, calm: bool) -> None:
        self.dice = dice
        self.moves: list[tuple[Move, float]] = []
        for group, moves in GROUPS.items():
            share = SHARES[group] * dice.pick([0.4, 1, 1, 2])
            if calm and group in ("join", "reader"):
                share *= 0.15
            kept = [(move, weight * dice.pick([0, 1, 1, 2])) for move, weight in moves]
            total = sum(weight for _, weight in kept) or 1.0
            self.moves += [(move, share * weight / total) for move, weight in kept]
        self.nested: list[tuple[Callable[..., Value | None], float]] = [
            (bodies.branch, 1),
            (bodies.loop, 1.5),
            (bodies.scan, 1.5),
            (functions.define, 1.2),
            (functions.call_again, 1.5),
        ]
        self.nesting = dice.weighted([(0.0, 5), (0.15, 3), (0.5, 2)])
        if dice.chance(0.15):
            self.nesting = 0.5
            self.nested = [(functions.define, 1), (functions.call_again, 1.2)]
        self.forks = 0.0 if calm else dice.pick([0.0, 0.05, 0.15])
        self.sandwiches = 0.7 if calm else dice.pick([0.0, 0.2, 0.5])
        self.last = ""

    def __call__(self, scope: Scope, steps: int) -> None:
        """Let a scope grow by so many moves; one that does not run counts as well."""
        for _ in range(steps):
            if scope.world.nodes_left <= 0:
                return
            made = self.move(scope)
            if made is not None and made.is_float and not made.fixed and made.array.dtype == scope.world.dtype:
                scope.focus = made

    def move(self, scope: Scope) -> Value | None:
        if scope.depth < 2 and self.dice.chance(self.nesting):
            return self._nested(scope)
        if self.dice.chance(self.forks):
            return scenes.fork(scope)
        if self.dice.chance(self.sandwiches):
            return scenes.sandwich(scope)
        chosen = self.dice.weighted(self.moves)
        for before, after, rate in LEANINGS:
            if self.last in before and self.dice.chance(rate):
                chosen = self.dice.weighted(GROUPS[after])
                break
        self.last = next((group for group, moves in GROUPS.items() if chosen in [move for move, _ in moves]), "")
        return chosen(scope)

    def _nested(self, scope: Scope) -> Value | None:
        """A body or a function; what a failed one has used up is given back."""
        world = scope.world
        grow = self.dice.weighted(self.nested)
        if grow is functions.call_again and not world.calls:
            grow = functions.define
        if grow is functions.define and world.ir_version < 8:
            grow = bodies.branch
        left = world.nodes_left
        world.nodes_left = max(left, 10)
        made = grow(scope, self)
        if made is None:
            world.nodes_left = left
        elif grow is functions.define and self.dice.chance(0.5):
            if self.dice.chance(0.6) and made.array.dtype == world.dtype:
                scope.focus = made
            return functions.call_again(scope, self) or made
        return made


def draw_sizes(dice: Dice) -> list[int]:
    kind = dice.weighted([("one", 4), ("few", 3), ("all", 3), ("units", 1), ("empty", 0.2)])
    if kind == "one":
        return [dice.between(2, 4)]
    if kind == "few":
        return [dice.between(1, 4), dice.between(2, 4)]
    if kind == "all":
        return dice.shuffled([2, 3, 4, 5])
    return [1, dice.between(2, 3)] if kind == "units" else [0, 2, 3]


def draw_opset(dice: Dice) -> tuple[int, int]:
    """An opset and an IR version that go together, as the checker sees it."""
    opset = dice.weighted([(dice.between(7, 12), 3), (dice.between(13, 17), 4), (dice.between(18, 27), 4), (28, 0.1)])
    ir_version = dice.weighted([(3, 0.5), (4, 1), (dice.between(5, 7), 2), (8, 3), (dice.between(9, 13), 4)])
    return opset, ir_version


def make(seed: int) -> oracle.Case:
    """The model of a seed, and one or two feeds."""
    dice = Dice(seed)
    opset, ir_version = draw_opset(dice)
    dtype: Any = dice.weighted([(np.float32, 20), (np.float64, 1), (np.float16, 1.5), (ml_dtypes.bfloat16, 0.1)])
    feeds = 2 if dice.chance(0.35) else 1
    world = World(
        dice,
        Namer(dice),
        ir_version,
        opset,
        dtype,
        loose=dice.chance(0.03),
        trust=dice.chance(0.15),
        sizes=draw_sizes(dice),
    )
    # ONNX Runtime takes no bfloat16 from Python, and half a type is held to the bounds of a whole one without it.
    world.loose = dtype == ml_dtypes.bfloat16 or (world.loose and dtype != np.float16)
    world.nodes_left = dice.weighted([(6, 1), (14, 3), (25, 2), (40, 1)])
    world.hide = dice.pick([0.0, 0.3, 0.6])
    world.reuse = dice.pick([0.0, 0.15, 0.15, 0.5])
    # In a calm model nearly every value has one reader, so that most of what could be folded can be.
    calm = dice.chance(0.45)
    world.grip = 1.0 if calm else dice.weighted([(0.5, 1), (0.72, 3), (0.9, 3), (1.0, 1)])
    if dice.chance(0.4 if dtype == np.float16 else 0.03) and dtype in (np.float32, np.float16):
        world.decades = 3 if dtype == np.float16 else dice.pick([3, 8, 15])
    world.docs = dice.chance(0.1)
    world.feeds = feeds
    scope = Scope(world, opset)
    inputs = draw_inputs(scope, feeds)
    grower = Grower(dice, calm)
    for _ in range(4):
        grower(scope, dice.between(1, 4) if calm else dice.between(2, 14))
        if dice.chance(0.9) and not _has_norm(scope.nodes):
            world.nodes_left = max(world.nodes_left, 6)
            affine.batch_norm(scope) or affine.chain(scope)
        if any(not value.fixed for value in scope.values if value not in inputs and value.is_float):
            break
        world.nodes_left = max(world.nodes_left, 4)
    else:
        scope.add("Neg", [inputs[0]])
    model = model_of(scope, inputs)
    return oracle.Case(model, tuple(feeds_of(scope, inputs, at) for at in range(feeds)), f"grown from seed {seed}")


def draw_inputs(scope: Scope, feeds: int) -> list[Value]:
    """One to three inputs of mostly the same shape; with two feeds, some sizes may differ between them."""
    dice, world = scope.dice, scope.world
    rank = dice.weighted([(4, 5), (3, 3), (2, 3), (1, 0.6), (5, 0.4)])
    shape = [dice.pick(world.sizes) for _ in range(rank)]
    moving = (
        [at for at in range(rank) if dice.chance(0.6 if at == 0 else 0.15)] if feeds > 1 and dice.chance(0.6) else []
    )
    out = []
    for _ in range(dice.weighted([(1, 6), (2, 3), (3, 1)])):
        if out and dice.chance(0.3):
            shape, moving = [dice.pick(world.sizes) for _ in range(dice.between(0, rank))], []
        arrays = [dice.normal(shape, world.dtype)]
        if feeds > 1:
            arrays.append(dice.normal([size + (at in moving) for at, size in enumerate(shape)], world.dtype))
        out.append(Value(world.namer.fresh("in"), arrays))
    if dice.chance(0.2):
        out.append(Value(world.namer.fresh("cond"), [np.asarray(dice.chance(0.5)) for _ in range(feeds)]))
    scope.values += out
    scope.focus = out[0]
    return out


def feeds_of(scope: Scope, inputs: list[Value], at: int) -> dict[str, Array]:
    """The data of one feed; the second one overrides the initializers that it may override."""
    given = list(inputs)
    if at:
        given += [value for value in scope.values if "overridable" in value.marks]
    return {value.name: value.arrays[at if len(value.arrays) > 1 else 0] for value in given}


def _has_norm(nodes: list[onnx.NodeProto]) -> bool:
    return any(node.op_type == "BatchNormalization" for node in nodes)
