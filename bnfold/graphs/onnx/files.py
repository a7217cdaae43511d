"""Reading model files. A file is mapped, and no weight in it is parsed or read before it is needed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from bnfold.errors import ModelError, refused_as
from bnfold.graphs.onnx import wire
from bnfold.graphs.onnx.document import BLOCK_BYTES, Document, from_bytes, map_file
from bnfold.graphs.onnx.external import attach_external, first_external
from bnfold.graphs.onnx.functions import check_functions

MOST_OPSET = 2**31 - 1  # the greatest that onnx can be asked about


def load(path: Path) -> Document:
    """The document in a file.

    Raises ModelError, in one line, for a file that is missing, empty, not ONNX, cut off or without its external data.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"{path}: this is no regular file; write the model to one first")
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
    except (wire.WireError, DecodeError):
        raise ModelError(
            f"{path}: not a valid ONNX file: the data are cut off or of another format; export or copy it again"
        ) from None
    document.path = path
    with refused_as(ModelError, f"{path}: not a valid ONNX file", "export or copy it again"):
        check_header(document.model, str(path))
        check_text(document.model, str(path))
        check_functions(document.model, str(path))
        attach_external(document, path)
    return document


def check_header(model: onnx.ModelProto, where: str) -> None:
    """Raises ModelError for a message that is well-formed, but no model."""
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError(f"{where}: not a valid ONNX file: it holds no graph; export the model again")
    if not model.opset_import:
        raise ModelError(f"{where}: not a valid ONNX model: it does not say which opset it uses; export it again")
    for item in chain(model.opset_import, *(function.opset_import for function in model.functions)):
        if abs(item.version) > MOST_OPSET:
            raise ModelError(f"{where}: not a valid ONNX model: it uses opset {item.version}; export it again")


def check_text(model: onnx.ModelProto, where: str) -> None:
    """Raises ModelError for a model with a name or text that is no UTF-8; protobuf gives those as bytes."""
    waiting: list[Message] = [model]
    while waiting:
        for descriptor, value in waiting.pop().ListFields():
            if descriptor.message_type is not None:
                waiting.extend([value] if isinstance(value, Message) else value)
            elif descriptor.type == descriptor.TYPE_STRING:
                texts = [value] if isinstance(value, str | bytes) else value
                if not all(isinstance(text, str) for text in texts):
                    raise ModelError(f"{where}: not a valid ONNX model: a text in it is no UTF-8; export it again")


def refuse_external(document: Document, where: str) -> None:
    """Raises ModelError for a model in memory whose weights lie in a file that was not loaded with it."""
    name = first_external(document.model)
    if name is not None:
        raise ModelError(
            f"{where}: weight '{name}' lies in an external file; give the path of the model, "
            "or load it with its external data"
        )


def sha256(path: Path) -> Callable[[], str]:
    """Begin to compute a file's checksum beside other work; the call waits for its 64 hexadecimal digits.

    The call raises ModelError if the file cannot be read any more.
    """
    digest = hashlib.sha256()
    failures: list[OSError] = []

    def work() -> None:
        try:
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            failures.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()

    def wait() -> str:
        worker.join()
        if failures:
            raise ModelError(f"{path}: cannot be read: {failures[0].strerror}")
        return digest.hexdigest()

    return wait


def all_of(document: Document) -> tuple[Path, ...]:
    """A document's file, then its data files; none for a model in memory."""
    if document.path is None:
        return ()
    return document.path, *(document.path.parent / name for name in document.external)


def nbytes(document: Document) -> int | None:
    """The size of a document's file and data files; None for a model in memory."""
    return sum(file.stat().st_size for file in all_of(document)) if document.path is not None else None
