"""Writing model files, all or nothing.

A result is first written to a hidden folder beside its target, complete with its data files, where it can be run and
judged. Then it is flushed to the disk and takes the target's name in one rename: a process that is killed at any
moment, or a machine that loses power, leaves the old file or the new one.

Decisions:
- A model and its data cannot take their names in one step. So the data get a file name of their own where the usual
  one is taken: the old pair stays whole until the new model takes over, and the old data go after that, unless another
  model in the folder reads them.
- A file above 2 GB cannot be parsed by any protobuf reader, so its weights are written as external data without being
  asked.
- A symbolic link at the target is replaced, not followed: data files are looked for beside the name that is given.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bnfold.errors import ModelError, OutputError
from bnfold.graphs.onnx import files, wire
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.external import externalise, internalise

PROTOBUF_LIMIT_BYTES = 2**31 - 1
ALIGNMENT_BYTES = 4096


@contextlib.contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, on the same file system, that goes with all that is in it.

    Raises OutputError if none can be made.
    """
    folder = target.parent / f".bnfold-{os.urandom(6).hex()}"
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"{target}: the folder '{target.parent}' cannot be written to: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(eq=False)
class Staged:
    """A result that is complete on the disk and does not yet have its name.

    `model` is the file. `data` are the names of its data files beside it, `shared` those of data files that lie beside
    the target already.
    """

    model: Path
    target: Path
    data: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """The size of all files of the result."""
        paths = [self.model.parent / name for name in (self.model.name, *self.data)]
        paths += [self.target.parent / name for name in self.shared]
        return sum(path.stat().st_size for path in paths)

    def commit(self) -> None:
        """Take the target's place in one rename. Raises OutputError, and leaves nothing, where that is not possible."""
        folder, home = self.model.parent, self.target.parent
        moved: list[Path] = []
        stale = _own_data_files(self.target).difference(self.shared)
        try:
            with _in_one_line(self.target):
                for path in (*(folder / name for name in self.data), self.model):
                    _to_disk(path)
                if self.target.is_file():
                    shutil.copymode(self.target, self.model)
                for name in self.data:
                    moved.append(home / name)
                    moved[-1].parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).replace(moved[-1])
                self.model.replace(self.target)
        except BaseException:
            if self.model.exists():  # else the target reads the data already
                for path in moved:
                    path.unlink(missing_ok=True)
            raise
        if stale:
            _folder_to_disk(home)
            for name in stale:
                (home / name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Free the room that it takes."""
        shutil.rmtree(self.model.parent, ignore_errors=True)


def stage(document: Document, target: Path, folder: Path, external: bool | None = None) -> Staged:
    """Write a document into a folder beside its target.

    `external` None keeps weights where they were: in the file, or in a data file where the source had one or where the
    file would pass 2 GB. Raises OutputError, in one line, where nothing can be written.
    """
    staged = Staged(folder / target.name, target)
    with _in_one_line(target):
        folder.mkdir(exist_ok=True)
        if external is None:
            external = bool(document.external)
        if external or is_too_large(document):
            _write_external(document, staged)
        else:
            write(document, staged.model)
    return staged


def stage_copy(document: Document, target: Path, folder: Path) -> Staged:
    """The source file as it is; its data files go along where they would not be found.

    Raises OutputError where nothing can be written, or where other data files have the names that the model needs.
    """
    if document.path is None:
        raise ValueError("a model that was given in memory has no file to copy")
    staged = Staged(folder / target.name, target)
    with _in_one_line(target):
        folder.mkdir(exist_ok=True)
        shutil.copyfile(document.path, staged.model)
        for location in document.external:
            source, place = document.path.parent / location, target.parent / location
            if place.exists():
                if not filecmp.cmp(source, place, shallow=False):
                    raise OutputError(f"{place}: is in the way of the model's data; choose another folder")
                staged.shared.append(location)
                continue
            (folder / location).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / location)
            staged.data.append(location)
    return staged


def write(document: Document, path: Path) -> None:
    """Write a document into one new file, which must not pass 2 GB. Raises OSError."""
    for tensor in document.model.graph.initializer:
        if tensor.name in document.payloads:
            internalise(tensor)
    with path.open("xb") as file:
        wire.attach(document.model.SerializeToString(), document.payloads, file)


def is_too_large(document: Document) -> bool:
    """Whether a document cannot be one protobuf message."""
    overhead = 64 * len(document.payloads)
    return document.model.ByteSize() + document.payload_bytes + overhead > PROTOBUF_LIMIT_BYTES


def _write_external(document: Document, staged: Staged) -> None:
    """The weights into a data file beside the model, each at a multiple of the page size."""
    target = staged.target
    name = f"{target.name}.data"
    if os.path.lexists(target.with_name(name)):
        name = f"{target.name}.{os.urandom(4).hex()}.data"
    with staged.model.with_name(name).open("xb") as file:
        at = 0
        for tensor in document.model.graph.initializer:
            payload = document.payloads.get(tensor.name)
            if payload is None:
                continue
            at += file.write(b"\0" * (-at % ALIGNMENT_BYTES))
            payload.write_to(file)
            externalise(tensor, name, at, payload.nbytes)
            at += payload.nbytes
    staged.data.append(name)
    with staged.model.open("xb") as file:
        file.write(document.model.SerializeToString())


def _own_data_files(target: Path) -> set[str]:
    """The data files that are named after the target and that no model in its folder reads but the one there now."""
    own = {name for name in _data_files(target) if name.startswith(f"{target.name}.") and "/" not in name}
    if own:
        for other in target.parent.glob("*.onnx"):
            if other.name != target.name:
                own.difference_update(_data_files(other))
    return own


def _data_files(path: Path) -> tuple[str, ...]:
    try:
        return files.load(path).external
    except ModelError:
        return ()


@contextlib.contextmanager
def _in_one_line(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}; nothing was left there") from None


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk: a rename may get there before what it names."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    """The same for what a folder says of its files, on systems that know how."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
