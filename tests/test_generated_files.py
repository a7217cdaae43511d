"""Damaged and hostile files, made at random: each is read or refused in one line.

`scripts/fuzz.py --kind loaders` does the same for as many files as wanted.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import bnfold

pytest.importorskip("resource", reason="limits of POSIX")

from generators.loaders import judging
from generators.loaders.mutations import changed
from generators.loaders.seeds import Case, of_data, of_onnx, of_torch

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
FAMILIES = {"ONNX": of_onnx, "data": of_data, "PyTorch": of_torch}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_file_to_begin_with_is_read(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: dict[str, int] = {}
    run = judging.CliRunner.invoke

    def noted(runner: judging.CliRunner, command: object, args: list[str]) -> object:
        result = run(runner, command, args)
        codes[args[1]] = result.exit_code
        return result

    monkeypatch.setattr(judging.CliRunner, "invoke", noted)
    for case in FAMILIES[family]():
        assert judging.step_of(case, case.content, set()) == "", case.command
    refused = {"m.pt": 2, "m.pth": 2} if family == "PyTorch" else {}  # TorchScript is code, weights are no model
    assert codes == {name: refused.get(name, 0) for name in codes}


@pytest.mark.parametrize("start", range(0, 24, 4))
def test_damaged_files_are_read_or_refused_in_one_line(start: int) -> None:
    verdicts = [judging.judged(seed, steps=12) for seed in range(start, start + 4)]
    assert [verdict.failures for verdict in verdicts] == [[]] * 4


# The search itself.


def changes_of(case: Case) -> list[bytes]:
    return [changed(case.content, case.name, random.Random(seed)) for seed in range(20)]  # noqa: S311


def test_a_change_can_be_made_again_and_most_of_them_change_something() -> None:
    for case in (*of_onnx(), *of_data()):
        made = [changes_of(case) for _ in range(2)]
        assert made[0] == made[1]
        assert len(set(made[0])) > 10
        assert sum(content != case.content for content in made[0]) > 10


def test_changes_reach_lines_that_the_whole_file_does_not() -> None:
    case = of_onnx()[0]
    seen: judging.Lines = set()
    judging.step_of(case, case.content, seen)
    before = len(seen)
    assert before > 100
    rng = random.Random(0)  # noqa: S311
    for _ in range(20):
        judging.step_of(case, changed(case.content, case.name, rng), seen)
    assert len(seen) > before + 10


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("raise ValueError('of mine')", "exit code 70: Error: internal error: ValueError: of mine"),
        ("open('left', 'w').close(); raise bnfold.ModelError('m')", "files were left: ['left']"),
        ("import click; click.echo('two', err=True); raise bnfold.ModelError('m')", "an error of several lines: two"),
        ("bytearray(3 * 2**30)", ""),
    ],
)
def test_what_is_looked_for_is_found(command: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bnfold.__dict__, "inspect", lambda *_, **__: exec(command, {"bnfold": bnfold}))  # noqa: S102
    wrong = judging.step_of(Case("m.onnx", b"", "inspect {}", {}), b"", set())
    assert wrong.startswith(said) if said else not wrong
