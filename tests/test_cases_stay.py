"""Small graphs that stay, beside the reason and the operator that blocks. What stays is not touched at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from graphs import assert_equivalent, op_types, parse, reference
from numpy.typing import ArrayLike

import bnfold


@dataclass(frozen=True, eq=False)
class Case:
    """A graph with one site that stays, with its reason and its blocker. `dtype` is what T stands for."""

    id: str
    graph: str
    reason: str
    blocker: str | None
    dtype: str = "float"
    opset: int = 17
    ir: int = 8
    values: Mapping[str, ArrayLike] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        return parse(self.graph, self.dtype, opset=self.opset, ir=self.ir, values=self.values)


CONV = "(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>"
INTO_CONV = "(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,4,3,3] W, bn[4]>"
FIXED_CONV = "(T[N,3,6,6] x) => (T[N,4,4,4] y)"

SEEN = [
    Case(
        "conv output read by another operator",
        "(T[N,3,H,W] x) => (T[N,4,h,w] y, T[N,4,h,w] z) <T[4,3,3,3] W, bn[4]> { c = Conv(x, W) y = BN(c) z = Relu(c) }",
        "shared-value",
        "c",
    ),
    Case(
        "conv output read by another operator that is a BN, too",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y, T[N,4,h,w] z) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) y = BN(c) t = Tanh(y) z = Mul(t, c) }""",
        "shared-value",
        "c",
    ),
    Case(
        "conv output captured by a branch of an If",
        """(T[N,3,H,W] x, bool k) => (T[N,4,h,w] y, T[N,4,h,w] z) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) y = BN(c)
          z = If(k) <then_branch = a () => (T[N,4,h,w] t) { t = Relu(c) },
                     else_branch = b () => (T[N,4,h,w] e) { e = Relu(y) }> }""",
        "shared-value",
        "c",
    ),
    Case(
        "conv output is a graph output",
        "(T[N,3,H,W] x) => (T[N,4,h,w] c, T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]> { c = Conv(x, W) y = BN(c) }",
        "graph-output",
        "c",
    ),
    Case(
        "conv output handed out and seen through a Transpose",
        """(T[N,3,H,W] x) => (T[N,h,w,4] t, T[N,4,w,h] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) t = Transpose<perm=[0,2,3,1]>(c) u = Transpose<perm=[0,3,2,1]>(t) y = BN(u) }""",
        "graph-output",
        "t",
    ),
    Case("BN between input and output", "(T[N,4] x) => (T[N,4] y) <bn[4]> { y = BN(x) }", "graph-input", None),
    *(
        Case(
            f"Concat of a conv and an input, {order}",
            f"""(T[N,3,H,W] x, T[N,2,h,w] z) => (T[N,6,h,w] y) <T[4,3,3,3] W, bn[6]>
            {{ c = Conv(x, W) j = Concat<axis=1>({order}) y = BN(j) }}""",
            "graph-input",
            None,
        )
        for order in ("c, z", "z, c")
    ),
    Case(
        "Add of a conv and an input",
        """(T[N,3,H,W] x, T[N,4,h,w] z) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) j = Add(c, z) y = BN(j) }""",
        "graph-input",
        None,
    ),
]

NOT_EQUIVARIANT = [
    Case(
        "Conv, Relu, BN, Relu",
        f"{CONV} {{ c = Conv(x, W) r = Relu(c) b = BN(r) y = Relu(b) }}",
        "not-equivariant",
        "r",
    ),
    Case("Conv, Sigmoid, BN", f"{CONV} {{ c = Conv(x, W) s = Sigmoid(c) y = BN(s) }}", "not-equivariant", "s"),
    Case(
        "Conv, Pad with zeros, BN with a shift",
        f"{CONV[:-1]}, int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}> {{ c = Conv(x, W) p = Pad(c, pads) y = BN(p) }}",
        "not-equivariant",
        "p",
    ),
    Case(
        "Conv, Pad with ones, BN without a shift",
        f"""{CONV[:-1]}, int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, T one>
        {{ c = Conv(x, W) p = Pad(c, pads, one) y = BN(p) }}""",
        "not-equivariant",
        "p",
        values={"one": 1, "beta": 0, "mean": 0},
    ),
    Case(
        "Conv, AveragePool that counts its padding, BN with a shift",
        f"""{CONV} {{ c = Conv(x, W) p = AveragePool<kernel_shape=[2,2], pads=[1,1,0,0], count_include_pad=1>(c)
        y = BN(p) }}""",
        "not-equivariant",
        "p",
    ),
    Case(
        "Conv, MaxPool, BN with a negative gamma",
        f"{CONV} {{ c = Conv(x, W) p = MaxPool<kernel_shape=[2,2]>(c) y = BN(p) }}",
        "not-equivariant",
        "p",
        values={"gamma": [1, 2, -0.5, 1]},
    ),
    Case(
        "Conv, a constant divided by it, Mul by a channel constant",
        f"{CONV[:-1]}, T[1] k, T[4,1,1] g> {{ c = Conv(x, W) d = Div(k, c) y = Mul(d, g) }}",
        "not-equivariant",
        "d",
    ),
]

