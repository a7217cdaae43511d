"""BatchNorms right behind a linear operator of every kind."""

from __future__ import annotations

from cases import Case

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
        f"{{ c = Gemm<{attributes}>(x, W{'' if shape == 'absent' else ', C'}) y = BN(c) }}".replace("K", "3").replace(
            "<>", ""
        ),
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
        "MatMul, constant on the left, Transpose, BN over its rows",
        "(T[4,L] x) => (T[L,4] y) <T[4,4] W, bn[4]> { c = MatMul(W, x) t = Transpose(c) y = BN(t) }",
        "MatMul Add Transpose",
        "c < Transpose",
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

CASES = [*CONVOLUTIONS, *GEMMS, *MATMULS]
