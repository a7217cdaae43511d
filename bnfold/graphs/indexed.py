"""What the graphs of all frameworks answer alike: their nodes and values are objects that know each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Generic, TypeVar

from bnfold.algebra import ops
from bnfold.algebra.affine import Array, Refusal
from bnfold.algebra.edits import Node, Value
from bnfold.graphs.chains import scales

Held = TypeVar("Held")


class IndexedGraph:
    """A graph in an index, asked by the planner.

    A node has `op`, `inputs` and `outputs`; a value has `name`, `producer` and `port`, `readers` and `is_output`.
    `constants` says which values are known, `gone` which nodes a plan has removed.
    """

    constants: Any
    gone: Collection[Node]

    def kind(self, node: Node) -> ops.Kind:
        raise NotImplementedError

    def op(self, node: Node) -> str:
        return str(node.op)

    def scales(self, node: Node) -> bool:
        return node not in self.gone and scales(self.kind(node))

    def inputs(self, node: Node) -> Sequence[Value | None]:
        found: Sequence[Value | None] = node.inputs
        return found

    def outputs(self, node: Node) -> Sequence[Value | None]:
        found: Sequence[Value | None] = node.outputs
        return found

    def value_name(self, value: Value) -> str:
        return str(value.name)

    def producer(self, value: Value) -> tuple[Node, int] | None:
        return (value.producer, value.port) if value.producer else None

    def readers(self, value: Value) -> Sequence[tuple[Node, int]]:
        return list(value.readers)

    def is_output(self, value: Value) -> bool:
        return bool(value.is_output)

    def is_constant(self, value: Value | None) -> bool:
        return self.constants.known(value) is not None

    def constant(self, value: Value) -> Array:
        known = self.constants.known(value)
        if known is None:
            raise KeyError(f"'{value.name}' is no constant")
        array: Array = known.float64()
        return array


class ConstantFacts(Generic[Held]):
    """What a translation may ask about constants; `Held` is what an adapter knows of one."""

    constants: Any

    def known(self, value: Value | None) -> Held | None:
        found: Held | None = self.constants.known(value)
        return found

    def floating(self, value: Value | None) -> Held | None:
        """The constant that a value is, if its elements are floating point numbers."""
        found = self.constants.known(value)
        return found if found is not None and found.is_floating else None

    def why_not(self, value: Value | None, reason: str = "computed-weight") -> ops.Opaque:
        """Why a value that has to be a constant is none; `reason` where nothing more particular is known."""
        found = self.constants.get(value) if value is not None else None
        if not isinstance(found, Refusal):
            return ops.Opaque("unsupported", "a constant is missing, or of a type that is not understood")
        return ops.Opaque(reason if found.reason == "computed-weight" else found.reason, found.detail)

    def factors(self, node: Node) -> tuple[int, int, Held] | ops.Opaque:
        """Of a product of two operands the positions of the computed and of the constant one, and the constant.

        Where both are constant, the second is taken for the weight.
        """
        data, weight = (0, 1) if self.floating(node.inputs[1]) else (1, 0)
        constant = self.floating(node.inputs[weight])
        return (data, weight, constant) if constant is not None else self.why_not(node.inputs[1])
