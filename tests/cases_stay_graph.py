"""BatchNorms that stay because of the graph around them."""

from __future__ import annotations

from cases import CONV, FIXED_CONV, INTO_CONV, Kept

SEEN = [
    Kept(
        "conv output read by another operator",
        "(T[N,3,H,W] x) => (T[N,4,h,w] y, T[N,4,h,w] z) <T[4,3,3,3] W, bn[4]> { c = Conv(x, W) y = BN(c) z = Relu(c) }",
        "shared-value",
        "c",
    ),
    Kept(
        "conv output read by another operator that is a BN, too",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y, T[N,4,h,w] z) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) y = BN(c) t = Tanh(y) z = Mul(t, c) }""",
        "shared-value",
        "c",
    ),
    Kept(
        "conv output captured by a branch of an If",
        """(T[N,3,H,W] x, bool k) => (T[N,4,h,w] y, T[N,4,h,w] z) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) y = BN(c)
          z = If(k) <then_branch = a () => (T[N,4,h,w] t) { t = Relu(c) },
                     else_branch = b () => (T[N,4,h,w] e) { e = Relu(y) }> }""",
        "shared-value",
        "c",
    ),
    Kept(
        "conv output is a graph output",
        "(T[N,3,H,W] x) => (T[N,4,h,w] c, T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]> { c = Conv(x, W) y = BN(c) }",
        "graph-output",
        "c",
    ),
    Kept(
        "conv output handed out and seen through a Transpose",
        """(T[N,3,H,W] x) => (T[N,h,w,4] t, T[N,4,w,h] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) t = Transpose<perm=[0,2,3,1]>(c) u = Transpose<perm=[0,3,2,1]>(t) y = BN(u) }""",
        "graph-output",
        "t",
    ),
    Kept(
        "a constant that an operator makes, handed out",
        "(T[N,4] x) => (T[1,4] y, T[N,4] z) <double[1,4] c, bn[4]> { v = CastLike(c, x) y = BN(v) z = Relu(x) }",
        "graph-output",
        "y",
    ),
    Kept("BN between input and output", "(T[N,4] x) => (T[N,4] y) <bn[4]> { y = BN(x) }", "graph-input", "x"),
    Kept(
        "an input between BN and input is read by another operator",
        """(T[N,4] x) => (T[N,4] y, T[N,4] z) <bn[4]> { y = BN(x) z = Relu(x) }""",
        "shared-value",
        "x",
    ),
    *(
        Kept(
            f"Concat of a conv and an input, {order}",
            f"""(T[N,3,H,W] x, T[N,2,h,w] z) => (T[N,6,h,w] y) <T[4,3,3,3] W, bn[6]>
            {{ c = Conv(x, W) j = Concat<axis=1>({order}) y = BN(j) }}""",
            "graph-input",
            "z",
        )
        for order in ("c, z", "z, c")
    ),
    Kept(
        "Add of a conv and an input",
        """(T[N,3,H,W] x, T[N,4,h,w] z) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) j = Add(c, z) y = BN(j) }""",
        "graph-input",
        "z",
    ),
]

NOT_EQUIVARIANT = [
    Kept(
        "Conv, Relu, BN, Relu",
        f"{CONV} {{ c = Conv(x, W) r = Relu(c) b = BN(r) y = Relu(b) }}",
        "not-equivariant",
        "r",
    ),
    Kept("Conv, Sigmoid, BN", f"{CONV} {{ c = Conv(x, W) s = Sigmoid(c) y = BN(s) }}", "not-equivariant", "s"),
    Kept(
        "Conv, Pad with zeros, BN with a shift",
        f"{CONV[:-1]}, int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}> {{ c = Conv(x, W) p = Pad(c, pads) y = BN(p) }}",
        "not-equivariant",
        "p",
    ),
    Kept(
        "Conv, Pad with ones, BN without a shift",
        f"""{CONV[:-1]}, int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, T one>
        {{ c = Conv(x, W) p = Pad(c, pads, one) y = BN(p) }}""",
        "not-equivariant",
        "p",
        values={"one": 1, "beta": 0, "mean": 0},
    ),
    Kept(
        "Conv, AveragePool that counts its padding, BN with a shift",
        f"""{CONV} {{ c = Conv(x, W) p = AveragePool<kernel_shape=[2,2], pads=[1,1,0,0], count_include_pad=1>(c)
        y = BN(p) }}""",
        "not-equivariant",
        "p",
    ),
    Kept(
        "Conv, MaxPool, BN with a negative gamma",
        f"{CONV} {{ c = Conv(x, W) p = MaxPool<kernel_shape=[2,2]>(c) y = BN(p) }}",
        "not-equivariant",
        "p",
        values={"gamma": [1, 2, -0.5, 1]},
    ),
    Kept(
        "Conv, a constant divided by it, Mul by a channel constant",
        f"{CONV[:-1]}, T[1] k, T[4,1,1] g> {{ c = Conv(x, W) d = Div(k, c) y = Mul(d, g) }}",
        "not-equivariant",
        "d",
    ),
]

PADDED = [
    Kept(
        "BN, Conv with pads",
        f"{INTO_CONV} {{ b = BN(x) y = Conv<pads=[0,0,1,0]>(b, W) }}",
        "padded-shift",
        "y",
    ),
    *(
        Kept(
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
        Kept(
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
    Kept(
        "BN read by a Gemm and by a padded Conv",
        """(T[N,4,1,1] x) => (T[N,5] y, T[N,2,h,w] z) <T[4,5] V, T[2,4,3,3] W, bn[4]>
        { b = BN(x) f = Flatten(b) y = Gemm(f, V) z = Conv<pads=[1,1,1,1]>(b, W) }""",
        "padded-shift",
        "z",
    ),
]

OFF_CHANNEL = [
    *(
        Kept(
            f"Conv with C = H = W, {op} by a constant of shape {shape}",
            f"{FIXED_CONV} <T[4,3,3,3] W, T{shape} k> {{ c = Conv(x, W) y = {op}({operands}) }}",
            "off-channel",
            "c",
        )
        for op, operands, shape in (
            ("Mul", "c, k", "[4]"),
            ("Mul", "k, c", "[4]"),
            ("Mul", "c, k", "[1,1,4,1]"),
            ("Div", "c, k", "[4]"),
        )
    ),
    *(
        Kept(
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

ROWS = [
    *(
        Kept(
            f"MatMul, Transpose, BN over the rows, {name}",
            f"(T[4,3] x) => (T[{n},4] y) <T[3,{n}] W, bn[4]> {{ c = MatMul(x, W) t = Transpose(c) y = BN(t) }}",
            "off-channel",
            "c",
        )
        for name, n in (("five columns", 5), ("square", 4))
    ),
    Kept(
        "MatMul on (N, F, F), BN over the rows",
        "(T[N,4,3] x) => (T[N,4,4] y) <T[3,4] W, bn[4]> { c = MatMul(x, W) y = BN(c) }",
        "off-channel",
        "c",
    ),
]

NORMS = [
    Kept(
        "LayerNormalization over the last axis, BN over the rows",
        """(T[N,4,3] x) => (T[N,4,3] y) <T[3] g, T[3] b, bn[4]> { n = LayerNormalization(x, g, b) y = BN(n) }""",
        "off-channel",
        "n",
    ),
    Kept(
        "InstanceNormalization, a Mul along the last axis",
        """(T[N,4,3] x) => (T[N,4,3] y) <T[4] g, T[4] b, T[3] k>
        { i = InstanceNormalization(x, g, b) y = Mul(i, k) }""",
        "off-channel",
        "i",
    ),
    Kept(
        "GroupNormalization with one scale per group, BN that differs within them",
        """(T[N,4,4,4] x) => (T[N,4,4,4] y) <T[2] g, T[2] b, bn[4]>
        { i = GroupNormalization<num_groups=2>(x, g, b) y = BN(i) }""",
        "conflict",
        "i",
        opset=18,
    ),
    Kept(
        "RMSNormalization, BN with a shift",
        """(T[N,4] x) => (T[N,4] y) <T[4] g, bn[4]> { n = RMSNormalization(x, g) y = BN(n) }""",
        "not-equivariant",
        "n",
        opset=23,
        ir=10,
    ),
    Kept(
        "LayerNormalization with a scale that is broadcast, BN",
        """(T[N,4] x) => (T[N,4] y) <T[1] g, T[4] b, bn[4]> { n = LayerNormalization(x, g, b) y = BN(n) }""",
        "unsupported",
        "n",
    ),
    Kept(
        "InstanceNormalization with a computed scale, BN",
        """(T[N,4,H] x, T[4] k) => (T[N,4,H] y) <T[4] b, bn[4]>
        { g = Abs(k) i = InstanceNormalization(x, g, b) y = BN(i) }""",
        "computed-weight",
        "i",
    ),
    Kept(
        "BN, LayerNormalization",
        """(T[N,4] x) => (T[N,4] y) <T[4] g, T[4] b, bn[4]> { n = BN(x) y = LayerNormalization(n, g, b) }""",
        "not-equivariant",
        "y",
    ),
]

CASES = [*NORMS, *SEEN, *NOT_EQUIVARIANT, *PADDED, *OFF_CHANNEL, *ROWS]
