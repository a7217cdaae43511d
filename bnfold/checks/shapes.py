"""Concrete sizes for the symbolic dimensions of a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from bnfold.checks.session import TensorInfo
from bnfold.errors import UsageError

Shape: TypeAlias = tuple[int, ...]
PartialShape: TypeAlias = tuple[int | None, ...]
"""Sizes that are known, and None for those that are not."""

# Two guesses each: what most models were made for, and another size that they should bear.
_IMAGE = (224, 160)  # multiples of 32
_FRAMES, _FRAME = (16, 8), (112, 96)
_LENGTH = (128, 96)
_MOST_CHANNELS_LAST = 4


def has_free_batch(inputs: Sequence[TensorInfo], given: Mapping[str, PartialShape]) -> bool:
    """Whether some input leaves the size of its first axis open, and the user does too."""
    return any(
        info.shape and not isinstance(info.shape[0], int) and given.get(info.name, (None,))[0] is None
        for info in inputs
    )


def name_shapes(inputs: Sequence[TensorInfo], input_shapes: Mapping[str, PartialShape]) -> dict[str, PartialShape]:
    """The user's shapes by input name, the nameless one given to the only input.

    Raises:
        UsageError: if a name is not an input's, or a shape contradicts what the model says of that input.
    """
    named = dict(input_shapes)
    names = [info.name for info in inputs]
    if "" in named:
        if len(names) != 1:
            raise UsageError(
                f"the model has {len(names)} inputs ({', '.join(names)}): name the one whose shape you give"
            )
        named = {names[0]: named[""]}
    by_name = {info.name: info for info in inputs}
    for name, shape in named.items():
        if name not in by_name:
            raise UsageError(f"input shape given for '{name}', which is no input: the model has {', '.join(names)}")
        check_shape(by_name[name], shape, "the shape given")
    return named


def check_types(inputs: Sequence[TensorInfo], input_types: Mapping[str, str]) -> None:
    """Raise UsageError for a type, by input name or "" for the only one, that the model says otherwise of its input."""
    for info in inputs:
        given = input_types.get(info.name, input_types.get("", info.dtype))
        if given != info.dtype:
            raise UsageError(f"input '{info.name}' is {info.dtype} in the model, not {given}: leave the type out")


def check_shape(info: TensorInfo, shape: PartialShape, what: str, *, first_axis_free: bool = False) -> None:
    """Hold `shape` against what the model declares; `first_axis_free` lets the first axis differ.

    Raises:
        UsageError: if the rank or a fixed size differs.
    """
    if not info.shape:
        return  # a scalar, or a rank that ORT does not know
    start = 1 if first_axis_free else 0
    agrees = len(shape) == len(info.shape) and all(
        not isinstance(declared, int) or declared == size
        for declared, size in zip(info.shape[start:], shape[start:], strict=True)
    )
    if not agrees:
        raise UsageError(
            f"{what} for input '{info.name}' is {shape_text(shape)}, the model has {shape_text(info.shape)}"
        )


def solve_shapes(
    inputs: Sequence[TensorInfo], given: Mapping[str, PartialShape], batch: int, *, second: bool = False
) -> dict[str, Shape]:
    """A size for every axis of every input: declared, else given, else `batch` first and a guess behind.

    One symbol has one size wherever it stands, the first that is given for it, unless another is given in its place:
    runtimes take what is fed, and symbols are often wrong. `second` takes the second guess.
    """
    sizes = {symbol: found[0] for symbol, found in _given_sizes(inputs, given).items()}
    shapes = {}
    for info in inputs:
        known = given.get(info.name, (None,) * len(info.shape))
        shape = []
        for axis, size in enumerate(known):
            declared = info.shape[axis] if axis < len(info.shape) else None
            if isinstance(declared, int):
                shape.append(declared)
            elif size is not None:
                shape.append(size)
            else:
                guess = batch if axis == 0 else _guess(info.shape, axis, int(second))
                shape.append(guess if declared is None else sizes.setdefault(declared, guess))
        shapes[info.name] = tuple(shape)
    return shapes


def contradictions(inputs: Sequence[TensorInfo], given: Mapping[str, PartialShape]) -> tuple[str, ...]:
    """A note for every symbol of the model for which different sizes are given."""
    return tuple(
        f"the shapes given make '{symbol}' {' and '.join(map(str, dict.fromkeys(found)))}: the model's names say that "
        "these sizes are the same"
        for symbol, found in _given_sizes(inputs, given).items()
        if len(set(found)) > 1
    )


def _given_sizes(inputs: Sequence[TensorInfo], given: Mapping[str, PartialShape]) -> dict[str, list[int]]:
    """By symbol, the sizes given where it stands."""
    found: dict[str, list[int]] = {}
    for info in inputs:
        for symbol, size in zip(info.shape, given.get(info.name, ()), strict=False):
            if isinstance(symbol, str) and size is not None:
                found.setdefault(symbol, []).append(size)
    return found


def shape_text(shape: Sequence[int | str | None]) -> str:
    """`(2, 3, 96, 96)` as "2x3x96x96", an unnamed symbol as "?"."""
    return "x".join("?" if size is None else str(size) for size in shape) if shape else "a scalar"


def _guess(shape: tuple[int | str | None, ...], axis: int, which: int) -> int:
    """A size for an axis behind the first: images, videos and sequences in their usual layouts."""
    rank, last = len(shape), shape[-1]
    channels_last = rank >= 4 and isinstance(last, int) and last <= _MOST_CHANNELS_LAST
    channel_axis = rank - 1 if channels_last else 1
    if rank >= 4 and axis == channel_axis:
        return 3
    if rank == 4:
        return _IMAGE[which]
    if rank == 5:
        return (_FRAMES if axis == (1 if channels_last else 2) else _FRAME)[which]
    return _LENGTH[which]
