"""Normalisations by statistics of their input: instance, group, layer and root mean square norm.

Nothing passes them, but they end with a scale and a shift that take in what comes behind.
"""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.algebra.ops import Opaque
from bnfold.graphs import kinds
from bnfold.graphs.indexed import input_at, no_rank
from bnfold.graphs.torch.index import Node
from bnfold.graphs.torch.kinds.facts import Arguments, Facts


def _channelwise(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("num_groups", "group", "N", "C", "HxW", "eps", "cudnn_enabled", "use_input_stats", "momentum")
    return _normalisation(node, facts, first=1, last=2)


def _layer(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("eps", "cudnn_enable")
    return _normalisation(node, facts, first=-len(arguments.get("normalized_shape")))


def _normalisation(node: Node, facts: Facts, first: int, last: int | None = None) -> ops.Kind:
    """A normalisation whose scale and bias run over the axes of its input from `first` to `last`."""
    x, given = facts.shape(node.inputs[0]), input_at(node, 2)
    if input_at(node, 1) is None:
        return Opaque("not-equivariant", f"{node.op} without a scale does not commute with an affine map")
    scale, shift = facts.floating(input_at(node, 1)), facts.floating(given)
    if scale is None or (given is not None and shift is None):
        return facts.why_not(given if scale else input_at(node, 1))
    if x is None:
        return no_rank(node)
    held = shift.folded_shape if shift else None
    biased = node.op != "rms_norm"
    return kinds.normalisation(node.op, x, tuple(range(len(x))[first:last]), scale.folded_shape, held, biased=biased)


TABLE = {
    **dict.fromkeys(("instance_norm", "group_norm", "native_group_norm"), _channelwise),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), _layer),
}
