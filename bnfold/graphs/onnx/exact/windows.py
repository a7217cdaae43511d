"""Convolutions and pools of any rank in float64, from the text of the ONNX standard.

`x` is (N, C, *spatial); taps of the kernel are views of the padded input, so that nothing but products is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Attributes = Mapping[str, Any]
Pads = list[tuple[int, int]]

_MOST_COLUMNS = 2**25  # elements of the matrix of patches; above that, tap by tap


@dataclass(frozen=True)
class _Windows:
    """Where the windows of a kernel lie: per spatial axis."""

    kernel: tuple[int, ...]
    strides: list[int]
    dilations: list[int]
    pads: Pads
    counts: list[int]

    def taps(self) -> Iterator[tuple[Any, Any]]:
        """Every tap, as an index into the last axes, and that of the elements of the padded input that it meets."""
        for tap in np.ndindex(*self.kernel):
            along = zip(tap, self.dilations, self.strides, self.counts, strict=True)
            view = (slice(t * d, t * d + (count - 1) * step + 1, step) for t, d, step, count in along)
            yield (..., *tap), (..., *view)

    def beyond(self, sizes: Sequence[int]) -> Pads:
        """How far the last windows reach past the padded input, as they may with ceil_mode."""
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        ends = [(count - 1) * step + r for count, step, r in zip(self.counts, self.strides, reach, strict=True)]
        return [(0, max(0, end - size - sum(pads))) for end, size, pads in zip(ends, sizes, self.pads, strict=True)]


def _windows(attributes: Attributes, sizes: Sequence[int], kernel: Sequence[int]) -> _Windows:
    rank = len(kernel)
    strides, dilations = attributes.get("strides") or [1] * rank, attributes.get("dilations") or [1] * rank
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode = attributes.get("auto_pad", b"NOTSET").decode()
    flat = attributes.get("pads") or [0] * 2 * rank
    pads: Pads = list(zip(flat[:rank], flat[rank:], strict=True)) if mode == "NOTSET" else [(0, 0)] * rank
    if mode.startswith("SAME"):
        totals = [
            (math.ceil(size / step) - 1) * step + r - size for size, step, r in zip(sizes, strides, reach, strict=True)
        ]
        if min(totals) < 0:
            raise NotImplementedError("auto_pad with windows further apart than they reach")  # which runtimes crop
        pads = [_halves(total, mode) for total in totals]
    rounds = math.ceil if attributes.get("ceil_mode") else math.floor
    counts = []
    for size, step, r, (before, after) in zip(sizes, strides, reach, pads, strict=True):
        count = rounds((size + before + after - r) / step) + 1
        if attributes.get("ceil_mode") and (count - 1) * step >= size + before:
            count -= 1  # no window begins in the padding behind
        if count < 1:
            raise ValueError("no window fits into the input")
        counts.append(count)
    return _Windows(tuple(kernel), list(strides), list(dilations), pads, counts)


def _halves(total: int, mode: str) -> tuple[int, int]:
    small, large = total // 2, total - total // 2
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def _padded(x: Array, pads: Pads, value: float = 0.0) -> Array:
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value) if any(map(any, pads)) else x


def conv(attributes: Attributes, x: Array, w: Array, bias: Array | None = None) -> Array:
    """Conv. `w` is (C_out, C_in / groups, *kernel)."""
    groups, windows = attributes.get("group", 1), _windows(attributes, x.shape[2:], w.shape[2:])
    x = _padded(x, windows.pads)
    n, outputs, inner = x.shape[0], w.shape[0], w.shape[1]
    size = math.prod(windows.counts)
    if inner == 1 and outputs == groups:  # one filter per channel
        y = np.zeros((n, outputs, *windows.counts))
        for tap, view in windows.taps():
            y += x[view] * w[tap].reshape(-1, *[1] * (x.ndim - 2))
        return _with_bias(y, bias)
    taps = math.prod(windows.kernel)
    kernel = w.reshape(groups, outputs // groups, inner, taps)
    if n * groups * inner * taps * size <= _MOST_COLUMNS:
        columns = np.empty((n, groups, inner, taps, size))
        for i, (_, view) in enumerate(windows.taps()):
            columns[:, :, :, i] = x[view].reshape(n, groups, inner, size)
        y = kernel.reshape(groups, -1, inner * taps) @ columns.reshape(n, groups, inner * taps, size)
    else:
        y = np.zeros((n, groups, outputs // groups, size))
        for i, (_, view) in enumerate(windows.taps()):
            y += kernel[..., i] @ x[view].reshape(n, groups, inner, size)
    return _with_bias(y.reshape(n, outputs, *windows.counts), bias)


def conv_transpose(attributes: Attributes, x: Array, w: Array, bias: Array | None = None) -> Array:
    """ConvTranspose. `w` is (C_in, C_out / groups, *kernel)."""
    groups, kernel, sizes = attributes.get("group", 1), w.shape[2:], x.shape[2:]
    rank = len(kernel)
    strides, dilations = attributes.get("strides") or [1] * rank, attributes.get("dilations") or [1] * rank
    extra = attributes.get("output_padding") or [0] * rank
    whole = [
        (size - 1) * step + (k - 1) * d + 1 + more
        for size, step, k, d, more in zip(sizes, strides, kernel, dilations, extra, strict=True)
    ]
    pads = _transposed_pads(attributes, whole, sizes, strides)
    n, inner, outer = x.shape[0], w.shape[0] // groups, w.shape[1]
    x = x.reshape(n, groups, inner, math.prod(sizes))
    w = w.reshape(groups, inner, outer, *kernel)
    y = np.zeros((n, groups, outer, *whole))
    for tap, view in _Windows(tuple(kernel), list(strides), list(dilations), [], list(sizes)).taps():
        y[view] += (w[tap].swapaxes(1, 2) @ x).reshape(n, groups, outer, *sizes)
    kept: Any = (..., *(slice(before, size - after) for size, (before, after) in zip(whole, pads, strict=True)))
    y = y[kept]
    return _with_bias(y.reshape(n, groups * outer, *y.shape[3:]), bias)


def _transposed_pads(attributes: Attributes, whole: list[int], sizes: Sequence[int], strides: Sequence[int]) -> Pads:
    """What is cut off the full result; ValueError where the standard and its implementations disagree."""
    rank, mode = len(whole), attributes.get("auto_pad", b"NOTSET").decode()
    wanted = attributes.get("output_shape")
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * step for size, step in zip(sizes, strides, strict=True)]
    if wanted is None:
        flat = (attributes.get("pads") if mode == "NOTSET" else None) or [0] * 2 * rank
        return list(zip(flat[:rank], flat[rank:], strict=True))
    totals = [full - size for full, size in zip(whole, wanted, strict=True)]
    if min(totals) < 0:
        raise ValueError("the output is larger than what is computed")
    return [_halves(total, mode) for total in totals]


def _pool_windows(attributes: Attributes, x: Array) -> _Windows:
    """The windows of a pool; NotImplementedError where ONNX Runtime has others, and for integers."""
    dilated = any(step != 1 for step in attributes.get("dilations") or ())
    if dilated and attributes.get("auto_pad", b"NOTSET").startswith(b"SAME"):
        raise NotImplementedError("a dilated pool with auto_pad")
    if x.dtype.kind != "f":
        raise NotImplementedError("a pool of integers")
    return _windows(attributes, x.shape[2:], attributes["kernel_shape"])


def average_pool(attributes: Attributes, x: Array) -> Array:
    windows = _pool_windows(attributes, x)
    beyond = windows.beyond(x.shape[2:])
    counted = np.pad(np.ones(x.shape[2:]), windows.pads, constant_values=float(attributes.get("count_include_pad", 0)))
    counted = np.pad(counted, beyond)
    x = _padded(_padded(x, windows.pads), beyond)
    total, weight = np.zeros((*x.shape[:2], *windows.counts)), np.zeros(windows.counts)
    for _, view in windows.taps():
        total += x[view]
        weight += counted[view[1:]]
    if not weight.all():
        raise ValueError("a window holds nothing")
    return np.asarray(total / weight)


def max_pool(attributes: Attributes, x: Array) -> Array:
    """The maxima alone, not where they were."""
    windows = _pool_windows(attributes, x)
    x = _padded(_padded(x, windows.pads, -np.inf), windows.beyond(x.shape[2:]), -np.inf)
    y = np.full((*x.shape[:2], *windows.counts), -np.inf)
    for _, view in windows.taps():
        np.maximum(y, x[view], out=y)
    return y


def _with_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias.reshape(-1, *[1] * (y.ndim - 2))
