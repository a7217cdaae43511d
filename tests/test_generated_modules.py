"""Random PyTorch modules: folded they are what they were, and everything else that must hold does.

`scripts/fuzz.py --kind modules` does the same for as many modules as wanted.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

from generators.modules.judge import judged

CHUNK = 10


@pytest.mark.parametrize("start", range(0, 50, CHUNK))
def test_random_modules_are_folded_right(start: int) -> None:
    verdicts = [judged(seed) for seed in range(start, start + CHUNK)]
    assert [(verdict.seed, verdict.failures) for verdict in verdicts if verdict.failures] == []
    assert sum(not verdict.unjudged for verdict in verdicts) >= CHUNK // 2, "hardly anything was judged"


# What was wrong with them once:
FOUND = {
    700116: "a second fold folded what the first had left alone in the code of a layer",
}


@pytest.mark.parametrize("seed", FOUND)
def test_modules_that_were_folded_wrong_once_are_folded_right(seed: int) -> None:
    assert judged(seed).failures == [], FOUND[seed]
