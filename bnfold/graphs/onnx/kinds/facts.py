"""What a translation may ask: attributes, shapes and constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from bnfold.algebra import ops
from bnfold.algebra.axes import Shape
from bnfold.graphs.indexed import ConstantFacts
from bnfold.graphs.onnx.constants import Constants
from bnfold.graphs.onnx.index import Node, Value
from bnfold.graphs.onnx.kinds.outlines import Outlines
from bnfold.graphs.onnx.known import Known
from bnfold.graphs.onnx.shapes import Shapes

# The attributes that most nodes have, read without a detour.
_READ: dict[int, Callable[[onnx.AttributeProto], Any]] = {
    onnx.AttributeProto.FLOAT: lambda item: item.f,
    onnx.AttributeProto.INT: lambda item: item.i,
    onnx.AttributeProto.INTS: lambda item: item.ints[:],
    onnx.AttributeProto.STRING: lambda item: item.s,
}


class Attributes:
    """The attributes of a node; it remembers which were read."""

    def __init__(self, node: Node) -> None:
        self._found = {item.name: item for item in node.proto.attribute[:]}
        self._read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute; strings as str, lists as list."""
        self._read.add(name)
        item = self._found.get(name)
        if item is None:
            return default
        read = _READ.get(item.type)
        value = read(item) if read else onnx.helper.get_attribute_value(item)
        return value.decode() if isinstance(value, bytes) else value

    def mistyped(self, types: Mapping[str, int]) -> str | None:
        """The first attribute that is not of its type; files older than types of attributes leave them undefined."""
        for name, item in self._found.items():
            if item.type and item.type != types.get(name, item.type):
                return name
        return None

    def unread(self) -> list[str]:
        return [name for name in self._found if name not in self._read]


class Facts(ConstantFacts[Known]):
    """Shapes and constants of the graph; without `outlined`, an outline is as exact as inference can make it."""

    def __init__(self, shapes: Shapes, constants: Constants, *, outlined: bool = True) -> None:
        self.shapes = shapes
        self.constants: Constants = constants
        self._derived = Outlines(constants, shapes.shape)
        self._outlines = Outlines(constants, lambda _: None) if outlined else self._derived

    def shape(self, value: Value | None) -> Shape | None:
        """The sizes of a value; None where its rank is not known."""
        if value is None:
            return None
        outline = self._outlines.shape(value)
        if outline is not None and None not in outline:
            return outline
        shape = self.shapes.shape(value)
        return shape if shape is not None else self._derived.shape(value)

    def forget(self) -> None:
        """Derive everything anew, from more shapes and constants."""
        self._derived.forget()
        self._outlines.forget()

    def outline(self, value: Value | None) -> Shape | None:
        """The sizes of a value as far as the operators right above it tell, without inference.

        For questions that the rank, or the number of channels, answers; None where not even the rank is told so.
        """
        return None if value is None else self._outlines.shape(value)

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


class Translation(NamedTuple):
    """How to read an operator, up to the operator version `newest`."""

    read: Callable[[Node, Attributes, Facts], ops.Kind]
    newest: int


def normalised(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in ascending order. Raises IndexError for one that is not there or given twice."""
    for axis in axes:
        if not -rank <= axis < rank:
            raise IndexError(f"axis {axis} of a value of rank {rank}")
    places = {axis % rank for axis in axes}
    if len(places) < len(axes):
        raise IndexError(f"axes {list(axes)} of a value of rank {rank}, one of them twice")
    return tuple(sorted(places))