TRAINING = [
    Case(
        "BN in training mode, one output",
        f"{CONV} {{ c = Conv(x, W) y = BN<training_mode=1>(c) }}",
        "training-mode",
        "y",
    ),
    Case(
        "BN in training mode, three outputs",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y, T[4] new_mean, T[4] new_var) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) y, new_mean, new_var = BN<training_mode=1>(c) }""",
        "training-mode",
        "y",
    ),
    Case(
        "BN of opset 9 that hands out statistics",
        f"{CONV} {{ c = Conv(x, W) y, a, b, d, e = BN(c) }}",
        "training-mode",
        "y",
        opset=9,
        ir=4,
    ),
    Case(
        "BN of opset 6 without is_test",
        f"{CONV} {{ c = Conv(x, W) y = BN(c) }}",
        "training-mode",
        "y",
        opset=6,
        ir=3,
    ),
    Case(
        "Conv, Dropout in training, BN",
        f"{CONV[:-1]}, T ratio = {{0.5}}, bool on = {{1}}> {{ c = Conv(x, W) d = Dropout(c, ratio, on) y = BN(d) }}",
        "training-mode",
        "d",
    ),
]

COMPUTED = [
    Case(
        "weight is an input",
        "(T[N,3,H,W] x, T[4,3,3,3] W) => (T[N,4,h,w] y) <bn[4]> { c = Conv(x, W) y = BN(c) }",
        "computed-weight",
        "c",
    ),
    Case(
        "weight computed from an input",
        """(T[N,3,H,W] x, T[1] k) => (T[N,4,h,w] y) <T[4,3,3,3] V, bn[4]>
        { W = Mul(V, k) c = Conv(x, W) y = BN(c) }""",
        "computed-weight",
        "c",
    ),
    Case(
        "bias computed from an input",
        """(T[N,3,H,W] x, T[4] k) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>
        { B = Tanh(k) c = Conv(x, W, B) y = BN(c) }""",
        "computed-weight",
        "c",
    ),
    Case(
        "C of a Gemm is an input",
        "(T[N,3] x, T[4] C) => (T[N,4] y) <T[3,4] W, bn[4]> { c = Gemm(x, W, C) y = BN(c) }",
        "computed-weight",
        "c",
    ),
    Case(
        "MatMul of two inputs",
        "(T[N,3] x, T[3,4] W) => (T[N,4] y) <bn[4]> { c = MatMul(x, W) y = BN(c) }",
        "computed-weight",
        "c",
    ),
    *(
        Case(
            f"{name} computed from an input",
            f"""(T[N,3,H,W] x, T[4] k) => (T[N,4,h,w] y) <T[4,3,3,3] W, {rest}>
            {{ {name} = Abs(k) c = Conv(x, W) y = BN(c) }}""",
            "dynamic-parameters",
            "y",
        )
        for name, rest in (
            ("gamma", "T[4] beta, T[4] mean, T[4] var"),
            ("beta", "T[4] gamma, T[4] mean, T[4] var"),
            ("mean", "T[4] gamma, T[4] beta, T[4] var"),
            ("var", "T[4] gamma, T[4] beta, T[4] mean"),
        )
    ),
    Case(
        "gamma is an input with a default",
        """(T[N,3,H,W] x, T[4] gamma = {1, 2, -1, 3}) => (T[N,4,h,w] y)
        <T[4,3,3,3] W, T[4] beta, T[4] mean, T[4] var> { c = Conv(x, W) y = BN(c) }""",
        "overridable",
        "y",
    ),
    Case(
        "weight is an input with a default",
        """(T[N,1,H,W] x, T[2,1,2,1] W = {1, 2, -1, 3}) => (T[N,2,h,w] y) <bn[2]> { c = Conv(x, W) y = BN(c) }""",
        "overridable",
        "c",
    ),
    Case(
        "bias is an input with a default",
        """(T[N,3,H,W] x, T[4] B = {1, 2, -1, 3}) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W, B) y = BN(c) }""",
        "overridable",
        "c",
    ),
]

PADDED = [
    Case(
        "BN, Conv with pads",
        f"{INTO_CONV} {{ b = BN(x) y = Conv<pads=[0,0,1,0]>(b, W) }}",
        "padded-shift",
        "y",
    ),
    *(
        Case(
            f"BN, Conv with auto_pad {auto_pad}, {name}",
            f"""(T[N,4,{size}] x) => (T[N,4,h,w] y) <T[4,4,2,2] W, bn[4]>
            {{ b = BN(x) y = Conv<auto_pad="{auto_pad}", strides=[{stride},{stride}]>(b, W) }}""",
            "padded-shift",
            "y",
        )
        for auto_pad in ("SAME_UPPER", "SAME_LOWER")
        for name, size, stride in (
            ("which pads", "6,6", 1),
            ("which pads one axis", "6,5", 2),
            ("which pads odd sizes", "H,W", 2),
        )
    ),
    *(
        Case(
            f"BN with a shift, ConvTranspose, {name}",
            f"{INTO_CONV} {{ b = BN(x) y = ConvTranspose<{attributes}>(b, W) }}",
            "padded-shift",
            "y",
        )
        for name, attributes in (
            ("no padding", "group=1"),
            ("padding that crops one side only", "pads=[2,2,2,1]"),
            ("a stride", "strides=[2,1], pads=[2,2,2,2]"),
            ("output padding", "pads=[2,2,2,2], strides=[1,1], dilations=[2,1]"),
        )
    ),
    Case(
        "BN read by a Gemm and by a padded Conv",
        """(T[N,4,1,1] x) => (T[N,5] y, T[N,2,h,w] z) <T[4,5] V, T[2,4,3,3] W, bn[4]>
        { b = BN(x) f = Flatten(b) y = Gemm(f, V) z = Conv<pads=[1,1,1,1]>(b, W) }""",
        "padded-shift",
        "z",
    ),
]

OFF_CHANNEL = [
    *(
        Case(
            f"Conv with C = H = W, {op} by a constant of shape {shape}",
            f"{FIXED_CONV} <T[4,3,3,3] W, T{shape} k> {{ c = Conv(x, W) y = {op}({operands}) }}",
            "off-channel",
            "c",
        )
        for op, operands, shape in (
            ("Mul", "c, k", "[4]"),
            ("Mul", "k, c", "[4]"),
            ("Mul", "c, k", "[1,1,4,1]"),
            ("Mul", "c, k", "[4,1,4]"),
            ("Div", "c, k", "[4]"),
        )
    ),
    *(
        Case(
            f"Conv, Mul by a constant that gives {name}",
            f"({x} x) => ({y} y) <T[4,3,3,3] W, T{shape} k> {{ c = Conv(x, W) y = Mul(c, k) }}",
            "off-channel",
            "y",
        )
        for name, x, y, shape in (
            ("a higher rank", "T[N,3,6,6]", "T[1,N,4,4,4]", "[1,1,4,1,1]"),
            ("a larger image", "T[N,3,3,3]", "T[N,4,4,4]", "[4,4,4]"),
            ("a larger batch", "T[1,3,6,6]", "T[5,4,4,4]", "[5,4,1,1]"),
            ("perhaps a larger batch", "T[N,3,6,6]", "T[5,4,4,4]", "[5,4,1,1]"),
        )
    ),
]

NUMBERS = [
    *(
        Case(
            f"BN with {name} = {value}, epsilon 0",
            f"{CONV} {{ c = Conv(x, W) y = BN<epsilon=0.0>(c) }}",
            "non-finite",
            "y",
            values={name: [1, 1, value, 1]},
        )
        for name, value in (
            ("var", 0.0),
            ("var", -1.0),
            ("var", np.nan),
            ("var", np.inf),
            ("gamma", np.nan),
            ("gamma", np.inf),
            ("beta", np.nan),
            ("mean", -np.inf),
        )
    ),
    Case(
        "BN with var + epsilon < 0",
        f"{CONV} {{ c = Conv(x, W) y = BN<epsilon=0.25>(c) }}",
        "non-finite",
        "y",
        values={"var": [1, 1, -0.3, 1]},
    ),
    Case(
        "float16 weight times scale above 65504",
        f"{CONV} {{ c = Conv(x, W) y = BN(c) }}",
        "range-overflow",
        "c",
        dtype="float16",
        values={"gamma": 60000, "var": 1, "W": 2},
    ),
    Case(
        "float16 bias above 65504",
        f"{CONV} {{ c = Conv(x, W) y = BN(c) }}",
        "range-overflow",
        "c",
        dtype="float16",
        values={"gamma": 1, "var": 1, "mean": -60000, "beta": 60000},
    ),
    Case(
        "float16 weight times scale above 65504, below the BN",
        f"{INTO_CONV} {{ b = BN(x) y = Conv(b, W) }}",
        "range-overflow",
        "y",
        dtype="float16",
        values={"gamma": 60000, "var": 1, "W": 2},
    ),
    *(
        Case(
            f"weight holds {value}",
            f"{CONV} {{ c = Conv(x, W) y = BN(c) }}",
            "non-finite",
            "c",
            values={"W": value},
        )
        for value in (np.nan, np.inf)
    ),
    Case(
        "Conv, Div by zero in one channel",
        f"{CONV[:-1]}, T[4,1,1] k> {{ c = Conv(x, W) y = Div(c, k) }}",
        "non-finite",
        "y",
        values={"k": np.reshape([1, 0, 2, 3], (4, 1, 1))},
    ),
]

ROWS = [
    *(
        Case(
            f"MatMul, Transpose, BN over the rows, {name}",
            f"(T[4,3] x) => (T[{n},4] y) <T[3,{n}] W, bn[4]> {{ c = MatMul(x, W) t = Transpose(c) y = BN(t) }}",
            "off-channel",
            "c",
        )
        for name, n in (("five columns", 5), ("square", 4))
    ),
    Case(
        "MatMul on (N, F, F), BN over the rows",
        "(T[N,4,3] x) => (T[N,4,4] y) <T[3,4] W, bn[4]> { c = MatMul(x, W) y = BN(c) }",
        "off-channel",
        "c",
    ),
]

UNSUPPORTED = [
    Case(
        "BN of opset 7 with one statistic per position",
        f"""{FIXED_CONV} <T[4,3,3,3] W, T[4,4,4] gamma, T[4,4,4] beta, T[4,4,4] mean, T[4,4,4] var>
        {{ c = Conv(x, W) y = BN<spatial=0>(c) }}""",
        "unsupported",
        "y",
        opset=7,
        ir=3,
    ),
    *(
        Case(
            f"BN of opset {opset}",
            f"{CONV} {{ c = Conv(x, W) y = BN<is_test=1{more}>(c) }}",
            "unsupported",
            "y",
            opset=opset,
            ir=3,
        )
        for opset, more in ((1, ", consumed_inputs=[0,0,0,1,1]"), (5, ", consumed_inputs=[0,0,0,1,1]"), (6, ""))
    ),
    Case(
        "weight dequantized from integers",
        """(T[N,1,H,W] x) => (T[N,2,h,w] y)
        <int8[2,1,2,2] q = {1, 2, 3, 4, 5, 6, 7, 8}, T s = {0.5}, int8 z = {0}, bn[2]>
        { W = DequantizeLinear(q, s, z) c = Conv(x, W) y = BN(c) }""",
        "quantized",
        "c",
    ),
    Case(
        "quantized between conv and BN",
        f"""{CONV[:-1]}, T s = {{0.5}}, int8 z = {{0}}>
        {{ c = Conv(x, W) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z) y = BN(d) }}""",
        "quantized",
        "d",
    ),
    Case(
        "operator that is not of the standard between conv and BN",
        f"{CONV} {{ c = Conv(x, W) f = local.twist(c) y = BN(f) }}",
        "unsupported",
        "f",
    ),
]

CASES = [*SEEN, *NOT_EQUIVARIANT, *TRAINING, *COMPUTED, *PADDED, *OFF_CHANNEL, *ROWS, *NUMBERS, *UNSUPPORTED]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_stays_for_this_reason(case: Case) -> None:
    model = case.model()
    before = model.SerializeToString(deterministic=True)
    result = bnfold.fold(model)
    assert [(site.status, site.reason, site.blocker) for site in result.sites] == [("kept", case.reason, case.blocker)]
    assert all(site.detail for site in result.sites)
    assert result.model.SerializeToString(deterministic=True) == before
    assert model.SerializeToString(deterministic=True) == before
