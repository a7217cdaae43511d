"""A model as a skeleton without its large weights, and where the bytes of those are.

The skeleton is an ordinary ModelProto that this document owns and may edit. Its weights, which are initializers and
tensors in Constant nodes, have types and shapes, and the large ones of the main graph lack their data, which `payloads`
holds by the name of the initializer, or of what the Constant makes. A payload is a piece of
the source file, a piece of an external data file, a tensor of the caller's model, or an array made by a fold. Nothing
is copied until it is written, and then once.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray

from bnfold.graphs.onnx import wire

EXTERNAL = onnx.TensorProto.EXTERNAL
BLOCK_BYTES = 16 * 2**20


Buffer = memoryview | bytes


@dataclass(frozen=True, eq=False)
class Piece:
    """Bytes `data[offset : offset + nbytes]`, usually of a file that is mapped; `read` gives a view of them."""

    data: Buffer
    offset: int
    nbytes: int

    def read(self) -> Buffer:
        return self.data[self.offset : self.offset + self.nbytes]

    def write_to(self, file: BinaryIO) -> None:
        """Write them in blocks, whose pages are given back: a model may be larger than memory."""
        end = self.offset + self.nbytes
        for start in range(self.offset, end, BLOCK_BYTES):
            stop = min(start + BLOCK_BYTES, end)
            file.write(self.data[start:stop])
            source = self.data.obj if isinstance(self.data, memoryview) else None
            if isinstance(source, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                first = start - start % mmap.PAGESIZE
                source.madvise(mmap.MADV_DONTNEED, first, stop - first)


@dataclass(frozen=True, eq=False)
class Stored:
    """Bytes that lie in an object of the caller's; `read` gives them."""

    nbytes: int
    read: Callable[[], Buffer]

    def write_to(self, file: BinaryIO) -> None:
        file.write(self.read())


@dataclass(frozen=True, eq=False)
class Computed:
    """Bytes of an array that is computed when it is written: element type of the tensor, C order, little endian."""

    nbytes: int
    array: Callable[[], NDArray[Any]]

    def read(self) -> Buffer:
        return np.ascontiguousarray(self.array()).reshape(-1).view(np.uint8).data

    def write_to(self, file: BinaryIO) -> None:
        file.write(self.read())


Payload = Piece | Stored | Computed


@dataclass(frozen=True, eq=False)
class Ledger:
    """What the folds of one document did, in names of values; those inside bodies are named as in `paths`.

    `sites` gives, by the first output of a site's node, the place of the site in the account; `in_functions` are the
    places of the sites that lie inside model-local functions. `changed` are the values that hold something else than
    they did. `exact` are the new constants in float64, as they were before they were rounded.
    """

    sites: Mapping[str, int]
    in_functions: frozenset[int]
    changed: frozenset[str]
    exact: Mapping[str, Callable[[], NDArray[np.float64]]]


@dataclass(eq=False)
class Document:
    """A skeleton and its payloads.

    `path` is the file that it was read from, None for a model in memory; `external` names the data files beside it, as
    the model does. `ledger` says what the folds did that were carried out on it.
    """

    model: onnx.ModelProto
    payloads: dict[str, Payload] = field(default_factory=dict)
    path: Path | None = None
    external: tuple[str, ...] = ()
    ledger: Ledger | None = None

    @property
    def payload_bytes(self) -> int:
        return sum(payload.nbytes for payload in self.payloads.values())

    def detached(self) -> Iterator[tuple[str, onnx.TensorProto]]:
        """The tensors of the skeleton that have payloads, with their names."""
        return ((name, tensor) for name, tensor in weights_of(self.model.graph) if name in self.payloads)

    def copy(self) -> Document:
        """A document over the same weights with a skeleton of its own."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return Document(model, dict(self.payloads), self.path, self.external)


def weights_of(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """The initializers, and the tensors in Constant nodes by the names of what these make."""
    for tensor in graph.initializer[:]:
        yield tensor.name, tensor
    for node in graph.node[:]:
        constant = constant_tensor(node)
        if constant is not None:
            yield node.output[0], constant


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor in a Constant node that can be a weight of the graph: see `wire`."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    if len(node.output) != 1 or not node.output[0] or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    return attribute.t if attribute.name == "value" and attribute.HasField("t") else None


def map_file(path: Path) -> Buffer:
    """A read-only view of a file without reading it; an empty file has no map."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return b""
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def from_bytes(data: Buffer) -> Document:
    """The document in a serialised model. Raises wire.WireError or google's DecodeError if it is malformed."""
    skeleton, segments = wire.detach(data)
    document = Document(onnx.ModelProto.FromString(skeleton))
    for name, (offset, nbytes) in segments.items():
        document.payloads[name] = Piece(data, offset, nbytes)
    return document


def from_proto(model: onnx.ModelProto) -> Document:
    """A document over the caller's model, which is read when weights are written and never changed.

    Messages with fields that this onnx release does not know go through their serialised form, which keeps them.
    """
    graph = model.graph
    tensors = graph.initializer[:]
    weights = {tensor.name: tensor for tensor in tensors if len(tensor.raw_data) >= wire.LARGE_BYTES}
    constants = [node for node in graph.node[:] if _is_large_constant(node)]
    around = (message for node in constants for message in (node, node.attribute[0], node.attribute[0].t))
    names = [name for name, _ in weights_of(graph)] if constants else [tensor.name for tensor in tensors]
    if len(set(names)) < len(names) or any(
        len(UnknownFieldSet(part)) for part in (model, graph, *weights.values(), *around)
    ):
        return from_bytes(model.SerializeToString())
    document = Document(onnx.ModelProto())
    _copy(model, document.model, without=("graph",))
    target = document.model.graph
    target.SetInParent()
    _copy(graph, target, without=("initializer", "node") if constants else ("initializer",))
    for tensor in tensors:
        bare = target.initializer.add()
        _copy(tensor, bare, without=("raw_data",)) if tensor.name in weights else bare.CopyFrom(tensor)
    for node in graph.node[:] if constants else ():
        copied = target.node.add()
        if _is_large_constant(node):
            _copy(node, copied, without=("attribute",))
            attribute = copied.attribute.add()
            _copy(node.attribute[0], attribute, without=("t",))
            attribute.t.SetInParent()
            _copy(node.attribute[0].t, attribute.t, without=("raw_data",))
        else:
            copied.CopyFrom(node)
    weights.update({node.output[0]: node.attribute[0].t for node in constants})
    document.payloads.update({name: _raw_data(tensor) for name, tensor in weights.items()})
    return document


def _is_large_constant(node: onnx.NodeProto) -> bool:
    tensor = constant_tensor(node)
    return tensor is not None and len(tensor.raw_data) >= wire.LARGE_BYTES


def _raw_data(tensor: onnx.TensorProto) -> Stored:
    return Stored(len(tensor.raw_data), lambda: tensor.raw_data)


def _copy(source: Message, target: Message, without: Collection[str]) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name in without:
            continue
        if isinstance(value, Message):
            getattr(target, descriptor.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, descriptor.name, value)
        else:
            getattr(target, descriptor.name).extend(value)


def to_proto(document: Document) -> onnx.ModelProto:
    """The whole model as one message: the skeleton with every payload put in; the document is used up."""
    for name, tensor in document.detached():
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
        tensor.raw_data = bytes(document.payloads.pop(name).read())
    return document.model
