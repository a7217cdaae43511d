"""Test inputs drawn from several distributions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from bnfold.checks.feed import FLOATS, Feed, rounded_to
from bnfold.checks.options import MOST_ELEMENTS, CheckOptions
from bnfold.checks.session import Array, TensorInfo
from bnfold.checks.shapes import PartialShape, Shape, has_free_batch, shape_text, solve_shapes
from bnfold.errors import UsageError

Kind = Literal["normal", "uniform", "large", "range ends"]

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
# Ten times the usual input reaches saturations, clips and dead units. Gated networks (hard-swish, squeeze-and-excite)
# begin to amplify rounding beyond 1e-4 there: `baseline` looks for that and steps back.
_LARGE = 10.0
_BATCHES = (1, 2, 3)


def can_draw(info: TensorInfo) -> bool:
    """Whether values for this input can be made up."""
    return info.dtype in (*FLOATS, *_INTEGERS, "bool")


def draw_feeds(
    inputs: Sequence[TensorInfo], given: Mapping[str, PartialShape], options: CheckOptions
) -> Iterator[Feed]:
    """`options.check_n` feeds, the same ones for the same seed.

    Floating-point inputs take turns: standard normal, uniform in [0, 1), and normal ten times as wide, all moved to the
    mean and spread of `input_scales` where those are known; under a `val_range`, all inside it: a clipped normal around
    its middle, uniform, and its two ends. Where the first axis is free, batches of 1, 2 and 3 take turns too; where
    others are, every second round has other sizes. Integers go up to the input's `index_limits`; others are 0 or 1
    (uint8, mostly pixels: 0 to 255), which every embedding and index accepts; in a model without floating-point inputs
    `val_range` replaces that. Booleans are fair coin flips.

    Raises:
        UsageError: if the value range holds no integer.
    """
    rng = np.random.default_rng(options.seed)
    kinds: tuple[Kind, ...] = ("normal", "uniform", "large" if options.val_range is None else "range ends")
    free_batch = has_free_batch(inputs, given)
    for number in range(options.check_n):
        turn, which = divmod(number, len(kinds))
        kind, batch = kinds[which], _BATCHES[(which + turn) % len(_BATCHES)]
        shapes = solve_shapes(inputs, given, batch, second=turn % 2 == 1)
        label = kind if turn == 0 else f"{kind} {turn + 1}"
        if free_batch:
            label += f", batch {batch}"
        if shapes != solve_shapes(inputs, given, batch):
            label += ", other sizes"
        yield Feed(label, _draw(inputs, shapes, kind, options, rng), large=kind == "large")


def _draw(
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, Shape],
    kind: Kind,
    options: CheckOptions,
    rng: np.random.Generator,
) -> dict[str, Array]:
    val_range = options.val_range
    has_floats = any(info.dtype in FLOATS for info in inputs)
    integer_range = None if has_floats else val_range
    values: dict[str, Array] = {}
    for info in inputs:
        shape = shapes[info.name]
        if math.prod(shape) > MOST_ELEMENTS:
            raise UsageError(f"input '{info.name}' is {shape_text(shape)}: no memory holds an input of that size")
        if info.dtype in FLOATS:
            drawn = _floats(shape, kind, val_range, rng)
            if val_range is None and info.name in options.input_scales:
                mean, std = options.input_scales[info.name]
                drawn = mean + std * (drawn if kind != "uniform" else np.sqrt(12) * (drawn - 0.5))
            values[info.name] = rounded_to(info.dtype, drawn)
        elif info.dtype == "bool":
            values[info.name] = np.asarray(rng.integers(0, 2, shape), np.bool_)
        else:
            values[info.name] = _integers(info, shape, integer_range, options.index_limits.get(info.name), rng)
    return values


def _floats(shape: Shape, kind: Kind, val_range: tuple[float, float] | None, rng: np.random.Generator) -> Array:
    low, high = (0.0, 1.0) if val_range is None else val_range
    if kind == "uniform":
        return low + (high - low) * np.asarray(rng.random(shape))
    if kind == "range ends":
        return np.where(np.asarray(rng.random(shape)) < 0.5, low, high)
    normal = np.asarray(rng.standard_normal(shape))
    if val_range is not None:
        return np.clip((low + high) / 2 + (high - low) / 4 * normal, low, high)
    return normal * (_LARGE if kind == "large" else 1.0)


def _integers(
    info: TensorInfo,
    shape: Shape,
    val_range: tuple[float, float] | None,
    limit: int | None,
    rng: np.random.Generator,
) -> Array:
    low, high = (0, 255 if info.dtype == "uint8" else 1)
    if limit is not None:
        high = min(limit, int(np.iinfo(info.dtype).max))
    if val_range is not None:
        limits = np.iinfo(info.dtype)
        low, high = max(int(np.ceil(val_range[0])), int(limits.min)), min(int(val_range[1]), int(limits.max))
        if low > high:
            raise UsageError(f"the value range holds no {info.dtype} for input '{info.name}'")
    return np.asarray(rng.integers(low, high, shape, dtype=info.dtype, endpoint=True))
