"""Uses of the linear operators: convolutions, products, Einsum, and products of quantised numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from generators.sandwich.use import Draft, Maker, given

Setting = dict[str, Any]


def convolutions(m: Maker) -> Iterator[Draft]:
    """Conv."""
    table: tuple[tuple[tuple[int, ...], tuple[int, ...], Setting], ...] = (
        ((2, 3, 4, 5), (4, 3, 2, 2), {}),
        ((2, 3, 4, 5), (4, 3, 2, 2), {"kernel_shape": [2, 2]}),
        ((2, 3, 4, 5), (3, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 3, 3, 3), (3, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 3, 3, 3), (3, 3, 1, 1), {}),
        ((2, 3, 5, 5), (4, 3, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        ((2, 3, 5, 5), (2, 3, 2, 2), {"dilations": [2, 3]}),
        ((2, 4, 4, 4), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
        ((2, 4, 4, 4), (8, 1, 2, 2), {"group": 4}),
        ((2, 4, 4, 4), (6, 2, 2, 2), {"group": 2}),
        ((2, 3, 6), (4, 3, 3), {"strides": [2]}),
        ((2, 3, 6), (4, 3, 1), {"strides": [4]}),
        ((1, 2, 3, 4, 3), (3, 2, 2, 2, 2), {}),
        ((2, 3, 4, 5), (1, 3, 4, 5), {}),
        ((0, 3, 4, 5), (4, 3, 2, 2), {}),
    )
    for shape, weight, setting in table:
        yield Draft("Conv", (m.x(*shape), m.w(*weight)), setting)
        yield Draft("Conv", (m.x(*shape), m.w(*weight), m.w(weight[0])), setting)
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"):
        for strides in ([1, 1], [2, 2], [3, 1]):
            yield Draft("Conv", (m.x(2, 3, 5, 4), m.w(4, 3, 2, 3)), {"auto_pad": auto, "strides": strides})
        dilated = {"auto_pad": auto, "dilations": [2, 1]}
        yield Draft("Conv", (m.x(2, 3, 5, 4), m.w(4, 3, 2, 3), m.w(4)), dilated)
    yield Draft("Conv", (m.w(1, 3, 4, 5), m.x(4, 3, 2, 2)))


def transposed(m: Maker) -> Iterator[Draft]:
    """ConvTranspose."""
    table: tuple[tuple[tuple[int, ...], tuple[int, ...], Setting], ...] = (
        ((2, 3, 3, 4), (3, 4, 2, 2), {}),
        ((2, 3, 3, 4), (3, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((2, 3, 3, 4), (3, 4, 3, 3), {"pads": [1, 0, 0, 2], "strides": [2, 3]}),
        ((2, 3, 3, 4), (3, 4, 3, 3), {"strides": [2, 2], "output_padding": [1, 1]}),
        ((2, 3, 3, 4), (3, 4, 3, 3), {"strides": [2, 3], "output_padding": [1, 2], "pads": [1, 1, 1, 1]}),
        ((2, 3, 3, 3), (3, 3, 3, 3), {"strides": [3, 2], "output_shape": [10, 8]}),
        ((2, 3, 3, 3), (3, 2, 3, 3), {"strides": [3, 2], "output_shape": [10, 8], "output_padding": [1, 1]}),
        ((2, 3, 3, 3), (3, 2, 3, 3), {"strides": [2, 2], "output_shape": [6, 6]}),
        ((2, 3, 3, 3), (3, 3, 1, 1), {}),
        ((3, 3, 3, 3), (3, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((2, 3, 4, 4), (3, 2, 2, 2), {"dilations": [2, 2]}),
        ((2, 4, 3, 3), (4, 1, 2, 2), {"group": 4}),
        ((2, 4, 3, 3), (4, 2, 2, 2), {"group": 2, "strides": [2, 2]}),
        ((2, 4, 3, 3), (4, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
        ((2, 3, 5), (3, 4, 3), {"strides": [2]}),
        ((1, 2, 2, 3, 2), (2, 3, 2, 2, 2), {}),
    )
    for shape, weight, setting in table:
        features = weight[1] * setting.get("group", 1)
        yield Draft("ConvTranspose", (m.x(*shape), m.w(*weight)), setting)
        yield Draft("ConvTranspose", (m.x(*shape), m.w(*weight), m.w(features)), setting)
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"):
        for strides in ([1, 1], [2, 2], [3, 2]):
            setting = {"auto_pad": auto, "strides": strides}
            yield Draft("ConvTranspose", (m.x(2, 3, 3, 4), m.w(3, 2, 3, 2)), setting)
        for shape in ([7, 9], [6, 8]):
            setting = {"auto_pad": auto, "strides": [2, 2], "output_shape": shape}
            yield Draft("ConvTranspose", (m.x(2, 3, 3, 4), m.w(3, 2, 3, 2)), setting)


def products(m: Maker) -> Iterator[Draft]:
    """Gemm and MatMul."""
    biases: tuple[tuple[int, ...] | None, ...] = (None, (5,), (1, 5), (2, 5), (2, 1), (1,), (), (1, 1))
    for bias in biases:
        for trans_a, trans_b in ((0, 0), (0, 1), (1, 0), (1, 1)):
            left, right = (3, 2) if trans_a else (2, 3), (5, 3) if trans_b else (3, 5)
            tail = () if bias is None else (m.w(*bias),)
            setting: Setting = {"transA": trans_a, "transB": trans_b}
            yield Draft("Gemm", (m.x(*left), m.w(*right), *tail), setting)
            if trans_a != trans_b:
                yield Draft("Gemm", (m.x(*left), m.w(*right), *tail), {**setting, "alpha": 0.5, "beta": -0.25})
    for setting in ({}, {"alpha": 0.0}, {"beta": 0.0}, {"alpha": -2.0}):
        yield Draft("Gemm", (m.x(3, 3), m.w(3, 3), m.w(3)), setting)
        yield Draft("Gemm", (m.w(3, 3), m.x(3, 3), m.w(3, 1)), setting)
        yield Draft("Gemm", (m.w(3, 3), m.w(3, 3), m.x(3, 3)), setting)
    for left, right in (
        ((2, 3), (3, 4)),
        ((3, 3), (3, 3)),
        ((2, 4, 3), (3, 5)),
        ((2, 3, 4, 5), (5, 6)),
        ((2, 3, 4, 5), (3, 5, 2)),
        ((2, 3, 4, 5), (1, 3, 5, 4)),
        ((2, 3, 4, 5), (2, 1, 5, 1)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((2, 4, 3), (3,)),
        ((3,), (2, 3, 4)),
        ((4, 5), (2, 3, 5, 2)),
        ((0, 3), (3, 4)),
        ((2, 0), (0, 4)),
    ):
        yield Draft("MatMul", (m.x(*left), m.w(*right)))
        yield Draft("MatMul", (m.w(*left), m.x(*right)))
    yield Draft("MatMul", (m.x(2, 3, 4), m.x(2, 4, 3)))
    for dtype in (np.float64, np.float16):
        yield Draft("MatMul", (m.x(2, 3, dtype=dtype), m.w(3, 4, dtype=dtype)))
        yield Draft("Gemm", (m.x(2, 3, dtype=dtype), m.w(3, 4, dtype=dtype), m.w(4, dtype=dtype)))


def sums(m: Maker) -> Iterator[Draft]:
    """Einsum."""
    for equation, shapes in (
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("ij,kj->ik", ((2, 3), (4, 3))),
        ("ij,jk->ki", ((2, 3), (3, 4))),
        ("ij,jk", ((2, 3), (3, 4))),
        ("kj,ji", ((2, 3), (3, 4))),
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
        ("bchw,cd->bdhw", ((2, 3, 4, 5), (3, 4))),
        ("bchw,c->bchw", ((2, 3, 4, 5), (3,))),
        ("bchw,c->bhw", ((2, 3, 4, 5), (3,))),
        ("b c h w , c d -> b d h w", ((2, 3, 4, 5), (3, 4))),
        ("...ij,jk->...ik", ((2, 3, 4, 5), (5, 2))),
        ("...i,ij->...j", ((2, 3), (3, 4))),
        ("i...,i...->...", ((3, 2), (3, 2))),
        ("...,...", ((2, 3), (1, 3))),
        ("...c,c->...c", ((3, 3, 3), (3,))),
        ("ii->i", ((3, 3),)),
        ("ii", ((3, 3),)),
        ("...ii->...i", ((2, 3, 3),)),
        ("bii->b", ((2, 3, 3),)),
        ("ij->ji", ((2, 3),)),
        ("ij->", ((2, 3),)),
        ("ij->j", ((2, 3),)),
        ("ba", ((2, 3),)),
        ("i,i", ((4,), (4,))),
        ("i,j->ij", ((3,), (4,))),
        ("i,j->ji", ((3,), (4,))),
        ("ij,ij->ij", ((3, 3), (3, 3))),
        ("ij,ji->ij", ((3, 3), (3, 3))),
        ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 2))),
        ("aBc,Bd->acd", ((2, 3, 4), (3, 2))),
        ("ij,jk->ik", ((2, 3), (1, 4))),
        ("->", ((),)),
        (",i->i", ((), (3,))),
    ):
        operands = [m.x(*shapes[0]), *(m.w(*shape) for shape in shapes[1:])]
        yield Draft("Einsum", tuple(operands), {"equation": equation})
        if len(shapes) == 2:
            yield Draft("Einsum", (m.w(*shapes[0]), m.x(*shapes[1])), {"equation": equation})


def quantised(m: Maker) -> Iterator[Draft]:
    """DequantizeLinear, QuantizeLinear, ConvInteger, MatMulInteger and DynamicQuantizeLinear."""
    levels = given(m.rng.integers(-9, 9, size=(3, 4)), np.int8)
    scales = given([0.5, 0.25, 2.0], role="weight")
    offsets = given([1, -2, 0], np.int8, "weight")
    for axis in (0, -2):
        yield Draft("DequantizeLinear", (levels, scales), {"axis": axis}, since=13)
        yield Draft("DequantizeLinear", (levels, scales, offsets), {"axis": axis}, since=13)
        yield Draft("QuantizeLinear", (m.x(3, 4), scales, offsets), {"axis": axis}, since=13)
    half, one = given(0.5, role="weight"), given(1, np.int8, "weight")
    yield Draft("DequantizeLinear", (levels, half))
    yield Draft("DequantizeLinear", (levels, half, one))
    yield Draft("DequantizeLinear", (given([1000, -7], np.int32), half))
    yield Draft("QuantizeLinear", (m.x(3, 4), half, one))
    yield Draft("QuantizeLinear", (given([0.25, 0.75, -0.25, 1e9, -1e9]), half))
    square = given(m.rng.integers(-9, 9, size=(3, 3)), np.int8)
    yield Draft("DequantizeLinear", (square, scales), since=13)
    yield Draft("DequantizeLinear", (levels, m.w(3, 2)), {"axis": 1, "block_size": 2})
    yield Draft("QuantizeLinear", (m.x(3, 4), m.w(3, 2, low=0.1)), {"axis": 1, "block_size": 2, "output_dtype": 3})
    yield Draft("DynamicQuantizeLinear", (m.x(3, 4),), {}, (True, True, True))
    a, b = given(m.rng.integers(0, 9, size=(2, 3)), np.uint8), given(m.rng.integers(-9, 9, size=(3, 4)), np.int8)
    zero_a, zero_b = given(2, np.uint8, "weight"), given(1, np.int8, "weight")
    yield Draft("MatMulInteger", (a, b))
    yield Draft("MatMulInteger", (a, b, zero_a, zero_b))
    yield Draft("MatMulInteger", (a, b, zero_a, given([1, 0, 2, -1], np.int8, "weight")))
    image = given(m.rng.integers(0, 9, size=(1, 2, 4, 4)), np.uint8)
    kernel = given(m.rng.integers(-9, 9, size=(3, 2, 2, 2)), np.int8)
    yield Draft("ConvInteger", (image, kernel))
    yield Draft("ConvInteger", (image, kernel, zero_a), {"pads": [1, 1, 1, 1]})
