"""Operators that onnx's reference implementation computes otherwise than ONNX Runtime for some settings, written out.

Whoever evaluates an operator looks here first. Each entry says what differs (seen with onnx 1.23); where it is not
clear what is right, the entry raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Operator = Callable[[Mapping[str, Any], Sequence[Any], int, int], Any]
"""Called with attributes, inputs (None where one is left out), opset and the number of outputs; gives one or a list.

Raises what it likes where the operator contradicts itself.
"""

AXES_ARE_AN_INPUT_FROM = 13


def _axes(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int) -> tuple[int, ...]:
    given = attributes.get("axes") if opset < AXES_ARE_AN_INPUT_FROM else inputs[1]
    if given is None or not len(given):
        raise ValueError("no axes: implementations differ in what that means")
    return tuple(int(axis) for axis in given)


def _unsqueeze(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int, count: int) -> NDArray[Any]:
    """Axes count in the result; the reference inserts one after the other."""
    return np.asarray(np.expand_dims(inputs[0], _axes(attributes, inputs, opset)))


def _squeeze(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int, count: int) -> NDArray[Any]:
    """Axes count in the operand, in any order; the reference removes one after the other."""
    has_axes = "axes" in attributes or (len(inputs) > 1 and inputs[1] is not None)
    return np.asarray(np.squeeze(inputs[0], _axes(attributes, inputs, opset) if has_axes else None))


_END = 2**31 - 1


def picked(size: int, start: int, end: int, step: int) -> range | None:
    """Which of so many elements a Slice takes; None where that is not clear.

    The standard clamps bounds that lie outside, which Python does otherwise with those before the first element where
    it steps back. Stepping back to the largest integer takes nothing by the standard; ONNX Runtime goes on to the
    first element then.
    """
    if step == 0 or (step < 0 and end >= _END):
        return None
    start, end = start + size * (start < 0), end + size * (end < 0)
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


def _slice(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int, count: int) -> NDArray[Any]:
    """Bounds outside of the operand: see `picked`."""
    y, given = inputs[0], [*inputs[1:], None, None]
    if opset < 10:
        given = [attributes["starts"], attributes["ends"], attributes.get("axes"), None]
    starts, ends, axes, steps = given[:4]
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        indices = picked(y.shape[axis], int(start), int(end), int(step))
        if indices is None:
            raise ValueError("a step back from an end that is read in two ways")
        y = y.take(indices, int(axis))
    return np.asarray(y)


# Between other types, such as those of four or eight bits, implementations round in different ways.
_NUMBERS = frozenset({"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))})
_NUMBERS |= {"bfloat16", "float16", "float32", "float64"}


def cast(x: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The numbers in another type; ValueError where they have no place in it, which has no meaning of its own."""
    if not {x.dtype.name, dtype.name} <= _NUMBERS:
        raise ValueError(f"a cast from {x.dtype} to {dtype}")
    if dtype.kind in "iu" and x.dtype.kind not in "iub":
        whole, bounds = np.trunc(x.astype(np.float64)), np.iinfo(dtype)
        if not ((whole >= float(bounds.min)) & (whole < float(bounds.max) + 1)).all():
            raise ValueError(f"a cast to {dtype} of what it has no numbers for")
    return x.astype(dtype)


def _cast(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int, count: int) -> NDArray[Any]:
    """Numbers that an integer type has no place for; types of a few bits."""
    return cast(inputs[0], onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _cast_like(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int, count: int) -> NDArray[Any]:
    return cast(inputs[0], inputs[1].dtype)


CORRECTED: dict[str, Operator] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
