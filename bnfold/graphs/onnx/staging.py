"""Writing model files, all or nothing.

A result is first written to a hidden folder beside its target, complete with its data files, where it can be run and
judged. Then it is flushed to the disk and takes the target's name in one rename: a process that is killed at any
moment, or a machine that loses power, leaves the old file or the new one.

Decisions:
- A model and its data cannot take their names in one step. So the data get a file name of their own where the usual
  one is taken: the old pair stays whole until the new model takes over, and the old data go after that, unless another
  model in the folder reads them, or may: one that cannot be read.
- Data files are named after the target. The names that a model gives to its data are somebody else's words: they are
  read, and never written to.
- Names are taken under a lock on the folder, since two runs may write to one target. Without `force` the target takes
  its name by a link, which fails where a file has appeared meanwhile.
- A file above 2 GB cannot be parsed by any protobuf reader, so its weights are written as external data without being
  asked.
- A symbolic link at the target is replaced, not followed: data files are looked for beside the name that is given.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bnfold.errors import ModelError, OutputError
from bnfold.graphs.onnx import files, wire
from bnfold.graphs.onnx.document import EXTERNAL, Document
from bnfold.graphs.onnx.external import externalise, internalise, rename_external

PROTOBUF_LIMIT_BYTES = 2**31 - 1
ALIGNMENT_BYTES = 4096
MOST_SECONDS_FOR_LOCK = 60.0
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


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

    `model` is the file; `data` is the name of its data file beside it, if it has one, and `document` the model without
    them then. `shared` are the names of data files that lie beside the target already.
    """

    model: Path
    target: Path
    data: str | None = None
    document: Document | None = None
    shared: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """The size of all files of the result."""
        names = [self.model.name] if self.data is None else [self.model.name, self.data]
        paths = [self.model.parent / name for name in names] + [self.target.parent / name for name in self.shared]
        return sum(path.stat().st_size for path in paths)

    def commit(self, *, force: bool) -> None:
        """Take the target's name, in one step.

        Raises OutputError, and leaves nothing, where that is not possible, or where the name is taken and `force` is
        not given.
        """
        home, moved = self.target.parent, None
        with _in_one_line(self.target), _locked(home):
            stale = _own_data_files(self.target)
            for name in self.shared:
                if not (home / name).is_file():
                    raise OutputError(f"{self.target}: another run has removed its data file '{name}'; run it again")
            try:
                if self.data is not None:
                    self._rename_data()
                    _to_disk(self.model.with_name(self.data))
                _to_disk(self.model)
                if self.target.is_file():
                    shutil.copymode(self.target, self.model)
                identity = _identity(self.model)
                if self.data is not None:
                    moved = home / self.data
                    self.model.with_name(self.data).rename(moved)
                _take_name(self.model, self.target, force)
            except BaseException:
                if moved is not None:
                    moved.unlink(missing_ok=True)
                raise
            if _identity(self.target) != identity:
                raise OutputError(f"{self.target}: another program has put a file there meanwhile; run it again")
            _folder_to_disk(home)
            for name in stale.difference(self.shared, {self.data}):
                (home / name).unlink(missing_ok=True)

    def _rename_data(self) -> None:
        """Call the data by another name where a file of theirs has appeared beside the target."""
        if self.data is None or self.document is None or not os.path.lexists(self.target.with_name(self.data)):
            return
        free = _free_data_name(self.target)
        self.model.with_name(self.data).rename(self.model.with_name(free))
        rename_external(self.document.model, free)
        self.data = free
        self.model.unlink()
        _write_inline(self.document, self.model)

    def discard(self) -> None:
        """Free the room that it takes."""
        shutil.rmtree(self.model.parent, ignore_errors=True)


def stage(document: Document, target: Path, folder: Path, external: bool | None = None) -> Staged:
    """Write a document into a folder beside its target.

    `external` None keeps weights where they were: in the file, or in a data file where the source had one or where the
    file would pass 2 GB. Raises OutputError, in one line, where nothing can be written.
    """
    model = folder / target.name
    with _in_one_line(target):
        folder.mkdir(exist_ok=True)
        if external is None:
            external = bool(document.external)
        if external or is_too_large(document):
            return _with_data_file(document, model, target)
        write(document, model)
    return Staged(model, target)


