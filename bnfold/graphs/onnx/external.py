"""Weights that lie in files of their own beside the model: where they are, and that they are all there.

Only a relative path that goes down from the model's folder is followed, as the ONNX specification wants it, and no
symbolic link that leads out of the folder. Where the model itself is a link, as in the caches of model hubs, its data
may also lie in the folder that the link leads to.

Weights of the main graph, initializers and tensors in Constant nodes, become payloads and are not read. Those of
control-flow bodies, functions and other attributes are few and small: they are read into the skeleton, where whoever
looks for them finds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

import onnx

from bnfold.errors import ModelError, refused_as
from bnfold.graphs.onnx.document import EXTERNAL, Buffer, Document, Piece, constant_tensor, map_file, weights_of


def attach_external(document: Document, path: Path) -> None:
    """Find the data of every weight of a document that lies outside its file `path`.

    Raises ModelError, in one line, where a data file is missing, too short, or not where it may be.
    """
    maps: dict[str, Buffer] = {}
    for name, tensor in weights_of(document.model.graph):
        if tensor.data_location == EXTERNAL:
            document.payloads[name] = _find(tensor, name, path, maps)
    for tensor in _inner_tensors(document.model):
        if tensor.data_location == EXTERNAL:
            piece = _find(tensor, tensor.name, path, maps)
            internalise(tensor)
            tensor.raw_data = bytes(piece.read())
    document.external = tuple(maps)


def first_external(model: onnx.ModelProto) -> str | None:
    """The name of a weight that lies in another file, if there is one."""
    tensors = chain(weights_of(model.graph), ((tensor.name, tensor) for tensor in _inner_tensors(model)))
    return next((name for name, tensor in tensors if tensor.data_location == EXTERNAL), None)


def externalise(tensor: onnx.TensorProto, location: str, offset: int, nbytes: int) -> None:
    """Say in a tensor where its data lie."""
    tensor.data_location = EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", nbytes)):
        tensor.external_data.add(key=key, value=str(value))


def internalise(tensor: onnx.TensorProto) -> None:
    """Forget where a tensor's data lay: they are to be in the tensor itself."""
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")


def rename_external(model: onnx.ModelProto, location: str) -> None:
    """Let all weights of the main graph that lie in a file lie in the one of this name."""
    for _, tensor in weights_of(model.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location


def _inner_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor but the weights of the main graph."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        if isinstance(graph, onnx.GraphProto):
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        nodes = [node for node in graph.node if graph is not model.graph or constant_tensor(node) is None]
        for attribute in (attribute for node in nodes for attribute in node.attribute):
            yield from [attribute.t] if attribute.HasField("t") else attribute.tensors
            bodies = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for body in bodies:
                yield from body.initializer
            waiting.extend(bodies)


def _find(tensor: onnx.TensorProto, name: str, path: Path, maps: dict[str, Buffer]) -> Piece:
    """The bytes of a tensor; `maps` holds the data files that are open, by location."""
    entry = {item.key: item.value for item in tensor.external_data}
    location = entry.get("location", "")
    if location not in maps:
        maps[location] = _map(path, location, name)
    data = maps[location]
    try:
        offset = int(entry.get("offset") or 0)
        nbytes = int(entry.get("length") or _dense_bytes(tensor))
    except (ValueError, KeyError):
        raise ModelError(f"{path}: weight '{name}' does not say where in '{location}' it lies") from None
    if offset < 0 or nbytes < 0 or offset + nbytes > len(data):
        raise ModelError(f"{path}: weight '{name}' lies past the end of '{location}': copy the data file again")
    return Piece(data, offset, nbytes)


def _dense_bytes(tensor: onnx.TensorProto) -> int:
    """How many bytes a tensor's elements take. Raises KeyError for a type that this onnx release does not know."""
    return math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _map(path: Path, location: str, name: str) -> Buffer:
    with refused_as(ModelError, f"{path}: weight '{name}' lies in '{location}', which cannot be read"):
        relative = PurePosixPath(location)
        target = (path.parent / relative).resolve()
        allowed = (path.parent.resolve(), path.resolve().parent)
        inside = not relative.is_absolute() and ".." not in relative.parts
        if not location or not inside or not any(target.is_relative_to(folder) for folder in allowed):
            raise ModelError(
                f"{path}: weight '{name}' points outside the model's folder ('{location}'); this is refused"
            )
        if not target.is_file() and target.exists() and not target.is_dir():
            raise ModelError(f"{path}: weight '{name}' lies in '{location}', which is no regular file")
        return map_file(target)
