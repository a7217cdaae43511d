"""The protobuf encoding of a model, as far as large weights have to be found in it and put back.

A model file is a small graph around large weights: initializers, and tensors in Constant nodes, which go by the name of
what the node makes. `detach` takes the bytes of the large weights out of a serialised
ModelProto and says where they were; `attach` writes a serialised skeleton with bytes for such weights put in. So a
model is never held twice, weights that no plan names are never parsed or copied in memory, and everything else of a
message, unknown fields included, passes through as the bytes that it is.

Source of the format: the protocol buffers encoding guide (tags, varints, length-delimited fields); field numbers from
onnx.proto, as named below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import BinaryIO, NamedTuple, Protocol

GRAPH = 7  # of ModelProto
NODE, INITIALIZER = 1, 5  # of GraphProto
OUTPUT, OP_TYPE, ATTRIBUTE, DOMAIN = 2, 4, 5, 7  # of NodeProto
ATTRIBUTE_NAME, TENSOR = 1, 5  # of AttributeProto
NAME, RAW_DATA = 8, 9  # of TensorProto
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
    """A serialised model without the raw bytes of its large weights, and where those are, by the weight's name.

    Only weights of the main graph are detached, and only if their names are unique; a model in a form that a writer of
    ONNX never makes (several graph fields) is returned whole. Raises WireError if it is malformed.
    """
    tops = list(fields(data, 0, len(data)))
    graphs = [top for top in tops if top.number == GRAPH]
    if len(graphs) != 1 or graphs[0].wire != _LENGTH:
        return bytes(data), {}
    graph = graphs[0]
    segments: dict[str, Segment] = {}
    pieces: list[Buffer] = []
    seen: set[str] = set()
    small: list[Field] = []
    of_nodes: set[str] = set()
    keep_from = graph.content
    for field in fields(data, graph.content, graph.end):
        if field.wire != _LENGTH or field.number not in (INITIALIZER, NODE):
            continue
        if field.number == NODE and field.end - field.content <= LARGE_BYTES:
            small.append(field)
            continue
        spot = _of_initializer(data, field) if field.number == INITIALIZER else _of_constant(data, field)
        if spot is None:
            continue
        if spot.name in seen:
            return bytes(data), {}
        seen.add(spot.name)
        raw = spot.raw
        if raw is None or not _is_large(raw):
            continue
        segments[spot.name] = Segment(raw.content, raw.end - raw.content)
        if field.number == NODE:
            of_nodes.add(spot.name)
        before, after = _rewrapped(data, spot.around, raw.start, raw.end, 0)
        pieces += [data[keep_from : field.start], *before, *after]
        keep_from = field.end
    if any(spot.name in of_nodes for spot in map(partial(_of_constant, data), small if of_nodes else ()) if spot):
        return bytes(data), {}
    pieces.append(data[keep_from : graph.end])
    body = b"".join(pieces)
    return b"".join([data[: graph.start], _head(GRAPH, len(body)), body, data[graph.end :]]), segments


def attach(skeleton: bytes, payloads: Mapping[str, Payload], file: BinaryIO) -> int:
    """Write a serialised skeleton with these payloads as raw data of the weights of these names.

    Returns the number of bytes written; the weights are never joined into one string.
    """
    graph = next(top for top in fields(skeleton, 0, len(skeleton)) if top.number == GRAPH and top.wire == _LENGTH)
    parts: list[Callable[[BinaryIO], object]] = []
    view = memoryview(skeleton)
    size = 0

    def put(piece: Buffer) -> None:
        nonlocal size
        parts.append(lambda out: out.write(piece))
        size += len(piece)

    keep_from = graph.content
    for spot in _bare(skeleton, graph, payloads):
        payload, field = payloads[spot.name], spot.around[0]
        raw_head = _head(RAW_DATA, payload.nbytes)
        place = _place(skeleton, spot.around[-1])
        before, after = _rewrapped(view, spot.around, place, place, len(raw_head) + payload.nbytes)
        for piece in (view[keep_from : field.start], *before, raw_head):
            put(piece)
        parts.append(payload.write_to)
        size += payload.nbytes
        for piece in after:
            put(piece)
        keep_from = field.end
    put(view[keep_from : graph.end])
    lead: list[Buffer] = [view[: graph.start], _head(GRAPH, size)]
    for piece in lead:
        file.write(piece)
    for part in parts:
        part(file)
    file.write(view[graph.end :])
    return sum(len(piece) for piece in lead) + size + len(skeleton) - graph.end


class _Spot(NamedTuple):
    """A weight: its name, the messages around its data from the graph's field down to the tensor, and its raw data, if
    it has exactly one field of them.
    """

    name: str
    around: tuple[Field, ...]
    raw: Field | None


def _is_large(raw: Field | None) -> bool:
    return raw is not None and raw.end - raw.content >= LARGE_BYTES


def _bare(skeleton: bytes, graph: Field, payloads: Mapping[str, Payload]) -> list[_Spot]:
    """The weights in a skeleton that have payloads, in the order of the file."""
    found = [field for field in fields(skeleton, graph.content, graph.end) if field.wire == _LENGTH]
    spots = [_of_initializer(skeleton, field) for field in found if field.number == INITIALIZER]
    names = {spot.name for spot in spots}
    if any(name not in names for name in payloads):
        nodes = [field for field in found if field.number == NODE]
        constants = [_of_constant(skeleton, node) for node in nodes if _may_be_constant(skeleton, node)]
        spots += [spot for spot in constants if spot is not None and spot.name not in names]
    return sorted((spot for spot in spots if spot.name in payloads), key=lambda spot: spot.around[0].start)


def _may_be_constant(data: bytes, node: Field) -> bool:
    return data.find(b"Constant", node.content, node.end) >= 0


def _of_initializer(data: Buffer, field: Field) -> _Spot:
    inside = _inside(data, field)
    return _Spot(_text(data, inside.get(NAME, ())), (field,), _only(inside, RAW_DATA))


def _of_constant(data: Buffer, node: Field) -> _Spot | None:
    """The weight in a Constant node: one of the standard with one output and one attribute, a tensor; else None."""
    inside = _inside(data, node)
    output, attribute = _only(inside, OUTPUT), _only(inside, ATTRIBUTE)
    of_standard = _text(data, inside.get(DOMAIN, ())) in ("", "ai.onnx")
    if output is None or attribute is None or _text(data, inside.get(OP_TYPE, ())) != "Constant" or not of_standard:
        return None
    inside = _inside(data, attribute)
    tensor, name = _only(inside, TENSOR), _text(data, [output])
    if tensor is None or _text(data, inside.get(ATTRIBUTE_NAME, ())) != "value" or not name:
        return None
    return _Spot(name, (node, attribute, tensor), _only(_inside(data, tensor), RAW_DATA))


def _inside(data: Buffer, message: Field) -> dict[int, list[Field]]:
    """The length-delimited fields of a message by their numbers."""
    found: dict[int, list[Field]] = {}
    for field in fields(data, message.content, message.end):
        if field.wire == _LENGTH:
            found.setdefault(field.number, []).append(field)
    return found


def _only(inside: Mapping[int, list[Field]], number: int) -> Field | None:
    """The field of a number, if there is exactly one."""
    found = inside.get(number, ())
    return found[0] if len(found) == 1 else None


def _place(data: bytes, tensor: Field) -> int:
    """Where the raw data of a tensor without them belong in the order of field numbers."""
    behind = (field.start for field in fields(data, tensor.content, tensor.end) if field.number > RAW_DATA)
    return next(behind, tensor.end)


def _rewrapped(
    data: Buffer, around: Sequence[Field], start: int, end: int, nbytes: int
) -> tuple[list[Buffer], list[Buffer]]:
    """Messages within messages with `nbytes` in the place of `data[start:end]`: what comes before these, and after.

    The heads are new, since every one of the messages has another length.
    """
    before, after = [data[around[-1].content : start]], [data[end : around[-1].end]]
    size = len(before[0]) + nbytes + len(after[0])
    for outer, inner in zip(around[-2::-1], around[:0:-1], strict=True):
        lead, head, tail = data[outer.content : inner.start], _head(inner.number, size), data[inner.end : outer.end]
        before[:0] = [lead, head]
        after.append(tail)
        size += len(lead) + len(head) + len(tail)
    return [_head(around[0].number, size), *before], after


def _text(data: Buffer, found: Sequence[Field]) -> str:
    """The text in the last of some fields, which is the one that counts; empty where there is none."""
    if not found:
        return ""
    try:
        return bytes(data[found[-1].content : found[-1].end]).decode()
    except UnicodeDecodeError:
        raise WireError(f"a name at byte {found[-1].content} is no UTF-8") from None


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
