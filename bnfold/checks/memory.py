"""How much memory a model needs: each in a process of its own, where nothing else can be in the way.

    python -m bnfold.checks.memory REQUEST.json

opens the session that REQUEST asks for, runs it a few times on the inputs beside it, and prints by how many bytes the
process grew at its peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.checks.session import Array, ModelFile, OptLevel, open_session, runtime_version

_RUNS = 3
_STATUS, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_growth(
    model: ModelFile,
    provider: str,
    opt_level: OptLevel,
    values: Mapping[str, Array],
    *,
    intra_op_num_threads: int | None,
    provider_options: Mapping[str, str],
) -> int | None:
    """Bytes that a new process needs at its peak to load a model and to run it, beyond Python and ORT themselves.

    Main memory alone: what a GPU holds is not counted. None where the process could not do it.
    """
    with tempfile.TemporaryDirectory(prefix="bnfold-") as name:
        folder = Path(name)
        if isinstance(model, bytes):
            path = folder / "model.onnx"
            path.write_bytes(model)
        else:
            path = model.absolute()
        np.savez(folder / "values.npz", *values.values())
        request = {
            "model": str(path),
            "values": str(folder / "values.npz"),
            "names": list(values),
            "provider": provider,
            "opt_level": opt_level,
            "intra_op_num_threads": intra_op_num_threads,
            "provider_options": dict(provider_options),
        }
        (folder / "request.json").write_text(json.dumps(request), "utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(  # noqa: S603 - this interpreter, this module
            [sys.executable, "-m", __name__, str(folder / "request.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            check=False,
        )
    answer = done.stdout.strip()
    return int(answer) if done.returncode == 0 and answer.isdigit() else None


def _measure(request: Mapping[str, Any]) -> int:
    runtime_version()  # imports ORT
    with np.load(request["values"]) as file:
        values = {name: file[f"arr_{index}"] for index, name in enumerate(request["names"])}
    before = _start_of_growth()
    session = open_session(
        Path(request["model"]),
        request["provider"],
        request["opt_level"],
        intra_op_num_threads=request["intra_op_num_threads"],
        provider_options=request["provider_options"],
        tf32=True,
        deterministic=False,
    )
    run = session.runner(values)
    for _ in range(_RUNS):
        run()
    return max(0, _peak() - before)


def _start_of_growth() -> int:
    """What the process holds now, where its peak can be forgotten, as on Linux; else its peak so far."""
    try:
        _RESET_PEAK.write_text("5")
    except OSError:
        return _peak()
    return _status_bytes("VmRSS")


def _peak() -> int:
    if _STATUS.exists():
        return _status_bytes("VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(key: str) -> int:
    line = next(line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(_measure(json.loads(Path(sys.argv[1]).read_text("utf-8"))))  # noqa: T201 - the answer to the caller
