"""The machine and the versions, for the record of a run."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np

from bnfold.checks.session import runtime_version
from bnfold.results import Environment

_CPU_INFO = Path("/proc/cpuinfo")


def environment() -> Environment:
    """What a run takes place on. To be asked before the run, which is a load itself.

    Raises:
        MissingDependency: if ORT is not installed.
    """
    return Environment(
        os=platform.platform(),
        cpu=_cpu_name(),
        cores=usable_cores(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        python=platform.python_version(),
        numpy=np.__version__,
        onnxruntime=runtime_version(),
    )


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    """The model, as the operating system tells it; else the architecture."""
    try:
        lines = _CPU_INFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()
