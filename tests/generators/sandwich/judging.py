"""The verdict on the sandwich of a seed."""

from __future__ import annotations

from oracle import judge

from generators.sandwich.sandwich import make
from generators.verdict import Verdict


def judged(seed: int) -> Verdict:
    """Make the model of a seed and judge its fold."""
    case = make(seed)
    judgement = judge(case)
    return Verdict(
        seed,
        judgement.failures,
        disputed="the reference and ONNX Runtime differ" if judgement.disputed else "",
        unjudged="ONNX Runtime does not run the model" if judgement.unjudged else "",
        sites=judgement.sites,
        about=case.origin.partition(": ")[2],
        files={f"sandwich_{seed}.onnx": case.model.SerializeToString()},
    )
