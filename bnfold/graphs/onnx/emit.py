"""What plans changed in the index, written into the protobuf messages, once, after the last plan.

Decisions:
- What no plan names is not touched, and keeps its order.
- A new constant is an initializer of the graph that holds its reader; in a function body, which can have none, a
Constant
  node.
- Below IR version 4 an initializer must also be listed as a graph input: new ones are, old ones that go are struck. A
body
  has inputs of its own meaning, so there it is a Constant node.
- The metadata of a node that goes are kept with the nodes that absorb it, under keys that name their origin.
- What the file said of values that are gone goes too.
"""

from __future__ import annotations

import onnx

from bnfold.graphs.onnx import wire
from bnfold.graphs.onnx.constants import Constants
from bnfold.graphs.onnx.document import Computed, Document
from bnfold.graphs.onnx.graph import OnnxGraph
from bnfold.graphs.onnx.index import Scope, Value
from bnfold.graphs.onnx.known import Known


def emit(graph: OnnxGraph) -> None:
    """Write all that the plans changed into the graph's document; to be called once."""
    for node in graph.gone:
        if node.op == "Constant" and node.scope is graph.scopes[0]:
            graph.document.payloads.pop(node.proto.output[0], None)
    for scope in reversed(graph.all_scopes()):  # bodies first: their messages lie inside those of the nodes outside
        made = [(value, _known(graph.constants, value)) for value in graph.alive(scope)]
        as_nodes = scope.is_function or (scope.parent is not None and graph.document.model.ir_version < 4)
        _emit_nodes(graph, scope, made if as_nodes else [])
        if isinstance(scope.graph, onnx.GraphProto):
            _emit_initializers(graph.document, scope, scope.graph, [] if as_nodes else made)


def _emit_nodes(graph: OnnxGraph, scope: Scope, constants: list[tuple[Value, Known]]) -> None:
    left = [node for node in scope.nodes if node not in graph.gone]
    for node in left:
        for gone in dict.fromkeys(graph.metadata.get(node, ())):
            _keep_metadata(node.proto, gone.proto, gone.name)
        if node.changed:
            node.proto.input[:] = [value.name if value else "" for value in node.inputs]
            node.proto.output[:] = [value.name if value else "" for value in node.outputs]
    if not scope.changed and not constants:
        return
    protos = [_constant_node(value, known) for value, known in constants] + [node.proto for node in left]
    del scope.graph.node[:]
    scope.graph.node.extend(protos)
    if not scope.graph.value_info:
        return
    names = {name for proto in protos for name in proto.output[:]}
    names |= {value.name for value in scope.values.values() if value.producer is None}
    infos = [info for info in scope.graph.value_info[:] if info.name in names]
    if len(infos) < len(scope.graph.value_info):
        del scope.graph.value_info[:]
        scope.graph.value_info.extend(infos)


def _emit_initializers(
    document: Document, scope: Scope, graph: onnx.GraphProto, made: list[tuple[Value, Known]]
) -> None:
    gone = {name for tensor in graph.initializer[:] if (name := tensor.name) not in scope.values}
    if gone:
        kept = [tensor for tensor in graph.initializer[:] if tensor.name not in gone]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    if scope.parent is None:
        for name in gone:
            document.payloads.pop(name, None)
    for value, known in made:
        tensor = graph.initializer.add(name=value.name, data_type=known.elem_type, dims=known.folded_shape)
        if scope.parent is None and known.nbytes >= wire.LARGE_BYTES:
            document.payloads[value.name] = Computed(known.nbytes, known.rounded)
        else:
            tensor.raw_data = known.rounded().tobytes()
    if document.model.ir_version < 4 and scope.parent is None:
        _list_as_inputs(graph, gone, made)


def _list_as_inputs(graph: onnx.GraphProto, gone: set[str], made: list[tuple[Value, Known]]) -> None:
    kept = [info for info in graph.input if info.name not in gone]
    if len(kept) < len(graph.input):
        del graph.input[:]
        graph.input.extend(kept)
    for value, known in made:
        graph.input.append(onnx.helper.make_tensor_value_info(value.name, known.elem_type, known.folded_shape))


def _keep_metadata(target: onnx.NodeProto, source: onnx.NodeProto, name: str) -> None:
    """Let what was noted on a node that goes live on at the node that absorbed it."""
    found = {item.key: item.value for item in target.metadata_props}
    for item in source.metadata_props:
        if item.key not in found:
            target.metadata_props.add(key=item.key, value=item.value)
        elif found[item.key] != item.value:
            target.metadata_props.add(key=f"bnfold.from.{name}.{item.key}", value=item.value)
    if source.doc_string and source.doc_string != target.doc_string:
        target.doc_string = f"{target.doc_string}\n{source.doc_string}" if target.doc_string else source.doc_string


def _constant_node(value: Value, known: Known) -> onnx.NodeProto:
    tensor = onnx.TensorProto(name=value.name, data_type=known.elem_type, dims=known.folded_shape)
    tensor.raw_data = known.rounded().tobytes()
    return onnx.helper.make_node("Constant", [], [value.name], name=value.name, value=tensor)


def _known(constants: Constants, value: Value) -> Known:
    known = constants.known(value)
    if known is None:
        raise KeyError(f"'{value.name}' is no constant")
    return known
