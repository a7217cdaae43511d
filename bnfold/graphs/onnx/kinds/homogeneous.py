"""Elementwise functions that let a positive factor through."""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.algebra.axes import Size
from bnfold.algebra.ops import Homogeneous, Opaque
from bnfold.graphs.onnx.index import Node
from bnfold.graphs.onnx.kinds.facts import Attributes, Facts, Translation


def _plain(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return Homogeneous(node.op)


def _leaky_relu(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    attributes.get("alpha")
    return Homogeneous(node.op)


def _prelu(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    slope, shape = facts.floating(node.inputs[1]), facts.shape(node.inputs[0])
    if slope is None:
        return Opaque("not-equivariant", "the slope of the PRelu is computed")
    if shape is None or len(slope.shape) > len(shape) or not all(map(_fits, slope.shape[::-1], shape[::-1])):
        # The standard forbids it; ONNX Runtime gives the result the larger shape, with other axes.
        return Opaque("unsupported", "the slope of the PRelu may have more axes or elements than what it is applied to")
    return Homogeneous(node.op)


def _fits(slope: int, size: Size | None) -> bool:
    return slope == 1 or slope == size or not isinstance(size, int)


TABLE = {
    "Abs": Translation(_plain, 13),
    "LeakyRelu": Translation(_leaky_relu, 16),
    "PRelu": Translation(_prelu, 16),
    "Relu": Translation(_plain, 14),
}
