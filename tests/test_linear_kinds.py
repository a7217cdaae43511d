"""For each kind of linear operator, every group and rank: a fold is the same function.

The comparison that says so fails when one weight of the folded model is off by one per cent.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest
from graphs import assert_equivalent, op_types, parse, runtime

import bnfold

RTOL = 1e-4


def convolutions() -> list[tuple[str, str, str]]:
    rows = []
    spatial = {1: ("H", "3", "h"), 2: ("H,W", "3,2", "h,w"), 3: ("H,W,4", "2,2,3", "h,w,d")}
    kinds = product(("Conv", "ConvTranspose"), spatial, ((1, "group 1"), (2, "group 2"), (4, "depthwise")), ("", ", B"))
    for op, rank, (group, name), bias in kinds:
        x, k, y = spatial[rank]
        rows.append(
            (
                f"{op} {rank}-D, {name}, {'bias' if bias else 'no bias'}",
                f"""(T[N,4,{x}] x) => (T[N,4,{y}] y) <T[4,{4 // group},{k}] W{", T[4] B" if bias else ""}, bn[4]>
                {{ c = {op}<group={group}>(x, W{bias}) y = BN(c) }}""",
                op,
            )
        )
    return rows


def gemms() -> list[tuple[str, str, str]]:
    rows = []
    shapes = (None, "", "[1]", "[4]", "[1,4]", "[6,1]", "[6,4]")
    for trans_a, trans_b, alpha, beta, shape in product((0, 1), (0, 1), (1.0, 0.5), (1.0, 2.0), shapes):
        attributes = f"transA={trans_a}, transB={trans_b}, alpha={alpha}, beta={beta}"
        rows.append(
            (
                f"Gemm {attributes}, C {'absent' if shape is None else shape or 'scalar'}",
                f"""(T[{"3,6" if trans_a else "6,3"}] x) => (T[6,4] y)
                <T[{"4,3" if trans_b else "3,4"}] W{"" if shape is None else f", T{shape} C"}, bn[4]>
                {{ c = Gemm<{attributes}>(x, W{"" if shape is None else ", C"}) y = BN(c) }}""",
                "Gemm",
            )
        )
    return rows


def matmuls() -> list[tuple[str, str, str]]:
    rows = []
    sides = {
        "constant on the right": ("[N,3]", "[3,4]", "x, W", "[N,4]", "[4]", 4, None),
        "constant on the left": ("[N,3,L]", "[4,3]", "W, x", "[N,4,L]", "[4,1]", 4, None),
        "batched input": ("[N,L,3]", "[3,4]", "x, W", "[N,4,L]", "[4]", 4, "[0,2,1]"),
        "batched weight": ("[N,4,L,3]", "[4,3,2]", "x, W", "[N,4,L,2]", "[4,1,1]", 4, None),
        "batched weight on the left": ("[N,4,3,L]", "[4,2,3]", "W, x", "[N,4,2,L]", "[4,1,1]", 4, None),
        "weight with a batch axis of one": ("[N,L,3]", "[1,3,4]", "x, W", "[N,4,L]", "[4]", 4, "[0,2,1]"),
    }
    adds = {"no Add": None, "Add": "c, B", "Add, bias first": "B, c"}
    for (side, (x, w, operands, y, b, channels, perm)), (name, add) in product(sides.items(), adds.items()):
        bias = f"d = Add({add})" if add else "d = Identity(c)"
        moved = f"t = Transpose<perm={perm}>(d)" if perm else "t = Identity(d)"
        rows.append(
            (
                f"MatMul, {side}, {name}",
                f"""(T{x} x) => (T{y} y) <T{w} W{f", T{b} B" if add else ""}, bn[{channels}]>
                {{ c = MatMul({operands}) {bias} {moved} y = BN(t) }}""",
                "MatMul Add",
            )
        )
    return rows


ROWS = [pytest.param(text, left, id=name) for name, text, left in (*convolutions(), *gemms(), *matmuls())]


def linear_ops(model: onnx.ModelProto) -> list[str]:
    """The operators left, without those that only hand values on."""
    return [op for op in op_types(model) if op not in ("Identity", "Transpose")]


def sabotaged(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the weight that matters most changed by one per cent."""
    wrong = onnx.ModelProto.FromString(model.SerializeToString())
    linear = next(node for node in wrong.graph.node if node.op_type not in ("Identity", "Transpose", "Add"))
    tensor = next(tensor for tensor in wrong.graph.initializer if tensor.name in linear.input[:2])
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[np.unravel_index(np.abs(array).argmax(), array.shape)] *= 1.01
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return wrong


@pytest.mark.parametrize(("text", "left"), ROWS)
def test_same_function_and_the_comparison_can_fail(text: str, left: str) -> None:
    model = parse(text, "float")
    folded = bnfold.fold(model).model
    assert linear_ops(folded) == left.split()
    assert_equivalent(model, folded, runtime, rtol=RTOL)
    with pytest.raises(AssertionError, match="outputs differ"):
        assert_equivalent(model, sabotaged(folded), runtime, rtol=RTOL)
