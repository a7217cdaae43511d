"""Reports into files: the format by suffix, checked before any work begins, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from pathlib import Path

from bnfold.errors import MissingDependency, OutputError, UsageError
from bnfold.results import Comparison, Report

_HTML = (".html", ".htm")
_SUFFIXES = (".json", ".md", *_HTML)
_FOR_HTML = ("jinja2", "matplotlib")


def check_report_paths(paths: Iterable[Path]) -> None:
    """Find out, before minutes of work, whether every report can be written.

    Raises:
        UsageError: a suffix names no format.
        OutputError: a path is a folder, or no file can be made beside it.
        MissingDependency: the libraries for HTML are not installed.
    """
    for path in paths:
        suffix = path.suffix.lower()
        if suffix not in _SUFFIXES:
            raise UsageError(f"--report {path}: the suffix {suffix!r} names no report format; use .json, .md or .html")
        if suffix in _HTML and not all(map(find_spec, _FOR_HTML)):
            raise MissingDependency(f'--report {path}: HTML needs the extra "report": pip install "bnfold[report]"')
        if path.is_dir():
            raise OutputError(f"--report {path}: this is a folder; name a file")
        try:
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise OutputError(f"--report {path}: cannot write in {path.parent}: {error.strerror}") from error


def refuse_reports_over(files: Collection[Path], reports: Iterable[Path]) -> None:
    """Raises OutputError for a report that would take the place of one of these files."""
    for path in reports:
        for file in files:
            if path.exists() and file.exists() and path.samefile(file):
                raise OutputError(f"--report {path}: this is a file that the command reads; name another one")


def write_report(path: Path, result: Report | Comparison) -> None:
    """Write `result` to `path` in the format of its suffix; a reader sees the old file or the new one.

    Raises:
        OutputError: the file cannot be written; what was there before is untouched.
    """
    if path.suffix.lower() == ".json":
        from bnfold.report.as_json import dumps
    elif path.suffix.lower() in _HTML:
        from bnfold.report.as_html import dumps
    else:
        from bnfold.report.as_markdown import dumps
    # Beside the target, so that the rename stays on one file system; opened plainly, so that the umask applies.
    temporary = path.with_name(f".bnfold-{os.urandom(6).hex()}")
    try:
        with temporary.open("xb") as file:
            file.write(dumps(result).encode("utf-8", "backslashreplace"))
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"--report {path}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
