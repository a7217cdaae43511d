"""Conv, ConvTranspose, Gemm, MatMul, Einsum and recurrent layers: contractions with a constant weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from bnfold.algebra import ops
from bnfold.algebra.ops import Bias, Opaque, Recurrent
from bnfold.graphs import kinds
from bnfold.graphs.indexed import input_at
from bnfold.graphs.onnx.index import Node
from bnfold.graphs.onnx.kinds.facts import Attributes, Facts, Translation


def _conv(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _convolution(node, attributes, facts, transposed=False)


def _conv_transpose(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _convolution(node, attributes, facts, transposed=True)


def _convolution(node: Node, attributes: Attributes, facts: Facts, transposed: bool) -> ops.Kind:
    weight = facts.floating(input_at(node, 1))
    if weight is None:
        return facts.why_not(input_at(node, 1))
    bias = input_at(node, 2)
    held = facts.floating(bias)
    if bias is not None and held is None:
        return facts.why_not(bias)
    group = attributes.get("group", 1)
    if held is not None and held.folded_shape != (weight.shape[1] * group if transposed else weight.shape[0],):
        raise ValueError(f"a bias of shape {held.folded_shape} for a weight of shape {weight.shape}")
    moves = _moves(attributes, weight.shape[2:])
    extra = attributes.get("output_padding") if transposed else None
    fixed = transposed and attributes.get("output_shape") is not None
    return kinds.convolution(
        weight.shape,
        group,
        biased=bias is not None,
        transposed=transposed,
        incomplete=_unpadded_transposed(moves, extra, fixed) if transposed else _unpadded(node, moves, facts),
        pointwise=() if fixed else kinds.pointwise_axes(moves.kernel, moves.strides, moves.pads, extra),
    )


class _Moves(NamedTuple):
    """How the taps of a convolution move over its input; one that pads by itself (`auto_pad`) has no `pads`."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Sequence[int]
    auto_pad: str


def _moves(attributes: Attributes, kernel: Sequence[int]) -> _Moves:
    zeros, ones = [0] * 2 * len(kernel), [1] * len(kernel)
    attributes.get("kernel_shape")
    auto_pad = attributes.get("auto_pad", "NOTSET")
    pads = attributes.get("pads", zeros)
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    return _Moves(kernel, strides, dilations, pads if auto_pad == "NOTSET" else zeros, auto_pad)


def _unpadded(node: Node, moves: _Moves, facts: Facts) -> str:
    """Why not every output of a convolution sums over all taps; empty where it does."""
    kernel, strides, dilations, pads, auto_pad = moves
    if auto_pad == "VALID":
        return ""
    if auto_pad == "NOTSET":
        return "the convolution pads its input with zeros, which a shift would have to reach" if any(pads) else ""
    shape = facts.shape(input_at(node, 0)) or (None,) * (len(kernel) + 2)
    for size, taps, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True):
        extent = (taps - 1) * dilation + 1
        if extent == 1:
            continue
        if not isinstance(size, int) or (math.ceil(size / stride) - 1) * stride + extent > size:
            return f"the convolution pads its input with zeros (auto_pad={auto_pad}), which a shift would have to reach"
    return ""


def _unpadded_transposed(moves: _Moves, extra: Sequence[int] | None, fixed: bool) -> str:
    """The same of a transposed convolution: only where stride is 1 and the pads cut the whole border off.

    `extra` is what its output is padded by; it is `fixed` where its size is given instead.
    """
    if fixed or moves.auto_pad not in ("NOTSET", "VALID"):
        return kinds.UNEVEN
    return kinds.transposed_border(moves.kernel, moves.strides, moves.dilations, moves.pads, extra or ())


def _gemm(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    trans_a, trans_b = bool(attributes.get("transA", 0)), bool(attributes.get("transB", 0))
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    a = ("k", "m") if trans_a else ("m", "k")
    b = ("n", "k") if trans_b else ("k", "n")
    data, weight, x, w = (0, 1, a, b) if facts.floating(node.inputs[1]) else (1, 0, b, a)
    constant = facts.floating(node.inputs[weight])
    if constant is None:
        return facts.why_not(node.inputs[1])
    if len(constant.shape) != 2:
        return Opaque("unsupported", "a Gemm of a weight that is no matrix is not understood")
    c = input_at(node, 2)
    held = facts.floating(c)
    if c is not None and held is None:
        return facts.why_not(c)
    if held is not None and "n" in w and held.folded_shape[-1:] not in ((), (1,), (constant.shape[w.index("n")],)):
        raise ValueError(f"a bias of shape {held.folded_shape} for a weight of shape {constant.shape}")
    bias = Bias(2, c is not None, axis=None, gain=beta) if beta else None
    return kinds.matrices(x, w, constant.shape, data, weight, bias, alpha)


def _matmul(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return facts.product(node)


def _einsum(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return facts.einsum(node, str(attributes.get("equation", "")))


def _recurrent(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    weight, bias = facts.floating(input_at(node, 1)), input_at(node, 3)
    for name in (
        *("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size"),
        *("input_forget", "layout", "linear_before_reset"),
    ):
        attributes.get(name)
    if weight is None:
        return facts.why_not(input_at(node, 1))
    if bias is not None and facts.floating(bias) is None:
        return facts.why_not(bias)
    directions, rows = weight.shape[0], weight.shape[1]
    return Recurrent(data=0, weight=1, bias=3, present=bias is not None, directions=directions, rows=rows)


TABLE = {
    "Einsum": Translation(_einsum, 28),
    "GRU": Translation(_recurrent, 22),
    "LSTM": Translation(_recurrent, 22),
    "RNN": Translation(_recurrent, 22),
    "Conv": Translation(_conv, 22),
    "ConvTranspose": Translation(_conv_transpose, 22),
    "Gemm": Translation(_gemm, 13),
    "MatMul": Translation(_matmul, 13),
}
