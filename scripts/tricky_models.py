"""Write small models on which converters go wrong: one question each, weights from a fixed seed.

    python scripts/tricky_models.py FOLDER
    python scripts/benchmark.py FOLDER --name answers --no-latency --rounds 1

What the graphs ask: is the channel axis proven or guessed by its size, are constants found where exporters hide them,
can the number type hold the result, does anybody else read the value, and is every valid model read. In some the
BatchNorm has to stay.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from graphs import parse

RNG = np.random.default_rng(0)
SIGNS = RNG.choice([-1.0, 1.0], (8, 64, 1, 1))


@dataclass(frozen=True)
class Tricky:
    """A graph as `tests/graphs.py` spells it."""

    graph: str
    dtype: str = "float"
    opset: int = 17
    values: Mapping[str, ArrayLike] = field(default_factory=dict)


CONV = "(T[N,3,8,8] x) => (T[N,4,6,6] y) <T[4,3,3,3] W, bn[4]>"
POOLED = CONV.replace("6,6", "3,3")
WINDOW = "kernel_shape=[2,2], strides=[2,2]"
TOKENS = "(T[N,4,6] x) => (T[N,4,4] y) <T[6,4] W, bn[4]>"

MODELS = {
    # Constants where exporters hide them
    "computed-bias": Tricky(
        f"""{CONV[:-1]}, T zero = {{0.0}}>
        {{ s = Shape<start=0, end=1>(W) z = CastLike(zero, x) B = Expand(z, s) c = Conv(x, W, B) y = BN(c) }}"""
    ),
    "cast-weight": Tricky(
        """(float[N,3,8,8] x) => (float[N,4,6,6] y) <float16[4,3,3,3] half, bn[4]>
        { W = Cast<to=1>(half) c = Conv(x, W) y = BN(c) }"""
    ),
    "empty-bias": Tricky(f"{CONV} {{ c = Conv(x, W, ) y = BN(c) }}"),
    "empty-outputs-opset-9": Tricky(f"{CONV} {{ c = Conv(x, W) y = BN(c) }}", opset=9),
    # The channel axis
    "linear-flatten": Tricky(
        """(T[N,4,6] x) => (T[N,4,8] y) <T[6,8] W, bn[8], int64[2] flat = {-1, 8}, int64[3] back = {-1, 4, 8}>
        { m = MatMul(x, W) f = Reshape(m, flat) b = BN(f) y = Reshape(b, back) }"""
    ),
    "linear-transpose-square": Tricky(f"{TOKENS} {{ m = MatMul(x, W) t = Transpose<perm=[0,2,1]>(m) y = BN(t) }}"),
    "linear-over-tokens": Tricky(f"{TOKENS} {{ m = MatMul(x, W) y = BN(m) }}"),
    "linear-transpose-rows": Tricky(
        "(T[4,6] x) => (T[4,4] y) <T[6,4] W, bn[4]> { m = MatMul(x, W) t = Transpose(m) y = BN(t) }"
    ),
    "linear-reshape-rows": Tricky(
        """(T[4,6] x) => (T[2,4,2] y) <T[6,4] W, bn[4], int64[3] shape = {2, 4, 2}>
        { m = MatMul(x, W) r = Reshape(m, shape) y = BN(r) }"""
    ),
    "linear-image": Tricky(
        """(T[N,6] x) => (T[N,4,2,2] y) <T[6,16] W, T[16] B, bn[4], int64[4] shape = {0, 4, 2, 2}>
        { m = Gemm(x, W, B) r = Reshape(m, shape) y = BN(r) }"""
    ),
    "last-axis-constant": Tricky(
        "(T[N,3,6,6] x) => (T[N,4,4,4] y) <T[4,3,3,3] W, T[4] k> { c = Conv(x, W) y = Mul(c, k) }"
    ),
    "grouped-transposed": Tricky(
        "(T[N,4,5,5] x) => (T[N,4,7,7] y) <T[4,2,3,3] W, bn[4]> { c = ConvTranspose<group=2>(x, W) y = BN(c) }"
    ),
    # Below the BatchNorm
    "before-conv": Tricky("(T[N,3,8,8] x) => (T[N,4,6,6] y) <T[4,3,3,3] W, bn[3]> { b = BN(x) y = Conv(b, W) }"),
    "before-padded-conv": Tricky(
        "(T[N,3,8,8] x) => (T[N,4,8,8] y) <T[4,3,3,3] W, bn[3]> { b = BN(x) y = Conv<pads=[1,1,1,1]>(b, W) }"
    ),
    "before-linear": Tricky(
        "(T[N,3,2,2] x) => (T[N,5] y) <T[12,5] W, T[5] B, bn[3]> { b = BN(x) f = Flatten(b) y = Gemm(f, W, B) }"
    ),
    # In between
    "average-pool": Tricky(f"{POOLED} {{ c = Conv(x, W) p = AveragePool<{WINDOW}>(c) y = BN(p) }}"),
    "max-pool-negative": Tricky(
        f"{POOLED} {{ c = Conv(x, W) p = MaxPool<{WINDOW}>(c) y = BN(p) }}",
        values={"gamma": [-1.0, 0.5, -2.0, 1.0]},
    ),
    "zero-pad": Tricky(
        f"""{CONV.replace("6,6", "8,8")[:-1]}, int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}>
        {{ c = Conv(x, W) p = Pad(c, pads) y = BN(p) }}"""
    ),
    "sum-of-convs": Tricky(f"{CONV[:-1]}, T[4,3,3,3] V> {{ c = Conv(x, W) d = Conv(x, V) s = Add(c, d) y = BN(s) }}"),
    # Who else reads it
    "read-twice": Tricky(
        "(T[N,3,8,8] x) => (T[N,4,6,6] y, T[N,4,6,6] z) <T[4,3,3,3] W, bn[4]> { c = Conv(x, W) y = BN(c) z = Relu(c) }"
    ),
    "shared-weight": Tricky(
        """(T[N,3,8,8] x, T[N,3,8,8] u) => (T[N,4,6,6] y, T[N,4,6,6] z) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) y = BN(c) z = Conv(u, W) }"""
    ),
    "branch-of-if": Tricky(
        f"""{CONV.replace("x)", "x, bool k)")} {{ c = Conv(x, W)
          y = If(k) <then_branch = a () => (T[N,4,6,6] t) {{ d = Conv(x, W) t = BN(d) }},
                     else_branch = b () => (T[N,4,6,6] e) {{ e = Relu(c) }}> }}"""
    ),
    # What it is
    "training-mode": Tricky(f"{CONV} {{ c = Conv(x, W) y, new_mean, new_var = BN<training_mode=1>(c) }}"),
    "not-spatial-opset-7": Tricky(
        """(T[N,3,4,4] x) => (T[N,4,2,2] y) <T[4,3,3,3] W, T[4,2,2] gamma, T[4,2,2] beta, T[4,2,2] mean, T[4,2,2] var>
        { c = Conv(x, W) y = BN<spatial=0>(c) }""",
        opset=7,
    ),
    "handwritten": Tricky(
        """(T[N,3,8,8] x) => (T[N,4,6,6] y)
        <T[4,3,3,3] W, T[1,4,1,1] gamma, T[1,4,1,1] beta, T[1,4,1,1] mean, T[1,4,1,1] var, T eps = {0.00001}>
        { c = Conv(x, W) a = Sub(c, mean) v = Add(var, eps) r = Sqrt(v) d = Div(a, r)
          g = Mul(d, gamma) y = Add(g, beta) }"""
    ),
    # Number types
    "half": Tricky(f"{CONV} {{ c = Conv(x, W) y = BN(c) }}", "float16", values={"gamma": [0.5, 1.5, -1.0, 2.0]}),
    "half-and-float": Tricky(
        """(float16[N,3,8,8] x) => (float16[N,4,6,6] y)
        <float16[4,3,3,3] W, float[4] gamma, float[4] beta, float[4] mean, float[4] var> { c = Conv(x, W) y = BN(c) }"""
    ),
    "half-overflow": Tricky(
        """(float16[N,64,4,4] x) => (float16[N,8,4,4] y) <T[8,64,1,1] W, bn[8]>
        { s = Softmax<axis=1>(x) c = Conv(s, W) y = BN(c) }""",
        "float16",
        values={"W": 99.0 * SIGNS, "gamma": 700.0, "var": 1.0, "mean": 0.0},
    ),
}


def model(name: str) -> onnx.ModelProto:
    """One of `MODELS`, checked."""
    tricky = MODELS[name]
    made = parse(tricky.graph, tricky.dtype, opset=tricky.opset, values=tricky.values)
    if name == "empty-outputs-opset-9":
        made.graph.node[-1].output.extend([""] * 4)
    if name == "empty-bias" and len(made.graph.node[0].input) < 3:
        made.graph.node[0].input.append("")
    onnx.checker.check_model(made)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        onnx.save(model(name), folder / f"{name}.onnx")
    print(f"{len(MODELS)} models in {folder}")


if __name__ == "__main__":
    main()
