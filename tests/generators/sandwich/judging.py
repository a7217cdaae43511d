"""The verdict on the sandwich of a seed."""

from __future__ import annotations

from oracle import judge

from generators.sandwich.sandwich import make
from generators.verdict import Verdict


def judged(seed: int) -> Verdict:
    """Make the model of a seed and judge its fold."""
    case = make(seed)
    files = {f"sandwich_{seed}.onnx": case.model.SerializeToString()}
    return Verdict.of(seed, judge(case), files, about=case.origin.partition(": ")[2])
