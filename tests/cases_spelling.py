"""BatchNorms that are spelled in other ways, and constants that hide."""

from __future__ import annotations

import numpy as np
from cases import Case

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
                """ve = Add(var, e) r = Sqrt(ve) q = Reciprocal(r) k = Mul(q, g)
                a = Mul(m, k) d = Sub(b, a) w = Mul(c, k)""",
                "Add(w, d)",
            ),
            (
                "a root by Pow",
                """ve = Add(var, e) h = Constant<value_float=0.5>() hc = CastLike(h, e) r = Pow(ve, hc)
                u = Sub(c, m) v = Div(u, r) w = Mul(v, g)""",
                "Add(w, b)",
            ),
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
        "Conv, Mul by a weight that is spread over (1, C, H, W), uniform over H and W",
        """(T[N,3,6,6] x) => (T[N,4,4,4] y) <T[4,3,3,3] W, T[1,4,4,4] g, T[1,4,4,4] b>
        { c = Conv(x, W) m = Mul(c, g) y = Add(m, b) }""",
        "Conv",
        "c",
        values={"g": np.reshape([1.0, -2.0, 0.5, 3.0], (4, 1, 1)), "b": np.reshape([1.0, 2.0, 3.0, 4.0], (4, 1, 1))},
    ),
    Case(
        "MatMul on (N, L, F), Mul and Add of vectors",
        """(T[N,L,3] x) => (T[N,L,4] y) <T[3,4] W, T[4] B, T[4] g, T[4] b>
        { c = MatMul(x, W) d = Add(c, B) m = Mul(d, g) y = Add(m, b) }""",
        "MatMul Add",
        "d c",
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
        "BN parameters behind Cast and Transpose",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y)
        <T[4,3,3,3] W, float16[4] g, T[4] beta, float[4] m, T[1,4] v, int64[1] flat = {-1}>
        { half = Cast<to=1>(g) gamma = CastLike(half, W) mean = CastLike(m, W) t = Transpose(v) var = Reshape(t, flat)
          c = Conv(x, W) y = BN(c) }""",
        "Conv",
        "c",
        values={"v": [[1.0, 2.0, 0.5, 3.0]]},
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

CASES = [*CHAINS, *HIDDEN]
