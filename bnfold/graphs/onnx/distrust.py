"""Where onnx's shape inference is wrong: what ONNX Runtime and the standard make there has another shape.

One row per place: operators, the opsets from and to which it holds, what is left of the claim where it does, and why.
Seen with onnx 1.23, by running every operator in every version of its schema beside inference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import onnx

from bnfold.algebra.axes import Shape
from bnfold.graphs.onnx.index import integer
from bnfold.graphs.onnx.inferred import Part

_NEWEST = 2**31
_T = TypeVar("_T")
_NO_INTEGERS: list[int] = []


class Claim(NamedTuple):
    """What inference says of an output of a node in a part of a model: the shape `y`."""

    node: onnx.NodeProto
    opset: int
    part: Part
    y: Shape

    def attribute(self, name: str, default: _T) -> _T:
        """The value of an attribute; the default where it has none, or one of another type."""
        found = (onnx.helper.get_attribute_value(item) for item in self.node.attribute if item.name == name)
        return next((value for value in found if isinstance(value, type(default))), default)

    @property
    def x(self) -> Shape | None:
        """The shape of the first operand."""
        return self.part.shape(self.node.input[0])


class Row(NamedTuple):
    """`left` is what of the claim is right; it gives back the claim where the place is not met."""

    ops: tuple[str, ...]
    since: int
    until: int
    left: Callable[[Claim], Shape | None]
    reason: str


def _no_sizes(y: Shape) -> Shape:
    return (None,) * len(y)


def _ceil_mode(claim: Claim) -> Shape:
    x = claim.x
    if not integer(claim.node, "ceil_mode", 0) or x is None or len(x) != len(claim.y):
        return claim.y
    ones = [1] * (len(x) - 2)
    strides, pads = claim.attribute("strides", ones), claim.attribute("pads", [0] * 2 * len(ones))
    sizes = zip(x[2:], claim.y[2:], strides, pads, strict=False)
    wrong = any(
        isinstance(size, int) and isinstance(count, int) and (count - 1) * stride >= size + pad
        for size, count, stride, pad in sizes
    )
    return claim.y[:2] + _no_sizes(claim.y[2:]) if wrong else claim.y


def _no_window(claim: Claim) -> Shape:
    kernel = claim.attribute("kernel_shape", _NO_INTEGERS)
    dilations, pads = claim.attribute("dilations", [1] * len(kernel)), claim.attribute("pads", [0] * 2 * len(kernel))
    room = zip((claim.x or ())[2:], kernel, dilations, pads, pads[len(kernel) :], strict=False)
    wrong = any(isinstance(size, int) and size + p + q < (k - 1) * step + 1 for size, k, step, p, q in room)
    return claim.y[:2] + _no_sizes(claim.y[2:]) if wrong else claim.y


def _same_dilated(claim: Claim) -> Shape:
    dilated = any(step != 1 for step in claim.attribute("dilations", _NO_INTEGERS))
    same = claim.attribute("auto_pad", b"NOTSET").startswith(b"SAME")
    return claim.y[:2] + _no_sizes(claim.y[2:]) if dilated and same else claim.y


def _unsorted(claim: Claim) -> Shape | None:
    axes = claim.attribute("axes", _NO_INTEGERS)
    return None if axes != sorted(axes) else claim.y


def _scaled(claim: Claim) -> Shape:
    x, place = claim.x, 1 if claim.opset < 11 else 2
    scales = claim.part.numbers(claim.node.input[place]) if len(claim.node.input) > place else None
    if scales is None:
        scales = np.asarray(claim.attribute("scales", []))
    if x is None or scales.dtype.kind != "f" or len(x) != len(claim.y):
        return claim.y
    y = list(claim.y)
    for axis, scale in zip(claim.attribute("axes", [*range(len(x))]), scales.astype(np.float32).ravel(), strict=False):
        size = x[axis]
        if isinstance(size, int) and math.floor(size * float(scale)) != math.floor(np.float32(size) * scale):
            y[axis] = None
    return tuple(y)


def _stepped_back(claim: Claim) -> Shape:
    ends, _, steps = [*(claim.part.numbers(name) for name in claim.node.input[2:5]), None, None, None][:3]
    back = steps is not None and (steps < 0).any()
    return _no_sizes(claim.y) if back and (ends is None or (ends >= 2**31 - 1).any()) else claim.y


def _whole(claim: Claim) -> Shape | None:
    return claim.y if claim.x is None or len(claim.x) == len(claim.y) else None


def _same_with_more(claim: Claim) -> Shape:
    same = claim.attribute("auto_pad", b"NOTSET").startswith(b"SAME")
    return (
        claim.y[:2] + _no_sizes(claim.y[2:])
        if same and any(claim.attribute("output_padding", _NO_INTEGERS))
        else claim.y
    )


def _of_integers(claim: Claim) -> Shape:
    integers = claim.part.elem_type(claim.node.output[0]) in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    return claim.y if integers else _no_sizes(claim.y)


def _proportional(claim: Claim) -> Shape:
    stretched = claim.attribute("keep_aspect_ratio_policy", b"stretch") == b"stretch"
    return claim.y if stretched else _no_sizes(claim.y)


TABLE = (
    Row(
        ("AveragePool", "LpPool", "MaxPool"),
        1,
        21,
        _ceil_mode,
        "it counts a last window that would begin outside of the input (kernel 1, stride 2, 4 elements gives 3, not 2)",
    ),
    Row(
        ("AveragePool", "LpPool", "MaxPool"),
        1,
        _NEWEST,
        _same_dilated,
        "with auto_pad SAME, ONNX Runtime pads by the kernel without its dilations",
    ),
    Row(
        ("AveragePool", "LpPool", "MaxPool"),
        1,
        _NEWEST,
        _no_window,
        "of a window that does not fit",
    ),
    Row(("ConvTranspose",), 1, _NEWEST, _whole, "it ends before an output_shape of less than what is computed"),
    Row(("ConvTranspose",), 1, _NEWEST, _same_with_more, "it adds output_padding to what auto_pad SAME aims at"),
    Row(("Slice",), 10, _NEWEST, _stepped_back, "a step back from the largest integer is read in two ways"),
    Row(("Range",), 1, _NEWEST, _of_integers, "it counts in float64, ONNX Runtime in float32"),
    Row(("Squeeze",), 1, 10, _unsorted, "axes in another order are taken for others"),
    Row(
        ("Resize", "Upsample"),
        1,
        _NEWEST,
        _scaled,
        "it multiplies by scales in float64, ONNX Runtime in float32: the floor of 3 times 1.6666666 is 4 or 5",
    ),
    Row(
        ("Resize",),
        18,
        _NEWEST,
        _proportional,
        "a policy for the aspect ratio is applied to axes in another order",
    ),
    Row(("NonZero",), 1, _NEWEST, lambda claim: _no_sizes(claim.y) if claim.x == () else claim.y, "of a scalar"),
    Row(
        ("Attention",),
        1,
        _NEWEST,
        lambda claim: tuple(size or None for size in claim.y),
        "a size that it does not know is 0",
    ),
    Row(("STFT",), 1, _NEWEST, lambda claim: _no_sizes(claim.y), "it counts frames and frequencies otherwise"),
)
DISTRUSTED = frozenset(op for row in TABLE for op in row.ops)


def believed(node: onnx.NodeProto, opset: int, part: Part, y: Shape) -> Shape | None:
    """What is left of the claim that an output of a node has the shape y; None where not even the rank is right."""
    left: Shape | None = y
    for row in TABLE:
        if left is not None and node.op_type in row.ops and row.since <= opset <= row.until:
            left = row.left(Claim(node, opset, part, left))
    return left
