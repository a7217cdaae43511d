"""Elementwise functions that let a positive factor through."""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.algebra.ops import Homogeneous, Opaque
from bnfold.graphs.torch.index import Node
from bnfold.graphs.torch.kinds.facts import Arguments, Facts


def _plain(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    return Homogeneous(node.op)


def _leaky_relu(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("negative_slope")
    return Homogeneous(node.op)


def _prelu(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    if facts.floating(node.inputs[1]) is None:
        return Opaque("not-equivariant", "the slope of the PReLU is computed")
    return Homogeneous(node.op)


def _clamp(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    if len(node.inputs) > 1 or arguments.get("min") != 0 or arguments.get("max") is not None:
        return Opaque("not-equivariant", f"{node.op} between fixed bounds does not commute with an affine map")
    return Homogeneous(node.op)


TABLE = {
    "abs": _plain,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "relu": _plain,
}
