"""Every block of the README runs, and its generated parts are what the code says."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
SESSIONS = {
    heading: "\n".join(blocks)
    for heading, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    if (blocks := re.findall(r"```pycon\n(.*?)```", text, re.DOTALL))
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the models, as a user who has a clone sees them."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("section", SESSIONS)
def test_sessions_run_as_printed(section: str, folder: Path) -> None:
    for package in re.findall(r">>> (?:import|from) (\w+)", SESSIONS[section]):
        pytest.importorskip(package, reason=f"the section '{section}' is about {package}")
    test = doctest.DocTestParser().get_doctest(SESSIONS[section], {}, section, "README.md", 0)
    assert len(test.examples) >= 4
    results = doctest.DocTestRunner(verbose=False).run(test)
    assert results.failed == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, folder: Path) -> None:
    words = command.split()
    assert words[0] == "bnfold"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout


def test_scripts_that_are_named_exist() -> None:
    for name in re.findall(r"^\./(scripts/\w+)", README, re.MULTILINE):
        assert os.access(ROOT / name, os.X_OK), name


def test_files_that_are_named_exist() -> None:
    table = README[README.index("## Files") :]
    for name in re.findall(r"`((?:bnfold|models|scripts|tests)/[\w./]*)`", table):
        assert (ROOT / name).exists(), name


def test_generated_parts_are_up_to_date() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts" / "readme.py"), "--check"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
