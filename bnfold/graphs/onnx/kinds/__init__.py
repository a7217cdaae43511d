"""Node -> kind of the algebra, one function per operator, by family.

A translation is looked up by operator name and trusted up to the operator version that it was written for; an attribute
that it did not read makes the node opaque, and so does an opset newer than the installed onnx knows.
"""

from __future__ import annotations

from functools import cache

import onnx.defs

from bnfold.algebra import ops
from bnfold.graphs.onnx.index import Node
from bnfold.graphs.onnx.kinds import affines, aggregates, homogeneous, linears, maps
from bnfold.graphs.onnx.kinds.facts import Attributes, Facts, Translation

_OLDEST_OPSET = 7
_TABLE: dict[str, Translation] = {
    **affines.TABLE,
    **aggregates.TABLE,
    **linears.TABLE,
    **maps.TABLE,
    **homogeneous.TABLE,
}
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


@cache
def _version(op: str, opset: int) -> int:
    """The version of an operator that holds in an opset."""
    return int(onnx.defs.get_schema(op, opset).since_version)


def translate(node: Node, facts: Facts) -> ops.Kind:
    """The kind of a node; `Opaque`, with a reason, for everything that is not understood."""
    if node.domain:
        return ops.Opaque("unsupported", f"'{node.domain}.{node.op}' is not an operator of the ONNX standard")
    if node.op in _QUANTIZED:
        return ops.Opaque("quantized", f"{node.op} rounds to integers")
    entry = _TABLE.get(node.op)
    if entry is None:
        return ops.Opaque("not-equivariant", f"{node.op} does not commute with an affine map")
    if node.opset < _OLDEST_OPSET:
        return ops.Opaque(
            "unsupported", f"{node.op} of opset {node.opset} is not read; convert the model to opset 7 or newer"
        )
    if node.opset > onnx.defs.onnx_opset_version():
        return ops.Opaque("unsupported", f"opset {node.opset} is newer than the installed onnx; upgrade onnx")
    version = _version(node.op, node.opset)
    if version > entry.newest:
        return ops.Opaque("unsupported", f"version {version} of {node.op} is not read yet")
    attributes = Attributes(node)
    kind = entry.read(node, attributes, facts)
    left = attributes.unread()
    if left and not isinstance(kind, ops.Opaque):
        return ops.Opaque("unsupported", f"attribute '{left[0]}' of {node.op} is not understood")
    return kind
