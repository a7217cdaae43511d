"""One set of test inputs, and the two ways to disturb it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnfold.checks import bfloat16
from bnfold.checks.session import Array, TensorInfo

FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Feed:
    """One set of inputs.

    Attributes:
        label: where it comes from, in words.
        values: an array per input; bfloat16 inputs as float32 arrays (see `session`).
        labels: class numbers of the first rows, shape (N,), where the user's file has them.
        source: name of the user's file; None for a drawn feed.
        large: whether it was drawn wider than inputs usually are.
    """

    label: str
    values: Mapping[str, Array]
    labels: Array | None = None
    source: str | None = None
    large: bool = False


def scaled(feed: Feed, inputs: Sequence[TensorInfo], factor: float) -> Feed:
    """`feed` with its floating-point inputs multiplied by `factor`."""
    values = dict(feed.values)
    for info in inputs:
        if info.dtype in FLOATS:
            values[info.name] = rounded_to(info.dtype, values[info.name].astype(np.float64) * factor)
    return replace(feed, label=f"{feed.label}, scaled by {factor:g}", values=values)


def nudged(feed: Feed, inputs: Sequence[TensorInfo], rng: np.random.Generator) -> Feed:
    """`feed` with every finite floating-point entry moved to a neighbouring number of its type, up or down at random.

    The smallest change that an input can undergo: what the answers do then is what rounding alone can do to them.
    """
    values = dict(feed.values)
    for info in inputs:
        if info.dtype in FLOATS:
            values[info.name] = _neighbours(info.dtype, values[info.name], rng)
    return replace(feed, values=values)


def rounded_to(dtype: str, values: Array) -> Array:
    """`values` in the floating-point type `dtype`; bfloat16 as float32. What is out of range becomes infinite.

    An array, even where NumPy has made a number of one without axes, which ONNX Runtime does not take.
    """
    if dtype == "bfloat16":
        return bfloat16.rounded(values)
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(dtype)


def _neighbours(dtype: str, values: Array, rng: np.random.Generator) -> Array:
    up = rng.random(values.shape) < 0.5
    if dtype == "bfloat16":
        # Bit patterns count magnitudes: one more is one step away from zero.
        bits = bfloat16.to_bits(values)
        grow = up | (values == 0)
        moved = bfloat16.from_bits(np.where(grow, bits + 1, bits - 1).astype(np.uint16))
    else:
        with np.errstate(over="ignore"):
            moved = np.nextafter(values, np.where(up, np.inf, -np.inf).astype(values.dtype))
    return np.where(np.isfinite(values) & np.isfinite(moved), moved, values)
