"""Reading and writing model files, all or nothing.

Reading maps the file and never parses a weight. Writing is staged: everything goes to new files beside the target, is
flushed to the disk, and takes the target's name in one rename, so that a process killed at any moment leaves the old
file or the new one.

Decisions. External data get a file name of their own when the usual one is taken, because a model and its data cannot
be renamed in one step: the old pair stays whole until the new model takes over, then the old data go. A file above 2
GB cannot be parsed by any protobuf reader, so its weights are written as external data without being asked.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError

from bnfold.errors import ModelError, OutputError
from bnfold.graphs.onnx import wire
from bnfold.graphs.onnx.document import EXTERNAL, Document, Stored, from_bytes, map_file

PROTOBUF_LIMIT_BYTES = 2**31 - 1
ALIGNMENT_BYTES = 4096


def load(path: Path) -> Document:
    """The document in a file.

    Raises ModelError, in one line, for a file that is missing, empty, not ONNX, cut off or without its external data.
    """
    try:
        data = map_file(path)
    except IsADirectoryError:
        raise ModelError(f"{path}: this is a directory; name the .onnx file in it") from None
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    if not data:
        raise ModelError(f"{path}: the file is empty; export the model again")
    try:
        document = from_bytes(data)
    except (wire.WireError, DecodeError, UnicodeDecodeError):
        raise ModelError(
            f"{path}: not a valid ONNX file: the data are cut off or of another format; export or copy it again"
        ) from None
    document.path = path
    check_header(document.model, str(path))
    _find_external(document, path)
    return document


def check_header(model: onnx.ModelProto, where: str) -> None:
    """Raises ModelError for a message that is well-formed, but no model."""
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError(f"{where}: not a valid ONNX file: it holds no graph; export the model again")
    if not model.opset_import:
        raise ModelError(f"{where}: not a valid ONNX model: it does not say which opset it uses; export it again")


def refuse_external(document: Document, where: str) -> None:
    """Raises ModelError for a model in memory whose weights lie in a file that was not loaded with it."""
    for tensor in document.model.graph.initializer:
        if tensor.data_location == EXTERNAL:
            raise ModelError(
                f"{where}: weight '{tensor.name}' lies in an external file; give the path of the model, "
                "or load it with its external data"
            )


def sha256(path: Path) -> str:
    """The file's checksum, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return _digest(file)


def file_bytes(document: Document) -> int | None:
    """The size of a document's file and data files; None for a model in memory."""
    if document.path is None:
        return None
    folder = document.path.parent
    return document.path.stat().st_size + sum((folder / name).stat().st_size for name in _locations(document.model))


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def _find_external(document: Document, path: Path) -> None:
    """Give every initializer that lies in another file a payload there."""
    maps: dict[str, memoryview | bytes] = {}
    for tensor in document.model.graph.initializer:
        if tensor.data_location != EXTERNAL:
            continue
        document.external = True
        entry = {item.key: item.value for item in tensor.external_data}
        location = entry.get("location", "")
        if location not in maps:
            maps[location] = _map_external(path, location, tensor.name)
        data = maps[location]
        offset = int(entry.get("offset", 0))
        nbytes = int(entry.get("length", len(data) - offset))
        if offset < 0 or nbytes < 0 or offset + nbytes > len(data):
            raise ModelError(
                f"{path}: weight '{tensor.name}' lies past the end of '{location}': copy the data file again"
            )
        document.payloads[tensor.name] = Stored(
            nbytes,
            lambda data=data, at=offset, size=nbytes: data[at : at + size],  # type: ignore[misc]
        )


def _map_external(path: Path, location: str, name: str) -> memoryview | bytes:
    folder = path.resolve().parent
    target = (folder / location).resolve()
    if not location or not target.is_relative_to(folder):
        raise ModelError(f"{path}: weight '{name}' points outside the model's folder ('{location}'); this is refused")
    try:
        return map_file(target)
    except OSError as error:
        raise ModelError(
            f"{path}: weight '{name}' lies in '{location}', which cannot be read: {error.strerror}"
        ) from None


