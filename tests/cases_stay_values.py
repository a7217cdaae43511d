"""BatchNorms that stay because of their parameters, their weights, or what they are."""

from __future__ import annotations

import numpy as np
from cases import CONV, FIXED_CONV, INTO_CONV, Kept

SLOPES = [
    Kept(
        "a slope of a PRelu with more axes than its operand",
        """(T[2,2,2,3] x) => (T[1,2,2,2,3] y) <T[1,2,1,2,1] slope, bn[2]>
        { a = Sigmoid(x) p = PRelu(a, slope) y = BN(p) }""",
        "unsupported",
        "p",
    ),
    Kept(
        "a slope of a PRelu with more elements than its operand",
        """(T[N,3,1,4] x) => (T[N,3,2,4] y) <T[3,2,1] slope, bn[3]>
        { a = Sigmoid(x) p = PRelu(a, slope) y = BN(p) }""",
        "unsupported",
        "p",
    ),
]

TRAINING = [
    Kept(
        "BN in training mode, one output",
        f"{CONV} {{ c = Conv(x, W) y = BN<training_mode=1>(c) }}",
        "training-mode",
        "y",
    ),
    Kept(
        "BN in training mode, three outputs",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y, T[4] new_mean, T[4] new_var) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) y, new_mean, new_var = BN<training_mode=1>(c) }""",
        "training-mode",
        "y",
    ),
    Kept(
        "BN of opset 9 that hands out statistics",
        f"{CONV} {{ c = Conv(x, W) y, a, b, d, e = BN(c) }}",
        "training-mode",
        "y",
        opset=9,
        ir=4,
    ),
    Kept(
        "an attribute of another type",
        f"{CONV} {{ c = Conv<group = 1.0>(x, W) y = BN(c) }}",
        "unsupported",
        "c",
    ),
    Kept(
        "BN of opset 6 without is_test",
        f"{CONV} {{ c = Conv(x, W) y = BN(c) }}",
        "training-mode",
        "y",
        opset=6,
        ir=3,
    ),
    Kept(
        "Conv, Dropout in training, BN",
        f"{CONV[:-1]}, T ratio = {{0.5}}, bool on = {{1}}> {{ c = Conv(x, W) d = Dropout(c, ratio, on) y = BN(d) }}",
        "training-mode",
        "d",
    ),
]

COMPUTED = [
    Kept(
        "weight is an input",
        "(T[N,3,H,W] x, T[4,3,3,3] W) => (T[N,4,h,w] y) <bn[4]> { c = Conv(x, W) y = BN(c) }",
        "computed-weight",
        "c",
    ),
    Kept(
        "weight computed from an input",
        """(T[N,3,H,W] x, T[1] k) => (T[N,4,h,w] y) <T[4,3,3,3] V, bn[4]>
        { W = Mul(V, k) c = Conv(x, W) y = BN(c) }""",
        "computed-weight",
        "c",
    ),
    Kept(
        "bias computed from an input",
        """(T[N,3,H,W] x, T[4] k) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>
        { B = Tanh(k) c = Conv(x, W, B) y = BN(c) }""",
        "computed-weight",
        "c",
    ),
    Kept(
        "C of a Gemm is an input",
        "(T[N,3] x, T[4] C) => (T[N,4] y) <T[3,4] W, bn[4]> { c = Gemm(x, W, C) y = BN(c) }",
        "computed-weight",
        "c",
    ),
    Kept(
        "MatMul of two inputs",
        "(T[N,3] x, T[3,4] W) => (T[N,4] y) <bn[4]> { c = MatMul(x, W) y = BN(c) }",
        "computed-weight",
        "c",
    ),
    *(
        Kept(
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
    Kept(
        "gamma is an input with a default",
        """(T[N,3,H,W] x, T[4] gamma = {1, 2, -1, 3}) => (T[N,4,h,w] y)
        <T[4,3,3,3] W, T[4] beta, T[4] mean, T[4] var> { c = Conv(x, W) y = BN(c) }""",
        "overridable",
        "y",
    ),
    Kept(
        "weight is an input with a default",
        """(T[N,1,H,W] x, T[2,1,2,1] W = {1, 2, -1, 3}) => (T[N,2,h,w] y) <bn[2]> { c = Conv(x, W) y = BN(c) }""",
        "overridable",
        "c",
    ),
    Kept(
        "bias is an input with a default",
        """(T[N,3,H,W] x, T[4] B = {1, 2, -1, 3}) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W, B) y = BN(c) }""",
        "overridable",
        "c",
    ),
]

NUMBERS = [
    *(
        Kept(
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
    Kept(
        "BN with var + epsilon < 0",
        f"{CONV} {{ c = Conv(x, W) y = BN<epsilon=0.25>(c) }}",
        "non-finite",
        "y",
        values={"var": [1, 1, -0.3, 1]},
    ),
    Kept(
        "float16 weight times scale above 65504",
        f"{CONV} {{ c = Conv(x, W) y = BN(c) }}",
        "range-overflow",
        "c",
        dtype="float16",
        values={"gamma": 60000, "var": 1, "W": 2},
    ),
    Kept(
        "float16 bias above 65504",
        f"{CONV} {{ c = Conv(x, W) y = BN(c) }}",
        "range-overflow",
        "c",
        dtype="float16",
        values={"gamma": 1, "var": 1, "mean": -60000, "beta": 60000},
    ),
    Kept(
        "float16 weight times scale above 65504, below the BN",
        f"{INTO_CONV} {{ b = BN(x) y = Conv(b, W) }}",
        "range-overflow",
        "y",
        dtype="float16",
        values={"gamma": 60000, "var": 1, "W": 2},
    ),
    *(
        Kept(
            f"weight holds {value}",
            f"{CONV} {{ c = Conv(x, W) y = BN(c) }}",
            "non-finite",
            "c",
            values={"W": value},
        )
        for value in (np.nan, np.inf)
    ),
    Kept(
        "Conv, Div by zero in one channel",
        f"{CONV[:-1]}, T[4,1,1] k> {{ c = Conv(x, W) y = Div(c, k) }}",
        "non-finite",
        "y",
        values={"k": np.reshape([1, 0, 2, 3], (4, 1, 1))},
    ),
]

UNSUPPORTED = [
    Kept(
        "BN of opset 7 with one statistic per position",
        f"""{FIXED_CONV} <T[4,3,3,3] W, T[4,4,4] gamma, T[4,4,4] beta, T[4,4,4] mean, T[4,4,4] var>
        {{ c = Conv(x, W) y = BN<spatial=0>(c) }}""",
        "unsupported",
        "y",
        opset=7,
        ir=3,
    ),
    *(
        Kept(
            f"BN of opset {opset}",
            f"{CONV} {{ c = Conv(x, W) y = BN<is_test=1{more}>(c) }}",
            "unsupported",
            "y",
            opset=opset,
            ir=3,
        )
        for opset, more in ((1, ", consumed_inputs=[0,0,0,1,1]"), (5, ", consumed_inputs=[0,0,0,1,1]"), (6, ""))
    ),
    Kept(
        "weight dequantized from integers",
        """(T[N,1,H,W] x) => (T[N,2,h,w] y)
        <int8[2,1,2,2] q = {1, 2, 3, 4, 5, 6, 7, 8}, T s = {0.5}, int8 z = {0}, bn[2]>
        { W = DequantizeLinear(q, s, z) c = Conv(x, W) y = BN(c) }""",
        "quantized",
        "c",
    ),
    Kept(
        "quantized between conv and BN",
        f"""{CONV[:-1]}, T s = {{0.5}}, int8 z = {{0}}>
        {{ c = Conv(x, W) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z) y = BN(d) }}""",
        "quantized",
        "d",
    ),
    Kept(
        "operator that is not of the standard between conv and BN",
        f"{CONV} {{ c = Conv(x, W) f = local.twist(c) y = BN(f) }}",
        "unsupported",
        "f",
    ),
    *(
        Kept(
            f"{op} over no elements",
            f"(T[N,3,0] x) => (T[N,4,1] y) <T[4,3,1] W, bn[4]> {{ c = Conv(x, W) m = {op}(c) y = BN(m) }}",
            "unsupported",
            "m",
        )
        for op in ("ReduceMean<axes=[2]>", "ReduceMax<axes=[2]>", "GlobalAveragePool")
    ),
]

CASES = [*SLOPES, *TRAINING, *COMPUTED, *NUMBERS, *UNSUPPORTED]
