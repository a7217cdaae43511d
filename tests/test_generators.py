"""The kinds of random cases, and the processes that judge them."""

from __future__ import annotations

from pathlib import Path

import pytest
from generators.kinds import KINDS, verdicts

BROKEN = """
import os, time
from generators.verdict import Verdict

def judged(seed):
    if seed == 1:
        time.sleep(600)
    if seed == 2:
        os.kill(os.getpid(), 9)
    if seed == 3:
        raise ValueError("of three")
    return Verdict(seed)
"""


def test_a_case_that_hangs_or_dies_or_raises_is_a_failure_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_kind.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {verdict.seed: " ".join(verdict.failures) for verdict in verdicts("broken_kind", range(6), 1, 2)}
    assert list(found) == [0, 1, 2, 3, 4, 5]
    assert found[1] == "killed: 2 s have passed"
    assert found[2].startswith("died")
    assert found[3] == "crash: ValueError: of three"
    assert found[0] == found[4] == found[5] == ""


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_judges_a_seed(kind: str) -> None:
    assert pytest.importorskip(KINDS[kind], exc_type=ImportError).judged(0).failures == []
