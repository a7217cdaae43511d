"""Report files, written whole or not at all, and the progress bar, drawn only where somebody looks."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bnfold.errors import MissingDependency, OutputError, UsageError
from bnfold.report import as_html, as_json, as_markdown
from bnfold.report.progress import progress_bar
from bnfold.report.write import check_report_paths, write_report
from bnfold.results import Counts, Report, Source

REPORT = Report("1", Source("in.onnx", None, 17, 8), (), Counts(0, 1, 0, 2))


@pytest.mark.parametrize(
    ("name", "dumps"), [("r.json", as_json.dumps), ("r.MD", as_markdown.dumps), ("r.Html", as_html.dumps)]
)
def test_a_report_replaces_the_file_in_one_step(name: str, dumps: Callable[[Report], str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("old")
    write_report(path, REPORT)
    assert path.read_text("utf-8") == dumps(REPORT)
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_no_unicode_can_be_written(tmp_path: Path) -> None:
    for name in ("r.json", "r.md", "r.html"):
        write_report(tmp_path / name, REPORT.with_(source=replace(REPORT.source, path="models/\udc80.onnx")))
        assert "udc80" in (tmp_path / name).read_text("utf-8")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"r\.json: cannot be written: No space left on device"):
        write_report(path, REPORT)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("r.txt", UsageError, "the suffix '.txt' names no report format; use .json, .md or .html"),
        ("r", UsageError, "the suffix '' names no report format"),
        ("folder.md", OutputError, "this is a folder"),
        ("nowhere/r.md", OutputError, "cannot write in .*nowhere: No such file or directory"),
    ],
)
def test_report_paths_are_checked_before_the_work(
    name: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(error, match=message):
        check_report_paths([tmp_path / "good.json", tmp_path / name])
    assert [path.name for path in tmp_path.iterdir()] == ["folder.md"]


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_html_without_its_libraries_names_the_extra(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnfold.report.write.find_spec", lambda name: None if name == missing else object())
    with pytest.raises(
        MissingDependency, match=r'r\.HTM: HTML needs the extra "report": pip install "bnfold\[report\]"'
    ):
        check_report_paths([tmp_path / "r.HTM"])
    check_report_paths([tmp_path / "r.md"])


class Stream(io.StringIO):
    encoding = "utf-8"

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(("terminal", "quiet"), [(True, True), (False, False), (False, True)])
def test_no_progress_bar_where_none_is_wanted(terminal: bool, quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Stream(terminal)
    monkeypatch.setattr("sys.stderr", stderr)
    with progress_bar(quiet=quiet) as progress:
        assert progress is None
    assert stderr.getvalue() == ""


def test_the_progress_bar_names_every_stage_and_draws_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr, stdout = Stream(True), Stream(False)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress_bar(quiet=False) as progress:
        assert progress is not None
        for stage in ("verify [bold]", "bench"):
            for i in range(100):
                progress(stage, i / 100)
        print("a result")  # noqa: T201 - what is printed meanwhile stays where it was sent
    assert stdout.getvalue() == "a result\n"
    # Once when the stage begins; the last stage once more when the bar goes away.
    assert stderr.getvalue().count("verify [bold]") == 1
    assert stderr.getvalue().count("bench") == 2
