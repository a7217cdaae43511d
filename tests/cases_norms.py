"""BatchNorms and chains behind normalisations, which have a scale and a bias of their own."""

from __future__ import annotations

import numpy as np
from cases import Case

CASES = [
    Case(
        "InstanceNormalization, BN",
        """(T[N,4,H,W] x) => (T[N,4,H,W] y) <T[4] g, T[4] b, bn[4]>
        { i = InstanceNormalization(x, g, b) y = BN(i) }""",
        "InstanceNormalization",
        "i",
    ),
    Case(
        "InstanceNormalization, Mul and Add along the channels, behind a Transpose",
        """(T[N,4,H] x) => (T[N,H,4] y) <T[4] g, T[4] b, T[4] k, T[4] d>
        { i = InstanceNormalization<epsilon=0.001>(x, g, b) t = Transpose<perm=[0,2,1]>(i) m = Mul(t, k)
          y = Add(m, d) }""",
        "InstanceNormalization Transpose",
        "i < Transpose",
    ),
    Case(
        "GroupNormalization, BN",
        """(T[N,6,4,4] x) => (T[N,6,4,4] y) <T[6] g, T[6] b, bn[6]>
        { i = GroupNormalization<num_groups=3>(x, g, b) y = BN(i) }""",
        "GroupNormalization",
        "i",
        opset=21,
        ir=10,
    ),
    Case(
        "LayerNormalization, Transpose, BN over the features",
        """(T[N,L,4] x) => (T[N,4,L] y) <T[4] g, T[4] b, bn[4]>
        { n = LayerNormalization(x, g, b) t = Transpose<perm=[0,2,1]>(n) y = BN(t) }""",
        "LayerNormalization Transpose",
        "n < Transpose",
    ),
    Case(
        "LayerNormalization without a bias, BN over the features",
        """(T[N,4] x) => (T[N,4] y) <T[4] g, bn[4]> { n = LayerNormalization<axis=1>(x, g) y = BN(n) }""",
        "LayerNormalization",
        "n",
    ),
    Case(
        "LayerNormalization over channels and space, BN",
        """(T[N,4,3,2] x) => (T[N,4,3,2] y) <T[4,3,2] g, T[4,3,2] b, bn[4]>
        { n = LayerNormalization<axis=-3>(x, g, b) y = BN(n) }""",
        "LayerNormalization",
        "n",
    ),
    Case(
        "LayerNormalization, a scale per feature",
        """(T[N,L,4] x) => (T[N,L,4] y) <T[4] g, T[4] b, T[4] k>
        { n = LayerNormalization(x, g, b) y = Mul(k, n) }""",
        "LayerNormalization",
        "n",
    ),
    Case(
        "RMSNormalization, a scale per feature",
        """(T[N,L,4] x) => (T[N,L,4] y) <T[4] g, T[4] k> { n = RMSNormalization(x, g) y = Div(n, k) }""",
        "RMSNormalization",
        "n",
        opset=23,
        ir=10,
        values={"k": np.array([1.0, 2.0, -3.0, 0.5])},
    ),
]

# onnx calls the operator of opsets 18 to 20 deprecated, and its checker refuses a model that has it; runtimes do not.
DEPRECATED = Case(
    "GroupNormalization with one scale per group, BN alike in every group",
    """(T[N,4,4,4] x) => (T[N,4,4,4] y) <T[2] g, T[2] b, bn[4]>
    { i = GroupNormalization<num_groups=2>(x, g, b) y = BN(i) }""",
    "GroupNormalization",
    "i",
    opset=18,
    values={"gamma": [2, 2, -1, -1], "beta": [1, 1, 0, 0], "mean": [0.5, 0.5, 3, 3], "var": [1, 1, 2, 2]},
)
