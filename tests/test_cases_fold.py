"""Small graphs that fold, beside what is left of them: operators, who absorbed each site, and through what.

Every row is folded in float64 and compared at 1e-9 with onnx's reference implementation, and folded again in float32
and compared with ONNX Runtime at 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import onnx
import pytest
from graphs import assert_equivalent, op_types, parse, reference, runtime
from numpy.typing import ArrayLike

import bnfold


@dataclass(frozen=True, eq=False)
class Case:
    """A graph and what its fold leaves. `into` and `through` say, per site, "absorbers < operators crossed"."""

    id: str
    graph: str
    left: str
    sites: str
    direction: str = "backward"
    opset: int = 17
    ir: int = 8
    values: Mapping[str, ArrayLike] = field(default_factory=dict)

    def model(self, dtype: str) -> onnx.ModelProto:
        return parse(self.graph, dtype, opset=self.opset, ir=self.ir, values=self.values)


POSITIVE = {"gamma": [0.5, 1.5, 0.25, 1.0]}
NO_SHIFT = {"beta": [0.0] * 4, "mean": [0.0] * 4}

CONVOLUTIONS = [
    Case(
        f"{op} {rank}-D, group {group}, {bias_id}",
        f"(T[N,4{x}] x) => (T[N,4{y}] y) <T[4,{4 // group}{k}] W{', T[4] B' if bias == 'B' else ''}, bn[4]>"
        f"{{ c = {op}<group={group}>(x, W{', ' + bias if bias else ''}) y = BN(c) }}",
        op,
        "c",
    )
    for op in ("Conv", "ConvTranspose")
    for rank, x, k, y in ((1, ",H", ",2", ",h"), (2, ",H,W", ",2,3", ",h,w"), (3, ",H,W,5", ",2,3,1", ",h,w,d"))
    for group in (1, 2, 4)
    for bias_id, bias in (("bias", "B"), ("no bias", ""), ("empty bias", '""'))
]

GEMMS = [
    Case(
        f"Gemm {attributes or 'plain'}, C {shape}",
        f"(T[{'K,6' if 'transA' in attributes else '6,K'}] x) => (T[6,4] y)"
        f"<T[{'4,K' if 'transB' in attributes else 'K,4'}] W{'' if shape == 'absent' else f', T{shape} C'}, bn[4]>"
        f"{{ c = Gemm<{attributes}>(x, W{'' if shape == 'absent' else ', C'}) y = BN(c) }}".replace("K", "3").replace("<>", ""),
        "Gemm",
        "c",
    )
    for attributes in ("", "transA=1", "transB=1", "alpha=0.5", "beta=2.0", "transA=1, transB=1, alpha=0.5, beta=2.0")
    for shape in ("absent", "[]", "[1]", "[4]", "[1,4]", "[6,1]", "[6,4]")
]

MATMULS = [
    Case(
        "MatMul, no Add",
        "(T[N,3] x) => (T[N,4] y) <T[3,4] W, bn[4]> { c = MatMul(x, W) y = BN(c) }",
        "MatMul Add",
        "c",
    ),
    Case(
        "MatMul, Add of a bias",
        "(T[N,3] x) => (T[N,4] y) <T[3,4] W, T[4] B, bn[4]> { c = MatMul(x, W) d = Add(c, B) y = BN(d) }",
        "MatMul Add",
        "d c",
    ),
    Case(
        "MatMul, Add of a bias as first operand",
        "(T[N,3] x) => (T[N,4] y) <T[3,4] W, T[4] B, bn[4]> { c = MatMul(x, W) d = Add(B, c) y = BN(d) }",
        "MatMul Add",
        "d c",
    ),
    Case(
        "MatMul, constant on the left",
        "(T[N,3,L] x) => (T[N,4,L] y) <T[4,3] W, bn[4]> { c = MatMul(W, x) y = BN(c) }",
        "MatMul Add",
        "c",
    ),
    Case(
        "MatMul, constant on the left, Add of a bias",
        "(T[N,3,L] x) => (T[N,4,L] y) <T[4,3] W, T[4,1] B, bn[4]> { c = MatMul(W, x) d = Add(c, B) y = BN(d) }",
        "MatMul Add",
        "d c",
    ),
    Case(
        "MatMul of a batch of weights, BN over the batch axis of the weight",
        "(T[N,4,L,3] x) => (T[N,4,L,5] y) <T[4,3,5] W, bn[4]> { c = MatMul(x, W) y = BN(c) }",
        "MatMul Add",
        "c",
    ),
    Case(
        "Linear on (N, L, F), Transpose, BN, Transpose",
        """(T[N,L,3] x) => (T[N,L,4] y) <T[3,4] W, T[4] B, bn[4]>
        { c = MatMul(x, W) d = Add(c, B) t = Transpose<perm=[0,2,1]>(d) b = BN(t) y = Transpose<perm=[0,2,1]>(b) }""",
        "MatMul Add Transpose Transpose",
        "d c < Transpose",
    ),
    Case(
        "Linear on (N, F, F), Transpose, BN, Transpose",
        """(T[N,4,3] x) => (T[N,4,4] y) <T[3,4] W, T[4] B, bn[4]>
        { c = MatMul(x, W) d = Add(c, B) t = Transpose<perm=[0,2,1]>(d) b = BN(t) y = Transpose<perm=[0,2,1]>(b) }""",
        "MatMul Add Transpose Transpose",
        "d c < Transpose",
    ),
    Case(
        "MatMul on (N, L, F), Reshape to (N L, F), BN, Reshape back",
        """(T[N,6,3] x) => (T[N,6,4] y)
        <T[3,4] W, bn[4], int64[2] flat = {-1, 4}, int64[3] back = {-1, 6, 4}>
        { c = MatMul(x, W) r = Reshape(c, flat) b = BN(r) y = Reshape(b, back) }""",
        "MatMul Add Reshape Reshape",
        "c < Reshape",
    ),
    Case(
        "MatMul on (N, L, F), Flatten to (N L, F), BN",
        """(T[N,L,3] x) => (T[M,4] y) <T[3,4] W, bn[4]> { c = MatMul(x, W) r = Flatten<axis=2>(c) y = BN(r) }""",
        "MatMul Add Flatten",
        "c < Flatten",
    ),
    Case(
        "MatMul on (N, F, F), Flatten to (N F, F), BN",
        """(T[N,4,3] x) => (T[M,4] y) <T[3,4] W, bn[4]> { c = MatMul(x, W) r = Flatten<axis=2>(c) y = BN(r) }""",
        "MatMul Add Flatten",
        "c < Flatten",
    ),
    Case(
        "Gemm, Reshape of features to (C, H, W), BN",
        """(T[N,3] x) => (T[N,4,2,3] y) <T[3,24] W, T[24] B, bn[4], int64[4] image = {-1, 4, 2, 3}>
        { c = Gemm(x, W, B) r = Reshape(c, image) y = BN(r) }""",
        "Gemm Reshape",
        "c < Reshape",
    ),
    Case(
        "MatMul and Add, Reshape of features to (C, H, W) with a 0 for the batch, BN",
        """(T[N,3] x) => (T[N,4,2,3] y) <T[3,24] W, T[24] B, bn[4], int64[4] image = {0, 4, 2, -1}>
        { c = MatMul(x, W) d = Add(c, B) r = Reshape(d, image) y = BN(r) }""",
        "MatMul Add Reshape",
        "d c < Reshape",
    ),
]

PASSING = [
    Case(
        f"Conv, {name}, BN",
        f"(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,4,3,3] W, bn[4]> {{ c = Conv(x, W) p = {call} y = BN(p) }}",
        f"Conv {call.partition('<')[0].partition('(')[0]}",
        f"c < {call.partition('<')[0].partition('(')[0]}",
        values=POSITIVE if "Max" in call else {},
    )
    for name, call in (
        ("Identity", "Identity(c)"),
        ("Dropout", "Dropout(c)"),
        ("AveragePool", "AveragePool<kernel_shape=[2,2]>(c)"),
        ("AveragePool, padding not counted", "AveragePool<kernel_shape=[2,2], pads=[1,1,0,1]>(c)"),
        ("AveragePool, nothing padded to be counted", "AveragePool<kernel_shape=[2,2], count_include_pad=1>(c)"),
        ("GlobalAveragePool", "GlobalAveragePool(c)"),
        ("ReduceMean over space", "ReduceMean<axes=[2,3]>(c)"),
        ("MaxPool with gamma >= 0", "MaxPool<kernel_shape=[2,2], pads=[1,0,0,1]>(c)"),
        ("GlobalMaxPool with gamma >= 0", "GlobalMaxPool(c)"),
        ("ReduceMax with gamma >= 0", "ReduceMax<axes=[3]>(c)"),
    )
]

MAPS = [
    Case(
        "Conv, Transpose to channels last and back, BN",
        """(T[N,3,H,W] x) => (T[N,4,w,h] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) t = Transpose<perm=[0,2,3,1]>(c) u = Transpose<perm=[0,3,2,1]>(t) y = BN(u) }""",
        "Conv Transpose Transpose",
        "c < Transpose Transpose",
    ),
    Case(
        "Conv 1-D, Unsqueeze, BN, Squeeze",
        """(T[N,3,H] x) => (T[N,4,h] y) <T[4,3,2] W, T[4] B, bn[4], int64[1] last = {-1}>
        { c = Conv(x, W, B) u = Unsqueeze(c, last) b = BN(u) y = Squeeze(b, last) }""",
        "Conv Unsqueeze Squeeze",
        "c < Unsqueeze",
    ),
    Case(
        "Conv to one pixel, Squeeze, BN",
        """(T[N,3,5,5] x) => (T[N,4] y) <T[4,3,5,5] W, bn[4], int64[2] space = {2, 3}>
        { c = Conv(x, W) s = Squeeze(c, space) y = BN(s) }""",
        "Conv Squeeze",
        "c < Squeeze",
    ),
    Case(
        "Conv to one pixel, Squeeze with axes as an attribute, BN",
        """(T[N,3,5,5] x) => (T[N,4] y) <T[4,3,5,5] W, bn[4]>
        { c = Conv(x, W) s = Squeeze<axes=[2,-1]>(c) y = BN(s) }""",
        "Conv Squeeze",
        "c < Squeeze",
        opset=12,
    ),
    Case(
        "Conv, Unsqueeze with axes as an attribute, BN",
        """(T[N,3,H,W] x) => (T[N,4,1,h,w] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) u = Unsqueeze<axes=[2]>(c) y = BN(u) }""",
        "Conv Unsqueeze",
        "c < Unsqueeze",
        opset=12,
    ),
    Case(
        "Conv, GlobalAveragePool, Flatten, BN",
        """(T[N,3,H,W] x) => (T[N,4] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) p = GlobalAveragePool(c) f = Flatten(p) y = BN(f) }""",
        "Conv GlobalAveragePool Flatten",
        "c < Flatten GlobalAveragePool",
    ),
    Case(
        "Conv, AveragePool, Flatten, BN over the features",
        """(T[N,3,6,6] x) => (T[N,16] y) <T[4,3,3,3] W, T[4] B, T[16] gamma, T[16] beta, T[16] mean, T[16] var>
        { c = Conv(x, W, B) p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) f = Flatten(p) y = BN(f) }""",
        "Conv AveragePool Flatten",
        "c < Flatten AveragePool",
        values={
            "gamma": np.repeat([0.5, -1, 2, 1.5], 4),
            "beta": np.repeat([1, 2, -3, 4], 4),
            "mean": np.repeat([3, 1, 0, -1], 4),
            "var": np.repeat([1, 2, 0.5, 0.1], 4),
        },
    ),
    Case(
        "Conv, ReduceMean that drops its axes, BN",
        """(T[N,3,H,W] x) => (T[N,4] y) <T[4,3,3,3] W, bn[4], int64[2] space = {-1, -2}>
        { c = Conv(x, W) r = ReduceMean<keepdims=0>(c, space) y = BN(r) }""",
        "Conv ReduceMean",
        "c < ReduceMean",
        opset=18,
    ),
    Case(
        "Conv, Resize to twice the size by nearest, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4], float[4] twice = {1, 1, 2, 2}>
        { c = Conv(x, W) r = Resize<mode="nearest", coordinate_transformation_mode="asymmetric">(c, "", twice) y = BN(r) }""",
        "Conv Resize",
        "c < Resize",
    ),
    Case(
        "Conv, Resize to a size by linear interpolation, BN",
        """(T[N,3,6,6] x) => (T[N,4,7,3] y) <T[4,3,3,3] W, bn[4], int64[2] sizes = {7, 3}>
        { c = Conv(x, W) r = Resize<mode="linear", axes=[2,3]>(c, "", "", sizes) y = BN(r) }""",
        "Conv Resize",
        "c < Resize",
        opset=18,
    ),
    *(
        Case(
            f"Conv, DepthToSpace {mode}, BN",
            f"""(T[N,3,H,W] x) => (T[N,2,h,w] y) <T[8,3,3,3] W, T[8] B, bn[2]>
            {{ c = Conv(x, W, B) d = DepthToSpace<blocksize=2, mode="{mode}">(c) y = BN(d) }}""",
            "Conv DepthToSpace",
            "c < DepthToSpace",
        )
        for mode in ("DCR", "CRD")
    ),
    Case(
        "Conv, SpaceToDepth, BN alike in each block",
        """(T[N,3,6,6] x) => (T[N,8,2,2] y) <T[2,3,3,3] W, bn[8]>
        { c = Conv(x, W) d = SpaceToDepth<blocksize=2>(c) y = BN(d) }""",
        "Conv SpaceToDepth",
        "c < SpaceToDepth",
        values={"gamma": [1, -2] * 4, "beta": [3, 4] * 4, "mean": [0.5, 1] * 4, "var": [1, 2] * 4},
    ),
    Case(
        "Conv, Slice of channels, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y)
        <T[8,3,3,3] W, bn[4], int64[1] start = {1}, int64[1] end = {8}, int64[1] axis = {1}, int64[1] step = {2}>
        { c = Conv(x, W) s = Slice(c, start, end, axis, step) y = BN(s) }""",
        "Conv Slice",
        "c < Slice",
    ),
    Case(
        "Conv, Slice of space, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y)
        <T[4,3,3,3] W, bn[4], int64[1] start = {-2}, int64[1] end = {9}, int64[1] axis = {-1}>
        { c = Conv(x, W) s = Slice(c, start, end, axis) y = BN(s) }""",
        "Conv Slice",
        "c < Slice",
    ),
    Case(
        "Conv, Pad by reflection, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4], int64[8] pads = {0, 0, 1, 2, 0, 0, 1, 0}>
        { c = Conv(x, W) p = Pad<mode="reflect">(c, pads) y = BN(p) }""",
        "Conv Pad",
        "c < Pad",
    ),
    Case(
        "Conv, Pad by the edge, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4], int64[8] pads = {0, 0, 1, 2, 0, 0, 1, 0}>
        { c = Conv(x, W) p = Pad<mode="edge">(c, pads) y = BN(p) }""",
        "Conv Pad",
        "c < Pad",
    ),
    Case(
        "Conv, Reshape with 0 and -1, BN, height and width symbolic",
        """(T[N,3,H,W] x) => (T[N,4,s] y) <T[4,3,3,3] W, bn[4], int64[3] rows = {0, 0, -1}>
        { c = Conv(x, W) r = Reshape(c, rows) y = BN(r) }""",
        "Conv Reshape",
        "c < Reshape",
    ),
    Case(
        "Conv, Reshape with channels given and -1, BN, batch symbolic",
        """(T[N,3,6,6] x) => (T[N,4,16] y) <T[4,3,3,3] W, bn[4], int64[3] rows = {-1, 4, 16}>
        { c = Conv(x, W) r = Reshape(c, rows) y = BN(r) }""",
        "Conv Reshape",
        "c < Reshape",
    ),
    Case(
        "Conv, channel shuffle, BN",
        """(T[N,3,H,W] x) => (T[N,6,h,w] y)
        <T[6,3,3,3] W, bn[6], int64[5] pairs = {0, 2, 3, 4, -1}, int64[4] image = {0, 6, 4, -1}>
        { c = Conv(x, W) r = Reshape(c, pairs) t = Transpose<perm=[0,2,1,3,4]>(r) s = Reshape(t, image) y = BN(s) }""".replace(
            "H,W] x", "6,6] x"
        ),
        "Conv Reshape Transpose Reshape",
        "c < Reshape Transpose Reshape",
    ),
]

