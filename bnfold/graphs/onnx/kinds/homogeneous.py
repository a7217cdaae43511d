"""Elementwise functions that let a positive factor through."""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.algebra.ops import Homogeneous, Opaque
from bnfold.graphs.onnx.index import Node
from bnfold.graphs.onnx.kinds.facts import Attributes, Facts, Translation


def _plain(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return Homogeneous(node.op)


def _leaky_relu(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    attributes.get("alpha")
    return Homogeneous(node.op)


def _prelu(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    if facts.floating(node.inputs[1]) is None:
        return Opaque("not-equivariant", "the slope of the PRelu is computed")
    return Homogeneous(node.op)


TABLE = {
    "Abs": Translation(_plain, 13),
    "LeakyRelu": Translation(_leaky_relu, 16),
    "PRelu": Translation(_prelu, 16),
    "Relu": Translation(_plain, 14),
}
