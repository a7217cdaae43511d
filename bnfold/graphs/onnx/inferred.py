"""What inference says of the values of a graph, by name, beside the constants that the graph holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import onnx
from numpy.typing import NDArray

from bnfold.algebra.axes import Shape
from bnfold.dims import declared_size
from bnfold.graphs.onnx.index import Scope, graphs_of


@dataclass(eq=False)
class Part:
    """A graph or body: its scope, its message in the model that inference was given, and what was inferred.

    `bounds` has for vectors of unknown length how many elements they have at most, where that is known.
    """

    scope: Scope
    graph: onnx.GraphProto
    infos: dict[str, onnx.ValueInfoProto]
    parent: Part | None
    bodies: list[Part] = field(default_factory=list)
    bounds: dict[str, float] = field(default_factory=dict)

    def walk(self) -> Iterator[Part]:
        """This part, and those inside it."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting += part.bodies

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        """The constants of this graph alone, by name."""
        made = (node for node in self.graph.node if node.op_type == "Constant" and node.output)
        tensors = {node.output[0]: item.t for node in made for item in node.attribute if item.name == "value"}
        return tensors | {tensor.name: tensor for tensor in self.graph.initializer}

    def numbers(self, name: str) -> NDArray[Any] | None:
        """The elements of a constant of integers or floats; None where a name is none, or its data cannot be read."""
        part = self._of(name) if name else None
        tensor = None if part is None else part.tensors.get(name)
        if tensor is None:
            return None
        try:
            array = onnx.numpy_helper.to_array(tensor)
        except Exception:  # onnx raises what it likes on data of another size, or that lie elsewhere
            return None
        return array if array.dtype.kind in "fi" else None

    def shape(self, name: str) -> Shape | None:
        """The shape of a value; None where not even the rank is known."""
        part = self._of(name)
        if part is None:
            return None
        if name in part.tensors:
            return tuple(part.tensors[name].dims[:])
        kind = part.infos[name].type.tensor_type if name in part.infos else onnx.TypeProto.Tensor()
        return sizes_of(kind.shape) if kind.HasField("shape") else None

    def elem_type(self, name: str) -> int:
        """The TensorProto.DataType of a value; 0 where it is not known."""
        part = self._of(name)
        if part is None:
            return 0
        return part.tensors[name].data_type if name in part.tensors else part.infos[name].type.tensor_type.elem_type

    def longest(self, name: str) -> float:
        """How many elements a value has at most if it is a vector; 1 where it is none."""
        shape = self.shape(name)
        if shape is not None and len(shape) != 1:
            return 1
        size = None if shape is None else shape[0]
        part: Part | None = self
        while part is not None and not isinstance(size, int):
            if name in part.bounds:
                return part.bounds[name]
            part = part.parent
        return size if isinstance(size, int) else math.inf

    def _of(self, name: str) -> Part | None:
        part: Part | None = self
        while part is not None and name not in part.infos and name not in part.tensors:
            part = part.parent
        return part


def parts_of(main: Scope, given: onnx.GraphProto, inferred: onnx.GraphProto) -> Part:
    """The parts of a graph: as it was given to inference, and as it came back."""
    root = Part(main, given, _infos(inferred), None)
    waiting = [(root, inferred)]
    while waiting:
        part, found = waiting.pop()
        for scope, body, twin in zip(part.scope.bodies, _bodies(part.graph), _bodies(found), strict=False):
            inner = Part(scope, body, _infos(twin), part)
            part.bodies.append(inner)
            waiting.append((inner, twin))
    return root


def sizes_of(shape: onnx.TensorShapeProto) -> Shape:
    """The sizes in a message; what says nothing is None."""
    return tuple([declared_size(dim.dim_value if dim.HasField("dim_value") else dim.dim_param) for dim in shape.dim[:]])


def _infos(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    infos: dict[str, onnx.ValueInfoProto] = {}
    for info in chain(graph.input, graph.value_info, graph.output):
        infos.setdefault(info.name, info)
    return infos


def _bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the nodes of a graph, in the order in which `index` meets them."""
    return (body for node in graph.node for body in graphs_of(node))
