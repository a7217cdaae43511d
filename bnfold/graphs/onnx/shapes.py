"""Sizes and element types of values, from onnx's own shape inference.

Inference starts from the graph's inputs and initializers alone. What a file says about values in between is not taken
over, because exporters are known to leave sizes there that hold for their example input only; it is believed for
outputs of operators that inference does not know, which would else end every chain. A symbol is a name that stands
for one number; a size that inference does not know is None.

Inference follows few operators that compute a size, an axis or a bound, and knows next to nothing of what lies behind
another one. It is told the results of those that have constant operands (`learn`); of those that depend on an input,
one that it does not follow is put in words that it does (`_rephrase`).

Inference runs when the first shape is asked for that is not written in the model, and its answers are read one by one:
most folds need few of them, many none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import onnx
import onnx.shape_inference
from numpy.typing import NDArray

from bnfold.algebra.axes import Shape, Size
from bnfold.dims import declared_size
from bnfold.graphs.onnx.index import Scope, Value, graphs_of, is_foreign

_POOLS_RIGHT_FROM = 22
_POOLS = ("AveragePool", "LpPool", "MaxPool")
_HIDDEN = "bnfold.hidden"
_AXES_ARE_AN_INPUT_FROM = 13
# Operators of the standard that inference has no rule for; both leave shape and type as they are (seen with onnx 1.23).
_KEEPING = ("GroupNormalization", "MeanVarianceNormalization")
_OF_NUMBERS = {
    **dict.fromkeys(("value_float", "value_floats"), onnx.TensorProto.FLOAT),
    **dict.fromkeys(("value_int", "value_ints"), onnx.TensorProto.INT64),
}
INTEGERS = {onnx.TensorProto.INT32, onnx.TensorProto.INT64}
# Their schemas do not say so: a sequence of tensors on one side, one tensor on the other, of the same element type.
_THROUGH_SEQUENCES = ("SplitToSequence", "SequenceAt", "ConcatFromSequence")


class Told(NamedTuple):
    """What is known of a value that inference does not know; `elements` only of a few integers."""

    elem_type: int
    shape: Shape
    elements: NDArray[Any] | None = None


class Shapes:
    """What is known about each value; a shape is None where not even the rank is known.

    `consult` is called once, when a size is asked for that inference does not know: it may `learn` more.
    """

    def __init__(self, model: onnx.ModelProto, scopes: list[Scope]) -> None:
        self.consult: Callable[[], None] | None = None
        self._model = model
        self._scopes = scopes
        self._known: dict[Value, tuple[int, Shape | None]] = {}
        self._same: dict[Value, Value] = {}
        self._types: dict[Value, int] = {}
        self._blank = onnx.ModelProto()
        self._inferred: onnx.ModelProto | None = None
        self._infos: dict[Scope, dict[str, onnx.ValueInfoProto]] = {}

    def shape(self, value: Value) -> Shape | None:
        return self._find(value)[1]

    def elem_type(self, value: Value) -> int:
        """The TensorProto.DataType of the elements; 0 where it is not known."""
        return self._type_above(value) or self._find(value)[0]

    def copy(self, old: Value, new: Value) -> None:
        """Say of a new value what is known of another."""
        self._same[new] = old

    def is_settled(self, value: Value) -> bool:
        """Whether every size is a number, or a symbol that inference did not make up."""
        shape = self._find(value)[1]
        return shape is not None and not any(size is None or made_up(size) for size in shape)

    def is_static(self, value: Value) -> bool:
        """Whether every size is a number."""
        shape = self._find(value)[1]
        return shape is not None and all(isinstance(size, int) for size in shape)

    def so_far(self, value: Value) -> Shape | None:
        """The shape as far as it is known without anything being computed for this answer."""
        value = self._same.get(value, value)
        if value not in self._known and value.tensor is None and self._inferred is None:
            return None
        return (self._known.get(value) or self._look_up(value))[1]

    def learn(self, found: Mapping[Value, Told]) -> None:
        """Infer once more, with this told beforehand."""
        found = {self._same.get(value, value): told for value, told in found.items()}
        _tell(self._blank.graph, self._scopes[0], found)
        self._infer()

    def _type_above(self, value: Value) -> int:
        """The type of the elements as far as one of the weights, inputs and casts above tells, without inference."""
        met = {value: None}
        waiting = [value]
        found = 0
        while waiting and not found:
            at = waiting.pop()
            found = self._types.get(at, -1)
            if found < 0:
                found = self._written_type(at) or _made_type(at)
                alike = [operand for operand in _of_the_type(at) if operand not in met]
                met.update(dict.fromkeys(alike))
                waiting += sorted(alike, key=lambda operand: operand.tensor is not None)  # a weight is asked next
        self._types.update(dict.fromkeys(met, found))
        return found

    def _written_type(self, value: Value) -> int:
        """The type of an initializer, or of an input of the model, as the file says; else 0."""
        if value.tensor is not None:
            return value.tensor.data_type
        main = value.scope.graph
        if not value.is_input or value.scope.parent is not None or not isinstance(main, onnx.GraphProto):
            return 0
        return next((info.type.tensor_type.elem_type for info in main.input if info.name == value.name), 0)

    def _find(self, value: Value) -> tuple[int, Shape | None]:
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = self._look_up(self._same.get(value, value))
            if self.consult is not None and not self.is_settled(value):
                consult, self.consult = self.consult, None
                consult()
                known = self._find(value)
        return known

    def _look_up(self, value: Value) -> tuple[int, Shape | None]:
        if value.tensor is not None:
            return value.tensor.data_type, tuple(value.tensor.dims[:])
        if self._inferred is None:
            self._begin()
        info = self._infos.get(value.scope, {}).get(value.name)
        return (0, None) if info is None else _of_type(info.type.tensor_type)

    def _begin(self) -> None:
        """Infer for the first time."""
        self._blank.CopyFrom(self._model)
        main = self._scopes[0]
        _forget(self._blank.graph, main, {(function.domain, function.name) for function in self._model.functions})
        if _opset(self._model) < _POOLS_RIGHT_FROM:
            self._blank.opset_import.add(domain=_HIDDEN, version=1)
        self._infer()
        if _rephrase(self._blank.graph, main, self._look_up, _opset(self._model)):
            self._infer()

    def _infer(self) -> None:
        """Let onnx infer what follows from what the messages hold, but for what it infers wrongly."""
        main, masked = self._scopes[0], True
        while masked:
            inferred = self._blank
            with contextlib.suppress(onnx.shape_inference.InferenceError, RuntimeError, ValueError):
                inferred = onnx.shape_inference.infer_shapes(self._blank, data_prop=True)
            masked = _opset(self._model) < _POOLS_RIGHT_FROM and _mask_pools(self._blank.graph, inferred.graph, main)
        self._inferred = inferred
        self._known.clear()
        self._infos = dict(_infos(main, inferred.graph))


def made_up(size: Size) -> bool:
    """Whether a size has its name from inference alone."""
    return isinstance(size, str) and size.startswith("unk__")


def _infos(scope: Scope, graph: onnx.GraphProto) -> Iterator[tuple[Scope, dict[str, onnx.ValueInfoProto]]]:
    """For a graph and every body inside it what it says of values, by name."""
    infos: dict[str, onnx.ValueInfoProto] = {}
    for info in chain(graph.input, graph.value_info, graph.output):
        infos.setdefault(info.name, info)
    yield scope, infos
    for body, inner in zip(scope.bodies, _bodies(graph) if scope.bodies else (), strict=True):
        yield from _infos(body, inner)


def _tell(graph: onnx.GraphProto, scope: Scope, found: Mapping[Value, Told]) -> None:
    """Write down what values are: their types, or a Constant in the place of the node that computes them."""
    for value, told in found.items():
        if value.scope is scope and told.elements is None:
            infos = [info for info in chain(graph.output, graph.value_info) if info.name == value.name]
            for info in infos or [graph.value_info.add()]:
                info.CopyFrom(onnx.helper.make_tensor_value_info(value.name, told.elem_type, told.shape))
    for node in graph.node:
        made = scope.values.get(node.output[0]) if len(node.output) == 1 else None
        elements = found[made].elements if made is not None and made in found else None
        if elements is not None:
            tensor = onnx.numpy_helper.from_array(elements)
            node.CopyFrom(onnx.helper.make_node("Constant", [], list(node.output), value=tensor))
    for body, inner in zip(scope.bodies, _bodies(graph) if scope.bodies else (), strict=True):
        _tell(inner, body, found)


def _rephrase(
    graph: onnx.GraphProto, scope: Scope, look_up: Callable[[Value], tuple[int, Shape | None]], opset: int
) -> bool:
    """Say Unsqueeze for a Reshape of one integer to a vector; returns whether there were any.

    Exporters join the sizes of a target shape in this way; inference follows a size through the one operator, but not
    through the other.
    """
    changed = False
    for node in graph.node:
        if node.op_type != "Reshape" or is_foreign(node):
            continue
        read, made = scope.resolve(node.input[0]), scope.values.get(node.output[0])
        if read is None or made is None or look_up(made)[1] != (1,):
            continue
        elem_type, shape = look_up(read)
        if elem_type not in INTEGERS or shape != ():
            continue
        changed = True
        node.op_type = "Unsqueeze"
        del node.attribute[:]
        del node.input[1:]
        if opset < _AXES_ARE_AN_INPUT_FROM:
            node.attribute.append(onnx.helper.make_attribute("axes", [0]))
        else:
            axes = onnx.helper.make_tensor(f"{node.output[0]}.{_HIDDEN}", onnx.TensorProto.INT64, [1], [0])
            node.input.append(axes.name)
            graph.initializer.append(axes)
    for body, inner in zip(scope.bodies, _bodies(graph) if scope.bodies else (), strict=True):
        changed |= _rephrase(inner, body, look_up, opset)
    return changed


def _of_type(tensor: onnx.TypeProto.Tensor) -> tuple[int, Shape | None]:
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    return tensor.elem_type, sizes_of(tensor.shape)


def sizes_of(shape: onnx.TensorShapeProto) -> Shape:
    """The sizes in a message; what says nothing is None."""
    return tuple([declared_size(dim.dim_value if dim.HasField("dim_value") else dim.dim_param) for dim in shape.dim[:]])


def _made_type(value: Value) -> int:
    """The type of what an operator makes where an attribute says it; else 0."""
    node = value.producer
    if node is None or node.domain or node.is_open or node.op not in ("Cast", "Constant", "ConstantOfShape"):
        return 0
    for item in node.proto.attribute:
        if item.name == "to":
            return item.i
        if item.name == "value":
            return item.t.data_type
        if item.name in _OF_NUMBERS:
            return _OF_NUMBERS[item.name]
    return 0


def _of_the_type(value: Value) -> list[Value]:
    """What the operator that makes a value reads of the same element type."""
    node = value.producer
    if node is None or node.domain:
        return []
    read = (node.inputs[at] for at in _alike(node.op, node.opset, value.port) if at < len(node.inputs))
    return [operand for operand in read if operand is not None]


@cache
def _alike(op: str, opset: int, port: int) -> tuple[int, ...]:
    """The inputs of an operator that have the type of an output, by its schema."""
    if op in _THROUGH_SEQUENCES:
        return (0,)
    try:
        schema = onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return ()
    made = schema.outputs[min(port, len(schema.outputs) - 1)] if schema.outputs else None
    if made is None or not made.is_homogeneous:
        return ()
    return tuple(at for at, read in enumerate(schema.inputs) if read.is_homogeneous and read.type_str == made.type_str)


def _opset(model: onnx.ModelProto) -> int:
    return max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)


def _bodies(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """The graphs inside the nodes of a graph, in the order in which `index` meets them."""
    return [body for node in graph.node for body in graphs_of(node)]


def _forget(graph: onnx.GraphProto, scope: Scope, local: Collection[tuple[str, str]]) -> None:
    """Leave what inference is to start from: no sizes of values in between, and operators that it knows.

    It looks into functions of the model, `local`, as it looks at what they hold where they are written out.
    """
    others = (node for node in graph.node if is_foreign(node) and (node.domain, node.op_type) not in local)
    foreign = {name for node in others for name in node.output}
    kept = [info for info in graph.value_info if info.name in foreign]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for node in graph.node:
        if node.op_type in _KEEPING and not is_foreign(node):
            node.op_type = "Identity"
            del node.attribute[:], node.input[1:]
    for body, inner in zip(scope.bodies, _bodies(graph) if scope.bodies else (), strict=True):
        _forget(inner, body, local)


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
