"""The progress bar, on stderr and only where stderr is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS_BETWEEN_FRAMES = 0.1


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[str, float], None] | None]:
    """A function to call with a stage's name and the fraction done (0 to 1); None where nothing is to be drawn."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    # Drawn from within the calls, never by a thread of its own, which would run beside what the bench times.
    # stdout is left alone: it may be a file.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, auto_refresh=False, redirect_stdout=False
    ) as bar:
        task = bar.add_task("reading", total=1.0)
        drawn_stage, drawn_at = "", 0.0

        def show(stage: str, fraction: float) -> None:
            nonlocal drawn_stage, drawn_at
            bar.update(task, description=stage, completed=fraction)
            now = time.monotonic()
            if stage != drawn_stage or now - drawn_at >= _SECONDS_BETWEEN_FRAMES:
                drawn_stage, drawn_at = stage, now
                bar.refresh()

        yield show
