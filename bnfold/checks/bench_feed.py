"""The one input that both models are timed on."""

from __future__ import annotations

from dataclasses import replace

from bnfold.checks.feed import Feed
from bnfold.checks.feeds import make_feeds
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Runner
from bnfold.checks.shapes import has_free_batch, name_shapes
from bnfold.errors import ModelError, UsageError


def bench_feed(session: Runner, options: CheckOptions, batch: int | None) -> Feed:
    """A drawn feed on which the original runs, or else the user's first.

    Its batch is `batch`; where that is None, it is 1 where the batch is free.

    Raises:
        UsageError: if an option does not fit the model, or the model or the user fixes another batch.
    """
    feeds = make_feeds(session.inputs, replace(options, check_n=1))
    if batch is not None:
        feeds = make_feeds(session.inputs, _of_batch(session, feeds[-1], options, batch))
    for feed in reversed(feeds[1:]):
        try:
            session.run(feed.values)
        except ModelError:
            continue
        return feed
    return feeds[0]


def _of_batch(session: Runner, feed: Feed, options: CheckOptions, batch: int) -> CheckOptions:
    """The options under which inputs are drawn that are shaped like this feed, with `batch` rows where that is free."""
    given = name_shapes(session.inputs, options.input_shapes)
    shapes = {name: array.shape for name, array in feed.values.items()}
    free = [info.name for info in session.inputs if has_free_batch([info], given)]
    batched = free or [name for name, shape in shapes.items() if shape][:1]
    if not batched:
        raise UsageError(f"batch size {batch}: the model has no input with a batch")
    for name in batched:
        if name not in free and shapes[name][0] != batch:
            raise UsageError(
                f"batch size {batch}: the first axis of input '{name}' is fixed at {shapes[name][0]}; "
                "export the model with a free batch"
            )
        shapes[name] = (batch, *shapes[name][1:])
    return replace(options, check_n=1, input_data=None, input_shapes=shapes)