JOINS = [
    Case(
        "Concat of two convs on the channel axis, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[1,3,3,3] V, T[3,3,3,3] W, T[3] B, bn[4]>
        { c = Conv(x, V) d = Conv(x, W, B) j = Concat<axis=1>(c, d) y = BN(j) }""",
        "Conv Conv Concat",
        "c d < Concat",
    ),
    Case(
        "Concat of two convs on a spatial axis, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] V, T[4,3,3,3] W, T[4] B, bn[4]>
        { c = Conv(x, V) d = Conv(x, W, B) j = Concat<axis=-1>(c, d) y = BN(j) }""",
        "Conv Conv Concat",
        "c d < Concat",
    ),
    Case(
        "Add of two convs, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] V, T[4,3,3,3] W, T[4] B, bn[4]>
        { c = Conv(x, V) d = Conv(x, W, B) j = Add(c, d) y = BN(j) }""",
        "Conv Conv Add",
        "c d < Add",
    ),
    Case(
        "Sub of two convs, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] V, T[4,3,3,3] W, T[4] B, bn[4]>
        { c = Conv(x, V) d = Conv(x, W, B) j = Sub(c, d) y = BN(j) }""",
        "Conv Conv Sub",
        "c d < Sub",
    ),
    Case(
        "Sum of three convs, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] U, T[4,3,3,3] V, T[4,3,3,3] W, bn[4]>
        { b = Conv(x, U) c = Conv(x, V) d = Conv(x, W) j = Sum(b, c, d) y = BN(j) }""",
        "Conv Conv Conv Sum",
        "b c d < Sum",
    ),
    Case(
        "Conv, Add of a channel constant, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, T[4,1,1] k, bn[4]>
        { c = Conv(x, W) d = Add(c, k) y = BN(d) }""",
        "Conv",
        "c < Add",
    ),
    Case(
        "Conv, Add of a full constant, BN",
        """(T[N,3,6,6] x) => (T[N,4,4,4] y) <T[4,3,3,3] W, T[4,4,4] k, bn[4]>
        { c = Conv(x, W) d = Add(k, c) y = BN(d) }""",
        "Conv Add",
        "d c",
    ),
]

