"""The command as a process: what it imports, and what becomes of output that cannot be delivered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from saved import names, save

import bnfold

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "rich", "sympy")


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["convert", "--help"], ["bench", "--help"]])
def test_help_and_version_import_nothing_heavy(args: list[str]) -> None:
    code = f"""
import sys
from bnfold.cli import main
try:
    main({args!r}, prog_name="bnfold")
except SystemExit as end:
    assert end.code == 0, end.code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
"""
    done = process(["-c", code])
    assert (done.returncode, done.stderr) == (0, "")
    assert "bnfold" in done.stdout


def test_the_module_is_the_command() -> None:
    done = process(["-m", "bnfold", "--version"])
    assert (done.returncode, done.stdout) == (0, f"bnfold, version {bnfold.__version__}\n")


PRINTS_MUCH = """
import bnfold
from bnfold.cli import main
from bnfold.results import Counts, Report, Site, Source
sites = tuple(Site(f"bn{i}", "BatchNormalization", "folded", "backward", ("é",)) for i in range(5_000))
bnfold.__dict__["inspect"] = lambda *_, **__: Report("1", Source("in.onnx", None, 17, 8), sites, Counts(1, 1, 1, 1))
main(["inspect", "in.onnx"], prog_name="bnfold")
"""


@pytest.mark.skipif(os.name == "nt", reason="pipes that close early are reported otherwise")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    # Without its buffer, Python forgets what a pipe did not take, and nobody learns that the reader left.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", PRINTS_MUCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline().startswith("in.onnx")
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a file
        done = subprocess.run(
            [sys.executable, "-c", PRINTS_MUCH], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "Error: [Errno 28] No space left on device\n")


def test_a_stdout_that_knows_ascii_only_is_no_error() -> None:
    done = process(["-c", PRINTS_MUCH], PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  bn7: backward into \\xe9\n" in done.stdout


COMMANDS = {
    "--help": 0,
    "convert a.onnx -o b.onnx --no-bench": 0,
    "convert a.onnx -o c.onnx --no-verify --bench-seconds 0.01 --report r.md": 0,
    "inspect a.onnx": 0,
    "verify a.onnx a.onnx": 0,
    "bench a.onnx a.onnx --bench-seconds 0.01 --no-memory": 0,
    "inspect missing.onnx": 2,
    "nonsense": 2,
}


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX closes the streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_before_the_start_are_no_error(closed: str, tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    package = str(Path(bnfold.__file__).parents[1])
    script = "\n".join(f'"{sys.executable}" -m bnfold {command} {closed}; echo $? >>codes' for command in COMMANDS)
    environment = {**os.environ, "PYTHONPATH": package}
    done = subprocess.run(script, shell=True, capture_output=True, text=True, cwd=tmp_path, check=True, env=environment)  # noqa: S602
    assert [int(code) for code in (tmp_path / "codes").read_text().split()] == list(COMMANDS.values())
    assert "Traceback" not in done.stdout + done.stderr
    assert {"b.onnx", "c.onnx", "r.md"} <= names(tmp_path)
    for name in ("a.onnx", "b.onnx", "c.onnx"):
        onnx.checker.check_model(tmp_path / name)


@pytest.mark.skipif(os.name == "nt", reason="has no such signal")
def test_an_interrupted_measurement_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    models = Path(__file__).resolve().parent.parent / "models"
    args = ["convert", str(models / "bnlenet.onnx"), "-o", str(tmp_path / "out.onnx"), "--no-verify"]
    environment = {**os.environ, "PYTHONPATH": str(models.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", SAYS_WHEN_IT_MEASURES, *args, "--bench-seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "measuring\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "Error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


SAYS_WHEN_IT_MEASURES = """
import sys
from bnfold.checks import contest
from bnfold.cli import main

take_turns = contest.take_turns
def noisy(*args):
    print("measuring", flush=True)
    contest.take_turns = take_turns
    take_turns(*args)
contest.take_turns = noisy
main(sys.argv[1:], prog_name="bnfold")
"""


def process(args: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, check=False, env=os.environ | environment
    )
