"""Folds in other types than float32: the result loads, keeps the type of the weights, and is the same function."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import assert_equivalent, op_types, parse, reference, runtime, weights
from onnx import TensorProto

import bnfold

CONV = "(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, T[4] B, bn[4]> { c = Conv(x, W, B) y = BN(c) }"
MIXED = """({x}[N,3,H,W] x) => ({x}[N,4,h,w] y)
    <{x}[4,3,3,3] W, {x}[4] B, {s}[4] gamma, {s}[4] beta, {m}[4] mean, {m}[4] var> {{ c = Conv(x, W, B) y = BN(c) }}"""
CAST = """(float16[N,3,H,W] x) => (float[N,4,h,w] y)
    <float16[4,3,3,3] W, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { c = Conv(x, W) k = Cast<to=1>(c) y = BN(k) }"""
STORED_HALF = """(float[N,3,H,W] x) => (float[N,4,h,w] y)
    <float16[4,3,3,3] half, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { W = Cast<to=1>(half) c = Conv(x, W) y = BN(c) }"""
FORWARD = "(T[N,4] x) => (T[N,5] y) <T[4,5] W, bn[4]> { b = BN(x) y = Gemm(b, W) }"


@pytest.mark.parametrize(
    ("graph", "dtype", "left", "weight_type", "rtol"),
    [
        (CONV, "float16", "Conv", TensorProto.FLOAT16, 1e-2),
        (CONV, "float", "Conv", TensorProto.FLOAT, 1e-4),
        (CONV, "double", "Conv", TensorProto.DOUBLE, 1e-9),
        (CONV, "bfloat16", "Conv", TensorProto.BFLOAT16, 2e-2),
        (MIXED.format(x="float16", s="float", m="float"), "", "Conv", TensorProto.FLOAT16, 1e-2),
        (MIXED.format(x="float16", s="float16", m="float"), "", "Conv", TensorProto.FLOAT16, 1e-2),
        (MIXED.format(x="bfloat16", s="float", m="float"), "", "Conv", TensorProto.BFLOAT16, 2e-2),
        (MIXED.format(x="float", s="double", m="double"), "", "Conv", TensorProto.FLOAT, 1e-4),
        (CAST, "", "Conv Cast", TensorProto.FLOAT16, 1e-2),
        (STORED_HALF, "", "Conv", TensorProto.FLOAT, 1e-4),
        (FORWARD, "float16", "Gemm", TensorProto.FLOAT16, 1e-2),
        (FORWARD, "double", "Gemm", TensorProto.DOUBLE, 1e-9),
    ],
    ids=[
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "float16 conv, float32 parameters",
        "float16 conv and gamma, float32 statistics",
        "bfloat16 conv, float32 parameters",
        "float32 conv, float64 parameters",
        "float16 conv, Cast, float32 BN",
        "weight stored as float16",
        "forward in float16",
        "forward in float64",
    ],
)
def test_types(graph: str, dtype: str, left: str, weight_type: int, rtol: float) -> None:
    model = parse(graph, dtype, opset=22, ir=10, values={"gamma": [0.5, -1.5, 1.0, 2.0]})
    result = bnfold.fold(model)
    onnx.checker.check_model(result.model, full_check=True)
    assert op_types(result.model) == left.split()
    assert {tensor.data_type for tensor in result.model.graph.initializer} == {weight_type}
    assert_equivalent(model, result.model, reference, rtol=rtol)


@pytest.mark.parametrize("graph", [CONV, CAST, FORWARD], ids=["conv", "cast", "forward"])
def test_float16_runs(graph: str) -> None:
    model = parse(graph, "float16", values={"gamma": [0.5, -1.5, 1.0, 2.0]})
    assert_equivalent(model, bnfold.fold(model).model, runtime, rtol=1e-2)


def test_a_fold_is_rounded_once() -> None:
    """Of a chain of ten BatchNorms, the folded float16 weight is the exact product, rounded."""
    count = 10
    names = [f"{name}{i}" for i in range(2, 2 + count) for name in ("gamma", "beta", "mean", "var")]
    chain = " ".join(f"b{i} = BN{i}(b{i - 1})" for i in range(2, 2 + count))
    model = parse(
        f"""(T[N,3] x) => (T[N,4] y) <T[3,4] W, {", ".join(f"T[4] {name}" for name in names)}>
        {{ b1 = Gemm(x, W) {chain} y = Identity(b{1 + count}) }}""",
        "float16",
    )
    old = {name: array.astype(np.float64) for name, array in weights(model).items()}
    eps = float(np.float32(1e-5))
    exact = old["W"]
    for i in range(2, 2 + count):
        exact = exact * (old[f"gamma{i}"] / np.sqrt(old[f"var{i}"] + eps))
    folded = bnfold.fold(model).model
    (name,) = (name for name, array in weights(folded).items() if array.ndim == 2)
    assert op_types(folded) == ["Gemm", "Identity"]
    np.testing.assert_array_equal(weights(folded)[name], exact.astype(np.float16))


def test_newest_opset() -> None:
    newest = onnx.defs.onnx_opset_version()
    model = parse(CONV, "double", opset=newest, ir=onnx.IR_VERSION)
    result = bnfold.fold(model)
    assert op_types(result.model) == ["Conv"]
    assert_equivalent(model, result.model, reference, rtol=1e-9)
