"""The verdict on the grown graph of a seed."""

from __future__ import annotations

import onnx
from oracle import judge

from generators.grown.grow import make
from generators.verdict import Verdict


def judged(seed: int) -> Verdict:
    """Grow the graph of a seed and judge its fold."""
    case = make(seed)
    files = {f"grown_{seed}.onnx": case.model.SerializeToString()}
    try:
        onnx.checker.check_model(case.model)
    except onnx.checker.ValidationError as error:
        return Verdict(seed, unjudged="the checker refuses the graph", about=str(error).split("\n")[0], files=files)
    return Verdict.of(seed, judge(case), files)
