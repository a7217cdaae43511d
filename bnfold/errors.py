"""The exceptions that bnfold raises.

    BnfoldError
    ├── UsageError          an option or argument does not make sense
    ├── ModelError          the model cannot be read, is invalid, or is of a kind not understood
    ├── OutputError         the result cannot be written where it was asked for
    ├── MissingDependency   an optional library is needed and not installed
    └── EquivalenceError    the folded model is not the same function; nothing was written

Expected outcomes, such as a BatchNorm that stays, are values (`bnfold.Site`), not exceptions.
Every message is one line that a user can act on: what, where, why, what to do.
The command line turns EquivalenceError into exit code 1 and every other one into exit code 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.results import Report


class BnfoldError(Exception):
    """Any error that bnfold raises on purpose; its text is one line."""


class UsageError(BnfoldError):
    """An option or an argument does not make sense."""


class ModelError(BnfoldError):
    """The model cannot be read, is invalid, or is of a kind that bnfold does not understand."""


class OutputError(BnfoldError):
    """The result cannot be written where it was asked for; what was there before is untouched."""


class MissingDependency(BnfoldError):
    """An optional library is needed for what was asked and is not installed."""


class EquivalenceError(BnfoldError):
    """The folded model is not the same function as the original within tolerance; nothing was written.

    `report` holds the full account of the run, where there is one.
    """

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


@contextmanager
def refused_as(kind: type[BnfoldError], what: str, advice: str = "") -> Iterator[None]:
    """Around whatever reads a file: anything that it raises becomes an error of this kind, in one line.

    A parser raises what it likes on a damaged or hostile file, and no list of exceptions is complete. `what` names the
    file and says what is wrong with it; the parser's own words follow in brackets, then the advice.
    """
    try:
        yield
    except BnfoldError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = getattr(error, "strerror", None) or (lines[0][:200] if lines else type(error).__name__)
        raise kind(f"{what} ({said})" + (f"; {advice}" if advice else "")) from error
