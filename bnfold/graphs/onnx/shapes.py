"""Sizes and element types of values, from onnx's own shape inference.

Inference starts from the graph's inputs and initializers alone. What a file says about values in between is not taken
over, because exporters are known to leave sizes there that hold for their example input only; it is believed for
outputs of operators that inference does not know, which would else end every chain. A symbol is a name that stands
for one number; a size that inference does not know is None.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.shape_inference

from bnfold.algebra.axes import Shape
from bnfold.graphs.onnx.index import Scope, Value

_POOLS_RIGHT_FROM = 22
_POOLS = ("AveragePool", "LpPool", "MaxPool")
_HIDDEN = "bnfold.hidden"


class Shapes:
    """What is known about each value; a shape is None where not even the rank is known."""

    def __init__(self, model: onnx.ModelProto, scopes: list[Scope]) -> None:
        self._known: dict[Value, tuple[int, Shape | None]] = {}
        self._scopes = scopes
        self._blank = onnx.ModelProto()
        self._blank.CopyFrom(model)
        _forget(self._blank.graph, scopes[0])
        self._infer()
        if _opset(model) < _POOLS_RIGHT_FROM and _mask_pools(self._blank.graph, self._inferred.graph, scopes[0]):
            self._blank.opset_import.add(domain=_HIDDEN, version=1)
            self._infer()
            while _mask_pools(self._blank.graph, self._inferred.graph, scopes[0]):
                self._infer()

    def shape(self, value: Value) -> Shape | None:
        return self._known.get(value, (0, None))[1]

    def elem_type(self, value: Value) -> int:
        """The TensorProto.DataType of the elements; 0 where it is not known."""
        return self._known.get(value, (0, None))[0]

    def copy(self, old: Value, new: Value) -> None:
        """Say of a new value what is known of another."""
        if old in self._known:
            self._known[new] = self._known[old]

    def unknown(self) -> list[Value]:
        """The values that operators make and of which not every size is a known number."""
        values = (value for scope in self._scopes[:1] for body in scope.walk() for value in body.values.values())
        return [value for value in values if value.producer is not None and not _is_static(self.shape(value))]

    def learn(self, found: dict[Value, tuple[int, Shape]]) -> None:
        """Infer once more, with these element types and shapes told beforehand."""
        self._tell(self._scopes[0], self._blank.graph, found)
        self._infer()

    def _infer(self) -> None:
        """Let onnx infer what follows from what the messages hold."""
        try:
            self._inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(self._blank, data_prop=True)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            self._inferred = self._blank
        self._known.clear()
        self._read(self._scopes[0], self._inferred.graph)

    def _read(self, scope: Scope, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            value = scope.values.get(tensor.name)
            if value is not None:
                self._known[value] = (tensor.data_type, tuple(tensor.dims))
        for info in [*graph.input, *graph.value_info, *graph.output]:
            value = scope.values.get(info.name)
            if value is not None and value not in self._known and info.type.HasField("tensor_type"):
                self._known[value] = _of_type(info.type.tensor_type)
        for body, inner in zip(scope.bodies, _bodies(graph) if scope.bodies else (), strict=True):
            self._read(body, inner)

    def _tell(self, scope: Scope, graph: onnx.GraphProto, found: dict[Value, tuple[int, Shape]]) -> None:
        for value, (elem_type, shape) in found.items():
            if value.scope is scope:
                graph.value_info.append(onnx.helper.make_tensor_value_info(value.name, elem_type, shape))
        for body, inner in zip(scope.bodies, _bodies(graph) if scope.bodies else (), strict=True):
            self._tell(body, inner, found)


def _is_static(shape: Shape | None) -> bool:
    return shape is not None and all(isinstance(size, int) for size in shape)


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


def _opset(model: onnx.ModelProto) -> int:
    return max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)


def _bodies(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """The graphs inside the nodes of a graph, in the order in which `index` meets them."""
    return [
        body
        for node in graph.node
        for attribute in node.attribute
        for body in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]


def _forget(graph: onnx.GraphProto, scope: Scope) -> None:
    foreign = {name for node in graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    kept = [info for info in graph.value_info if info.name in foreign]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for body, inner in zip(scope.bodies, _bodies(graph) if scope.bodies else (), strict=True):
        _forget(inner, body)


def _mask_pools(graph: onnx.GraphProto, inferred: onnx.GraphProto, scope: Scope) -> bool:
    """Take back what inference says wrongly of pools that round up, below opset 22; returns whether there were any.

    It counts a last window that would begin outside of the input, which the standard and the runtimes leave out (seen
    with onnx 1.23: kernel 1, stride 2, 4 elements gives 3 instead of 2). Such a pool is hidden from it behind a
    foreign domain, with an output whose batch and channels are those inferred and whose other sizes are not known.
    """
    masked = False
    infos = {info.name: info for info in [*inferred.input, *inferred.value_info, *inferred.output]}
    for node in graph.node:
        if node.op_type not in _POOLS or node.domain == _HIDDEN or not _rounds_up_wrongly(node, infos):
            continue
        masked = True
        node.domain = _HIDDEN
        info = onnx.ValueInfoProto()
        info.CopyFrom(infos[node.output[0]])
        for dim in info.type.tensor_type.shape.dim[2:]:
            dim.Clear()
        graph.value_info.append(info)
    if scope.bodies:
        for body, inside, known in zip(scope.bodies, _bodies(graph), _bodies(inferred), strict=True):
            masked |= _mask_pools(inside, known, body)
    return masked


def _rounds_up_wrongly(node: onnx.NodeProto, infos: Mapping[str, onnx.ValueInfoProto]) -> bool:
    """Whether the last window that inference counts begins outside of the input and its padding in front."""
    attributes = {item.name: item for item in node.attribute}
    if "ceil_mode" not in attributes or not attributes["ceil_mode"].i:
        return False
    shapes = [
        _of_type(infos[name].type.tensor_type)[1] if name in infos else None for name in (node.input[0], node.output[0])
    ]
    x, y = shapes
    if x is None or y is None:
        return False
    spatial = len(x) - 2
    strides = list(attributes["strides"].ints) if "strides" in attributes else [1] * spatial
    pads = list(attributes["pads"].ints) if "pads" in attributes else [0] * 2 * spatial
    return any(
        isinstance(size, int) and isinstance(count, int) and (count - 1) * stride >= size + pad
        for size, count, stride, pad in zip(x[2:], y[2:], strides, pads, strict=False)
    )
