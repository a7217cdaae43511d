"""A run that is cut short: one line, the right exit code, and nothing half-written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from saved import TWO_BATCH_NORMS, names, save

import bnfold
from bnfold.checks import bench as bench_module
from bnfold.checks.session import Session
from bnfold.cli import main
from bnfold.errors import ModelError, OutputError
from bnfold.graphs.onnx import wire

POSIX = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

# What a conversion is doing when it is interrupted: it says so on stdout and then waits for the signal.
WAIT = "print('now', flush=True); import time; time.sleep(60)"
STAGES = {
    "folding": "import bnfold.graphs.onnx.fold as m; m.fold_graph = wait",
    "writing": "import bnfold.graphs.onnx.wire as m; m.attach = half",
    "verifying": "import bnfold.checks.session as m; m.Session.run = wait",
    "in float64": "import bnfold.graphs.onnx.exact.engine as m; m.Engine.run = wait",
    "certifying": "import bnfold.graphs.onnx.exact.certify as m; m.Certifier.findings = wait",
    "measuring": "import bnfold.checks.bench as m; m.open_session = wait",
    "taking its place": "import bnfold.graphs.onnx.staging as m; m._to_disk = wait",
}
PRELUDE = f"""
import runpy, sys
def wait(*args, **options):
    {WAIT}
def half(skeleton, payloads, file):
    file.write(skeleton[:100])
    {WAIT}
"""


def waiting(stage: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """A conversion in a process of its own, which waits in the middle of a stage until somebody ends it."""
    save(folder / "a.onnx", TWO_BATCH_NORMS)
    (folder / "b.onnx").write_bytes(b"old")
    code = f"{PRELUDE}\n{STAGES[stage]}\nrunpy.run_module('bnfold', run_name='__main__')"
    arguments = ["convert", "a.onnx", "-o", "b.onnx", "--force", "--certify"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(bnfold.__file__).parents[1])},
        **{**pipes, **options},
    )


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a conversion that is sent a signal when it has said that it is there."""
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


def nothing_is_left(folder: Path) -> bool:
    return names(folder) == {"a.onnx", "b.onnx"} and (folder / "b.onnx").read_bytes() == b"old"


@POSIX
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_is_one_line_and_leaves_nothing(stage: str, tmp_path: Path) -> None:
    assert end(waiting(stage, tmp_path), signal.SIGINT) == (130, "", "Error: interrupted\n")
    assert nothing_is_left(tmp_path)


@POSIX
@pytest.mark.parametrize(
    ("stage", "name", "code", "line"),
    [
        ("writing", "SIGTERM", 143, "Error: terminated\n"),
        ("in float64", "SIGTERM", 143, "Error: terminated\n"),
        ("verifying", "SIGHUP", 129, "Error: the terminal was closed\n"),
    ],
)
def test_so_is_a_job_that_is_cancelled(stage: str, name: str, code: int, line: str, tmp_path: Path) -> None:
    assert end(waiting(stage, tmp_path), getattr(signal, name)) == (code, "", line)
    assert nothing_is_left(tmp_path)


@POSIX
@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_a_terminal_that_goes_away_takes_its_messages_along(
    unbuffered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The progress bar cannot be wiped off any more, and nobody reads why the run ended."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    screen, terminal = os.openpty()
    process = waiting("verifying", tmp_path, stderr=terminal)
    os.close(terminal)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "now\n"
        os.close(screen)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=60) == 129
    assert nothing_is_left(tmp_path)


@POSIX
def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup: the run goes on, until it is terminated in earnest."""
    process = waiting("verifying", tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.terminate()
        assert process.wait(timeout=60) == 143


def test_signals_are_as_they_were_after_a_run_and_untouched_by_the_library(tmp_path: Path, monkeypatch: Any) -> None:
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    seen = []
    attach = wire.attach

    def noting(*args: Any) -> Any:
        seen.append(signal.getsignal(signal.SIGTERM))
        return attach(*args)

    monkeypatch.setattr(wire, "attach", noting)
    before = signal.getsignal(signal.SIGTERM)
    bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", verify=False, bench=False)
    arguments = ["convert", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "c.onnx"), "--no-verify", "--no-bench"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert seen[0] is before
    assert seen[-1] is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("write", [1, 2])
def test_a_disk_that_fills_up_at_any_write_is_one_line(write: int, tmp_path: Path, monkeypatch: Any) -> None:
    """Certified models are written twice, the second time with their certificates."""
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    calls = []
    attach = wire.attach

    def full(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return attach(*args)

    monkeypatch.setattr(wire, "attach", full)
    with pytest.raises(OutputError, match=r"cannot be written: No space left on device; nothing was left there$"):
        bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, certify=True)
    assert names(tmp_path) == {"a.onnx"}
    assert len(calls) == write


def test_a_provider_that_dies_while_it_verifies_is_exit_code_1(tmp_path: Path, monkeypatch: Any) -> None:
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    run = Session.run

    def dying(self: Session, feeds: Any) -> Any:
        if self._label == "the folded model":
            raise ModelError("ONNX Runtime cannot run the folded model: the device is lost")
        return run(self, feeds)

    monkeypatch.setattr(Session, "run", dying)
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "b.onnx")])
    assert done.exit_code == 1
    assert "the device is lost (CPUExecutionProvider)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert names(tmp_path) == {"a.onnx"}


def test_a_provider_that_dies_while_it_is_measured_costs_the_figures_alone(tmp_path: Path, monkeypatch: Any) -> None:
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)

    def dead(*args: Any, **options: Any) -> Any:
        raise ModelError("ONNX Runtime cannot run the original: the device is lost")

    monkeypatch.setattr(bench_module, "open_session", dead)
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "b.onnx")])
    assert (done.exit_code, done.stderr) == (0, "")
    assert "note: latency was not measured: ONNX Runtime cannot run the original: the device is lost" in done.stdout
    assert names(tmp_path) == {"a.onnx", "b.onnx"}
