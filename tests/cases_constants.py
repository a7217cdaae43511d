"""BatchNorms on a constant: they are evaluated into it."""

from __future__ import annotations

from cases import Case

_Y = "(T[N,4,6,6] x) => (T[N,4,6,6] y)"
_SIZES = "int64[4] s = {1, 4, 6, 6}"

_ADDED = {
    "an initializer": ("T[1,4,6,6] i", ""),
    "behind Identity": ("T[1,4,6,6] p", "i = Identity(p)"),
    "behind Cast": ("double[1,1,1,1] p = {0.5}, int64[4] s = {1, 4, 1, 1}", "e = Expand(p, s) i = CastLike(e, x)"),
    "behind Expand": (f"T[4,1,1] p, {_SIZES}", "i = Expand(p, s)"),
    "behind a product": ("T[1,4,6,1] p, T[1,4,1,6] q", "i = Mul(p, q)"),
    "behind ConstantOfShape": (_SIZES, "k = ConstantOfShape(s) i = CastLike(k, x)"),
    "a coordinate grid": (
        f"int64 l = {{0}}, int64 h = {{144}}, int64 o = {{1}}, {_SIZES}",
        "r = Range(l, h, o) f = CastLike(r, x) i = Reshape(f, s)",
    ),
}

CASES = [
    *(
        Case(id_, f"{_Y} <{weights}, bn[4]> {{ {nodes} b = BN(i) y = Add(x, b) }}", "Add", "i")
        for id_, (weights, nodes) in _ADDED.items()
    ),
    Case(
        "a constant that others read",
        f"{_Y[:-1]}, T[N,4,6,6] z) <T[1,4,6,6] p, bn[4]> {{ b = BN(p) y = Add(x, b) z = Mul(x, p) }}",
        "Add Mul",
        "p",
    ),
    Case(
        "two, one behind the other",
        f"{_Y} <T[1,4,6,6] p, bn[4], bn2[4]> {{ a = BN(p) b = BN2(a) y = Add(x, b) }}",
        "Add",
        "p ; p < BatchNormalization",
    ),
    Case(
        "what makes a weight",
        "(T[N,1,H,W] x) => (T[N,4,h,w] y) <T[1,4,3,3] p, int64[4] s = {4, 1, 3, 3}, bn[4]>"
        "{ b = BN(p) w = Reshape(b, s) y = Conv(x, w) }",
        "Reshape Conv",
        "p",
    ),
    Case(
        "what makes a parameter of another one",
        "(T[N,4] x) => (T[N,3] y) <T[1,4] p, T[4,3] W, bn[4], int64[1] s = {4}>"
        "{ b = BN(p) g = Reshape(b, s) n = BatchNormalization(x, g, beta, mean, var) y = MatMul(n, W) }",
        "MatMul Add",
        "p ; y",
        direction="backward forward",
    ),
    Case(
        "inside a branch",
        """(T[N,4,6,6] x, bool k) => (T[N,4,6,6] y) <T[1,4,6,6] p, bn[4]>
        { y = If(k) <then_branch = a () => (T[N,4,6,6] t) { b = BN(p) t = Add(x, b) },
                     else_branch = c () => (T[N,4,6,6] e) { e = Relu(x) }> }""",
        "If Add Relu",
        "p",
    ),
]
