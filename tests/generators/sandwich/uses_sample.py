"""Uses of the operators that sample between elements: Resize, Upsample, GridSample, RoiAlign, AffineGrid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from generators.sandwich.use import Draft, Maker, given, index

MODES = ("nearest", "linear", "cubic")
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")

SCALES: tuple[tuple[tuple[int, ...], list[float]], ...] = (
    ((2, 3, 4, 5), [1.0, 1.0, 2.0, 2.0]),
    ((2, 3, 4, 5), [1.0, 1.0, 0.5, 0.6]),
    ((2, 3, 4, 5), [1.0, 1.0, 1.5, 0.8]),
    ((1, 3, 3, 3), [1.0, 1.0, 1.0, 1.0]),
)


def upsamples(m: Maker) -> Iterator[Draft]:
    """Upsample, whose scales were an attribute first."""
    for shape, scales in (
        ((2, 3, 4, 5), [1.0, 1.0, 2.0, 2.0]),
        ((2, 3, 2, 2), [1.0, 1.0, 2.0, 3.0]),
        ((2, 3, 2, 2), [1.0, 1.0, 1.0, 1.5]),
        ((1, 3, 3, 3), [1.0, 1.0, 1.0, 1.0]),
        ((2, 3, 4), [1.0, 1.0, 2.0]),
        ((2, 3), [2.0, 1.0]),
        ((1, 2, 2, 2), [1.0, 2.0, 2.0, 1.0]),
    ):
        for mode in ("nearest", "linear"):
            yield Draft("Upsample", (m.x(*shape),), {"scales": scales, "mode": mode})
            yield Draft("Upsample", (m.x(*shape), given(scales, role="index")), {"mode": mode})
        yield Draft("Upsample", (m.x(*shape), given(scales, role="index")))


def resizes(m: Maker) -> Iterator[Draft]:
    """Resize: every mode by every coordinate transformation, and what opset 18 added."""
    for shape, scales in SCALES:
        for mode in ("nearest", "linear"):
            yield Draft("Resize", (m.x(*shape), given(scales, role="index")), {"mode": mode}, until=10)
        factors = given(scales, role="index")
        for mode in MODES:
            for place in COORDINATES:
                setting: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": place}
                roi = None
                if place == "tf_crop_and_resize":
                    roi = given([0, 0, 0.1, 0.2, 1, 1, 0.9, 0.7], role="index")
                    setting["extrapolation_value"] = 2.0
                elif place == "asymmetric":
                    roi = given([], role="index")
                if roi is None:
                    yield Draft("Resize", (m.x(*shape), None, factors), setting, since=13)
                    yield Draft("Resize", (m.x(*shape), given([], role="index"), factors), setting, until=12)
                else:
                    yield Draft("Resize", (m.x(*shape), roi, factors), setting)
        for place in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
            for nearest in NEAREST:
                setting = {"mode": "nearest", "coordinate_transformation_mode": place, "nearest_mode": nearest}
                yield Draft("Resize", (m.x(*shape), None, factors), setting)
        for setting in ({"exclude_outside": 1}, {"cubic_coeff_a": -0.5}, {"exclude_outside": 1, "cubic_coeff_a": -0.5}):
            yield Draft("Resize", (m.x(*shape), None, factors), {"mode": "cubic", **setting})
        for mode in MODES:
            yield Draft("Resize", (m.x(*shape), None, factors), {"mode": mode, "antialias": 1})
    for shape, target in (((2, 3, 4, 5), [2, 3, 8, 7]), ((2, 3, 4, 5), [2, 3, 3, 2]), ((3, 3, 3, 3), [3, 3, 6, 6])):
        for mode in MODES:
            yield Draft("Resize", (m.x(*shape), None, None, index(target)), {"mode": mode}, since=13)
            empty = given([], role="index")
            yield Draft("Resize", (m.x(*shape), empty, empty, index(target)), {"mode": mode}, until=12)
    for axes, target in (([2, 3], [8, 7]), ([3, 2], [7, 8]), ([-1, -2], [6, 6]), ([2], [7]), ([1], [5])):
        for mode in ("nearest", "linear"):
            yield Draft("Resize", (m.x(2, 3, 4, 5), None, None, index(target)), {"mode": mode, "axes": axes})
            for policy in ("stretch", "not_larger", "not_smaller"):
                setting = {"mode": mode, "axes": axes, "keep_aspect_ratio_policy": policy}
                yield Draft("Resize", (m.x(2, 3, 4, 5), None, None, index(target)), setting)
        factors = given(np.array(target) / np.array([(2, 3, 4, 5)[axis] for axis in axes]), role="index")
        yield Draft("Resize", (m.x(2, 3, 4, 5), None, factors), {"mode": "linear", "axes": axes})
    for policy in ("not_larger", "not_smaller"):
        setting = {"mode": "nearest", "keep_aspect_ratio_policy": policy}
        yield Draft("Resize", (m.x(2, 3, 4, 5), None, None, index([4, 6, 9, 9])), setting)
    for shape, scales in (
        ((2, 3, 4), [1, 1, 2.0]),
        ((3, 4), [1.0, 2.0]),
        ((5,), [1.7]),
        ((1, 2, 2, 2, 3), [1, 1, 2, 2, 2]),
    ):
        for mode in MODES[:2]:
            yield Draft("Resize", (m.x(*shape), None, given(scales, role="index")), {"mode": mode})
    for scales in ([2.0, 1, 1, 1], [1, 2.0, 1, 1], [1, 2.0, 2.0, 2.0], [1, 2.0, 2.0, 1]):
        for mode in MODES[:2]:
            yield Draft("Resize", (m.x(2, 3, 4, 5), None, given(scales, role="index")), {"mode": mode})


def grids(m: Maker) -> Iterator[Draft]:
    """GridSample, RoiAlign, AffineGrid, DeformConv."""
    for mode in ("bilinear", "nearest", "bicubic", "linear", "cubic"):
        since, until = (7, 19) if mode[:2] == "bi" else (20, 28)
        since, until = (7, 28) if mode == "nearest" else (since, until)
        for padding in ("zeros", "border", "reflection"):
            for align in (0, 1):
                setting = {"mode": mode, "padding_mode": padding, "align_corners": align}
                grid = m.w(2, 2, 3, 2, low=-1.3, high=1.3)
                yield Draft("GridSample", (m.x(2, 3, 4, 5), grid), setting, since=since, until=until)
    yield Draft("GridSample", (m.x(2, 3, 4, 5), m.w(2, 2, 3, 2, low=-0.8, high=0.8)))
    yield Draft("GridSample", (m.x(1, 2, 3, 3, 3), m.w(1, 2, 2, 2, 3, low=-0.8, high=0.8)), since=20)
    rois = given([[0, 0, 4, 4], [1, 0.5, 3, 3.5]], role="weight")
    for mode in ("avg", "max"):
        for ratio in (0, 2):
            setting = {"mode": mode, "sampling_ratio": ratio, "output_height": 2, "output_width": 3}
            yield Draft("RoiAlign", (m.x(1, 3, 5, 6), rois, index([0, 0])), setting)
            for place in ("half_pixel", "output_half_pixel"):
                extra = {"coordinate_transformation_mode": place, "spatial_scale": 0.7}
                yield Draft("RoiAlign", (m.x(1, 3, 5, 6), rois, index([0, 0])), {**setting, **extra})
    for align in (0, 1):
        yield Draft("AffineGrid", (m.w(2, 2, 3), index([2, 3, 4, 5])), {"align_corners": align})
        yield Draft("AffineGrid", (m.w(1, 3, 4), index([1, 3, 2, 3, 4])), {"align_corners": align})
    for setting, out in (
        ({}, (3, 3)),
        ({"pads": [1, 1, 1, 1]}, (5, 5)),
        ({"strides": [2, 2]}, (2, 2)),
        ({"kernel_shape": [2, 2]}, (3, 3)),
    ):
        offset = m.w(1, 8, *out, low=-0.4, high=0.4)
        yield Draft("DeformConv", (m.x(1, 2, 4, 4), m.w(3, 2, 2, 2), offset), setting)
        yield Draft("DeformConv", (m.x(1, 2, 4, 4), m.w(3, 2, 2, 2), offset, m.w(3)), setting)
        yield Draft("DeformConv", (m.x(1, 2, 4, 4), m.w(3, 2, 2, 2), offset, m.w(3), m.w(1, 4, *out)), setting)
    offset = m.w(1, 16, 3, 3, low=-0.4, high=0.4)
    yield Draft("DeformConv", (m.x(1, 2, 4, 4), m.w(4, 1, 2, 2), offset), {"group": 2, "offset_group": 2})
