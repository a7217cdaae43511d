"""Random instances of every kind, with inputs, for the property tests of the laws.

Hypothesis draws the structure (ranks, axes, sizes, attributes), a generator seeded by it the numbers. Sizes are small
and often equal on different axes, so that a rule that matched sizes instead of axes would be caught.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kind_semantics as sem
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from kind_semantics import Array, Operator

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine
from bnfold.algebra.axes import Insert, Permute, Pick, Regroup, Remove, Repeat, Size, Step

Draw = Callable[[st.SearchStrategy[Any]], Any]

many = settings(max_examples=150, deadline=None, derandomize=True)

SIZES = st.sampled_from((1, 2, 2, 3, 3, 3, 4, 6))
SEEDS = st.integers(0, 2**32 - 1)
COIN = st.booleans()


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape)


def shapes(smallest: int = 2, largest: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(SIZES, min_size=smallest, max_size=largest).map(tuple)


@st.composite
def affines(draw: Draw, shape: tuple[int, ...], kind: str = "any") -> Affine:
    """An affine for values of this shape. `kind`: any, scaling (no shift) or positive (no shift, scale > 0)."""
    rng = np.random.default_rng(draw(SEEDS))
    axes: set[int] = set()
    if shape:
        axis = st.integers(0, len(shape) - 1)
        axes = draw(st.one_of(axis.map(lambda one: {one}), st.sets(axis)))
    both = draw(st.sampled_from(("both", "both", "scale", "shift")))

    def extent(varies: bool) -> list[int]:
        return [size if varies and axis in axes else 1 for axis, size in enumerate(shape)]

    scale = np.ones([1] * len(shape)) if both == "shift" else normal(rng, *extent(True))
    shift = normal(rng, *extent(both != "scale"))
    flavour = draw(
        st.sampled_from(("plain", "plain", "plain", "zeros", "identity scale", "positive", "negative", "zero scale"))
    )
    if kind == "positive" or flavour == "positive":
        scale = np.abs(scale) + 0.1
    elif flavour == "negative":
        scale = -np.abs(scale)
    elif flavour == "zeros":
        scale, shift = scale * (rng.random(scale.shape) < 0.5), shift * (rng.random(shift.shape) < 0.5)
    elif flavour == "identity scale":
        scale = np.ones_like(scale)
    elif flavour == "zero scale":
        scale = np.zeros_like(scale)
    if kind != "any" or draw(st.integers(0, 4)) == 0:
        shift = np.zeros_like(shift)
    return Affine.of(scale, shift, len(shape))


# Normalisations.


@st.composite
def scaled(draw: Draw) -> Operator:
    """Of one channel axis, of groups of channels, or of the last axes; with a bias, without one, or with none given."""
    rng = np.random.default_rng(draw(SEEDS))
    each, biased = 1, draw(st.sampled_from(("bias", "bias", "no bias", "no input")))
    shape = draw(shapes())
    axes: tuple[int, ...] = (1,)
    if draw(COIN):
        axes = tuple(range(len(shape))[-draw(st.integers(1, len(shape))) :])
    elif draw(COIN):
        each = draw(st.integers(1, 3))
        shape = (shape[0], shape[1] * each, *shape[2:])
    sizes = tuple(shape[axis] for axis in axes)
    kind = ops.Scaled(1, None if biased == "no input" else 2, biased == "bias", axes, sizes, each)
    held = [size // each for size in sizes]
    shift = normal(rng, *held) if biased == "bias" else None
    inputs = (normal(rng, *shape), normal(rng, *held), shift)
    return Operator(kind, sem.scaled(kind), inputs, frozenset((1, 2)))


# Affine operators.


@st.composite
def const_affines(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    shape = draw(shapes())
    x = normal(rng, *shape)
    spelling = draw(
        st.sampled_from(("BatchNormalization", "x * c", "c * x", "x / c", "x + c", "c + x", "x - c", "c - x", "-x"))
    )
    if spelling == "BatchNormalization":
        gamma, beta, mean, var = (normal(rng, shape[1]) for _ in range(4))
        var, eps = np.abs(var) + 0.1, 1e-3
        scale = gamma / np.sqrt(var + eps)
        affine = Affine.along(1, scale, beta - mean * scale, len(shape))
        kind = ops.ConstAffine(0, affine, ops.Absorber(scale=1, shift=2, axis=1))
        return Operator(kind, sem.batch_norm(eps), (x, gamma, beta, mean, var), frozenset(range(1, 5)))
    if spelling == "-x":
        kind = ops.ConstAffine(0, Affine.of(-1.0, 0.0, len(shape)), ops.Absorber())
        return Operator(kind, sem.elementwise(lambda value: -value), (x,))
    extent = [size if draw(COIN) else 1 for size in shape][draw(st.integers(0, len(shape))) :]
    c = normal(rng, *extent)
    if spelling == "x / c":
        c = np.where(np.abs(c) < 0.1, 1.0, c)
    ones, zeros = np.ones_like(c), np.zeros_like(c)
    scale, shift, at, absorber, function = {
        "x * c": (c, zeros, 1, ops.Absorber(scale=1), np.multiply),
        "c * x": (c, zeros, 0, ops.Absorber(scale=0), np.multiply),
        "x / c": (1 / np.where(c == 0, 1, c), zeros, 1, ops.Absorber(scale=1, inverse=True), np.divide),
        "x + c": (ones, c, 1, ops.Absorber(shift=1), np.add),
        "c + x": (ones, c, 0, ops.Absorber(shift=0), np.add),
        "x - c": (ones, -c, 1, ops.Absorber(shift=1, sign=-1.0), np.subtract),
        "c - x": (-ones, c, 0, ops.Absorber(shift=0), np.subtract),
    }[spelling]
    kind = ops.ConstAffine(1 - at, Affine.of(scale, shift, len(shape)), absorber)
    return Operator(kind, sem.elementwise(function), (x, c) if at == 1 else (c, x), frozenset((at,)))


# Index maps.


def factorings(draw: Draw, number: int) -> list[int]:
    """Sizes whose product is `number`, ones among them."""
    sizes = []
    while number > 1:
        factor = draw(st.sampled_from([d for d in range(2, number + 1) if number % d == 0]))
        sizes.append(factor)
        number //= factor
    for _ in range(draw(st.sampled_from((0, 0, 1)))):
        sizes.insert(draw(st.integers(0, len(sizes))), 1)
    return sizes or [1]


def reshaped(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Another shape of as many elements: neighbouring axes merged and split."""
    out: list[int] = []
    at = 0
    while at < len(shape):
        take = draw(st.sampled_from((1, 1, 2, 3)))
        product = int(np.prod(shape[at : at + take]))
        out += [product] if take == 1 and draw(COIN) else factorings(draw, product)
        at += take
    return tuple(out[:7]) if len(out) <= 7 else (*out[:6], int(np.prod(out[6:])))


