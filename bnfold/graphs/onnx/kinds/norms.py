"""Normalisations by statistics of their input: InstanceNormalization, GroupNormalization, LayerNormalization, and their
like.

Nothing passes them, but they end with a scale and a shift that take in what comes behind.
"""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.graphs import kinds
from bnfold.graphs.indexed import input_at, no_rank
from bnfold.graphs.onnx.index import Node
from bnfold.graphs.onnx.kinds.facts import Attributes, Facts, Translation


def _instance(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    attributes.get("epsilon")
    return _normalisation(node, facts, first=1, last=2)


def _group(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    """Its scale and bias have one element per channel from opset 21 on, one per group before."""
    attributes.get("epsilon"), attributes.get("stash_type")
    groups, x = attributes.get("num_groups"), facts.shape(node.inputs[0])
    if node.opset >= 21:
        return _normalisation(node, facts, first=1, last=2)
    if x is None or len(x) < 2 or not isinstance(x[1], int) or x[1] % groups:
        return no_rank(node)
    return _normalisation(node, facts, first=1, last=2, each=x[1] // groups)


def _layer(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    attributes.get("epsilon"), attributes.get("stash_type")
    return _normalisation(node, facts, first=attributes.get("axis", -1))


def _root_mean_square(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    attributes.get("epsilon"), attributes.get("stash_type")
    return _normalisation(node, facts, first=attributes.get("axis", -1), biased=False)


def _normalisation(
    node: Node, facts: Facts, first: int, last: int | None = None, each: int = 1, *, biased: bool = True
) -> ops.Kind:
    """A normalisation whose scale and bias run over the axes of its input from `first` to `last`."""
    x, given = facts.shape(node.inputs[0]), input_at(node, 2)
    scale, shift = facts.floating(input_at(node, 1)), facts.floating(given)
    if scale is None or (given is not None and shift is None):
        return facts.why_not(given if scale else input_at(node, 1))
    if x is None:
        return no_rank(node)
    axes = tuple(range(len(x))[first:last])
    held = shift.folded_shape if shift else None
    return kinds.normalisation(node.op, x, axes, scale.folded_shape, held, each=each, biased=biased)


TABLE = {
    "GroupNormalization": Translation(_group, 21),
    "InstanceNormalization": Translation(_instance, 22),
    "LayerNormalization": Translation(_layer, 17),
    "RMSNormalization": Translation(_root_mean_square, 23),
}