def stage_copy(document: Document, target: Path, folder: Path) -> Staged:
    """The source file as it is; with weights in a file of their own, a copy of both unless it lies beside the source.

    Raises OutputError where nothing can be written.
    """
    if document.path is None:
        raise ValueError("a model that was given in memory has no file to copy")
    with _in_one_line(target):
        if document.external and not target.parent.samefile(document.path.parent):
            return stage(document, target, folder)
        folder.mkdir(exist_ok=True)
        shutil.copyfile(document.path, folder / target.name)
    return Staged(folder / target.name, target, shared=document.external)


def write(document: Document, path: Path) -> None:
    """Write a document into one new file, which must not pass 2 GB. Raises OSError."""
    for _, tensor in document.detached():
        internalise(tensor)
    _write_inline(document, path)


def _write_inline(document: Document, path: Path) -> None:
    with path.open("xb") as file:
        wire.attach(document.model.SerializeToString(), document.payloads, file)


def is_too_large(document: Document) -> bool:
    """Whether a document cannot be one protobuf message."""
    overhead = 64 * len(document.payloads)
    return document.model.ByteSize() + document.payload_bytes + overhead > PROTOBUF_LIMIT_BYTES


def _with_data_file(document: Document, model: Path, target: Path) -> Staged:
    """The weights into a data file beside the model, each at a multiple of the page size.

    Tensors in Constant nodes stay there unless they were in such a file: not every runtime looks for them elsewhere.
    """
    name = _free_data_name(target)
    inline = Document(document.model)
    initializers = {tensor.name for tensor in document.model.graph.initializer}
    with model.with_name(name).open("xb") as file:
        at = 0
        for weight, tensor in document.detached():
            payload = document.payloads[weight]
            if weight not in initializers and tensor.data_location != EXTERNAL:
                inline.payloads[weight] = payload
                continue
            at += file.write(b"\0" * (-at % ALIGNMENT_BYTES))
            payload.write_to(file)
            externalise(tensor, name, at, payload.nbytes)
            at += payload.nbytes
    if is_too_large(inline):
        raise OutputError(f"{target}: cannot be written: its Constant nodes alone hold more than a file of 2 GB can")
    _write_inline(inline, model)
    if not at:
        model.with_name(name).unlink()
        return Staged(model, target)
    return Staged(model, target, name, inline)


def _free_data_name(target: Path) -> str:
    """A name for the data of a target that no file beside it has."""
    name = f"{target.name}.data"
    return f"{target.name}.{os.urandom(4).hex()}.data" if os.path.lexists(target.with_name(name)) else name


def _own_data_files(target: Path) -> set[str]:
    """The data files named as those of the target that no model in its folder reads but the one there now."""
    scheme = re.compile(re.escape(target.name) + r"(\.[0-9a-f]{8})?\.data")
    own = {name for name in _data_files(target) if scheme.fullmatch(name)}
    if own:
        for other in target.parent.iterdir():
            if other.suffix.lower() == ".onnx" and other.name != target.name and other.is_file():
                own.difference_update(_data_files(other, otherwise=own))
    return own


def _data_files(path: Path, otherwise: Iterable[str] = ()) -> tuple[str, ...]:
    """The data files that a model reads; `otherwise` for one that cannot be read."""
    try:
        return files.load(path).external
    except ModelError:
        return tuple(otherwise)


def _take_name(model: Path, target: Path, force: bool) -> None:
    """Let a file have the target's name; without `force` only where no file has it."""
    if force:
        model.replace(target)
        return
    try:
        try:
            target.hardlink_to(model)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _take_empty_name(model, target)
        else:
            model.unlink()
    except FileExistsError:
        raise OutputError(
            f"{target}: a file of this name has appeared meanwhile; choose another name, or --force to overwrite it"
        ) from None


def _take_empty_name(model: Path, target: Path) -> None:
    """The same on a file system without links: an empty file takes the name first, which is replaced then."""
    target.open("xb").close()
    try:
        model.replace(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _identity(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other runs from taking names in a folder meanwhile, where the system knows locks on folders."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + MOST_SECONDS_FOR_LOCK
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OutputError(f"{folder}: another run has been writing here for too long") from None
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)


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
