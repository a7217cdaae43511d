"""The user's own test inputs, from `.npy` and `.npz` files and folders of pictures."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bnfold.checks import bfloat16
from bnfold.checks.feed import Feed
from bnfold.checks.images import read_images
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Array, TensorInfo
from bnfold.checks.shapes import PartialShape, check_shape
from bnfold.errors import UsageError, refused_as

_LABEL_KEYS = ("labels", "label", "y")
_CHUNK = 64
MOST_BYTES = 2**30  # of arrays that are compressed to less than a twentieth
_MOST_COMPRESSED = 20


def read_feeds(path: Path, inputs: Sequence[TensorInfo]) -> list[Feed]:
    """The contents of `path` as feeds: one, or several where there are more rows than the model takes at once.

    Rows are entries along the first axis. They are split where every input has the same number of them and the model
    either fixes another number for all inputs or leaves it free and there are more than 64. The last part of a fixed
    batch is filled up by repeating its last row; its labels are not.

    Raises:
        UsageError: if the file cannot be read, or its arrays do not fit the model's inputs.
    """
    return _feeds(path, "file", _read(path, inputs), inputs)


def picture_feeds(
    path: Path, inputs: Sequence[TensorInfo], given: Mapping[str, PartialShape], options: CheckOptions
) -> list[Feed]:
    """The pictures in a folder as feeds, in parts as those of a file. Raises what `read_images` raises."""
    return _feeds(path, "folder", read_images(path, inputs, given, options), inputs)


def _feeds(path: Path, what: str, arrays: dict[str, Array], inputs: Sequence[TensorInfo]) -> list[Feed]:
    names = [info.name for info in inputs]
    label_key = next((key for key in _LABEL_KEYS if key in arrays and key not in names), None)
    labels = None if label_key is None else arrays.pop(label_key)
    _check_names(path, arrays, names)
    values = {info.name: _converted(path, info, arrays[info.name]) for info in inputs}
    rows = _common_rows(values)
    chunk = _chunk_size(inputs, rows)
    for info in inputs:
        check_shape(info, values[info.name].shape, f"the array in {path.name}", first_axis_free=chunk is not None)
    labels = _checked_labels(path, labels, rows)
    if chunk is None or rows is None:
        return [Feed(f"{what} {path.name}", values, labels, path.name)]
    fixed = any(info.shape and isinstance(info.shape[0], int) for info in inputs)
    feeds = []
    for start in range(0, rows, chunk):
        stop = min(start + chunk, rows)
        index = np.arange(start, start + chunk if fixed else stop).clip(max=rows - 1)
        part = {name: array[index] for name, array in values.items()}
        part_labels = None if labels is None else labels[start:stop]
        feeds.append(Feed(f"{what} {path.name} [{start}:{stop}]", part, part_labels, path.name))
    return feeds


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays in a file by their names; that of a `.npy` file by "". Raises UsageError if it cannot be read."""
    if path.suffix not in (".npy", ".npz"):
        raise UsageError(f"input data {path}: give a .npy or .npz file, or a folder of pictures")
    if path.exists() and not path.is_file():
        raise UsageError(f"input data {path}: this is no regular file")
    with refused_as(UsageError, f"input data {path} cannot be read"):
        if path.suffix == ".npz":
            _refuse_bomb(path)
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
        other = next((key for key, array in arrays.items() if not isinstance(array, np.ndarray)), None)
        if other is not None:
            raise UsageError(f"input data {path}: its member '{other}' is no array of NumPy's")
        return arrays


def _refuse_bomb(path: Path) -> None:
    """Raises UsageError for an archive that would take much more memory than its size lets expect."""
    with zipfile.ZipFile(path) as archive:
        nbytes = sum(info.file_size for info in archive.infolist())
    if nbytes > max(MOST_BYTES, _MOST_COMPRESSED * path.stat().st_size):
        raise UsageError(f"input data {path}: its arrays take {nbytes / 2**30:.1f} GB; give fewer rows")


def _read(path: Path, inputs: Sequence[TensorInfo]) -> dict[str, Array]:
    arrays = read_arrays(path)
    if "" not in arrays:
        return arrays
    if len(inputs) != 1:
        names = ", ".join(info.name for info in inputs)
        raise UsageError(f"input data {path}: the model has {len(inputs)} inputs, so give a .npz with {names}")
    return {inputs[0].name: arrays[""]}


def _check_names(path: Path, arrays: Mapping[str, Array], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in arrays]
    extra = [key for key in arrays if key not in names]
    if missing or extra:
        raise UsageError(
            f"input data {path} has {', '.join(arrays) or 'nothing'}: the model's inputs are {', '.join(names)}"
        )


def _converted(path: Path, info: TensorInfo, array: Array) -> Array:
    """`array` in the input's type, where that loses nothing but the last digits of a float."""
    refusal = UsageError(
        f"input data {path}: '{info.name}' holds {array.dtype} values that do not fit the model's {info.dtype}"
    )
    kind = array.dtype.kind
    if info.dtype == "string":
        if kind not in "US":
            raise refusal
        return array.astype(np.str_).astype(object)
    if info.dtype == "bfloat16" and kind == "f":
        return bfloat16.rounded(array)
    try:
        target = np.dtype(info.dtype)
    except TypeError:
        raise refusal from None
    if target.kind == "f" == kind:
        with np.errstate(over="ignore"):
            values = array.astype(target)
        if not np.array_equal(np.isfinite(values), np.isfinite(array)):
            raise refusal
        return values
    if target.kind in "iu" and kind in "iu":
        values = array.astype(target)
        if not np.array_equal(values, array):
            raise refusal
        return values
    if target != array.dtype:
        raise refusal
    return array


def _common_rows(values: Mapping[str, Array]) -> int | None:
    counts = {array.shape[0] if array.ndim else None for array in values.values()}
    return counts.pop() if len(counts) == 1 else None


def _chunk_size(inputs: Sequence[TensorInfo], rows: int | None) -> int | None:
    """How many rows to feed at once; None to feed all as they are."""
    declared = {info.shape[0] for info in inputs if info.shape}
    fixed = {size for size in declared if isinstance(size, int)}
    if not rows or len(fixed) > 1:
        return None
    if fixed:
        batch = fixed.pop()
        return None if batch == rows or batch < 1 else batch
    return _CHUNK if declared and rows > _CHUNK else None


def _checked_labels(path: Path, labels: Array | None, rows: int | None) -> Array | None:
    if labels is None:
        return None
    flat = labels.reshape(-1)
    if labels.dtype.kind not in "iu" or rows is None or flat.size != rows:
        raise UsageError(f"input data {path}: labels must be one class number for each of the {rows} rows")
    return flat
