"""Convolutions, pools and interpolation for the interpreter, from the text of the ONNX standard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Attributes = dict[str, Any]


def conv(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, w, bias = [*inputs, None][:3]
    group, kernel = attributes.get("group", 1), w.shape[2:]
    stride, dilation, pads, extent = _windows(attributes, x.shape[2:], kernel)
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    n, channels = x.shape[:2]
    x = x.reshape(n, group, channels // group, *x.shape[2:])
    w = w.reshape(group, w.shape[0] // group, *w.shape[1:])
    y = np.zeros((n, *w.shape[:2], *extent))
    for tap in np.ndindex(*kernel):
        view = x[(..., *_view(tap, dilation, stride, extent))]
        y += np.einsum("ngi...,goi->ngo...", view, w[(..., *tap)])
    return _with_bias(y.reshape(n, -1, *extent), bias)


def conv_transpose(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, w, bias = [*inputs, None][:3]
    group, kernel, sizes = attributes.get("group", 1), w.shape[2:], x.shape[2:]
    rank = len(kernel)
    stride, dilation = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    extra = attributes.get("output_padding", [0] * rank)
    full = [
        (size - 1) * step + (k - 1) * d + 1 + more
        for size, step, k, d, more in zip(sizes, stride, kernel, dilation, extra, strict=True)
    ]
    auto_pad = attributes.get("auto_pad", b"NOTSET").decode()
    wanted = attributes.get("output_shape")
    if wanted is None and auto_pad.startswith("SAME"):
        wanted = [size * step for size, step in zip(sizes, stride, strict=True)]
    if wanted is not None:
        totals = [whole - size for whole, size in zip(full, wanted, strict=True)]
        if min(totals) < 0:
            raise NotImplementedError("a ConvTranspose whose output is larger than what it computes")
        less = [total // 2 for total in totals]
        more_ = [total - total // 2 for total in totals]
        pads = list(zip(less, more_, strict=True) if auto_pad == "SAME_UPPER" else zip(more_, less, strict=True))
    else:
        flat = [0] * 2 * rank if auto_pad == "VALID" else attributes.get("pads", [0] * 2 * rank)
        pads = list(zip(flat[:rank], flat[rank:], strict=True))
    n, channels = x.shape[:2]
    x = x.reshape(n, group, channels // group, *sizes)
    w = w.reshape(group, channels // group, *w.shape[1:])
    y = np.zeros((n, group, w.shape[2], *full))
    for tap in np.ndindex(*kernel):
        y[(..., *_view(tap, dilation, stride, sizes))] += np.einsum("ngi...,gio->ngo...", x, w[(..., *tap)])
    y = y[(..., *(slice(a, size - b) for size, (a, b) in zip(full, pads, strict=True)))]
    if min(y.shape) < 1:
        raise ValueError("nothing is left of the ConvTranspose")
    return _with_bias(y.reshape(n, -1, *y.shape[3:]), bias)


def average_pool(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, kernel = inputs[0], attributes["kernel_shape"]
    stride, dilation, pads, extent = _windows(attributes, x.shape[2:], kernel)
    total, weight = np.zeros((*x.shape[:2], *extent)), np.zeros(extent)
    # A window may reach past the padding with ceil_mode; such elements never count, padding does if it is asked for.
    beyond = _beyond(x.shape[2:], kernel, stride, dilation, pads, extent)
    inside = np.ones(x.shape[2:])
    counted = np.pad(inside, pads, constant_values=1.0 if attributes.get("count_include_pad") else 0.0)
    counted = np.pad(counted, beyond)
    x = np.pad(np.pad(x, [(0, 0), (0, 0), *pads]), [(0, 0), (0, 0), *beyond])
    for tap in np.ndindex(*kernel):
        view = _view(tap, dilation, stride, extent)
        total += x[(..., *view)]
        weight += counted[view]
    if not weight.all():
        raise ValueError("a window of the AveragePool holds nothing")
    return total / weight


def max_pool(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> list[Array]:
    """The maxima; in place of their indices, which nothing may read, zeros."""
    x, kernel = inputs[0], attributes["kernel_shape"]
    stride, dilation, pads, extent = _windows(attributes, x.shape[2:], kernel)
    beyond = _beyond(x.shape[2:], kernel, stride, dilation, pads, extent)
    x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=-np.inf)
    x = np.pad(x, [(0, 0), (0, 0), *beyond], constant_values=-np.inf)
    y = np.full((*x.shape[:2], *extent), -np.inf)
    for tap in np.ndindex(*kernel):
        y = np.maximum(y, x[(..., *_view(tap, dilation, stride, extent))])
    if np.isneginf(y).any():
        raise ValueError("a window of the MaxPool holds nothing")
    return [y, np.zeros(y.shape, np.int64)][:count]


def _view(
    tap: Sequence[int], dilation: Sequence[int], stride: Sequence[int], extent: Sequence[int]
) -> tuple[slice, ...]:
    """Where one tap meets the elements."""
    return tuple(
        slice(t * d, t * d + (size - 1) * step + 1, step)
        for t, d, step, size in zip(tap, dilation, stride, extent, strict=True)
    )


def _windows(
    attributes: Attributes, sizes: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int], list[tuple[int, int]], list[int]]:
    """Strides, dilations, pads per axis, and how many windows there are."""
    rank = len(kernel)
    stride, dilation = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    auto_pad = attributes.get("auto_pad", b"NOTSET").decode()
    flat = attributes.get("pads", [0] * 2 * rank)
    pads = list(zip(flat[:rank], flat[rank:], strict=True))
    if auto_pad == "VALID":
        pads = [(0, 0)] * rank
    elif auto_pad != "NOTSET":
        pads = []
        for size, step, r in zip(sizes, stride, reach, strict=True):
            total = max((math.ceil(size / step) - 1) * step + r - size, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
    extent = []
    for size, step, r, (before, after) in zip(sizes, stride, reach, pads, strict=True):
        room = size + before + after - r
        number = (math.ceil if attributes.get("ceil_mode") else math.floor)(room / step) + 1
        if attributes.get("ceil_mode") and (number - 1) * step >= size + before:
            number -= 1  # a window must not begin in the padding behind
        if room < 0 or number < 1:
            raise ValueError("no window fits")
        extent.append(number)
    return list(stride), list(dilation), pads, extent


def _beyond(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    pads: Sequence[tuple[int, int]],
    extent: Sequence[int],
) -> list[tuple[int, int]]:
    """How far the last window reaches past the padded input."""
    out = []
    for size, k, step, d, (before, after), number in zip(sizes, kernel, stride, dilation, pads, extent, strict=True):
        out.append((0, max(0, (number - 1) * step + (k - 1) * d + 1 - size - before - after)))
    return out


def _with_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias.reshape(1, -1, *[1] * (y.ndim - 2))


def upsample(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    scales = attributes["scales"] if "scales" in attributes else inputs[1]
    mode = attributes.get("mode", b"nearest").decode()
    y = inputs[0]
    for axis, scale in enumerate(scales):
        size = math.floor(y.shape[axis] * scale)
        y = _along(y, axis, _weights(y.shape[axis], size, float(scale), mode, "asymmetric", "floor", -0.75, False))
    return y


def resize(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, _, scales, sizes = (inputs[0], None, inputs[1], None) if opset < 11 else [*inputs, None, None, None][:4]
    axes = attributes.get("axes", range(x.ndim))
    mode = attributes.get("mode", b"nearest").decode()
    coordinates = (
        "asymmetric" if opset < 11 else attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    )
    nearest = "floor" if opset < 11 else attributes.get("nearest_mode", b"round_prefer_floor").decode()
    if attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch" or attributes.get("antialias"):
        raise NotImplementedError("this kind of Resize")
    y = x
    for i, axis in enumerate(axes):
        old = x.shape[axis]
        size = int(sizes[i]) if sizes is not None and len(sizes) else math.floor(old * float(scales[i]))
        scale = size / old if sizes is not None and len(sizes) else float(scales[i])
        cubic, outside = attributes.get("cubic_coeff_a", -0.75), bool(attributes.get("exclude_outside"))
        y = _along(y, axis, _weights(old, size, scale, mode, coordinates, nearest, cubic, outside))
    return y


def _along(x: Array, axis: int, weights: Array) -> Array:
    return np.moveaxis(np.moveaxis(x, axis, -1) @ weights.T, -1, axis)


def _weights(
    old: int, new: int, scale: float, mode: str, coordinates: str, nearest: str, cubic: float, exclude_outside: bool
) -> Array:
    """The matrix (new, old) of one axis."""
    weights = np.zeros((new, old))
    for i in range(new):
        at = _coordinate(i, old, new, scale, coordinates)
        if scale == 1 and old == new:
            at = float(i)
        if mode == "nearest":
            taps = {_nearest(at, nearest): 1.0}
        elif mode == "linear":
            low = math.floor(at)
            taps = {low: 1 - (at - low), low + 1: at - low}
        else:
            low = math.floor(at)
            taps = {low + j: _cubic(at - low - j, cubic) for j in (-1, 0, 1, 2)}
            if exclude_outside:
                taps = {j: tap for j, tap in taps.items() if 0 <= j < old}
                taps = {j: tap / sum(taps.values()) for j, tap in taps.items()}
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
        exact = old * scale
        return old / 2 * (1 - new / exact) + (i + 0.5) / scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (i + 0.5) / scale - 0.5
    raise NotImplementedError(f"coordinates '{mode}'")


def _nearest(at: float, mode: str) -> int:
    if mode == "floor":
        return math.floor(at)
    if mode == "ceil":
        return math.ceil(at)
    if mode == "round_prefer_floor":
        return math.ceil(at - 0.5)
    return math.floor(at + 0.5)


def _cubic(distance: float, a: float) -> float:
    """Keys 1981, equation 4."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    if d < 2:
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return 0.0