def one_step(draw: Draw, shape: tuple[int, ...]) -> tuple[Step, tuple[int, ...]]:
    """A random index map of a value of this shape, and the shape of its result."""
    rank = len(shape)
    which = draw(st.sampled_from(("permute", "insert", "remove", "regroup", "regroup", "pick", "repeat")))
    if which == "insert" and rank < 6:
        axes = tuple(sorted(draw(st.sets(st.integers(0, rank), min_size=1, max_size=2))))
        return Insert(axes), np.expand_dims(np.empty(shape), axes).shape
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    if which == "remove" and ones:
        axes = tuple(sorted(draw(st.sets(st.sampled_from(ones), min_size=1))))
        return Remove(axes), tuple(size for axis, size in enumerate(shape) if axis not in axes)
    if which == "regroup" and rank:
        new = reshaped(draw, shape)
        return Regroup(shape, new), new
    if which == "pick" and rank:
        axis = draw(st.integers(0, rank - 1))
        every = list(range(shape[axis]))
        some = draw(st.one_of(st.permutations(every), st.lists(st.sampled_from(every), min_size=1, max_size=4)))
        some = some[: draw(st.integers(1, len(some)))]
        out = list(shape)
        out[axis] = len(some)
        return Pick(axis, tuple(some), shape[axis], exclusive=draw(COIN)), tuple(out)
    if which == "repeat" and rank:
        axis, times = draw(st.integers(0, rank - 1)), draw(st.integers(1, 3))
        out = list(shape)
        out[axis] *= times
        return Repeat(axis, shape[axis], times), tuple(out)
    perm = tuple(draw(st.permutations(range(rank))))
    return Permute(perm), tuple(shape[axis] for axis in perm)


