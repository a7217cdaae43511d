"""What a translation may ask: attributes, shapes and constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from bnfold.algebra import ops
from bnfold.algebra.axes import Shape
from bnfold.graphs.indexed import ConstantFacts
from bnfold.graphs.kinds import fits
from bnfold.graphs.onnx.constants import Constants, Known
from bnfold.graphs.onnx.index import Node, Value
from bnfold.graphs.onnx.shapes import Shapes

# Elementwise operators: of one computed operand, and of two.
_UNARY = {
    *(
        "Abs",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Dropout",
        "Identity",
        "LeakyRelu",
        "Neg",
        "Relu",
        "Sigmoid",
        "Tanh",
    ),
}
_BINARY = {"Add", "Div", "Mul", "PRelu", "Sub"}
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}

# The attributes that most nodes have, read without a detour.
_READ: dict[int, Callable[[onnx.AttributeProto], Any]] = {
    onnx.AttributeProto.FLOAT: lambda item: item.f,
    onnx.AttributeProto.INT: lambda item: item.i,
    onnx.AttributeProto.INTS: lambda item: list(item.ints),
    onnx.AttributeProto.STRING: lambda item: item.s,
}


class Attributes:
    """The attributes of a node; it remembers which were read."""

    def __init__(self, node: Node) -> None:
        self._found = {item.name: item for item in node.proto.attribute}
        self._read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute; strings as str, lists as list."""
        self._read.add(name)
        item = self._found.get(name)
        if item is None:
            return default
        if item.ref_attr_name:
            self._read.discard(name)
            return default
        read = _READ.get(item.type)
        value = read(item) if read else onnx.helper.get_attribute_value(item)
        return value.decode() if isinstance(value, bytes) else value

    def unread(self) -> list[str]:
        return [name for name in self._found if name not in self._read]


@dataclass(frozen=True)
class Facts(ConstantFacts[Known]):
    """Shapes and constants of the graph."""

    shapes: Shapes
    constants: Constants
    derived: dict[Value, Shape | None] = field(default_factory=dict)
    outlines: dict[Value, Shape | None] = field(default_factory=dict)

    def shape(self, value: Value | None) -> Shape | None:
        """The sizes of a value; None where its rank is not known."""
        if value is None:
            return None
        known = self.constants.known(value) if value.producer is None else None
        if known is not None:
            return known.folded_shape
        shape = self.shapes.shape(value)
        return shape if shape is not None else self._derived(value, self.derived, self.shapes.shape)

    def forget(self) -> None:
        """Derive everything anew, from more shapes and constants."""
        self.derived.clear()
        self.outlines.clear()

    def outline(self, value: Value | None) -> Shape | None:
        """The sizes of a value as far as the operators right above it tell, without inference.

        For questions that the rank, or the number of channels, answers; None where not even the rank is told so.
        """
        if value is None:
            return None
        known = self.constants.known(value)
        return known.folded_shape if known is not None else self._derived(value, self.outlines, lambda _: None)

    def named_shape(self, value: Value | None) -> Shape | None:
        """The sizes of a value with a symbol of its own for every size that is not known."""
        shape = self.shape(value)
        if shape is None or value is None:
            return None
        return tuple(f"?{value.name}.{axis}" if size is None else size for axis, size in enumerate(shape))

    def integers(self, value: Value | None) -> list[int] | None:
        """The elements of a constant of integers, flattened; None for anything else."""
        known = self.constants.known(value)
        if known is None:
            return None
        array: NDArray[Any] = known.read()
        return [int(element) for element in array.ravel()] if np.issubdtype(array.dtype, np.integer) else None

    def _derived(
        self, value: Value, derived: dict[Value, Shape | None], inferred: Callable[[Value], Shape | None]
    ) -> Shape | None:
        """What follows of a shape that `inferred` does not know, as inference does not in the body of a loop.

        A convolution has the rank and the channels of its weight, a Gemm has its columns; an elementwise operator
        leaves the shape of what it reads; the result of an If has the sizes on which its branches agree.
        """
        way: list[Value] = []
        at: Value | None = value
        while at is not None and at not in derived and inferred(at) is None:
            way.append(at)
            at = self._above(at)
        shape = None if at is None else derived.get(at) or inferred(at)
        for step in reversed(way):
            if shape is None or not self._keeps(step, shape):
                shape = self._from_weight(step) or self._from_branches(step)
            derived[step] = shape
        return shape

    def _above(self, value: Value) -> Value | None:
        """The value whose shape this one has, if that is for the operator to say."""
        node = value.producer
        if node is None or node.domain or value.port or len(node.inputs) < (2 if node.op in _BINARY else 1):
            return None
        if node.op in _BINARY and node.op != "PRelu" and self.constants.known(node.inputs[0]) is not None:
            return node.inputs[1]
        return node.inputs[0] if node.op in _UNARY or node.op in _BINARY else None

    def _keeps(self, value: Value, shape: Shape) -> bool:
        """Whether no other operand of the operator that makes a value enlarges this shape."""
        node, above = value.producer, self._above(value)
        if node is None or node.op not in _BINARY:
            return True
        others = [self.constants.known(operand) for operand in node.inputs if operand is not above]
        return all(other is not None and fits(other.folded_shape, shape) for other in others)

    def _from_weight(self, value: Value) -> Shape | None:
        node = value.producer
        if node is None or node.domain or node.op not in _WEIGHTED or len(node.inputs) < 2:
            return None
        weight = self.constants.known(node.inputs[1])
        if weight is None or len(weight.shape) < 2:
            return None
        first, second = weight.shape[:2]
        if node.op == "Conv":
            channels = first
        elif node.op == "ConvTranspose":
            channels = second * _integer(node, "group", 1)
        else:
            channels = first if _integer(node, "transB", 0) else second
        return (None, channels, *(None for _ in weight.shape[2:]))

    def _from_branches(self, value: Value) -> Shape | None:
        node = value.producer
        if node is None or node.domain or node.op != "If":
            return None
        bodies = [body for body in node.scope.bodies if body.owner is node]
        graphs = [(body, body.graph) for body in bodies if isinstance(body.graph, onnx.GraphProto)]
        shapes = [self.shape(body.resolve(graph.output[value.port].name)) for body, graph in graphs]
        ranked = [shape for shape in shapes if shape is not None]
        if len(ranked) < len(shapes) or len({len(shape) for shape in ranked}) != 1:
            return None
        return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*ranked, strict=True))


def _integer(node: Node, name: str, default: int) -> int:
    return next((item.i for item in node.proto.attribute if item.name == name), default)


class Translation(NamedTuple):
    """How to read an operator, up to the operator version `newest`."""

    read: Callable[[Node, Attributes, Facts], ops.Kind]
    newest: int


def normalised(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in ascending order. Raises IndexError for one that is not there."""
    for axis in axes:
        if not -rank <= axis < rank:
            raise IndexError(f"axis {axis} of a value of rank {rank}")
    return tuple(sorted(axis % rank if rank else axis for axis in axes))
