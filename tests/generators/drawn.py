"""Uses of operators whose sizes follow from attributes and bounds (windows, slices, ranges, resizes), at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from generators.sandwich.use import NEWEST, Operand, Use

Array = np.ndarray[Any, Any]
END = (2**31 - 1, -(2**31), 2**63 - 1, -(2**63))


class Draw:
    """A source of numbers and choices."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng((seed, 7))

    def between(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, *options: Any) -> Any:
        """One of them."""
        return options[self.between(0, len(options) - 1)]

    def some(self, count: int, low: int, high: int) -> list[int]:
        """So many integers."""
        return [self.between(low, high) for _ in range(count)]

    def data(self, *shape: int) -> Operand:
        """What the operator works on."""
        return Operand(self.rng.normal(size=shape).astype(np.float32))

    def axes(self, rank: int, first: int = 0) -> list[int]:
        """Some axes, in any order, counted from either end."""
        found = self.rng.permutation(np.arange(first, rank))[: self.between(1, rank - first)]
        return [int(axis) - rank * self.between(0, 1) for axis in found]


def drawn(seed: int) -> Use:
    """The use of a seed."""
    draw = Draw(seed)
    op, opset, attributes, inputs = draw.pick(*DRAWS)(draw)
    return Use(op, opset, NEWEST, attributes, tuple(inputs))


Drawn = tuple[str, int, dict[str, Any], list[Operand | None]]


def _index(values: Any, dtype: Any = np.int64) -> Operand:
    return Operand(np.asarray(values, dtype), "index")


def _windows(draw: Draw, rank: int, dilated: bool) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if draw.between(0, 1):
        out["strides"] = draw.some(rank, 1, 4)
    if dilated and draw.between(0, 1):
        out["dilations"] = draw.some(rank, 1, 3)
    mode = draw.pick("NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    if mode != "NOTSET":
        out["auto_pad"] = mode
    return out


def _pool(draw: Draw) -> Drawn:
    op, rank, opset = draw.pick("MaxPool", "AveragePool", "LpPool"), draw.between(1, 3), draw.between(7, 24)
    dilated = opset >= {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[op]
    kernel = draw.some(rank, 1, 4)
    attributes = {"kernel_shape": kernel, **_windows(draw, rank, dilated)}
    if "auto_pad" not in attributes and draw.between(0, 1):
        attributes["pads"] = [draw.between(0, size - 1) for size in kernel * 2]
    if opset >= (18 if op == "LpPool" else 10) and draw.between(0, 1):
        attributes["ceil_mode"] = 1
    return op, opset, attributes, [draw.data(1, 2, *draw.some(rank, 1, 9))]


def _conv(draw: Draw) -> Drawn:
    op, rank = draw.pick("Conv", "ConvTranspose"), draw.between(1, 2)
    attributes = _windows(draw, rank, True)
    if "auto_pad" not in attributes and draw.between(0, 1):
        attributes["pads"] = draw.some(2 * rank, 0, 2)
    if op == "ConvTranspose" and draw.between(0, 2) == 0:
        attributes["output_padding"] = draw.some(rank, 0, 2)
    if op == "ConvTranspose" and draw.between(0, 3) == 0:
        attributes["output_shape"] = draw.some(rank, 2, 14)
    weight = Operand(draw.rng.normal(size=(2, 2, *draw.some(rank, 1, 3))).astype(np.float32), "weight")
    return op, draw.between(7, 22), attributes, [draw.data(1, 2, *draw.some(rank, 1, 8)), weight]


def _slice(draw: Draw) -> Drawn:
    rank, opset = draw.between(1, 3), draw.between(10, 18)
    axes = draw.axes(rank)
    starts, ends = draw.some(len(axes), -12, 12), [draw.pick(draw.between(-12, 12), *END) for _ in axes]
    steps = [draw.pick(1, 2, 3, -1, -2, -3) for _ in axes]
    bounds = [_index(bound) for bound in (starts, ends, axes, steps)]
    return "Slice", opset, {}, [draw.data(*draw.some(rank, 0, 7)), *bounds]


def _range(draw: Draw) -> Drawn:
    if draw.between(0, 1):
        dtype = draw.pick(np.float32, np.float64)
        start, end, step = (draw.between(-20, 20) / draw.pick(1, 3, 7, 10) for _ in range(3))
        return "Range", 11, {}, [Operand(np.asarray(number, dtype), "weight") for number in (start, end, step or 1.0)]
    dtype = draw.pick(np.int32, np.int64)
    numbers = [*draw.some(2, -20, 20), draw.pick(1, 2, 3, -1, -4)]
    return "Range", 11, {}, [_index(number, dtype) for number in numbers]


def _resize(draw: Draw) -> Drawn:
    rank, opset = draw.between(3, 4), draw.pick(10, 13, 18, 19)
    x = draw.data(1, 1, *draw.some(rank - 2, 1, 13))
    attributes: dict[str, Any] = {"mode": draw.pick("nearest", "linear")}
    axes = [2, 3][: rank - 2]
    lead: list[int] = [1, 1]
    if opset >= 18 and draw.between(0, 1):
        axes, lead = draw.axes(rank, 2), []
        attributes["axes"] = axes
    scales = [*lead, *(draw.between(1, 30) / draw.between(1, 9) for _ in axes)]
    if opset == 10:
        return "Resize", opset, attributes, [x, _index(scales, np.float32)]
    modes = ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")
    attributes["coordinate_transformation_mode"] = draw.pick(*modes)
    if draw.between(0, 1):
        return "Resize", opset, attributes, [x, None, _index(scales, np.float32)]
    if opset >= 18 and draw.between(0, 1):
        attributes["keep_aspect_ratio_policy"] = draw.pick("not_larger", "not_smaller")
    return "Resize", opset, attributes, [x, None, None, _index([*lead, *draw.some(len(axes), 1, 20)])]


def _pad(draw: Draw) -> Drawn:
    rank = draw.between(1, 3)
    mode = draw.pick("constant", "edge", "reflect")
    pads = _index(draw.some(2 * rank, -1, 2))
    return "Pad", draw.pick(11, 13, 18, 19), {"mode": mode}, [draw.data(*draw.some(rank, 2, 5)), pads]


def _axes(draw: Draw) -> Drawn:
    op, rank, opset = draw.pick("Squeeze", "Unsqueeze"), draw.between(1, 4), draw.pick(7, 10, 11, 12, 13, 21)
    axes = draw.axes(rank)
    if opset < 11:
        axes = [axis % rank for axis in axes]
    shape = [1 if axis in axes or axis - rank in axes else axis + 2 for axis in range(rank)]
    if op == "Unsqueeze":
        shape = shape[: rank - len(axes)]
    if opset >= 13:
        return op, opset, {}, [draw.data(*shape), _index(axes)]
    return op, opset, {"axes": axes}, [draw.data(*shape)]


DRAWS: tuple[Callable[[Draw], Drawn], ...] = (_pool, _conv, _slice, _range, _resize, _pad, _axes)
