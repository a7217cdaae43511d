"""Uses of the operators that compute shapes, and constants out of nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from generators.sandwich.use import Draft, Maker, Operand, given, index


def sizes(m: Maker) -> Iterator[Draft]:
    """Shape, Size, ConstantOfShape, Range, EyeLike and the windows."""
    for shape in ((2, 3, 4, 5), (3, 3), (4,), (), (2, 0)):
        yield Draft("Shape", (m.x(*shape),))
        yield Draft("Size", (m.x(*shape),))
        bounds: tuple[dict[str, Any], ...] = (
            {"start": 1},
            {"end": -1},
            {"start": -2, "end": -1},
            {"start": 1, "end": 3},
        )
        odd = ({"start": 2, "end": 1}, {"start": -10, "end": 10}, {"start": 10}, {"end": 0})
        for setting in (*bounds, *odd):
            yield Draft("Shape", (m.x(*shape),), setting)
    values: tuple[Any, ...] = (
        None,
        np.array([2.5], np.float32),
        np.array([-3], np.int64),
        np.array([True]),
        np.array([0.5], np.float64),
        np.array([7], np.int32),
        np.array([1.5], np.float16),
    )
    for value in values:
        for target in ([2, 3], [3], [], [2, 0], [1, 3, 1, 1]):
            yield Draft("ConstantOfShape", (index(target),), {} if value is None else {"value": value})
    for bounds3 in ((0, 5, 1), (1, 10, 3), (10, 2, -3), (5, 5, 1), (5, 1, 1), (-3, 4, 2), (0, -7, -2)):
        yield Draft("Range", tuple(index(v) for v in bounds3))
        yield Draft("Range", tuple(index(v, np.int32) for v in bounds3))
    for bounds3f in ((0.0, 1.0, 0.25), (0.0, 1.0, 0.1), (1.0, -1.0, -0.3), (0.0, 0.3, 0.1), (0.5, 0.5, 1.0)):
        yield Draft("Range", tuple(given(v, np.float32, "weight") for v in bounds3f))
        yield Draft("Range", tuple(given(v, np.float64, "weight") for v in bounds3f))
    for shape in ((3, 3), (3, 4), (4, 2)):
        for setting in ({}, {"k": 1}, {"k": -1}, {"dtype": 11}, {"dtype": 7, "k": 2}, {"k": 9}):
            yield Draft("EyeLike", (m.x(*shape),), setting)
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        for size in (1, 2, 5, 8):
            for setting in ({}, {"periodic": 0}, {"output_datatype": 11}):
                yield Draft(op, (index(size),), setting)
    mel: tuple[Operand, ...] = (index(4), index(16), index(8000), given(0.0), given(4000.0))
    yield Draft("MelWeightMatrix", mel)
    constants: tuple[dict[str, Any], ...] = (
        {"value": np.arange(6, dtype=np.float32).reshape(2, 3) - 2},
        {"value": np.array(1.5, np.float32)},
        {"value_float": 1.5},
        {"value_floats": [1.5, -2.0]},
        {"value_int": 3},
        {"value_ints": [2, 3]},
    )
    for setting in constants:
        yield Draft("Constant", (), setting)
