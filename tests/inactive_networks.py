"""Small networks in which a fault is hard to see from outside: parts are inactive on ordinary inputs, or look small.

Channels have biases so low that they are inactive on usual inputs, outputs have scores beside boxes in pixels and masks
of -1e9, tables have rows that no drawn index names, branches are never taken.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from graphs import parse

_MODELS = Path(__file__).parent.parent / "models"
_RNG = np.random.default_rng(7)
_INACTIVE = np.where(np.arange(8) < 3, -60.0, 0.1)  # three of eight channels

_TEXTS = {
    "detector": """(T[1,3,16,16] x) => (T[1,6,64] y)
        <T[8,3,3,3] u, bn[8], T[4,8,1,1] v, bn2[4], T[2,8,1,1] w, bn3[2], T[1,4,1,1] pixels, bool[1,2,8,8] absent,
         T masked, int64[3] flat>
        { a = Conv<strides=[2,2],pads=[1,1,1,1]>(x, u) b = BN(a) r = Relu(b)
          c = Conv(r, v) d = BN2(c) e = Sigmoid(d) boxes = Mul(e, pixels)
          f = Conv(r, w) g = BN3(f) scores = Where(absent, masked, g)
          z = Concat<axis=1>(boxes, scores) y = Reshape(z, flat) }""",
    "bag of words": """(T[N,60] x) => (T[N,5] y) <T[60,8] u, bn[8], T[8,5] v, T[5] b, bn2[5]>
        { a = MatMul(x, u) c = BN(a) r = Relu(c) d = Gemm(r, v, b) y = BN2(d) }""",
    "text": """(int64[N,12] ids) => (T[N,3] y) <T[50,8] table, T[8,8,3] u, bn[8], T[8,3] v, bn2[3]>
        { e = Gather(table, ids) t = Transpose<perm=[0,2,1]>(e) c = Conv<pads=[1,1]>(t, u) n = BN(c) r = Relu(n)
          m = ReduceMax<axes=[2],keepdims=0>(r) g = MatMul(m, v) y = BN2(g) }""",
    "raw pixels": """(T[1,3,12,12] x) => (T[1,4] y) <bn[3], T[8,3,3,3] u, bn2[8], T[8,4] v, bn3[4]>
        { n = BN(x) c = Conv(n, u) b = BN2(c) r = Relu(b) p = GlobalAveragePool(r) f = Flatten(p) g = MatMul(f, v)
          y = BN3(g) }""",
    "autoencoder": """(T[1,2,8,8] x) => (T[1,2,8,8] y) <T[8,2,2,2] u, bn[8], T[8,2,2,2] v, bn2[2]>
        { c = Conv<strides=[2,2]>(x, u) b = BN(c) r = LeakyRelu<alpha=0.1>(b)
          d = ConvTranspose<strides=[2,2]>(r, v) e = BN2(d) y = Sigmoid(e) }""",
    "branches": """(T[1,4,6,6] x, bool k) => (T[1,4,h,w] y) <T[4,4,1,1] W, bn[4], T[4,4,1,1] V, bn2[4]>
        { y = If(k) <then_branch = a () => (T[1,4,h,w] t) { c = Conv(x, W) t = BN(c) },
                     else_branch = b () => (T[1,4,h,w] e) { d = Conv(x, V) e = BN2(d) }> }""",
    "separable": """(T[1,8,8,8] x) => (T[1,8,8,8] y)
        <T[8,1,3,3] u, bn[8], T[8,8,1,1] v, bn2[8], T[8,8,1,1] w, bn3[8]>
        { a = Conv<group=8,pads=[1,1,1,1]>(x, u) b = BN(a) h = HardSwish(b) c = Conv(h, v) d = BN2(c) s = Add(d, x)
          r = Relu(s) e = Conv(r, w) y = BN3(e) }""",
    "before": """(T[1,4,8,8] x) => (T[1,8,4,4] y) <T[4,4,1,1] w, bn[8], T[8,8,1,1] u, T[1,8,1,1] k, T[1,8,1,1] l>
        { s = Sigmoid(x) c = Conv(x, w) z = Concat<axis=1>(s, c) n = BN(z)
          p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(n) o = Conv(p, u) m = Mul(o, k) y = Add(m, l) }""",
    "joined": """(T[1,4,8,8] x) => (T[1,4,8,8] y) <T[4,4,1,1] u, bn[4], T[4,4,3,3] w, bn2[4], T[4] b, bn3[4]>
        { a = Conv(x, u) c = BN(a) d = Conv<pads=[1,1,1,1]>(x, w, b) e = BN2(d) s = Add(c, e)
          r = Relu(s) y = BN3(r) }""",
}
_VALUES = {
    "detector": {
        "beta": _INACTIVE,
        "pixels": np.full((1, 4, 1, 1), 640.0),
        "absent": _RNG.random((1, 2, 8, 8)) < 0.3,
        "masked": -1e9,
        "flat": [1, 6, 64],
    },
    "bag of words": {"beta": _INACTIVE},
    "text": {"beta": _INACTIVE},
    "raw pixels": {"mean": 128.0, "var": 5000.0, "beta2": _INACTIVE},
    "separable": {"beta": _INACTIVE},
}
NAMES = ("digits", *_TEXTS)


def network(name: str) -> onnx.ModelProto:
    """One of the networks, in float32."""
    if name == "digits":
        return onnx.load(_MODELS / "bnlenet.onnx")
    return parse(_TEXTS[name], "float", values=_VALUES.get(name))
