"""Signals that end a run from outside, as of a job that is cancelled or a terminal that is closed: they unwind it as
Ctrl-C does, so that nothing half-made stays behind.

Decisions. Only a run of the command line does this; whoever uses bnfold as a library keeps the signals for himself. A
signal that is ignored (nohup) or has a handler keeps that. The first signal is the last: others would cut the cleaning
short, and what cannot be waited for can still be killed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# The words are for people; SIGHUP is not known everywhere.
_WORDS = {"SIGTERM": "terminated", "SIGHUP": "the terminal was closed"}


class Ended(BaseException):
    """A signal has ended the run; no Exception, so that nobody takes it for a failure of what was running."""

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS[signal.Signals(number).name])
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within this, signals that would kill the process raise `Ended` instead; afterwards they are as they were."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    wanted = [getattr(signal, name) for name in _WORDS if hasattr(signal, name)]
    taken = [number for number in wanted if signal.getsignal(number) is signal.SIG_DFL]
    received: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        received.append(number)
        for other in taken:
            signal.signal(other, signal.SIG_IGN)
        raise Ended(number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    except BaseException:
        if received:  # whatever came of it on the way, such as a progress bar that cannot be wiped off
            raise Ended(received[0]) from None
        raise
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
