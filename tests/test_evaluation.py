"""Constants that operators make of constants: only what every implementation makes alike is one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from oracle import run_on_runtime

from bnfold.graphs.onnx.evaluation import evaluate


def cast(values: np.ndarray, to: int) -> np.ndarray | None:
    return evaluate(helper.make_node("Cast", ["x"], ["y"], to=to), 25, [values], 0)


@pytest.mark.parametrize(
    ("values", "to"),
    [
        (np.asarray([1.5, 2.5], np.float32), TensorProto.UINT4),
        (np.asarray([1.5, 2.5], np.float32), TensorProto.INT4),
        (np.asarray([1.5, 2.5], np.float32), TensorProto.FLOAT8E4M3FN),
        (np.asarray([1, 2], ml_dtypes.int4), TensorProto.FLOAT),
        (np.asarray([1, 300], np.float32), TensorProto.UINT8),
        (np.asarray([1, -1], np.float32), TensorProto.UINT8),
        (np.asarray([1, np.nan], np.float32), TensorProto.INT32),
        (np.asarray([1, np.inf], np.float16), TensorProto.INT64),
        (np.asarray([1, 2.0**63], np.float64), TensorProto.INT64),
    ],
)
def test_a_cast_that_implementations_do_in_different_ways_makes_no_constant(values: np.ndarray, to: int) -> None:
    assert cast(values, to) is None


@pytest.mark.parametrize(
    ("values", "to", "expected"),
    [
        (np.asarray([1.75, -1.75], np.float32), TensorProto.INT8, np.asarray([1, -1], np.int8)),
        (np.asarray([255.9, 0], np.float64), TensorProto.UINT8, np.asarray([255, 0], np.uint8)),
        (np.asarray([300, -1], np.int64), TensorProto.UINT8, np.asarray([44, 255], np.uint8)),
        (np.asarray([0.5, 0], np.float32), TensorProto.BOOL, np.asarray([True, False])),
        (np.asarray([1.5, 2.5], np.float32), TensorProto.BFLOAT16, np.asarray([1.5, 2.5], ml_dtypes.bfloat16)),
        (np.asarray([-(2.0**63), 2.0**62], np.float64), TensorProto.INT64, np.asarray([-(2**63), 2**62])),
    ],
)
def test_other_casts_do(values: np.ndarray, to: int, expected: np.ndarray) -> None:
    found = cast(values, to)
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


# Per row: of how many, start, end and step of a Slice; ONNX Runtime and the standard agree but for the last two.
SLICES = [
    (5, -9, -100, -1),
    (5, 9, -100, -2),
    (5, -2, 100, 1),
    (5, -100, 3, 2),
    (5, 4, 0, -1),
    (5, 3, -3, -1),
    (5, 1, 2, -1),
    (5, 4, 2**31 - 1, -1),
    (5, 3, 2**63 - 1, -2),
]


@pytest.mark.parametrize(("size", "start", "end", "step"), SLICES)
def test_a_slice_takes_what_onnx_runtime_takes(size: int, start: int, end: int, step: int) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]> g (float[2,S] x, int64[1] a, int64[1] b, int64[1] c, int64[1] d) =>
        (float[2,C] y) { y = Slice(x, a, b, c, d) }"""
    )
    x = np.arange(2.0 * size, dtype=np.float32).reshape(2, size)
    bounds = [np.asarray([at], np.int64) for at in (start, end, 1, step)]
    expected = run_on_runtime(model, {"x": x, **dict(zip("abcd", bounds, strict=True))})
    assert not isinstance(expected, str), expected
    found = evaluate(model.graph.node[0], 13, [x, *bounds], 0)
    if end >= 2**31 - 1:
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected["y"])


@pytest.mark.parametrize("op", ["Transpose", "Identity", "Squeeze"])
def test_of_an_input_that_is_left_out_nothing_is_made(op: str) -> None:
    assert evaluate(helper.make_node(op, [""], ["y"]), 13, [None], 0) is None
