"""onnx's own shape inference: what it is given, how it is run, and where its word is not taken.

It starts from the graph's inputs and initializers alone. What a file says about values in between is not taken over,
because exporters are known to leave sizes there that hold for their example input only; it is believed for outputs of
operators that inference does not know, which would else end every chain.

Decisions.
- It is told the results of operators that have constant operands (`tell`); of those that depend on an input, one that
  it does not follow is put in words that it does (`_rephrase`).
- What it says wrongly is taken back (`distrust`): the operator is hidden from it behind a foreign domain, with as much
  of the shapes of its outputs as is right.
- It follows numbers, where asked to (data propagation), by one message per element of every vector that comes its way:
  150 bytes each, 20 GB for a Tile by 2^27. So it is asked to only where a Shape or a Size makes numbers, and operators
  that read a vector which is or may be long are hidden from it meanwhile, until it has told their lengths.
- A size below zero is none; onnx ends the process where a Slice or GatherND reads one. Files write -1 for what they do
  not know, and operators make such sizes where a model contradicts itself: windows larger than what they go over. These
  are looked for once, with a Slice and a GatherND hidden.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import onnx
import onnx.shape_inference
from numpy.typing import NDArray

from bnfold.algebra.axes import Shape
from bnfold.graphs.onnx.distrust import DISTRUSTED, believed
from bnfold.graphs.onnx.index import Scope, Value, graphs_of, is_foreign
from bnfold.graphs.onnx.inferred import Part, parts_of

INTEGERS = {onnx.TensorProto.INT32, onnx.TensorProto.INT64}
MOST_ROUNDS = 5
LONG = 2**16  # elements of a vector through which no numbers are followed
_MOST_AXES = 64
_HIDDEN = "bnfold.hidden"
_AXES_ARE_AN_INPUT_FROM = 13
# Operators of the standard that inference has no rule for; both leave shape and type as they are (seen with onnx 1.23).
_KEEPING = ("GroupNormalization", "MeanVarianceNormalization")
# Operators through which inference follows numbers, and those of them that make none more than they read.
_FOLLOWED = frozenset({"Add", "Cast", "Concat", "Gather", "Mul", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze"})
_PASSING = frozenset({"Cast", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze"})
_COUNTING = frozenset({"Shape", "Size"})
# What may make a long vector of a few numbers, or of a tensor of a higher rank.
_GROWING = frozenset(
    {"ConstantOfShape", "Expand", "Flatten", "OneHot", "Pad", "Range", "Reshape", "Resize", "Tile", "Upsample"}
)

# Operators by which inference ends the process where they read a size below zero, and those that may make one.
_ENDING = ("GatherND", "Slice")
_SHRINKING = frozenset(
    {"AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool", "Pad", "Resize", "Split", "TopK", "Upsample"}
)

_Key = tuple[str, str]  # domain and name of an operator


class Told(NamedTuple):
    """What is known of a value that inference does not know; `elements` only of a few integers."""

    elem_type: int
    shape: Shape
    elements: NDArray[Any] | None = None


class Inference:
    """onnx's inference on a copy of a model, which is made when it is first needed."""

    def __init__(self, model: onnx.ModelProto, main: Scope) -> None:
        self._model = model
        self._main = main
        self._opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)
        self._blank: onnx.ModelProto | None = None
        self._numbered = False  # whether there are numbers to follow
        self._followed: set[_Key] = set()

    def tell(self, found: Mapping[Value, Told]) -> None:
        """Take in what is known of values beforehand."""
        _tell(self._begun().graph, self._main, found)

    def run(self) -> Part:
        """What inference says of the graph and the bodies in it."""
        model = self._begun()
        if not self._numbered:
            return self._trusted(data_prop=False)
        part, hidden = self._inferred(model, data_prop=False), -1
        for _ in range(MOST_ROUNDS):
            before, undo = hidden, list(self._hide_long(part))
            hidden = len(undo)
            if hidden != before:
                part = self._trusted(data_prop=True)
            for graph, node, domain, told in reversed(undo):
                node.domain = domain
                del graph.value_info[told]
            if self._rephrase(part):
                hidden = -1
            elif hidden in (0, before):
                break
        return part

    def _begun(self) -> onnx.ModelProto:
        if self._blank is None:
            self._blank = onnx.ModelProto()
            self._blank.CopyFrom(self._model)
            self._blank.opset_import.add(domain=_HIDDEN, version=1)
            local = {(function.domain, function.name): _ops(function) for function in self._model.functions}
            for part in _with_bodies(self._blank.graph):
                if isinstance(part, onnx.GraphProto):
                    _forget(part, local)
            self._hide_negative(self._blank)
            self._followed = {("", op) for op in _FOLLOWED} | {key for key, ops in local.items() if ops & _FOLLOWED}
            safe = not any(ops & _FOLLOWED and ops & _GROWING for ops in local.values())
            self._numbered = safe and any(ops & _COUNTING for ops in [*local.values(), _ops(self._model.graph)])
        return self._blank

    def _inferred(self, model: onnx.ModelProto, *, data_prop: bool) -> Part:
        """Let onnx infer what follows from what the messages hold."""
        inferred = model
        with contextlib.suppress(onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
        return parts_of(self._main, model.graph, inferred.graph)

    def _trusted(self, *, data_prop: bool) -> Part:
        """The same, but for what it infers wrongly."""
        while True:
            part = self._inferred(self._begun(), data_prop=data_prop)
            if not self._take_back(part):
                return part

    def _hide_negative(self, model: onnx.ModelProto) -> None:
        """Hide operators that make sizes below zero."""
        nodes = [node for part in _with_bodies(model.graph) for node in part.node]
        ending = [node for node in nodes if node.op_type in _ENDING and not is_foreign(node)]
        if not ending or _SHRINKING.isdisjoint(node.op_type for node in nodes):
            return
        for node in ending:
            node.domain = _HIDDEN
        found = True
        while found:
            found = False
            for part in self._inferred(model, data_prop=False).walk():
                below = {name for name, info in part.infos.items() if _is_negative(info)}
                for node in part.graph.node:
                    if node.domain != _HIDDEN and not below.isdisjoint(node.output):
                        found = True
                        _hide(part, node, {name: part.shape(name) for name in node.output})
        for node in ending:
            node.domain = ""

    def _take_back(self, main: Part) -> bool:
        """Hide operators of which inference says what is wrong; returns whether there were any."""
        found = False
        for part in main.walk():
            for node in part.graph.node:
                if node.op_type not in DISTRUSTED or is_foreign(node):
                    continue
                claims = {name: part.shape(name) for name in node.output if name}
                left = {name: y and believed(node, self._opset, part, y) for name, y in claims.items()}
                if left != claims:
                    found = True
                    _hide(part, node, left)
        return found

    def _hide_long(self, main: Part) -> Iterator[tuple[onnx.GraphProto, onnx.NodeProto, str, slice]]:
        """Hide operators that read vectors that are long, or of which that is not known, from data propagation.

        Yields what it takes to undo that: graph, node, its domain, and which values the graph tells of for that alone.
        """
        for part in main.walk():
            for node in part.graph.node:
                domain = "" if node.domain == "ai.onnx" else node.domain
                lengths = [part.longest(name) for name in node.input if name]
                if (domain, node.op_type) in self._followed and any(length > LONG for length in lengths):
                    told, before = len(part.graph.value_info), node.domain
                    _hide(part, node, {name: part.shape(name) for name in node.output if name})
                    yield part.graph, node, before, slice(told, len(part.graph.value_info))
                elif domain or not node.output:
                    continue
                elif node.op_type in _COUNTING:
                    part.bounds[node.output[0]] = _MOST_AXES
                elif node.op_type in _PASSING and lengths:
                    part.bounds[node.output[0]] = max(lengths)
                elif node.op_type in _FOLLOWED:
                    part.bounds[node.output[0]] = sum(lengths)

    def _rephrase(self, main: Part) -> bool:
        """Say Unsqueeze for a Reshape of one integer to a vector; returns whether there were any.

        Exporters join the sizes of a target shape in this way; inference follows a size through the one operator, but
        not through the other.
        """
        changed = False
        for part in main.walk():
            for node in part.graph.node:
                if node.op_type != "Reshape" or is_foreign(node) or part.shape(node.output[0]) != (1,):
                    continue
                if part.elem_type(node.input[0]) not in INTEGERS or part.shape(node.input[0]) != ():
                    continue
                changed = True
                node.op_type = "Unsqueeze"
                del node.attribute[:]
                del node.input[1:]
                if self._opset < _AXES_ARE_AN_INPUT_FROM:
                    node.attribute.append(onnx.helper.make_attribute("axes", [0]))
                else:
                    axes = onnx.helper.make_tensor(f"{node.output[0]}.{_HIDDEN}", onnx.TensorProto.INT64, [1], [0])
                    node.input.append(axes.name)
                    part.graph.initializer.append(axes)
        return changed


def _is_negative(info: onnx.ValueInfoProto) -> bool:
    has_shape = info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape")
    return has_shape and any(dim.dim_value < 0 for dim in info.type.tensor_type.shape.dim)


def _with_bodies(whole: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """A graph or function, and the bodies in it."""
    waiting = [whole]
    while waiting:
        part = waiting.pop()
        yield part
        waiting.extend(body for node in part.node for body in graphs_of(node))


def _ops(whole: onnx.GraphProto | onnx.FunctionProto) -> set[str]:
    """The operators of a graph or function, those in bodies included."""
    return {node.op_type for part in _with_bodies(whole) for node in part.node}


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
    bodies = [body for node in graph.node for body in graphs_of(node)] if scope.bodies else []
    for body, inner in zip(scope.bodies, bodies, strict=True):
        _tell(inner, body, found)


def _hide(part: Part, node: onnx.NodeProto, shapes: Mapping[str, Shape | None]) -> None:
    """Make a node one of a domain that inference does not know, and say of its outputs these shapes."""
    node.domain = _HIDDEN
    for name, shape in shapes.items():
        if name in part.infos:
            info = part.graph.value_info.add()
            info.CopyFrom(part.infos[name])
            if info.type.HasField("tensor_type"):
                info.type.CopyFrom(onnx.helper.make_tensor_type_proto(info.type.tensor_type.elem_type, shape))


def _forget(graph: onnx.GraphProto, local: Collection[_Key]) -> None:
    """Leave what inference is to start from: no sizes of values in between, none below zero, operators that it knows.

    It looks into functions of the model, `local`, as it looks at what they hold where they are written out.
    """
    others = (node for node in graph.node if is_foreign(node) and (node.domain, node.op_type) not in local)
    foreign = {name for node in others for name in node.output}
    kept = [info for info in graph.value_info if info.name in foreign]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for info in chain(graph.input, graph.output, graph.value_info):
        for dim in info.type.tensor_type.shape.dim if info.type.HasField("tensor_type") else ():
            if dim.dim_value < 0:
                dim.Clear()
    whole = [tensor for tensor in graph.initializer if all(size >= 0 for size in tensor.dims[:])]
    if len(whole) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(whole)
    for node in graph.node:
        if node.op_type in _KEEPING and not is_foreign(node):
            node.op_type = "Identity"
            del node.attribute[:], node.input[1:]
        elif node.op_type == "Constant" and any(size < 0 for item in node.attribute for size in item.t.dims[:]):
            node.domain = _HIDDEN
