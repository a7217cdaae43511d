"""Node -> kind of the algebra, one function per operator, by family.

A translation is looked up by the plain name of an operator of ATen; an argument that it did not read, given with
another value than its default, makes the node opaque.
"""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.graphs.torch.index import NESTED, WATCHER, Node, is_transformed
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
    if node.space == NESTED:
        return ops.Opaque(
            "unsupported", f"it stands in a branch or body of '{node.arguments['runner']}', which is left alone"
        )
    if node.space != "aten":
        return ops.Opaque("unsupported", f"'{node.op.removeprefix('python.')}' is not an operator of PyTorch's core")
    if node.op.endswith(".out"):
        return ops.Opaque("unsupported", f"{node.op} writes its result into a tensor that it is given")
    if any(map(is_transformed, (*node.inputs, *node.outputs))):
        return ops.Opaque("unsupported", "it runs under a transform of torch.func, such as vmap")
    read = TABLE.get(node.op)
    if read is None:
        return ops.Opaque("not-equivariant", f"{node.op} does not commute with an affine map")
    arguments = Arguments(node)
    kind = read(node, arguments, facts)
    left = arguments.unread()
    if left and not isinstance(kind, ops.Opaque):
        return ops.Opaque("unsupported", f"argument '{left[0]}' of {node.op} is not understood")
    return kind