CHAINS = [
    Case(
        "Conv, BN, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4], bn2[4]>
        { c = Conv(x, W) b = BN(c) y = BN2(b) }""",
        "Conv",
        "c ; c < BatchNormalization",
    ),
    Case(
        "Conv, BN, Mul, Add",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4], T[4,1,1] k, T[1,4,1,1] d>
        { c = Conv(x, W) b = BN(c) s = Mul(k, b) y = Add(s, d) }""",
        "Conv",
        "c ; c < BatchNormalization",
    ),
    *(
        Case(
            f"Conv, Sub, Div by {name}, Mul, Add",
            f"""(T[N,3,H,W] x) => (T[N,4,h,w] y)
            <T[4,3,3,3] W, T[1,4,1,1] m, T[1,4,1,1] var, T[1,4,1,1] g, T[1,4,1,1] b, T[1] e>
            {{ c = Conv(x, W) {nodes} y = {last} }}""",
            "Conv",
            "c",
            values={"e": 1e-5},
        )
        for name, nodes, last in (
            ("a constant", "u = Sub(c, m) v = Div(u, var) w = Mul(v, g)", "Add(w, b)"),
            ("a computed root", "ve = Add(var, e) r = Sqrt(ve) u = Sub(c, m) v = Div(u, r) w = Mul(v, g)", "Add(w, b)"),
            (
                "a computed root, operands reversed",
                "ve = Add(e, var) r = Sqrt(ve) u = Sub(c, m) v = Div(u, r) w = Mul(g, v)",
                "Add(b, w)",
            ),
            (
                "the root folded into one factor",
                "ve = Add(var, e) r = Sqrt(ve) q = Reciprocal(r) k = Mul(q, g) a = Mul(m, k) d = Sub(b, a) w = Mul(c, k)",
                "Add(w, d)",
            ),
            ("a root by Pow", "ve = Add(var, e) h = Constant<value_float=0.5>() hc = CastLike(h, e) r = Pow(ve, hc) u = Sub(c, m) v = Div(u, r) w = Mul(v, g)", "Add(w, b)"),
        )
    ),
    Case(
        "Conv, constant minus it, Neg, Mul",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, T[4,1,1] m, T[4,1,1] g>
        { c = Conv(x, W) s = Sub(m, c) n = Neg(s) y = Mul(n, g) }""",
        "Conv",
        "c",
    ),
    Case(
        "Conv, Mul by a channel constant that is spread over (1, C, H, W)",
        """(T[N,3,6,6] x) => (T[N,4,4,4] y) <T[4,3,3,3] W, T[4,1,1] g, T[4,1,1] b, int64[4] image = {1, 4, 4, 4}>
        { c = Conv(x, W) k = Expand(g, image) d = Expand(b, image) m = Mul(c, k) y = Add(m, d) }""",
        "Conv",
        "c",
    ),
    Case(
        "MatMul on (N, L, F), Mul and Add of vectors",
        """(T[N,L,3] x) => (T[N,L,4] y) <T[3,4] W, T[4] B, T[4] g, T[4] b>
        { c = MatMul(x, W) d = Add(c, B) m = Mul(d, g) y = Add(m, b) }""",
        "MatMul Add",
        "d c",
    ),
]

FORWARD = [
    *(
        Case(
            f"BN, Conv without padding, group {group}, {'bias' if bias else 'no bias'}",
            f"""(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,{4 // group},3,3] W, T[4] B, bn[4]>
            {{ b = BN(x) y = Conv<group={group}, strides=[2,1]>(b, W{bias}) }}""",
            "Conv",
            "y",
            "forward",
        )
        for group in (1, 2, 4)
        for bias in ("", ", B")
    ),
    *(
        Case(
            f"BN without shift, ConvTranspose, group {group}",
            f"""(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,{4 // group},3,3] W, bn[4]>
            {{ b = BN(x) y = ConvTranspose<group={group}, strides=[2,1]>(b, W) }}""",
            "ConvTranspose",
            "y",
            "forward",
            values=NO_SHIFT,
        )
        for group in (1, 2, 4)
    ),
    *(
        Case(
            f"BN, ConvTranspose whose outputs all see every tap: {name}, group {group}",
            f"""(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,{4 // group}{taps}] W, T[4] B, bn[4]>
            {{ b = BN(x) y = ConvTranspose<group={group}{attributes}>(b, W{bias}) }}""",
            "ConvTranspose",
            "y",
            "forward",
        )
        for name, taps, attributes, bias in (
            ("one tap", ",1,1", "", ""),
            ("pads crop the border", ",3,2", ", pads=[2,1,2,1]", ", B"),
            ("pads crop the dilated border", ",2,1", ", pads=[2,0,3,0], dilations=[2,1]", ""),
        )
        for group in (1, 2, 4)
    ),
    Case(
        "BN, Gemm",
        "(T[N,4] x) => (T[N,5] y) <T[4,5] W, T[5] B, bn[4]> { b = BN(x) y = Gemm(b, W, B) }",
        "Gemm",
        "y",
        "forward",
    ),
    Case(
        "BN, Gemm with every attribute",
        """(T[N,4] x) => (T[N,5] y) <T[5,4] W, T[1] C, bn[4]>
        { b = BN(x) y = Gemm<transB=1, alpha=0.5, beta=2.0>(b, W, C) }""",
        "Gemm",
        "y",
        "forward",
    ),
    Case(
        "BN, MatMul, Add",
        """(T[N,4] x) => (T[N,5] y) <T[4,5] W, T[5] B, bn[4]> { b = BN(x) c = MatMul(b, W) y = Add(B, c) }""",
        "MatMul Add",
        "c y",
        "forward",
    ),
    Case(
        "BN, MatMul",
        "(T[N,4] x) => (T[N,5] y) <T[4,5] W, bn[4]> { b = BN(x) y = MatMul(b, W) }",
        "MatMul Add",
        "y",
        "forward",
    ),
    Case(
        "BN, MatMul with the constant on the left",
        "(T[N,4,L] x) => (T[N,5,L] y) <T[5,4] W, bn[4]> { b = BN(x) y = MatMul(W, b) }",
        "MatMul Add",
        "y",
        "forward",
    ),
    Case(
        "BN, Flatten, Gemm",
        """(T[N,4,2,3] x) => (T[N,5] y) <T[24,5] W, T[5] B, bn[4]> { b = BN(x) f = Flatten(b) y = Gemm(f, W, B) }""",
        "Flatten Gemm",
        "y < Flatten",
        "forward",
    ),
    Case(
        "BN, GlobalAveragePool, Flatten, Gemm",
        """(T[N,4,H,W] x) => (T[N,5] y) <T[4,5] W, T[5] B, bn[4]>
        { b = BN(x) p = GlobalAveragePool(b) f = Flatten(p) y = Gemm(f, W, B) }""",
        "GlobalAveragePool Flatten Gemm",
        "y < GlobalAveragePool Flatten",
        "forward",
    ),
    Case(
        "BN read by two Gemms",
        """(T[N,4] x) => (T[N,5] y, T[N,2] z) <T[4,5] W, T[5] B, T[2,4] V, bn[4]>
        { b = BN(x) y = Gemm(b, W, B) z = Gemm<transB=1>(b, V) }""",
        "Gemm Gemm",
        "y z",
        "forward",
    ),
    Case(
        "BN without shift, Conv padded with zeros",
        """(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,2,3,3] W, bn[4]>
        { b = BN(x) y = Conv<group=2, pads=[1,1,1,1]>(b, W) }""",
        "Conv",
        "y",
        "forward",
        values=NO_SHIFT,
    ),
    Case(
        "BN, Conv with auto_pad that pads nothing",
        """(T[N,4,6,6] x) => (T[N,4,3,3] y) <T[4,4,2,2] W, bn[4]>
        { b = BN(x) y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(b, W) }""",
        "Conv",
        "y",
        "forward",
    ),
    Case(
        "shift before a padded Conv goes up as soon as the scale can go with it",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,1,1] V, bn[4], T[4,4,3,3] W>
        { c = Conv(x, V) b = BN(c) y = Conv<pads=[1,1,1,1]>(b, W) }""",
        "Conv Conv",
        "c",
    ),
]

HIDDEN = [
    Case(
        "weight from a Constant node",
        """(T[N,1,H,W] x) => (T[N,2,h,w] y) <bn[2]>
        { W = Constant<value = T[2,1,2,2] {1, 2, 3, 4, 5, 6, 7, 8}>() c = Conv(x, W) y = BN(c) }""",
        "Conv",
        "c",
    ),
    Case(
        "weight behind Identity, Transpose and Reshape",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[27,4] raw, bn[4], int64[4] shape = {4, 3, 3, -1}>
        { i = Identity(raw) t = Transpose(i) W = Reshape(t, shape) c = Conv(x, W) y = BN(c) }""",
        "Conv",
        "c",
    ),
    Case(
        "BN parameters behind Identity and Reshape",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y)
        <T[4,3,3,3] W, T[1,4,1,1] g, T[4] beta, T[2,2] m, T[4] var, int64[1] flat = {-1}>
        { gamma = Reshape(g, flat) mean = Reshape(m, flat) v = Identity(var) c = Conv(x, W)
          y = BatchNormalization(c, gamma, beta, mean, v) }""",
        "Conv",
        "c",
    ),
    Case(
        "BN parameters from Constant nodes",
        """(T[N,3,H,W] x) => (T[N,2,h,w] y) <T[2,3,3,3] W>
        { gamma = Constant<value = T[2] {2, -1}>() beta = Constant<value = T[2] {1, 2}>()
          mean32 = Constant<value_floats = [0.5, 3.0]>() mean = CastLike(mean32, W)
          var32 = Constant<value_float = 0.25>() two = Constant<value_ints = [2]>()
          var1 = CastLike(var32, gamma) var = Expand(var1, two) c = Conv(x, W) y = BN(c) }""",
        "Conv",
        "c",
    ),
    Case(
        "bias of zeros computed from the shape of the weight",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>
        { shape = Shape<start=0, end=1>(W) zero = Constant<value_float=0.0>() like = CastLike(zero, x)
          bias = Expand(like, shape) c = Conv(x, W, bias) y = BN(c) }""",
        "Conv",
        "c",
    ),
    Case(
        "initializers listed as inputs by an old IR version",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, T[4] B, bn[4]> { c = Conv(x, W, B) y = BN(c) }""",
        "Conv",
        "c",
        opset=8,
        ir=3,
    ),
    *(
        Case(
            f"opset {opset}",
            "(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]> { c = Conv(x, W) y = BN<epsilon=0.001>(c) }",
            "Conv",
            "c",
            opset=opset,
            ir=4 if opset < 10 else 10,
        )
        for opset in (7, 9, 14, 15, 17, 21, 22)
    ),
    Case(
        "BN of opset 9 with empty trailing outputs",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) y, "", "", "", "" = BN(c) }""",
        "Conv",
        "c",
        opset=9,
        ir=4,
    ),
    Case(
        "gamma of zero, negative gamma, tiny variance",
        "(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]> { c = Conv(x, W) y = BN(c) }",
        "Conv",
        "c",
        values={"gamma": [0.0, -1.5, 2.0, -0.0], "var": [1.0, 2.0, 1e-40, 0.0]},
    ),
]

CASES = [*CONVOLUTIONS, *GEMMS, *MATMULS, *PASSING, *MAPS, *JOINS, *CHAINS, *FORWARD, *HIDDEN]


@lru_cache(maxsize=None)
def folded(case: Case, dtype: str) -> tuple[onnx.ModelProto, bytes, bnfold.FoldResult]:
    """A case's model, its bytes before the fold, and the fold."""
    model = case.model(dtype)
    before = model.SerializeToString(deterministic=True)
    return model, before, bnfold.fold(model)


def account(sites: tuple[bnfold.Site, ...]) -> str:
    """The sites as the table spells them."""
    return " ; ".join(
        " ".join(site.into) + (" < " + " ".join(site.through) if site.through else "") for site in sites
    )


@pytest.fixture(params=CASES, ids=lambda case: case.id)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_what_is_left(case: Case) -> None:
    _, _, result = folded(case, "double")
    assert {site.reason for site in result.sites} == {None}
    assert op_types(result.model) == case.left.split()
    assert account(result.sites) == case.sites
    assert {site.direction for site in result.sites} == {case.direction}


def test_values_in_float64(case: Case) -> None:
    model, _, result = folded(case, "double")
    assert_equivalent(model, result.model, reference, rtol=1e-9)


def test_values_in_float32(case: Case) -> None:
    model, _, result = folded(case, "float")
    assert_equivalent(model, result.model, runtime, rtol=1e-4)


def test_what_a_fold_may_not_touch(case: Case) -> None:
    model, before, result = folded(case, "double")
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result.model, full_check=True)
    assert result.model.opset_import == model.opset_import
    assert result.model.ir_version == model.ir_version
    assert result.model.graph.output == model.graph.output
    weights = {tensor.name for graph in (model.graph, result.model.graph) for tensor in graph.initializer}
    inputs = [[info for info in graph.input if info.name not in weights] for graph in (model.graph, result.model.graph)]
    assert inputs[0] == inputs[1]
    assert bnfold.fold(result.model).model == result.model