@st.composite
def index_maps(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    shape = draw(shapes())
    steps: list[Step] = []
    now = shape
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        step, now = one_step(draw, now)
        steps.append(step)
    kind = ops.IndexMap((tuple(steps),))
    return Operator(kind, sem.moved(kind), (normal(rng, *shape),))


@st.composite
def splits(draw: Draw) -> Operator:
    """Several outputs; here and there overlapping, so that the other outputs see what one is given."""
    rng = np.random.default_rng(draw(SEEDS))
    shape = draw(shapes())
    axis = draw(st.integers(0, len(shape) - 1))
    cuts = sorted(draw(st.lists(st.integers(0, shape[axis]), min_size=1, max_size=2)))
    pieces = [range(a, b) for a, b in zip([0, *cuts], [*cuts, shape[axis]], strict=True)]
    kind = ops.IndexMap(tuple((Pick(axis, tuple(piece), shape[axis], exclusive=False),) for piece in pieces))
    return Operator(kind, sem.moved(kind), (normal(rng, *shape),))


# Joins and gates.


def operands(draw: Draw, rng: np.random.Generator, count: int) -> list[Array]:
    """Values that broadcast together; most have the full shape."""
    shape = draw(shapes())
    out = []
    for _ in range(count):
        own = list(shape)
        if draw(st.integers(0, 2)) == 0:
            own = [1 if draw(st.integers(0, 2)) == 0 else size for size in own][draw(st.integers(0, len(own) - 1)) :]
        out.append(normal(rng, *own))
    return out


@st.composite
def sums(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    count = draw(st.sampled_from((2, 2, 2, 3)))
    values = operands(draw, rng, count)
    signs = (1.0, draw(st.sampled_from((1.0, -1.0))), 1.0)[:count]
    kind = ops.Sum(signs, tuple(value.shape for value in values), np.broadcast_shapes(*(v.shape for v in values)))
    return Operator(kind, sem.total(kind), tuple(values))


@st.composite
def gates(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    values = operands(draw, rng, 2)
    shape = np.broadcast_shapes(*(value.shape for value in values))
    divides = draw(st.integers(0, 3)) == 0
    if divides:
        values[1] = np.where(np.abs(values[1]) < 0.1, 1.0, values[1])
    kind = ops.Gate((0,) if divides else (0, 1), tuple(value.shape for value in values), shape)
    return Operator(kind, sem.elementwise(np.divide if divides else np.multiply), tuple(values))


@st.composite
def concats(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    shape = draw(shapes())
    axis = draw(st.integers(0, len(shape) - 1))
    sizes = draw(st.lists(SIZES, min_size=1, max_size=3))
    values = [normal(rng, *shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    kind = ops.Concat(axis, tuple(sizes))
    return Operator(kind, sem.laid(kind), tuple(values))


# Aggregates and elementwise functions.


@st.composite
def aggregates(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    shape = draw(shapes())
    axes = tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1)))))
    law = draw(st.sampled_from(("mean", "linear", "maximum")))
    keepdims = draw(COIN)
    mix = []
    for axis in axes:
        weights = normal(rng, draw(SIZES) if keepdims else 1, shape[axis])
        if law == "mean":
            weights += (1 - weights.sum(1, keepdims=True)) / shape[axis]
        elif law == "maximum":
            weights[:, 0] = np.abs(weights[:, 0])
        mix.append(weights)
    kind = ops.Aggregate(axes, law, keepdims)
    return Operator(kind, sem.aggregated(kind, mix), (normal(rng, *shape),))


@st.composite
def homogeneous(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    shape = draw(shapes())
    x = normal(rng, *shape)
    which = draw(st.sampled_from(("relu", "leaky", "prelu", "abs")))
    if which == "prelu":
        slope = normal(rng, *[size if draw(COIN) else 1 for size in shape][draw(st.integers(0, len(shape))) :])
        return Operator(
            ops.Homogeneous("PRelu"), sem.elementwise(lambda x, slope: np.where(x < 0, slope * x, x)), (x, slope)
        )
    function = {"relu": lambda x: np.maximum(x, 0), "leaky": lambda x: np.where(x < 0, -0.3 * x, x), "abs": np.abs}[
        which
    ]
    return Operator(ops.Homogeneous(which), sem.elementwise(function), (x,))


@st.composite
def passes(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    return Operator(ops.Pass(), sem.elementwise(lambda x: x), (normal(rng, *draw(shapes())),))


def masked(draw: Draw, old: tuple[int, ...], new: tuple[int, ...]) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    """The shapes with some sizes told as a symbol, the same for the same number, or not at all."""
    names = {size: f"s{size}" for size in {*old, *new} if draw(st.integers(0, 2)) == 0}

    def told(size: int) -> Size:
        return None if draw(st.integers(0, 9)) == 0 else names.get(size, size) if draw(st.integers(0, 3)) else size

    return tuple(told(size) for size in old), tuple(told(size) for size in new)
