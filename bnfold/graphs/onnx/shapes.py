"""Sizes and element types of values, from onnx's own shape inference.

Inference starts from the graph's inputs and initializers alone. What a file says about values in between is not taken
over, because exporters are known to leave sizes there that hold for their example input only; it is believed for
outputs of operators that inference does not know, which would else end every chain. A symbol is a name that stands
for one number; a size that inference does not know is None.
"""

from __future__ import annotations

import onnx
import onnx.shape_inference

from bnfold.algebra.axes import Shape
from bnfold.graphs.onnx.index import Scope, Value


class Shapes:
    """What is known about each value; a shape is None where not even the rank is known."""

    def __init__(self, model: onnx.ModelProto, scopes: list[Scope]) -> None:
        self._known: dict[Value, tuple[int, Shape | None]] = {}
        inferred = _inferred(model)
        self._read(scopes[0], inferred.graph)

    def shape(self, value: Value) -> Shape | None:
        return self._known.get(value, (0, None))[1]

    def elem_type(self, value: Value) -> int:
        """The TensorProto.DataType of the elements; 0 where it is not known."""
        return self._known.get(value, (0, None))[0]

    def copy(self, old: Value, new: Value) -> None:
        """Say of a new value what is known of another."""
        if old in self._known:
            self._known[new] = self._known[old]

    def _read(self, scope: Scope, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            value = scope.values.get(tensor.name)
            if value is not None:
                self._known[value] = (tensor.data_type, tuple(tensor.dims))
        for info in [*graph.input, *graph.value_info, *graph.output]:
            value = scope.values.get(info.name)
            if value is not None and value not in self._known and info.type.HasField("tensor_type"):
                self._known[value] = _of_type(info.type.tensor_type)
        bodies = iter(scope.bodies)
        for node in graph.node:
            for attribute in node.attribute:
                for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    self._read(next(bodies), body)


def _of_type(tensor: onnx.TypeProto.Tensor) -> tuple[int, Shape | None]:
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    sizes: list[int | str | None] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            sizes.append(dim.dim_value if dim.dim_value >= 0 else None)
        else:
            sizes.append(dim.dim_param or None)
    return tensor.elem_type, tuple(sizes)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with value_info for every value that inference reaches."""
    blank = onnx.ModelProto()
    blank.CopyFrom(model)
    _forget(blank.graph)
    try:
        inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(blank, data_prop=True)
        return inferred
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return blank


def _forget(graph: onnx.GraphProto) -> None:
    foreign = {name for node in graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    kept = [info for info in graph.value_info if info.name in foreign]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for node in graph.node:
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _forget(body)
