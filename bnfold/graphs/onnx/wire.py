"""The protobuf encoding of a model, as far as large weights have to be found in it and put back.

A model file is a small graph around large weights. `detach` takes the bytes of the large weights out of a serialised
ModelProto and says where they were; `attach` writes a serialised skeleton with bytes for such weights put in. So a
model is never held twice, weights that no plan names are never parsed or copied in memory, and everything else of a
message, unknown fields included, passes through as the bytes that it is.

Source of the format: the protocol buffers encoding guide (tags, varints, length-delimited fields); field numbers from
onnx.proto: ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.name = 8, TensorProto.raw_data = 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, NamedTuple, Protocol

GRAPH, INITIALIZER, NAME, RAW_DATA = 7, 5, 8, 9
LARGE_BYTES = 4096

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

Buffer = bytes | memoryview


class Payload(Protocol):
    """The bytes of one weight, wherever they are."""

    @property
    def nbytes(self) -> int:
        """How many."""

    def write_to(self, file: BinaryIO) -> None:
        """Write the bytes."""


class Field(NamedTuple):
    """One field of a message: its number and wire type, where its tag begins, where its content begins and ends."""

    number: int
    wire: int
    start: int
    content: int
    end: int


class Segment(NamedTuple):
    """Where the bytes of a detached weight are in the serialised model."""

    offset: int
    nbytes: int


class WireError(ValueError):
    """The bytes are not a well-formed message."""


def fields(data: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in `data[start:end]`, in order.

    Raises WireError where a field runs over the end or has a type that no ONNX message uses.
    """
    at = start
    while at < end:
        tag, content = _varint(data, at, end)
        wire = tag & 7
        if wire == _LENGTH:
            length, content = _varint(data, content, end)
            stop = content + length
        elif wire == _VARINT:
            _, stop = _varint(data, content, end)
        elif wire == _FIXED64:
            stop = content + 8
        elif wire == _FIXED32:
            stop = content + 4
        else:
            raise WireError(f"field type {wire} at byte {at}")
        if stop > end or tag >> 3 == 0:
            raise WireError(f"a field at byte {at} runs past the end")
        yield Field(tag >> 3, wire, at, content, stop)
        at = stop


def detach(data: Buffer) -> tuple[bytes, dict[str, Segment]]:
    """A serialised model without the raw bytes of its large initializers, and where those are, by initializer name.

    Only initializers of the main graph are detached, and only if their names are unique; a model in a form that a
    writer of ONNX never makes (several graph fields) is returned whole. Raises WireError if it is malformed.
    """
    tops = list(fields(data, 0, len(data)))
    graphs = [top for top in tops if top.number == GRAPH]
    if len(graphs) != 1 or graphs[0].wire != _LENGTH:
        return bytes(data), {}
    graph = graphs[0]
    segments: dict[str, Segment] = {}
    pieces: list[Buffer] = []
    seen: set[str] = set()
    keep_from = graph.content
    for field in fields(data, graph.content, graph.end):
        if field.number != INITIALIZER or field.wire != _LENGTH:
            continue
        raw, name = _tensor(data, field)
        if name in seen:
            return bytes(data), {}
        seen.add(name)
        if raw is None or raw.end - raw.content < LARGE_BYTES:
            continue
        segments[name] = Segment(raw.content, raw.end - raw.content)
        rest = (raw.start - field.content) + (field.end - raw.end)
        pieces += [
            data[keep_from : field.start],
            _head(INITIALIZER, rest),
            data[field.content : raw.start],
            data[raw.end : field.end],
        ]
        keep_from = field.end
    pieces.append(data[keep_from : graph.end])
    body = b"".join(pieces)
    return b"".join([data[: graph.start], _head(GRAPH, len(body)), body, data[graph.end :]]), segments


def attach(skeleton: bytes, payloads: Mapping[str, Payload], file: BinaryIO) -> int:
    """Write a serialised skeleton with these payloads as raw data of the initializers of these names.

    Returns the number of bytes written; the weights are never joined into one string.
    """
    graph = next(top for top in fields(skeleton, 0, len(skeleton)) if top.number == GRAPH)
    parts: list[Callable[[BinaryIO], object]] = []
    view = memoryview(skeleton)
    size = 0

    def put(piece: Buffer) -> None:
        nonlocal size
        parts.append(lambda out: out.write(piece))
        size += len(piece)

    keep_from = graph.content
    for field in fields(skeleton, graph.content, graph.end):
        if field.number != INITIALIZER:
            continue
        name, place = _tensor_place(skeleton, field)
        payload = payloads.get(name)
        if payload is None:
            continue
        raw_head = _head(RAW_DATA, payload.nbytes)
        put(view[keep_from : field.start])
        put(_head(INITIALIZER, (field.end - field.content) + len(raw_head) + payload.nbytes))
        put(view[field.content : place])
        put(raw_head)
        parts.append(payload.write_to)
        size += payload.nbytes
        put(view[place : field.end])
        keep_from = field.end
    put(view[keep_from : graph.end])
    lead: list[Buffer] = [view[: graph.start], _head(GRAPH, size)]
    for piece in lead:
        file.write(piece)
    for part in parts:
        part(file)
    file.write(view[graph.end :])
    return sum(len(piece) for piece in lead) + size + len(skeleton) - graph.end


def _tensor(data: Buffer, tensor: Field) -> tuple[Field | None, str]:
    """The raw_data field of a tensor, if it has exactly one, and the tensor's name."""
    raws: list[Field] = []
    name = ""
    for field in fields(data, tensor.content, tensor.end):
        if field.number == RAW_DATA and field.wire == _LENGTH:
            raws.append(field)
        elif field.number == NAME and field.wire == _LENGTH:
            name = _text(data, field)
    return (raws[0] if len(raws) == 1 else None), name


def _tensor_place(data: bytes, tensor: Field) -> tuple[str, int]:
    """The name of a tensor without raw data, and where its raw data belongs in the order of field numbers."""
    name, place = "", tensor.end
    for field in fields(data, tensor.content, tensor.end):
        if field.number == NAME:
            name = _text(data, field)
        if field.number > RAW_DATA and place == tensor.end:
            place = field.start
    return name, place


def _text(data: Buffer, field: Field) -> str:
    try:
        return bytes(data[field.content : field.end]).decode()
    except UnicodeDecodeError:
        raise WireError(f"a name at byte {field.content} is no UTF-8") from None


def _head(number: int, length: int) -> bytes:
    """The tag and length of a length-delimited field."""
    return _encode(number << 3 | _LENGTH) + _encode(length)


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            break
    raise WireError(f"a number at byte {at} has no end")


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
