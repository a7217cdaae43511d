"""Random ONNX graphs of all operators that bnfold knows. `type_name` is the type of the weights."""

from __future__ import annotations

from fuzzing import judge
from graph_builder import BFLOAT, DOUBLE, FLOAT, HALF

from generators.verdict import Verdict

TYPES = {"float64": DOUBLE, "float32": FLOAT, "float16": HALF, "bfloat16": BFLOAT}
MIX = ("float64",) * 4 + ("float32",) * 2 + ("float16", "bfloat16")


def judged(seed: int, type_name: str = "mixed") -> Verdict:
    """The verdict on the graph of a seed."""
    name = MIX[seed % len(MIX)] if type_name == "mixed" else type_name
    verdict = judge(seed, TYPES[name])
    verdict.about = name
    return verdict
