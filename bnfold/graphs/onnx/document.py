"""A model as a skeleton without its large weights, and where the bytes of those are.

The skeleton is an ordinary ModelProto that this document owns and may edit: its initializers have names, types and
shapes, and the large ones of the main graph lack their data, which `payloads` holds by name. A payload is a piece of
the source file, a piece of an external data file, a tensor of the caller's model, or an array made by a fold. Nothing
is copied until it is written, and then once.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
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
    they did. `exact` are the new constants in float64, as they were before they were rounded; `known` gives a value of
    the original that is computed from constants alone, in float64 after it was computed in its own type, or None.
    """

    sites: Mapping[str, int]
    in_functions: frozenset[int]
    changed: frozenset[str]
    exact: Mapping[str, Callable[[], NDArray[np.float64]]]
    known: Callable[[str], NDArray[Any] | None]


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

    def copy(self) -> Document:
        """A document over the same weights with a skeleton of its own."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return Document(model, dict(self.payloads), self.path, self.external)


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
    tensors = model.graph.initializer
    names = {tensor.name for tensor in tensors}
    raw_bytes = {tensor.name: len(tensor.raw_data) for tensor in tensors}
    large = [tensor for tensor in tensors if raw_bytes[tensor.name] >= wire.LARGE_BYTES]
    if len(names) < len(tensors) or any(len(UnknownFieldSet(part)) for part in (model, model.graph, *large)):
        return from_bytes(model.SerializeToString())
    document = Document(onnx.ModelProto())
    _copy_fields(model, document.model, without="graph")
    document.model.graph.SetInParent()
    _copy_fields(model.graph, document.model.graph, without="initializer")
    for tensor in tensors:
        target = document.model.graph.initializer.add()
        if raw_bytes[tensor.name] < wire.LARGE_BYTES:
            target.CopyFrom(tensor)
        else:
            _copy_fields(tensor, target, without="raw_data")
            document.payloads[tensor.name] = _raw_data(tensor, raw_bytes[tensor.name])
    return document


def _raw_data(tensor: onnx.TensorProto, nbytes: int) -> Stored:
    return Stored(nbytes, lambda: tensor.raw_data)


def _copy_fields(source: Message, target: Message, without: str) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name == without:
            continue
        if isinstance(value, Message):
            getattr(target, descriptor.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, descriptor.name, value)
        else:
            getattr(target, descriptor.name).extend(value)


def to_proto(document: Document) -> onnx.ModelProto:
    """The whole model as one message: the skeleton with every payload put in; the document is used up."""
    for tensor in document.model.graph.initializer:
        payload = document.payloads.pop(tensor.name, None)
        if payload is not None:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = bytes(payload.read())
    return document.model
