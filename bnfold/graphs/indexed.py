"""What the graphs of all frameworks answer alike: their nodes and values are objects that know each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Generic, TypeVar

from bnfold.algebra import ops
from bnfold.algebra.affine import Array, Refusal
from bnfold.algebra.axes import Shape
from bnfold.algebra.edits import Node, Value
from bnfold.graphs import kinds
from bnfold.graphs.chains import scales
from bnfold.graphs.rounding import settled

Held = TypeVar("Held")


class IndexedGraph:
    """A graph in an index, asked by the planner.

    A node has `op`, `inputs` and `outputs`; a value has `name`, `producer` and `port`, `readers` and `is_output`.
    `constants` says which values are known, `gone` which nodes a plan has removed.
    """

    constants: Any
    gone: Collection[Node]

    def kind(self, node: Node, along: Sequence[int] = ()) -> ops.Kind:
        raise NotImplementedError

    def op(self, node: Node) -> str:
        return str(node.op)

    def learn(self) -> bool:
        """No fold tells of sizes where they are known from the beginning."""
        return False

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
    """What a translation may ask about constants, and what follows; `Held` is what an adapter knows of one."""

    constants: Any

    def shape(self, value: Any) -> Shape | None:
        """The sizes of a value; None where its rank is not known."""
        raise NotImplementedError

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

    def parameters(self, node: Node) -> dict[str, Array] | ops.Opaque:
        """The gamma, beta, mean and var of a BatchNorm, which it reads in this order behind its data."""
        found: dict[str, Array] = {}
        for position, name in enumerate(("gamma", "beta", "mean", "var"), 1):
            known: Any = self.floating(input_at(node, position))
            if known is None:
                why = self.why_not(input_at(node, position), "dynamic-parameters")
                return ops.Opaque(why.reason, f"its {name} is no constant: {why.detail}")
            found[name] = settled(known).reshape(-1)
        return found

    def product(self, node: Node) -> ops.Kind:
        """A matrix product, batched or not, of a computed value and a constant."""
        found: Any = self.factors(node)
        if isinstance(found, ops.Opaque):
            return found
        data, weight, constant = found
        shape = self.shape(node.inputs[data])
        return no_rank(node) if shape is None else kinds.product(shape, constant.shape, data, weight)

    def einsum(self, node: Node, equation: str) -> ops.Kind:
        """A product of two operands, one of them constant, in which every index is written out."""
        terms = kinds.einsum_terms(equation)
        if terms is None or len(node.inputs) != 2:
            return ops.Opaque("unsupported", f"the Einsum '{equation}' is not understood")
        found: Any = self.factors(node)
        if isinstance(found, ops.Opaque):
            return found
        data, weight, constant = found
        return kinds.einsum(terms, self.shape(node.inputs[data]), constant.shape, data, weight)

    def enlarged(self, node: Node) -> Value | None:
        """The computed operand of a product or quotient whose constant operand would give it another shape."""
        if len(node.inputs) != 2:
            return None
        for position in (1, 0):
            constant: Any = self.floating(node.inputs[position])
            x = self.shape(node.inputs[1 - position])
            if constant is not None and x is not None and not kinds.fits(constant.folded_shape, x):
                operand: Value = node.inputs[1 - position]
                return operand
        return None


def input_at(node: Node, position: int) -> Any:
    """The value that a node reads there; None where it reads none."""
    return node.inputs[position] if position < len(node.inputs) else None


def alone(node: Node) -> bool:
    """Whether nobody uses an output of the node but the first."""
    return not any(value and (value.readers or value.is_output) for value in node.outputs[1:])


def no_rank(node: Node) -> ops.Opaque:
    return ops.Opaque("dynamic-shape", f"the rank of a value at '{node.name}' ({node.op}) is not known")
