"""A file of a format that bnfold reads, damaged step by step, and what the command makes of it.

Steps that reach lines of bnfold that no earlier one has reached are gone on from. A command on such a file ends with
exit code 0, 1, 2 or 3, tells an error in one line, and leaves no file but those asked for.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from click.testing import CliRunner

import bnfold
from bnfold.cli import main
from bnfold.errors import BnfoldError
from generators.loaders.mutations import changed
from generators.loaders.seeds import Case, of_data, of_onnx, of_torch
from generators.verdict import Verdict

STEPS = 40
MOST_BYTES = 2 * 2**30  # of address space, beyond what the process has when a step begins
LARGEST_FILE = 10**6
_PACKAGE = str(Path(bnfold.__file__).parent)
_WRITTEN = re.compile(r"out\.onnx(\.([0-9a-f]{8}\.)?data)?|r\.(json|md|html)")

Lines = set[tuple[str, int]]


def judged(seed: int, steps: int = STEPS) -> Verdict:
    """The verdict on the damaged files of a seed, up to the first that is not treated as it has to be."""
    rng = random.Random(seed)  # noqa: S311
    family = rng.choices((of_onnx, of_data, of_torch), (6, 2, 2))[0]
    case = rng.choice(family())
    verdict = Verdict(seed, about=f"{case.name}, {case.command}")
    seen: Lines = set()
    kept = [case.content]
    content = case.content
    for step in range(steps):
        before = len(seen)
        wrong = step_of(case, content, seen)
        if wrong:
            verdict.failures.append(f"step {step}: {wrong}")
            verdict.files = {f"{seed}_{case.name}": content}
            break
        if len(seen) > before:
            kept.append(content)
        content = changed(rng.choice(kept), case.name, rng)[:LARGEST_FILE]
    return verdict


def step_of(case: Case, content: bytes, seen: Lines) -> str:
    """What is wrong with how a file is treated; empty where all is well. The lines that it reaches are noted."""
    with TemporaryDirectory(prefix="loaders-") as folder:
        there = Path(folder)
        for name, data in {**case.beside, case.name: content}.items():
            (there / name).write_bytes(data)
        home = Path.cwd()
        os.chdir(there)
        try:
            with warnings.catch_warnings(), _limited_memory(), _lines_into(seen):
                warnings.simplefilter("ignore")
                wrong = _run(case)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            wrong = f"{type(error).__name__}: {str(error)[:200]} ({place.filename}:{place.lineno})"
        finally:
            os.chdir(home)
        left = {str(path.relative_to(there)) for path in there.rglob("*")} - {case.name, *case.beside}
        strange = sorted(name for name in left if not _WRITTEN.fullmatch(name))
        return wrong or (f"files were left: {strange}" if strange else "")


def _run(case: Case) -> str:
    command = case.command.replace("{}", case.name).split()
    if command[0] == "weights":
        from bnfold.graphs.torch.archives import read_weights

        try:
            read_weights(Path(case.name))
        except BnfoldError as error:
            return "" if len(str(error).splitlines()) == 1 else f"an error of several lines: {error}"
        return ""
    result = CliRunner().invoke(main, command)
    if result.exit_code not in (0, 1, 2, 3):
        return f"exit code {result.exit_code}: {result.stderr.strip()[:500]}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"{type(result.exception).__name__}: {result.exception}"
    if result.exit_code and not re.fullmatch(r"Error: [^\n]*\n", result.stderr):
        return f"an error of several lines: {result.stderr[:500]}"
    return ""


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def _lines_into(seen: Lines) -> Iterator[None]:
    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def begin(frame: FrameType, _: str, __: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(_PACKAGE) else None

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        yield
    finally:
        sys.settrace(before)
