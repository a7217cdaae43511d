"""Node -> kind of the algebra, one function per operator, by family.

A translation is looked up by operator name and trusted up to the operator version that it was written for; an attribute
that it did not read makes the node opaque, and so does an opset newer than the installed onnx knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import onnx.defs

from bnfold.algebra import ops
from bnfold.graphs.onnx.index import Node
from bnfold.graphs.onnx.kinds import affines, aggregates, homogeneous, linears, maps, norms
from bnfold.graphs.onnx.kinds.facts import Attributes, Facts, Translation

_OLDEST_OPSET = 7
_TABLE: dict[str, Translation] = {
    **affines.TABLE,
    **aggregates.TABLE,
    **linears.TABLE,
    **maps.TABLE,
    **homogeneous.TABLE,
    **norms.TABLE,
}
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


class _Demanded(NamedTuple):
    """What an operator must have, the types of its attributes, and the version of it that an opset means."""

    version: int
    inputs: int
    attributes: tuple[str, ...]
    types: Mapping[str, int]


@cache
def _demanded(op: str, opset: int) -> _Demanded | None:
    """The operator as an opset has it; None where it has none of that name."""
    try:
        schema = onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return None
    required = tuple(name for name, attribute in schema.attributes.items() if attribute.required)
    types = {name: attribute.type.value for name, attribute in schema.attributes.items()}  # type: ignore[attr-defined]
    return _Demanded(schema.since_version, schema.min_input, required, types)


@cache
def _newest_opset() -> int:
    return onnx.defs.onnx_opset_version()


def _lacking(node: Node, demanded: _Demanded) -> str | None:
    """What a node must have and has not."""
    position = [*node.inputs[: demanded.inputs], None].index(None)
    if position < demanded.inputs:
        return f"input {position}"
    if not demanded.attributes:
        return None
    given = {item.name for item in node.proto.attribute[:]}
    return next((f"attribute '{name}'" for name in demanded.attributes if name not in given), None)


def translate(node: Node, facts: Facts) -> ops.Kind:
    """The kind of a node; `Opaque`, with a reason, for everything that is not understood."""
    if node.domain:
        return ops.Opaque("unsupported", f"'{node.domain}.{node.op}' is not an operator of the ONNX standard")
    if node.is_open:
        return ops.Opaque("unsupported", f"an attribute of {node.op} is what the caller of the function gives")
    if node.op in _QUANTIZED:
        return ops.Opaque("quantized", f"{node.op} rounds to integers")
    entry = _TABLE.get(node.op)
    if entry is None:
        return ops.Opaque("not-equivariant", f"{node.op} does not commute with an affine map")
    opset = node.opset
    if opset < _OLDEST_OPSET:
        return ops.Opaque(
            "unsupported", f"{node.op} of opset {opset} is not read; convert the model to opset 7 or newer"
        )
    if opset > _newest_opset():
        return ops.Opaque("unsupported", f"opset {opset} is newer than the installed onnx; upgrade onnx")
    demanded = _demanded(node.op, opset)
    if demanded is None:
        return ops.Opaque("unsupported", f"opset {opset} has no {node.op}; the model is not valid")
    if demanded.version > entry.newest:
        return ops.Opaque("unsupported", f"version {demanded.version} of {node.op} is not read yet")
    lacking = _lacking(node, demanded)
    if lacking:
        return ops.Opaque("unsupported", f"{node.op} lacks its {lacking}; the model is not valid")
    attributes = Attributes(node)
    mistyped = attributes.mistyped(demanded.types)
    if mistyped:
        return ops.Opaque(
            "unsupported",
            f"attribute '{mistyped}' of {node.op} has another type than it must have; the model is not valid",
        )
    try:
        kind = entry.read(node, attributes, facts)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # An operator that contradicts itself (a step of 0, an axis that is not there) is left alone; what is wrong with
        # it is for the runtime to say.
        return ops.Opaque("unsupported", f"{node.op} contradicts itself ({error}); the model is not valid")
    left = attributes.unread()
    if left and not isinstance(kind, ops.Opaque):
        return ops.Opaque("unsupported", f"attribute '{left[0]}' of {node.op} is not understood")
    return kind