@dataclass(eq=False)
class Staged:
    """A result that is complete on the disk and does not yet have its name; `commit` gives it, `discard` removes it."""

    temporary: Path
    target: Path
    data: list[Path] = field(default_factory=list)
    stale: list[Path] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """The size of all files of the result."""
        return sum(path.stat().st_size for path in (self.temporary, *self.data))

    def commit(self) -> None:
        """Take the target's place in one rename. Raises OutputError if the folder does not let it."""
        try:
            self.temporary.replace(self.target)
        except OSError as error:
            self.discard()
            raise OutputError(f"{self.target}: cannot be written: {error.strerror}") from None
        for path in self.stale:
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing behind."""
        for path in (self.temporary, *self.data):
            path.unlink(missing_ok=True)


def stage(document: Document, target: Path, external: bool | None = None) -> Staged:
    """Write a document beside its target.

    `external` None keeps weights where they were: in the file, or in a data file where the source had one or where the
    file would pass 2 GB. Raises OutputError, in one line, where nothing can be written; nothing is left behind then.
    """
    skeleton = document.model
    if external is None:
        external = document.external
    if skeleton.ByteSize() + document.payload_bytes + 64 * len(document.payloads) > PROTOBUF_LIMIT_BYTES:
        external = True
    staged = Staged(_beside(target, ".tmp"), target)
    try:
        if external:
            _write_external(document, staged)
        else:
            for tensor in skeleton.graph.initializer:
                if tensor.data_location == EXTERNAL and tensor.name in document.payloads:
                    tensor.ClearField("data_location")
                    tensor.ClearField("external_data")
            with staged.temporary.open("xb") as file:
                wire.attach(skeleton.SerializeToString(), document.payloads, file)
                _flush(file)
    except OSError as error:
        staged.discard()
        raise OutputError(f"{target}: cannot be written: {error.strerror}; nothing was left there") from None
    except BaseException:
        staged.discard()
        raise
    return staged


def stage_copy(document: Document, target: Path) -> Staged:
    """The source file as it is, beside the target; its data files go along where they would not be found."""
    if document.path is None:
        raise ValueError("a model that was given in memory has no file to copy")
    staged = Staged(_beside(target, ".tmp"), target)
    try:
        shutil.copyfile(document.path, staged.temporary)
        with staged.temporary.open("rb+") as file:
            _flush(file)
        if target.resolve().parent != document.path.resolve().parent:
            for location in sorted(_locations(document.model)):
                copy = target.parent / location
                if copy.exists():
                    raise OutputError(f"{copy}: is in the way of the model's data file; choose another folder")
                copy.parent.mkdir(parents=True, exist_ok=True)
                staged.data.append(copy)
                shutil.copyfile(document.path.parent / location, copy)
    except OSError as error:
        staged.discard()
        raise OutputError(f"{target}: cannot be written: {error.strerror}; nothing was left there") from None
    except BaseException:
        staged.discard()
        raise
    return staged


def _write_external(document: Document, staged: Staged) -> None:
    """The weights into a data file beside the target, each at a multiple of the page size, the skeleton beside it."""
    target = staged.target
    data_path = target.with_name(target.name + ".data")
    if data_path.exists():
        data_path = target.with_name(f"{target.name}.{secrets.token_hex(4)}.data")
        staged.stale = _own_data_files(target)
    staged.data.append(data_path)
    with data_path.open("xb") as file:
        at = 0
        for tensor in document.model.graph.initializer:
            payload = document.payloads.get(tensor.name)
            if payload is None:
                continue
            at += file.write(b"\0" * (-at % ALIGNMENT_BYTES))
            payload.write_to(file)
            tensor.data_location = EXTERNAL
            del tensor.external_data[:]
            for key, value in (("location", data_path.name), ("offset", at), ("length", payload.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            at += payload.nbytes
        _flush(file)
    with staged.temporary.open("xb") as file:
        file.write(document.model.SerializeToString())
        _flush(file)


def _own_data_files(target: Path) -> list[Path]:
    """The data files of the model that the target's name holds now, as far as they are named after it."""
    try:
        model = onnx.load(target, load_external_data=False)
    except (OSError, DecodeError):
        return []
    names = _locations(model)
    return [
        target.with_name(name)
        for name in names
        if name.startswith(target.name + ".") and name.endswith(".data") and "/" not in name
    ]


def _locations(model: onnx.ModelProto) -> set[str]:
    return {
        item.value
        for tensor in model.graph.initializer
        if tensor.data_location == EXTERNAL
        for item in tensor.external_data
        if item.key == "location"
    }


def _beside(target: Path, suffix: str) -> Path:
    """A new hidden name in the target's folder: a rename never crosses a file system then."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}{suffix}")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
