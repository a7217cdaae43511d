"""Affines beside a use: BatchNorms, and chains of Mul, Add, Sub, Div and Neg by constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from generators.sandwich.build import Build, Value
from generators.sandwich.use import Array

# fmt: off
CHAINS = (
    "Mul Add", "Mul Add", "Mul Sub", "Sub Mul", "Sub Div", "Div Add", "Mul", "Add", "Add Mul Neg", "Sub Mul Add",
    "Neg Add", "Div",
)
# fmt: on
# Pairs that undo each other, as the second one is by the same constant, and single ones that do nothing.
CANCELLING = ("Mul Div", "Div Mul", "Add Sub", "Sub Add", "Neg Neg", "Mul 1", "Div 1", "Add 0", "Sub 0", "Mul 1 Add 0")


def norm(build: Build, x: Value) -> Value:
    """A BatchNorm, now and then one without shift, of positive factors, or one that does nothing."""
    c = x.shape[1] if x.rank > 1 else 1  # a line has one channel
    if build.chance(0.02):
        return _even_norm(build, x, c)
    variance = np.abs(build.weight(c, low=0.4, high=2.0))
    tables = [build.weight(c), build.weight(c), build.weight(c), variance]
    if build.chance(0.15):
        tables[1], tables[2] = np.zeros_like(variance), np.zeros_like(variance)  # no shift: more may pass
    if build.chance(0.15):
        tables[0] = np.abs(tables[0])
    if c and build.chance(0.04):
        tables[0][0] = 0
    settings: dict[str, Any] = {"epsilon": build.pick((1e-5, 1e-3, 0.1))} if build.chance(0.6) else {}
    if build.opset < 9 and build.chance(0.3):
        settings["spatial"] = 1
    if build.opset >= 14 and build.chance(0.2):
        settings["training_mode"] = 0
    if build.chance(0.2):
        settings["momentum"] = 0.8
    inputs = [x, *(build.const(table) for table in tables)]
    return build.add("BatchNormalization", inputs, x.shape, **settings)


def _even_norm(build: Build, x: Value, c: int) -> Value:
    """A BatchNorm whose numbers are exact: one that does nothing, or one and its inverse."""
    none, one = np.zeros(c, build.dtype), np.ones(c, build.dtype)
    if build.chance(0.8):
        return build.add("BatchNormalization", [x, *map(build.const, (one, none, none, one))], x.shape, epsilon=0.0)
    factor = even(build, (c,))
    for scale in (factor, 1 / factor):
        tables = (scale.astype(build.dtype), none, none, one)
        x = build.add("BatchNormalization", [x, *map(build.const, tables)], x.shape, epsilon=0.0)
    return x


def even(build: Build, shape: tuple[int, ...]) -> Array:
    """Powers of two of both signs, whose products and quotients are exact."""
    return np.asarray(build.rng.choice([0.25, 0.5, 1.0, 2.0, -0.5, -1.0, -4.0], size=shape)).astype(build.dtype)


def constant_shape(build: Build, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a constant that broadcasts against this shape: usually per channel, now and then awkward."""
    rank = len(shape)
    style = build.pick(("channel",) * 6 + ("scalar",) * 3 + ("last", "last", "axis", "axis", "full", "some"))
    if rank == 0:
        return ()  # more axes would be more axes of the result
    if style == "scalar":
        return build.pick(((), (1,), (1,) * rank))
    if style == "channel" and rank >= 2:
        per = (shape[1], *(1,) * (rank - 2))
        return (1, *per) if build.chance(0.5) else per
    if style == "full":
        return shape
    if style == "last":
        return shape[-1:]
    kept = {build.between(0, rank - 1)} | ({build.between(0, rank - 1)} if style == "some" else set())
    out = tuple(size if axis in kept else 1 for axis, size in enumerate(shape))
    while out and out[0] == 1 and build.chance(0.5):
        out = out[1:]
    return out


def chain(build: Build, x: Value) -> Value:
    """A chain of one to three operators by constants."""
    if build.chance(0.03):
        return _cancelling(build, x)
    exact = build.chance(0.1)
    shape = constant_shape(build, x.shape)
    for op in build.pick(CHAINS).split():
        if op == "Neg":
            x = build.add("Neg", [x], x.shape)
            continue
        if build.chance(0.3):
            shape = constant_shape(build, x.shape)
        if build.free and build.chance(0.05) and x.size < 1000:
            shape = _wider(build, x.shape)
        values = even(build, shape) if exact else build.weight(*shape)
        if op == "Mul" and build.chance(0.02):
            values = np.zeros_like(values)
        pair = [x, build.const(values)]
        # A Div by data is no chain, so only the others may turn around.
        turned = op != "Div" and build.chance(0.25)
        x = build.add(op, pair[::-1] if turned else pair, np.broadcast_shapes(x.shape, shape))
    return x


def _wider(build: Build, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of a constant that makes the value larger: along axes of size one, or by a new one."""
    grown = tuple(build.between(2, 3) if size == 1 and build.chance(0.6) else size for size in shape)
    kept = tuple(size if build.chance(0.6) or old == 1 else 1 for size, old in zip(grown, shape, strict=True))
    return (build.between(1, 2), *kept) if len(shape) < 4 and build.chance(0.3) else kept


def _cancelling(build: Build, x: Value) -> Value:
    """Operators that come to nothing."""
    shape = constant_shape(build, x.shape)
    factor, words = even(build, shape), build.pick(CANCELLING).split()
    while words:
        op = words.pop(0)
        if op == "Neg":
            x = build.add("Neg", [x], x.shape)
            continue
        values = np.full(shape, float(words.pop(0)), build.dtype) if words and words[0].isdigit() else factor
        x = build.add(op, [x, build.const(values)], x.shape)
    return x
