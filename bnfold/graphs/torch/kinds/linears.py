"""Convolutions, linear layers, matrix products and einsum: contractions with a constant weight."""

from __future__ import annotations

from typing import Any

from bnfold.algebra import ops
from bnfold.algebra.ops import Bias, Linear, Opaque
from bnfold.graphs import kinds
from bnfold.graphs.indexed import input_at, no_rank
from bnfold.graphs.torch.index import Node
from bnfold.graphs.torch.kinds.facts import Arguments, Facts

_PADDED = "the convolution pads its input with zeros, which a shift would have to reach"


def _conv(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    return _convolution(node, arguments, facts, transposed=False)


def _conv_transpose(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    return _convolution(node, arguments, facts, transposed=True)


def _either(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    return _convolution(node, arguments, facts, transposed=bool(arguments.get("transposed")))


def _convolution(node: Node, arguments: Arguments, facts: Facts, transposed: bool) -> ops.Kind:
    weight, bias, x = facts.floating(input_at(node, 1)), input_at(node, 2), facts.shape(input_at(node, 0))
    if weight is None:
        return facts.why_not(input_at(node, 1))
    if bias is not None and facts.floating(bias) is None:
        return facts.why_not(bias)
    if x is None:
        return no_rank(node)
    kernel = weight.shape[2:]
    return kinds.convolution(
        weight.shape,
        int(arguments.get("groups", 1)),
        biased=bias is not None,
        transposed=transposed,
        batched=len(x) == len(weight.shape),
        incomplete=(_transposed_border if transposed else _border)(arguments, kernel),
        pointwise=_pointwise(arguments, kernel),
    )


def _pointwise(arguments: Arguments, kernel: tuple[int, ...]) -> frozenset[int]:
    # With one tap and a stride of 1, "same" and "valid" pad nothing.
    pads = (
        [0] * len(kernel) if isinstance(arguments.get("padding", 0), str) else arguments.many("padding", len(kernel), 0)
    )
    strides, extra = arguments.many("stride", len(kernel), 1), arguments.many("output_padding", len(kernel), 0)
    return kinds.pointwise_axes(kernel, strides, [*pads, *pads], extra)


def _border(arguments: Arguments, kernel: tuple[int, ...]) -> str:
    """Why not every output of a convolution sums over all taps; empty where it does."""
    arguments.skip("stride", "output_padding", "transposed")
    dilations = arguments.many("dilation", len(kernel), 1)
    padding = arguments.get("padding", 0)
    if padding == "valid":
        return ""
    if padding == "same":
        return _PADDED if any((taps - 1) * step for taps, step in zip(kernel, dilations, strict=True)) else ""
    return _PADDED if any(arguments.many("padding", len(kernel), 0)) else ""


def _transposed_border(arguments: Arguments, kernel: tuple[int, ...]) -> str:
    arguments.skip("transposed")
    settings: list[list[Any]] = [
        arguments.many(name, len(kernel), default)
        for name, default in (("stride", 1), ("dilation", 1), ("padding", 0), ("output_padding", 0))
    ]
    strides, dilations, pads, extra = settings
    return kinds.transposed_border(kernel, strides, dilations, [*pads, *pads], extra)


def _linear(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    weight, bias, x = facts.floating(input_at(node, 1)), input_at(node, 2), facts.shape(input_at(node, 0))
    if weight is None:
        return facts.why_not(input_at(node, 1))
    if bias is not None and facts.floating(bias) is None:
        return facts.why_not(bias)
    if x is None:
        return no_rank(node)
    if len(weight.shape) != 2:
        return Opaque("unsupported", "a linear layer whose weight is no matrix is not understood")
    batch = tuple("ABCDEFGHIJ"[: len(x) - 1])
    return Linear(
        data=0,
        weight=1,
        bias=Bias(2, bias is not None, axis=len(batch)),
        x=(*batch, "k"),
        w=("n", "k"),
        y=(*batch, "n"),
        sizes={"n": weight.shape[0], "k": weight.shape[1]},
    )


def _addmm(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    """`beta * c + alpha * a @ b`, where c broadcasts."""
    alpha, beta = float(arguments.get("alpha", 1)), float(arguments.get("beta", 1))
    data, weight = (1, 2) if facts.floating(node.inputs[2]) else (2, 1)
    constant = facts.floating(node.inputs[weight])
    if constant is None:
        return facts.why_not(node.inputs[2])
    if len(constant.shape) != 2:
        return Opaque("unsupported", "an addmm of a weight that is no matrix is not understood")
    if facts.floating(node.inputs[0]) is None:
        return facts.why_not(node.inputs[0])
    x, w = (("m", "k"), ("k", "n")) if weight == 2 else (("k", "n"), ("m", "k"))
    bias = Bias(0, True, axis=None, gain=beta) if beta else None
    return kinds.matrices(x, w, constant.shape, data, weight, bias, alpha)


def _matmul(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    return facts.product(node)


def _einsum(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("path")
    return facts.einsum(node, str(arguments.get("equation")))


TABLE = {
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "conv_transpose1d": _conv_transpose,
    "conv_transpose2d": _conv_transpose,
    "conv_transpose3d": _conv_transpose,
    "convolution": _either,
    "linear": _linear,
    "addmm": _addmm,
    "mm": _matmul,
    "bmm": _matmul,
    "mv": _matmul,
    "matmul": _matmul,
    "einsum": _einsum,
}
