"""A model as a skeleton without its large weights, and where the bytes of those are.

The skeleton is an ordinary ModelProto that this document owns and may edit: its initializers have names, types and
shapes, and the large ones of the main graph lack their data, which `payloads` holds by name. A payload is a piece of
the source file, a piece of an external data file, a tensor of the caller's model, or an array made by a fold. Nothing
is copied until it is written, and then once.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
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


@dataclass(frozen=True, eq=False)
class Stored:
    """Bytes that lie somewhere already; `read` gives a view of them."""

    nbytes: int
    read: Callable[[], memoryview | bytes]

    def write_to(self, file: BinaryIO) -> None:
        file.write(self.read())


@dataclass(frozen=True, eq=False)
class Computed:
    """Bytes of an array that is computed when it is written: element type of the tensor, C order, little endian."""

    nbytes: int
    array: Callable[[], NDArray[Any]]

    def read(self) -> memoryview | bytes:
        return np.ascontiguousarray(self.array()).reshape(-1).view(np.uint8).data

    def write_to(self, file: BinaryIO) -> None:
        file.write(self.read())


Payload = Stored | Computed


@dataclass(eq=False)
class Document:
    """A skeleton and its payloads. `path` is the file that it was read from, `external` whether weights lay outside."""

    model: onnx.ModelProto
    payloads: dict[str, Payload] = field(default_factory=dict)
    path: Path | None = None
    external: bool = False

    @property
    def payload_bytes(self) -> int:
        return sum(payload.nbytes for payload in self.payloads.values())


def map_file(path: Path) -> memoryview | bytes:
    """A read-only view of a file without reading it; an empty file has no map."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return b""
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def from_bytes(data: memoryview | bytes) -> Document:
    """The document in a serialised model. Raises wire.WireError or google's DecodeError if it is malformed."""
    skeleton, segments = wire.detach(data)
    model = onnx.ModelProto.FromString(skeleton)
    document = Document(model)
    for name, (offset, nbytes) in segments.items():
        document.payloads[name] = Stored(nbytes, lambda at=offset, size=nbytes: data[at : at + size])  # type: ignore[misc]
    return document


def from_proto(model: onnx.ModelProto) -> Document:
    """A document over the caller's model, which is read when weights are written and never changed.

    Messages with fields that this onnx release does not know go through their serialised form, which keeps them.
    """
    tensors = model.graph.initializer
    names = {tensor.name for tensor in tensors}
    large = [tensor for tensor in tensors if tensor.HasField("raw_data") and tensor.ByteSize() >= wire.LARGE_BYTES]
    if len(names) < len(tensors) or any(len(UnknownFieldSet(part)) for part in (model, model.graph, *large)):
        return from_bytes(model.SerializeToString())
    document = Document(onnx.ModelProto())
    _copy_fields(model, document.model, without="graph")
    document.model.graph.SetInParent()
    _copy_fields(model.graph, document.model.graph, without="initializer")
    large_names = {tensor.name for tensor in large}
    for tensor in tensors:
        target = document.model.graph.initializer.add()
        if tensor.name not in large_names:
            target.CopyFrom(tensor)
            continue
        _copy_fields(tensor, target, without="raw_data")
        document.payloads[tensor.name] = Stored(len(tensor.raw_data), lambda of=tensor: of.raw_data)  # type: ignore[misc]
    return document


def _copy_fields(source: Message, target: Message, without: str) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name == without:
            continue
        if descriptor.is_repeated:
            getattr(target, descriptor.name).extend(value)
        elif descriptor.message_type is not None:
            getattr(target, descriptor.name).CopyFrom(value)
        else:
            setattr(target, descriptor.name, value)


def to_proto(document: Document) -> onnx.ModelProto:
    """The whole model as one message: the skeleton with every payload put in; the document is used up."""
    for tensor in document.model.graph.initializer:
        payload = document.payloads.pop(tensor.name, None)
        if payload is not None:
            tensor.raw_data = bytes(payload.read())
    return document.model
