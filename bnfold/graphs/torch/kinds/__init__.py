"""Node -> kind of the algebra, one function per operator, by family.

A translation is looked up by the plain name of an operator of ATen; an argument that it did not read, given with
another value than its default, makes the node opaque.
"""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.graphs.torch.index import WATCHER, Node
from bnfold.graphs.torch.kinds import affines, aggregates, homogeneous, linears, maps, norms
from bnfold.graphs.torch.kinds.facts import Arguments, Facts, Translation

TABLE: dict[str, Translation] = {
    **affines.TABLE,
    **aggregates.TABLE,
    **homogeneous.TABLE,
    **linears.TABLE,
    **maps.TABLE,
    **norms.TABLE,
}
BATCH_NORMS = frozenset(name for name in affines.TABLE if "batch_norm" in name)
_QUANTIZED = ("quantized", "quantized_decomposed", "torchao")


def translate(node: Node, facts: Facts) -> ops.Kind:
    """The kind of a node; `Opaque`, with a reason, for everything that is not understood."""
    if node.op == WATCHER:
        return ops.Opaque("structure", node.arguments["detail"])
    if node.space in _QUANTIZED or node.op.startswith("fake_quantize"):
        return ops.Opaque("quantized", f"{node.op} rounds to integers")
    if node.space != "aten":
        return ops.Opaque("unsupported", f"'{node.op}' is not an operator of PyTorch's core")
    read = TABLE.get(node.op)
    if read is None:
        return ops.Opaque("not-equivariant", f"{node.op} does not commute with an affine map")
    arguments = Arguments(node)
    kind = read(node, arguments, facts)
    left = arguments.unread()
    if left and not isinstance(kind, ops.Opaque):
        return ops.Opaque("unsupported", f"argument '{left[0]}' of {node.op} is not understood")
    return kind
