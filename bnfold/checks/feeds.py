"""All test inputs of a run: the user's own data and drawn ones."""

from __future__ import annotations

from collections.abc import Sequence

from bnfold.checks.data import picture_feeds, read_feeds
from bnfold.checks.draw import can_draw, draw_feeds
from bnfold.checks.feed import Feed
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import TensorInfo
from bnfold.checks.shapes import PartialShape, check_types, name_shapes
from bnfold.errors import UsageError

__all__ = ["Feed", "make_feeds"]


def make_feeds(inputs: Sequence[TensorInfo], options: CheckOptions) -> list[Feed]:
    """The user's data, if any, then `options.check_n` drawn feeds (see `draw_feeds`). At least one feed.

    Drawn inputs take over the sizes of the user's data, batch excepted. Beside data, nothing is drawn for a model that
    has an input whose values cannot be made up, such as a string.

    Raises:
        UsageError: if shapes or data do not fit the model, or an input's values cannot be made up and no data is given.
    """
    for info in inputs:
        if not info.is_tensor:
            raise UsageError(f"input '{info.name}' is a {info.dtype}: only tensors can be fed")
    given: dict[str, PartialShape] = dict(name_shapes(inputs, options.input_shapes))
    check_types(inputs, options.input_types)
    if not inputs:
        return [Feed("no inputs", {})]
    feeds = []
    if options.input_data is not None:
        if options.input_data.is_dir():
            feeds = picture_feeds(options.input_data, inputs, given, options)
        else:
            feeds = read_feeds(options.input_data, inputs)
        for name, array in feeds[0].values.items():
            given.setdefault(name, (None, *array.shape[1:]) if array.ndim else ())
    mystery = next((info for info in inputs if not can_draw(info)), None)
    if mystery is None:
        feeds += draw_feeds(inputs, given, options)
    elif not feeds:
        raise UsageError(
            f"input '{mystery.name}' holds {mystery.dtype} values, which cannot be made up: give --input-data"
        )
    return feeds
