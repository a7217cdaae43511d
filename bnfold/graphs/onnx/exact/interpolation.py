"""Resize in float64, from the text of the ONNX standard: one matrix per axis.

Runtimes compute coordinates in float32. Where a result in float32 is another element than in float64, or another size,
there is no implementation here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_CLOSE = 1e-5


def resize(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int, count: int) -> Array:
    """Resize of opset 10 and newer; NotImplementedError for aspect policies, antialiasing, crops and what is close."""
    operands: list[Any] = [inputs[0], None, inputs[1], None] if opset < 11 else [*inputs, None, None, None]
    x, _, scales, sizes = operands[:4]
    policy = attributes.get("keep_aspect_ratio_policy", b"stretch")
    if policy != b"stretch" or attributes.get("antialias"):
        raise NotImplementedError("this kind of Resize")
    y, moved = x, False
    for i, axis in enumerate(attributes.get("axes", range(x.ndim))):
        old = x.shape[axis]
        fixed = sizes is not None and len(sizes) > 0
        new = int(sizes[i]) if fixed else math.floor(old * float(scales[i]))
        if not fixed and new != math.floor(np.float32(old) * np.float32(scales[i])):
            raise NotImplementedError("a size that rounding decides")
        scale = new / old if fixed else float(scales[i])
        if opset < 11 and scale < 1 and attributes.get("mode", b"nearest") == b"nearest":
            raise NotImplementedError("a nearest element below opset 11, to fewer")  # ONNX Runtime rounds up there
        if new != old or scale != 1:
            moved = True
            weights = _weights(attributes, opset, old, new, scale)
            y = np.moveaxis(np.moveaxis(y, axis, -1) @ weights.T, -1, axis)
    if moved and y.shape == x.shape:
        raise NotImplementedError("scales that change no size")  # ONNX Runtime takes the operand as it is then
    return np.asarray(y)


def _weights(attributes: Mapping[str, Any], opset: int, old: int, new: int, scale: float) -> Array:
    """How much every old element is worth to every new one, shape (new, old)."""
    mode = attributes.get("mode", b"nearest").decode()
    asked = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    coordinates = asked if opset >= 11 else "asymmetric"
    rounding = attributes.get("nearest_mode", b"round_prefer_floor").decode() if opset >= 11 else "floor"
    weights = np.zeros((new, old))
    for i in range(new):
        at = _coordinate(i, old, new, scale, coordinates)
        low = math.floor(at)
        if mode == "nearest":
            taps = {_nearest(at, rounding): 1.0}
        elif mode == "linear":
            taps = {low: 1 - (at - low), low + 1: at - low}
        elif mode == "cubic":
            a = attributes.get("cubic_coeff_a", -0.75)
            taps = {low + j: _cubic(at - low - j, a) for j in (-1, 0, 1, 2)}
            if attributes.get("exclude_outside"):
                inside = {j: tap for j, tap in taps.items() if 0 <= j < old}
                taps = {j: tap / sum(inside.values()) for j, tap in inside.items()}
        else:
            raise NotImplementedError(f"interpolation '{mode}'")
        for j, tap in taps.items():
            weights[i, min(max(j, 0), old - 1)] += tap
    return weights


def _coordinate(i: int, old: int, new: int, scale: float, mode: str) -> float:
    if mode == "align_corners":
        return 0.0 if new == 1 else i * (old - 1) / (new - 1)
    if mode == "asymmetric":
        return i / scale
    if mode == "pytorch_half_pixel" and new == 1:
        return 0.0
    if mode == "half_pixel_symmetric":
        return old / 2 * (1 - new / (old * scale)) + (i + 0.5) / scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (i + 0.5) / scale - 0.5
    raise NotImplementedError(f"coordinates '{mode}'")


def _nearest(at: float, mode: str) -> int:
    beyond = at % 1 if mode in ("floor", "ceil") else (at - 0.5) % 1
    if 0 < min(beyond, 1 - beyond) < _CLOSE * max(1.0, abs(at)):
        raise NotImplementedError("an element that rounding decides")
    if mode == "floor":
        return math.floor(at)
    if mode == "ceil":
        return math.ceil(at)
    return math.ceil(at - 0.5) if mode == "round_prefer_floor" else math.floor(at + 0.5)


def _cubic(distance: float, a: float) -> float:
    """Keys 1981, equation 4."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0
