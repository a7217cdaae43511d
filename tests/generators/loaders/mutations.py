"""Changes of a file that leave most of its structure as it is: one at random, in bytes of any format."""

from __future__ import annotations

import ast
import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from bnfold.graphs.onnx import wire
from generators.loaders.protos import change_model

NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 16, 63, 64, 127, 128, 255, 256, 4095, 4096, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1),
    *(2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
TEXTS = (
    *("", "x", "w", "../w", "/etc/passwd", ".envrc", "\x00", "a\x00b", "\u202e", "\U0010ffff", "é" * 300, "a\nb"),
    *("nan", "-1", "1e999", "9" * 400, "[]", "None", "out.onnx", "CON", "a" * 5000, "%s", "{}", "\x1b[31m"),
)


def changed(content: bytes, name: str, rng: random.Random) -> bytes:
    """A file of this name with one change."""
    suffix = name.rpartition(".")[2]
    if rng.random() < 0.12:
        return in_bytes(content, rng)
    try:
        if suffix == "onnx":
            return change_model(content, rng) if rng.random() < 0.75 else in_message(content, rng)
        if content[:2] == b"PK":
            return in_archive(content, rng)
        if suffix == "npy":
            return in_array(content, rng)
        if suffix == "png":
            return in_chunks(content, rng)
        if suffix == "safetensors":
            return in_header(content, rng)
        if suffix == "json":
            return json.dumps(in_json(json.loads(content), rng)).encode()
    except (ValueError, KeyError, SyntaxError, struct.error, zipfile.BadZipFile, NotImplementedError, RecursionError):
        pass  # it has been damaged before
    return in_bytes(content, rng)


def in_bytes(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, gone, twice or new."""
    data = bytearray(content)
    at = rng.randrange(len(data) + 1)
    size = min(rng.choice((1, 1, 1, 2, 4, 8, 64, 1024)), max(1, len(data)))
    how = rng.randrange(7)
    if how == 0 and data:
        data[at % len(data)] ^= 1 << rng.randrange(8)
    elif how == 1:
        data[at : at + size] = rng.randbytes(size)
    elif how == 2:
        del data[at : at + size]
    elif how == 3:
        data[at:at] = data[at : at + size]
    elif how == 4:
        data[at:at] = rng.randbytes(size)
    elif how == 5:
        kind = rng.choice(["<B", ">B", "<H", ">H", "<I", ">I", "<Q", ">Q"])
        number = rng.choice(NUMBERS) % 256 ** struct.calcsize(kind)
        data[at : at + struct.calcsize(kind)] = struct.pack(kind, number)
    else:
        del data[at:]
    return bytes(data)


def in_message(data: bytes, rng: random.Random) -> bytes:
    """A protobuf message with one field, here or in a message inside, gone, twice, elsewhere, or of another content."""
    fields = list(wire.fields(data, 0, len(data)))
    if not fields:
        return data + bytes([rng.randrange(1, 128), rng.randrange(256)])
    pieces = [data[field.start : field.end] for field in fields]
    at = rng.randrange(len(fields))
    field = fields[at]
    content = data[field.content : field.end]
    tag = data[field.start : field.start + 1]
    how = rng.randrange(12)
    if field.wire == 2 and how < 8:
        try:
            inner = in_message(content, rng)
        except wire.WireError:
            inner = rng.choice((in_bytes(content, rng), rng.choice(TEXTS).encode("utf-8", "surrogatepass")))
        pieces[at] = _tag(field.number, 2) + _varint(len(inner)) + inner
    elif field.wire == 0 and how < 8:
        pieces[at] = _tag(field.number, 0) + _varint(rng.choice(NUMBERS))
    elif how == 8:
        del pieces[at]
    elif how == 9:
        pieces.insert(rng.randrange(len(pieces) + 1), pieces[at])
    elif how == 10:
        rng.shuffle(pieces)
    else:
        pieces[at] = bytes([tag[0] ^ rng.randrange(8)]) + pieces[at][1:]
    return b"".join(pieces)


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def in_json(content: Any, rng: random.Random) -> Any:
    """A document of JSON with one place in it gone, twice, copied from elsewhere, or of another content."""
    places = list(_places(content))
    if not places:
        return rng.choice((None, [], {}, 0, "", *TEXTS))
    holder, key = rng.choice(places)
    how = rng.randrange(8)
    if how == 0:
        del holder[key]
    elif how == 1:
        other, where = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[where]))
    elif how == 2 and isinstance(holder, list):
        holder.append(holder[key])
    elif how == 3 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(key)
    elif isinstance(holder[key], int) and how < 7:
        holder[key] = rng.choice((*NUMBERS, -1, -(2**63)))
    elif isinstance(holder[key], str) and how < 7:
        holder[key] = rng.choice(TEXTS) if how < 6 else holder[key] + rng.choice(TEXTS)
    else:
        holder[key] = rng.choice((None, [], {}, 0, -1, 1.5, True, "", [[]] * 3, *TEXTS))
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [content]
    while waiting:
        at = waiting.pop()
        for key in list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ():
            yield at, key
            waiting.append(at[key])


def in_archive(content: bytes, rng: random.Random) -> bytes:
    """A zip archive with one member changed, gone, twice or under another name, or with a damaged directory."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
    if not members:
        return in_bytes(content, rng)
    at = rng.randrange(len(members))
    name, data, method = members[at]
    how = rng.randrange(12)
    if how < 6:
        members[at] = (name, changed(data, name, rng), method)
    elif how == 6:
        del members[at]
    elif how == 7:
        members.append((name, changed(data, name, rng), method))
    elif how == 8:
        members[at] = (rng.choice((*TEXTS, f"../{name}", f"{name}/", name.upper(), members[0][0])), data, method)
    elif how == 9:
        members[at] = (name, bytes(rng.choice((0, 10, 10**7))), zipfile.ZIP_DEFLATED)
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for member, kept, kind in members:
            archive.writestr(zipfile.ZipInfo(member.replace("\x00", "_") or "_"), kept, kind)
    if how > 9:
        directory = out.getvalue().index(b"PK\x01\x02")
        return out.getvalue()[:directory] + in_bytes(out.getvalue()[directory:], rng)
    return out.getvalue()


def in_array(content: bytes, rng: random.Random) -> bytes:
    """A .npy file with another header before the same bytes."""
    size = struct.unpack("<H", content[8:10])[0]
    header = ast.literal_eval(content[10 : 10 + size].decode("latin1"))
    shape = (*header["shape"],)
    choices = {
        "descr": (
            "<f4",
            "<f8",
            "|O",
            "|b1",
            "<i8",
            ">f4",
            "<U9",
            "<M8[s]",
            "|V4",
            "",
            "<f99",
            [("a", "<f4")],
            5,
            "<c8",
        ),
        "shape": (shape[1:], (0, *shape), (-1,), (2**40,), (2**62, 4), (1.5,), 5, None, (1,) * 65, ("a",), (*shape, 1)),
        "fortran_order": (True, False, None, 1, "yes"),
    }
    key = rng.choice(list(choices))
    header[key] = rng.choice(choices[key])
    if rng.random() < 0.1:
        header.pop(key)
    text = repr(header).encode()
    if rng.random() < 0.1:
        text = in_bytes(text, rng)
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return content[:8] + struct.pack("<H", len(text)) + text + content[10 + size :]


def in_chunks(content: bytes, rng: random.Random) -> bytes:
    """A PNG with one chunk changed, gone, twice or elsewhere; checksums are right."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    at = rng.randrange(len(chunks))
    kind, data = chunks[at]
    how = rng.randrange(6)
    if how < 3:
        chunks[at] = (kind, in_bytes(data, rng))
    elif how == 3:
        del chunks[at]
    elif how == 4:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[at])
    else:
        extra = rng.choice((b"tEXt", b"zTXt", b"iCCP", b"PLTE", b"tRNS", b"acTL", b"fdAT", b"eXIf", b"gAMA", b"IHDR"))
        text = zlib.compress(bytes(10**6)) if rng.random() < 0.3 else rng.randbytes(13)
        chunks.insert(at, (extra, b"a\x00\x00" + text))
    out = content[:8]
    for kind, data in chunks:
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return out


def in_header(content: bytes, rng: random.Random) -> bytes:
    """A .safetensors file with another header."""
    (size,) = struct.unpack("<Q", content[:8])
    text = json.dumps(in_json(json.loads(content[8 : 8 + size]), rng)).encode()
    if rng.random() < 0.1:
        text = in_bytes(text, rng)
    told = rng.choice(NUMBERS) if rng.random() < 0.1 else len(text)
    return struct.pack("<Q", told) + text + content[8 + size :]
