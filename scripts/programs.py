"""bnfold and its neighbours as programs: each run is a process of its own, timed, with its peak memory.

`cost.py` and `benchmark.py` share this; there is no other way in which they run a neighbour. Nothing but the standard
library is imported here: the peak memory of a child counts from what its parent held when it was started.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Compiled modules are kept, as where packages are installed: a warming run writes what is not there yet.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
_TRACEBACK = "Traceback (most recent call last):\n"
_RAISED_FROM = "\nThe above exception was the direct cause of the following exception:\n"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_REASON = 160


@dataclass(frozen=True)
class Program:
    """A program that reads the model `{source}` and writes `{out}`.

    `argv` follows the Python interpreter; `needs` are the packages that have to be there, its own first.
    """

    name: str
    argv: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages it needs that are not installed."""
        return tuple(package for package in self.needs if importlib.util.find_spec(package) is None)


@dataclass(frozen=True)
class Run:
    """One run of one program. `problem` says in one line why it did not do what it should, or is None."""

    seconds: float
    peak_mib: float
    exit_code: int
    problem: str | None


def _python(code: str) -> tuple[str, ...]:
    return ("-c", code, "{source}", "{out}")


def _ort(level: str) -> tuple[str, ...]:
    return _python(
        "import sys, onnxruntime as ort; options = ort.SessionOptions(); options.log_severity_level = 4; "
        f"options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_{level}; "
        "options.optimized_model_filepath = sys.argv[2]; "
        "ort.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])"
    )


LOAD_AND_SAVE = Program(
    "onnx.save(onnx.load(...))", _python("import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"), ("onnx",)
)
BNFOLD = Program(
    "bnfold convert",
    ("-m", "bnfold", "convert", "--no-verify", "--no-bench", "{source}", "-o", "{out}"),
    ("onnx",),
)
BNFOLD_SIMPLIFY = Program(
    "bnfold convert --simplify",
    ("-m", "bnfold", "convert", "--simplify", "--no-verify", "--no-bench", "{source}", "-o", "{out}"),
    ("onnx", "onnxsim"),
)
ONNXSCRIPT = Program(
    "onnxscript optimizer",
    _python("import sys, onnx, onnxscript.optimizer as o; onnx.save(o.optimize(onnx.load(sys.argv[1])), sys.argv[2])"),
    ("onnxscript",),
)
ONNXSLIM = Program("OnnxSlim", ("-m", "onnxslim", "{source}", "{out}"), ("onnxslim",))
ONNXSIM = Program("onnxsim", ("-m", "onnxsim", "{source}", "{out}"), ("onnxsim",))
ONNXOPTIMIZER = Program("onnxoptimizer", ("-m", "onnxoptimizer", "{source}", "{out}"), ("onnxoptimizer",))
ORT_EXTENDED = Program("ORT offline, extended", _ort("EXTENDED"), ("onnxruntime",))
ORT_ALL = Program("ORT offline, all", _ort("ALL"), ("onnxruntime",))
TORCH_EXPORTER = Program(
    "torch exporter",
    (str(ROOT / "scripts" / "torch_export.py"), "{source}", "{out}"),
    ("torch", "onnxscript", "safetensors"),
)


def run(program: Program, source: Path, out: Path, limit_s: float | None = None) -> Run:
    """Run a program on a model, as a process of its own, with nothing left to write back from before.

    A program that takes longer than `limit_s`, ends with an error or writes nothing has a problem.
    """
    os.sync()
    done = run_python([part.format(source=source, out=out) for part in program.argv], limit_s)
    if done.problem is None and not out.exists():
        return Run(done.seconds, done.peak_mib, done.exit_code, "ended without an error, and without a file")
    return done


def run_python(arguments: Sequence[str], limit_s: float | None = None) -> Run:
    """Run the Python interpreter with these arguments; what it prints is lost, but for the reason of a failure."""
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        late = threading.Event()

        def stop() -> None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
                late.set()

        timer = threading.Timer(limit_s if limit_s is not None else threading.TIMEOUT_MAX, stop)
        timer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:  # a process group of its own does not see the interrupt
            stop()
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - start
        child.returncode = code = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    problem = None
    if late.is_set():
        problem = f"not done after {limit_s:g} s"
    elif code != 0:
        problem = reason(text) if code > 0 else f"killed by {signal.Signals(-code).name}"
    return Run(seconds, usage.ru_maxrss / per_mib, code, problem)


def reason(errors: str) -> str:
    """The line of what was printed to stderr that names the error: of a traceback, the exception's first.

    Of exceptions that were raised from one another, it is the cause that says what happened.
    """
    text = _ESCAPES.sub("", errors)
    if _TRACEBACK in text:
        text = text.partition(_RAISED_FROM)[0].rpartition(_TRACEBACK)[2]
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith(" ")]
        line = lines[0] if lines else ""
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        line = lines[-1] if lines else ""
    line = line or "ended with an error, and without a word"
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"


def installed(programs: Iterable[Program]) -> tuple[list[Program], dict[str, tuple[str, ...]]]:
    """Those that can run here, and the names of the others, with what they lack."""
    here = [program for program in programs if not program.missing]
    return here, {program.name: program.missing for program in programs if program.missing}
