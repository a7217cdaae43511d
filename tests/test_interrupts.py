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


@POSIX
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_is_one_line_and_leaves_nothing(stage: str, tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    (tmp_path / "b.onnx").write_bytes(b"old")
    code = f"{PRELUDE}\n{STAGES[stage]}\nrunpy.run_module('bnfold', run_name='__main__')"
    arguments = ["convert", "a.onnx", "-o", "b.onnx", "--force", "--certify"]
    root = str(Path(bnfold.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, "", "Error: interrupted\n")
    assert names(tmp_path) == {"a.onnx", "b.onnx"}
    assert (tmp_path / "b.onnx").read_bytes() == b"old"


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
