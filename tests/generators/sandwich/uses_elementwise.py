"""Uses of the operators that work element by element."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto

from generators.sandwich.use import BF16, Draft, Maker, Operand, given, index, words

SHAPES = ((2, 3, 4, 5), (3, 3, 3, 3), (4, 3), (), (5,), (2, 0, 3), (1, 2, 1, 3, 2))
FEW = ((2, 3, 4, 5), (3, 3), ())

ANYWHERE = tuple(
    sorted(
        words(
            "Abs Atan Asinh Ceil Cos Cosh Erf Exp Floor HardSwish Identity Mish Neg Relu Round Sigmoid Sign Sin Sinh "
            "Softplus Softsign Tan Tanh IsNaN Elu Celu Gelu HardSigmoid LeakyRelu Selu Shrink Swish IsInf "
            "ThresholdedRelu"
        )
    )
)
DOMAINS = {"Acos": (-1, 1), "Acosh": (1, 3), "Asin": (-1, 1), "Atanh": (-0.9, 0.9), "Log": (0.1, 3), "Sqrt": (0, 3)}

SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "Elu": ({"alpha": 2.0}, {"alpha": -0.5}),
    "Celu": ({"alpha": 2.0}, {"alpha": -1.5}),
    "Gelu": ({"approximate": "tanh"}, {"approximate": "none"}),
    "HardSigmoid": ({"alpha": 0.5, "beta": 0.6}, {"alpha": -0.5}, {"beta": -1.0}),
    "LeakyRelu": ({"alpha": 0.1}, {"alpha": 0.0}, {"alpha": 1.0}, {"alpha": -0.5}, {"alpha": 2.0}),
    "Selu": ({"alpha": 2.0, "gamma": 3.0}, {"gamma": -1.0}),
    "Shrink": ({"lambd": 1.5}, {"bias": 1.5, "lambd": 1.5}, {"lambd": -0.5, "bias": 0.2}),
    "Swish": ({"alpha": 2.0}, {"alpha": 0.0}, {"alpha": -1.0}),
    "ThresholdedRelu": ({"alpha": 2.0}, {"alpha": -0.5}, {"alpha": 0.0}),
    "IsInf": ({"detect_negative": 0}, {"detect_positive": 0}),
}

PAIRS = (
    ((2, 3, 4, 5), (2, 3, 4, 5)),
    ((2, 3, 4, 5), (3, 1, 1)),
    ((2, 3, 4, 5), (5,)),
    ((2, 3, 4, 5), (1, 3, 1, 1)),
    ((2, 3, 4, 5), (4, 1)),
    ((2, 3, 4, 5), ()),
    ((2, 3, 4, 5), (1,)),
    ((3, 3, 3), (3,)),
    ((3, 3, 3), (3, 1)),
    ((3, 1), (1, 4)),
    ((3,), (4, 3, 1)),
    ((), (2, 3)),
    ((2, 3), (1, 1, 1, 1, 1)),
    ((1, 3, 1, 4), (2, 1, 5, 1)),
    ((0, 3), (1, 3)),
    ((), ()),
    ((3, 1), (3, 0)),
)


def unary(m: Maker) -> Iterator[Draft]:
    """One input, one output, no parameters."""
    for op in (*ANYWHERE, *DOMAINS, "Reciprocal"):
        low, high = DOMAINS.get(op, (0.4, 2.0) if op == "Reciprocal" else (None, 1.0))
        for shape in SHAPES:
            yield Draft(op, (m.x(*shape, low=low, high=high),))
        for dtype in (np.float64, np.float16, BF16):
            yield Draft(op, (m.x(2, 3, 4, dtype=dtype, low=low, high=high),))
        for setting in SETTINGS.get(op, ()):
            for shape in FEW:
                yield Draft(op, (m.x(*shape),), setting)
    for op in ("Abs", "Neg", "Sign", "Relu", "Identity"):
        yield Draft(op, (m.ints(2, 3),))
        yield Draft(op, (m.ints(dtype=np.int32),))
    special = given([np.nan, np.inf, -np.inf, 0.0, -0.0, 2.5, -2.5, 0.5, -0.5, 1.5])
    for op in (
        "Abs",
        "Ceil",
        "Exp",
        "IsNaN",
        "IsInf",
        "Relu",
        "Round",
        "Sign",
        "Sigmoid",
        "Softplus",
        "Tanh",
        "LeakyRelu",
    ):
        yield Draft(op, (special,))
    for shape in FEW:
        yield Draft("Not", (m.bools(*shape),))


def binary(m: Maker) -> Iterator[Draft]:
    """Two inputs under multidirectional broadcasting, the parameter on either side."""
    for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Mean", "Sum", "Pow"):
        for first, second in PAIRS:
            # The variadic ones did not broadcast before opset 8.
            since = 8 if op in ("Min", "Max", "Mean", "Sum") and first != second else 7
            low = (0.4, 2.0) if op in ("Div", "Pow") else (None, 1.0)
            base = (0.3, 2.0) if op == "Pow" else (None, 1.0)
            x, w = m.x(*first, low=base[0], high=base[1]), m.w(*second, low=low[0], high=low[1])
            yield Draft(op, (x, w), since=since)
            if op in ("Sub", "Div", "Pow") or (first != second and len(first) < 4):
                w, x = m.w(*second, low=base[0], high=base[1]), m.x(*first, low=low[0], high=low[1])
                yield Draft(op, (w, x), since=since)
        yield Draft(op, (m.x(2, 3, 4, low=0.3, high=2), m.x(3, 1, low=0.3, high=2)), since=8)
    for op in ("Min", "Max", "Mean", "Sum"):
        yield Draft(op, (m.x(2, 3),))
        yield Draft(op, (m.x(2, 3), m.w(2, 3), m.w(2, 3)))
        yield Draft(op, (m.x(2, 3), m.w(3), m.w(2, 1)), since=8)
        yield Draft(op, (m.x(2, 3), m.x(2, 3), m.x(2, 3), m.w()), since=8)
        yield Draft(op, (m.x(3, 3), m.w(1, 2, 3, 3), m.w(1)), since=8)
    for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"):
        for first, second in PAIRS[::3]:
            yield Draft(op, (m.x(*first), m.w(*second)))
        yield Draft(op, (m.ints(2, 3), m.ints(3)))
    for op in ("And", "Or", "Xor"):
        yield Draft(op, (m.bools(2, 3), m.bools(3)))
        yield Draft(op, (m.bools(3, 1), m.bools(1, 2, 1, 3)))
    for shape in ((3, 1, 1), (1,), (), (5,), (2, 3, 4, 5), (1, 3, 1, 1), (4, 1)):
        yield Draft("PRelu", (m.x(2, 3, 4, 5), m.w(*shape)))
    yield Draft("PRelu", (m.x(3, 3, 3), m.w(3)))
    yield Draft("PRelu", (m.x(4, 3), m.w(3)))
    yield Draft("SwiGLU", (m.x(2, 3, 4), m.x(2, 3, 4)), {"alpha": 0.5})
    yield Draft("SwiGLU", (m.x(3, 3), m.w(3, 3)))


def integers(m: Maker) -> Iterator[Draft]:
    """Integer arithmetic, with negative operands: what division, remainder and powers round to."""
    seven = index([7, -7, 7, -7, 6, -6, 0])
    three = index([3, 3, -3, -3, 3, -3, 5])
    for dtype in (np.int64, np.int32):
        a, b = given(seven.array, dtype), given(three.array, dtype)
        for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Mod", "Equal", "Less"):
            yield Draft(op, (a, b))
            yield Draft(op, (a, given(2, dtype)))
            yield Draft(op, (given(12, dtype), given([5], dtype)))
        yield Draft("Mod", (a, b), {"fmod": 1})
        yield Draft("Pow", (given([2, -3, 0, 1], dtype), given([3, 2, 0, 5], dtype)))
        yield Draft("Pow", (given([2, 3, 4], dtype), given([0.5, 1.5, -1.0])))
    yield Draft("Pow", (given([2.0, -3.0, 1.5]), given([3, 2, -2], np.int64)))
    yield Draft("Pow", (given([-2.0, -8.0, 4.0]), given([2.0, 3.0, 0.5])))
    yield Draft("Pow", (m.x(2, 3, 4), given(2.0, role="weight")))
    yield Draft("Pow", (m.x(2, 3, 4), given([2, 3, 1, 0], np.int64, "weight")))
    yield Draft("Pow", (m.x(2, 3, low=0.5, high=2), given([[-1.0], [0.5]], role="weight")))
    for pair in (((5.3, -5.3, 5.3, -5.3), (2.0, 2.0, -2.0, -2.0)), ((1.0, -1.0, 7.5, 0.25), (0.3, 0.3, 2.5, 1.0))):
        yield Draft("Mod", (given(pair[0]), given(pair[1], role="weight")), {"fmod": 1})
        yield Draft("Mod", (given(pair[0]), given(pair[1], role="weight")), since=28)
    for direction in ("LEFT", "RIGHT"):
        shifted = (given([16, 4, 1], np.uint8), given([1, 2, 3], np.uint8))
        yield Draft("BitShift", shifted, {"direction": direction})
        yield Draft("BitShift", (given([-16, 4, 1], np.int64), given([1, 2, 3], np.int64)), {"direction": direction})
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield Draft(op, (m.ints(2, 3, dtype=np.int32), m.ints(3, dtype=np.int32)))
    yield Draft("BitwiseNot", (m.ints(2, 3),))


def chosen(m: Maker) -> Iterator[Draft]:
    """Where and Clip."""
    shapes = (
        ((2, 3, 4), (2, 3, 4), (2, 3, 4)),
        ((3, 1), (2, 3, 4), ()),
        ((2, 3, 4), (3, 1), (4,)),
        ((), (2, 3), (3,)),
        ((2, 1), (1, 3), (1, 1)),
        ((1, 2, 3), (3,), (2, 1)),
        ((4,), (2, 1, 1, 1), (3, 1)),
        ((0, 1), (1, 3), (3,)),
    )
    for condition, first, second in shapes:
        yield Draft("Where", (m.bools(*condition, role="weight"), m.x(*first), m.w(*second)))
        yield Draft("Where", (m.bools(*condition), m.w(*first), m.x(*second)))
    yield Draft("Where", (m.bools(3), m.ints(3), m.ints(3)))
    yield Draft("Where", (m.bools(3), m.x(2, 3), m.x(2, 3)))
    for setting in ({}, {"min": -0.5}, {"max": 0.5}, {"min": -0.5, "max": 0.5}, {"min": 0.0, "max": 6.0}):
        yield Draft("Clip", (m.x(2, 3, 4),), setting, until=10)
    low, high = given(-0.5, role="weight"), given(0.5, role="weight")
    for inputs in (
        (),
        (low,),
        (None, high),
        (low, high),
        (high, low),
        (low, None),
        (given(0.0, role="weight"), given(6.0)),
    ):
        yield Draft("Clip", (m.x(2, 3, 4), *inputs), since=11)
        yield Draft("Clip", (m.x(), *inputs), since=11)
    yield Draft("Clip", (m.ints(2, 3), index(-2), index(2)))
    yield Draft("Clip", (m.x(2, 3, dtype=np.float64), given(-0.5, np.float64), given(0.5, np.float64)))


def casts(m: Maker) -> Iterator[Draft]:
    """Cast, CastLike and BitCast between the types that a constant may pass."""
    values = given([-2.7, -1.0, -0.3, 0.0, 0.3, 0.5, 1.5, 2.7, 100.0])
    targets = (
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.INT64,
        TensorProto.INT32,
        TensorProto.BOOL,
        TensorProto.INT8,
    )
    for to in targets:
        since = 13 if to == TensorProto.BFLOAT16 else 7
        yield Draft("Cast", (values,), {"to": to}, since=since)
        yield Draft("Cast", (m.ints(2, 3, low=0, high=4),), {"to": to}, since=since)
        yield Draft("Cast", (m.x(),), {"to": to}, since=since)
    for to in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT16):
        yield Draft("Cast", (m.bools(2, 3),), {"to": to})
        yield Draft("Cast", (m.x(2, 3, 4, dtype=np.float64),), {"to": to})
        yield Draft("Cast", (m.x(2, 3, 4, dtype=np.float16),), {"to": to})
        yield Draft("Cast", (given([300, 200, 1], np.int32),), {"to": to})
    for to, since in (
        (TensorProto.FLOAT8E4M3FN, 19),
        (TensorProto.FLOAT8E5M2, 19),
        (TensorProto.INT4, 21),
        (TensorProto.UINT4, 21),
        (TensorProto.FLOAT4E2M1, 23),
    ):
        small = given([-2.7, -1.0, 0.3, 1.5, 2.5, 6.7] if to != TensorProto.UINT4 else [0.3, 1.5, 2.5, 6.7])
        yield Draft("Cast", (small,), {"to": to}, since=since)
    yield Draft("Cast", (given([1000.0, -1000.0, 3.0]),), {"to": TensorProto.FLOAT8E4M3FN, "saturate": 0})
    yield Draft("Cast", (given([70000.0, 1e-8, 3.0]),), {"to": TensorProto.FLOAT16})
    likes: tuple[Operand, ...] = (
        m.w(1),
        m.w(2, dtype=np.float64),
        m.w(1, dtype=np.float16),
        index([1, 2]),
        m.bools(2, role="weight"),
    )
    for like in likes:
        yield Draft("CastLike", (values, like))
        yield Draft("CastLike", (m.ints(2, 3), like))
    yield Draft("BitCast", (m.x(2, 3),), {"to": TensorProto.INT32})
    yield Draft("BitCast", (m.ints(2, 3, dtype=np.int32),), {"to": TensorProto.FLOAT})
