"""Which integers a model's inputs may hold: those that name rows of a table of known size, as token numbers do."""

from __future__ import annotations

import onnx

from bnfold.graphs.onnx.document import Document

# Operators whose result holds the elements of their first input, and nothing else.
_PASSING = frozenset({"Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Expand", "Slice", "Tile"})
_INTEGERS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32})


def index_limits(document: Document) -> dict[str, int]:
    """By graph input, the highest integer that every Gather of a stored table takes which is given its elements.

    Inputs that reach no such Gather are left out; how far they may go is not known.
    """
    graph = document.model.graph
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, position))
    out = {}
    for info in graph.input:
        if info.type.tensor_type.elem_type in _INTEGERS and info.name not in sizes:
            limits = _limits(info.name, readers, sizes)
            if limits:
                out[info.name] = min(limits)
    return out


def _limits(
    name: str, readers: dict[str, list[tuple[onnx.NodeProto, int]]], sizes: dict[str, tuple[int, ...]]
) -> list[int]:
    found: list[int] = []
    waiting, seen = [name], {name}
    while waiting:
        for node, position in readers.get(waiting.pop(), ()):
            attributes = {item.name: item for item in node.attribute}
            if node.op_type == "Gather" and position == 1 and sizes.get(node.input[0]):
                axis = attributes["axis"].i if "axis" in attributes else 0
                found.append(sizes[node.input[0]][axis] - 1)
            keeps = node.op_type in _PASSING or (node.op_type == "Cast" and attributes["to"].i in _INTEGERS)
            if keeps and position == 0 and node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append(node.output[0])
    return found
