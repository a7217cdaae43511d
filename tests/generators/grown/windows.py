"""Pools, padding, resizing and global reductions over windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from generators.grown.constants import constant, integers
from generators.grown.indexing import first
from generators.grown.scope import Scope, Value


def pool(scope: Scope) -> Value | None:
    """AveragePool, MaxPool or LpPool with padding of every kind, or a global pool."""
    dice = scope.dice
    value = scope.subject(3, 5)
    if value is None or 0 in value.shape:
        return None
    if dice.chance(0.25):
        op = dice.pick(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
        return first(scope.add(op, [value]))
    op = dice.weighted([("AveragePool", 5), ("MaxPool", 4), ("LpPool", 0.7)])
    kernel = [dice.between(1, 3) for _ in value.shape[2:]]
    more: dict[str, Any] = {"kernel_shape": kernel}
    if dice.chance(0.5):
        more["strides"] = [dice.between(1, 2) for _ in kernel]
    kind = dice.weighted([("none", 3), ("pads", 3), ("auto", 1)])
    if kind == "pads":
        more["pads"] = [dice.between(0, size - 1) if size > 1 else 0 for size in kernel * 2]
    elif kind == "auto":
        more["auto_pad"] = dice.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])
    if op == "AveragePool" and dice.chance(0.4):
        more["count_include_pad"] = dice.between(0, 1)
    if scope.opset >= 10 and op != "LpPool" and dice.chance(0.3):
        more["ceil_mode"] = 1
    if dice.chance(0.15) and (scope.opset >= 19 or (op == "MaxPool" and scope.opset >= 10)):
        more["dilations"] = [dice.between(1, 2) for _ in kernel]
    if op == "MaxPool" and scope.opset >= 8 and dice.chance(0.1):
        more["storage_order"] = dice.between(0, 1)
        return first(scope.add(op, [value], 2, **more))
    return first(scope.add(op, [value], **more))


def pad(scope: Scope) -> Value | None:
    """Pad in every mode, with negative pads, with or without axes and value."""
    dice = scope.dice
    value = scope.subject(1)
    if value is None:
        return None
    modes = ["constant", "constant", "reflect", "edge", *(["wrap"] if scope.opset >= 19 else [])]
    mode = dice.pick(modes)
    axes = list(range(value.rank))
    chosen = dice.some(axes)[:2] if scope.opset >= 18 and dice.chance(0.4) else axes
    low = -1 if dice.chance(0.25) else 0
    pads = [dice.between(low, 1) if dice.chance(0.45) else 0 for _ in range(2 * len(chosen))]
    number = dice.weighted([(None, 3), (0.0, 2), (0.7, 2)])
    named = None if mode == "constant" and dice.chance(0.5) else mode
    if scope.opset < 11:
        return first(scope.add("Pad", [value], mode=named, pads=pads, value=number))
    inputs: list[Value | None] = [value, integers(scope, pads)]
    if number is not None or chosen is not axes:
        inputs.append(None if number is None else constant(scope, np.asarray(number, scope.world.dtype), 0.2))
    if chosen is not axes:
        inputs.append(integers(scope, [axis - value.rank if dice.chance(0.4) else axis for axis in chosen]))
    return first(scope.add("Pad", inputs, mode=named))


def resize(scope: Scope) -> Value | None:
    """Resize, or Upsample in old opsets, mostly of the spatial axes."""
    dice = scope.dice
    value = scope.subject(3, 4)
    if value is None or 0 in value.shape:
        return None
    scales = [1.0, 1.0] + [dice.pick([1.0, 2.0, 0.5, 1.5]) for _ in value.shape[2:]]
    if dice.chance(0.12):
        scales[dice.between(0, 1)] = 2.0
    mode = dice.pick(["nearest", "linear", "cubic"])
    factors = np.asarray(scales, np.float32)
    if scope.opset < 9:
        return first(scope.add("Upsample", [value], mode="nearest", scales=[max(1.0, s) for s in scales]))
    if scope.opset == 9:
        return first(scope.add("Upsample", [value, constant(scope, np.maximum(factors, 1), 0, 0)], mode="nearest"))
    if scope.opset == 10:
        return first(scope.add("Resize", [value, constant(scope, factors, 0, 0)], mode="nearest"))
    more: dict[str, Any] = {"mode": mode}
    if dice.chance(0.5):
        more["coordinate_transformation_mode"] = dice.pick(
            ["align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel", "tf_crop_and_resize"]
        )
    roi: Value | None = None
    if more.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        corners = [0.0] * value.rank + [0.9 if dice.chance(0.5) else 1.3] * value.rank
        roi = constant(scope, np.asarray(corners, scope.world.dtype), 0, 0)
        more["extrapolation_value"] = dice.pick([0.0, 0.5])
    elif scope.opset < 13:
        roi = constant(scope, np.zeros(0, np.float32), 0, 0)
    if mode == "nearest" and dice.chance(0.4):
        more["nearest_mode"] = dice.pick(["floor", "ceil", "round_prefer_ceil"])
    if mode == "cubic" and dice.chance(0.4):
        more["exclude_outside"] = 1
    if scope.opset >= 18 and mode != "nearest" and dice.chance(0.2):
        more["antialias"] = 1
    if dice.chance(0.3):
        sizes = [max(1, int(size * scale)) for size, scale in zip(value.shape, scales, strict=True)]
        blank = None if scope.opset >= 13 else constant(scope, np.zeros(0, np.float32), 0, 0)
        return first(scope.add("Resize", [value, roi, blank, integers(scope, sizes)], **more))
    if scope.opset >= 18 and dice.chance(0.3):
        axes = dice.shuffled(range(2, value.rank))
        table = constant(scope, factors[axes], 0, 0)
        return first(scope.add("Resize", [value, roi, table], axes=axes, **more))
    return first(scope.add("Resize", [value, roi, constant(scope, factors, 0, 0)], **more))


REDUCTIONS = (
    ("ReduceMean", 5),
    ("ReduceSum", 4),
    ("ReduceMax", 2),
    ("ReduceMin", 2),
    ("ReduceL2", 0.7),
    ("ReduceL1", 0.5),
    ("ReduceSumSquare", 0.4),
    ("ReduceProd", 0.2),
    ("ReduceLogSumExp", 0.5),
)


def reduce(scope: Scope) -> Value | None:
    """A reduction over some axes, over all, or over none."""
    dice = scope.dice
    value = scope.subject(1)
    if value is None:
        return None
    op = dice.weighted(REDUCTIONS)
    axes: list[int] | None = [
        axis - value.rank if scope.opset >= 11 and dice.chance(0.35) else axis for axis in dice.some(range(value.rank))
    ][: dice.between(1, 3)]
    if dice.chance(0.1):
        axes = None
    keep = dice.pick([None, 0, 1])
    if scope.opset < (13 if op == "ReduceSum" else 18):
        return first(scope.add(op, [value], axes=axes, keepdims=keep))
    inputs: list[Value | None] = [value]
    noop = None
    if axes is not None:
        inputs.append(integers(scope, axes))
    elif dice.chance(0.3):
        noop = 1
        if dice.chance(0.5):
            inputs.append(integers(scope, []))
    return first(scope.add(op, inputs, keepdims=keep, noop_with_empty_axes=noop))
