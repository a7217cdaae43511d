"""BatchNorms that fold into the linear operators below them."""

from __future__ import annotations

from cases import NO_SHIFT, Case

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

BESIDE = [
    Case(
        "BN over the rows of a MatMul, Transpose, MatMul over the channels",
        """(T[N,4,3] x) => (T[N,2,5] y) <T[3,2] W, T[4,5] V, T[5] B, bn[4]>
        { b = BN(x) c = MatMul(b, W) t = Transpose<perm=[0,2,1]>(c) m = MatMul(t, V) y = Add(m, B) }""",
        "MatMul Transpose MatMul Add",
        "m y < MatMul Transpose",
        "forward",
    ),
    Case(
        "BN over the axis of tokens, two layers on, MatMul over the tokens on the left",
        """(T[N,4,4] x) => (T[N,5,4] y) <T[4,4] W, T[4] B, T[5,4] V, bn[4]>
        { b = BN(x) c = MatMul(b, W) d = Add(c, B) y = MatMul(V, d) }""",
        "MatMul MatMul Add",
        "y < MatMul Add",
        "forward",
    ),
    Case(
        "BN over the rows of a Gemm with a bias, Transpose, Gemm",
        """(T[4,4] x) => (T[4,5] y) <T[4,4] W, T[4] B, T[4,5] V, bn[4]>
        { t = Transpose(x) b = BN(t) u = Transpose(b) c = Gemm<alpha=0.5, beta=2.0>(u, W, B) v = Transpose(c)
          y = Gemm(v, V) }""",
        "Transpose Transpose Gemm Transpose Gemm",
        "y < Transpose Gemm Transpose",
        "forward",
    ),
    Case(
        "a factor along an axis on which a convolution has one tap, MatMul over that axis",
        """(T[N,3,6,4] x) => (T[N,4,4,5] y) <T[4] g, T[4] b, T[4,3,3,1] W, T[4] B, T[4,5] V>
        { m = Mul(x, g) a = Add(m, b) c = Conv(a, W, B) y = MatMul(c, V) }""",
        "Conv MatMul Add",
        "y < Conv",
        "forward",
    ),
    Case(
        "a factor along an axis on which a padded convolution has one tap, MatMul over that axis",
        """(T[N,3,6,4] x) => (T[N,4,6,5] y) <T[4] g, T[4,3,3,1] W, T[4] B, T[4,5] V>
        { m = Mul(x, g) c = Conv<pads=[1,0,1,0]>(m, W, B) y = MatMul(c, V) }""",
        "Conv MatMul Add",
        "y < Conv",
        "forward",
    ),
]

UPWARD = [
    Case(
        "MatMul over the channels, MatMul over the rows, BN over the channels",
        """(T[N,4,3] x) => (T[N,5,2] y) <T[5,4] V, T[3,2] W, T[2] B, bn[5]>
        { c = MatMul(V, x) d = MatMul(c, W) e = Add(d, B) y = BN(e) }""",
        "MatMul MatMul Add",
        "e c < MatMul",
    ),
    Case(
        "MatMul over an axis, Conv with one tap along it, a factor along it",
        """(T[N,3,6,4] x) => (T[N,4,4,5] y) <T[4,5] V, T[4,3,3,1] W, T[5] g>
        { m = MatMul(x, V) c = Conv(m, W) y = Mul(c, g) }""",
        "MatMul Conv",
        "m < Conv",
    ),
]

CASES = [*FORWARD, *BESIDE, *UPWARD]
