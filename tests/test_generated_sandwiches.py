"""Operators between two partners that a fold would like to bring together, and every operator alone.

`scripts/fuzz.py --kind sandwich` and `--kind operators` do the same for as many as wanted.
"""

from __future__ import annotations

from collections import Counter

import pytest
from generators import operators
from generators.sandwich import judging, sandwich
from generators.sandwich.alone import alone

from bnfold.graphs.onnx.exact.kernels import CannotRun

STEP, PARTS = 151, 4  # a prime, so that all families of operators are met


def seeds(count: int, part: int) -> list[int]:
    """Every so many of the seeds, dealt out to the parts."""
    return list(range(0, count, STEP))[part::PARTS]


@pytest.mark.parametrize("part", range(PARTS))
def test_sandwiches_fold_to_the_same_function(part: int) -> None:
    verdicts = [judging.judged(seed) for seed in seeds(sandwich.count(), part)]
    assert [(verdict.seed, verdict.about, verdict.failures) for verdict in verdicts if verdict.failures] == []
    assert sum(site.folded for verdict in verdicts for site in verdict.sites) > len(verdicts) // 5
    assert sum(bool(verdict.disputed or verdict.unjudged) for verdict in verdicts) < len(verdicts) // 8


def test_what_is_said_of_an_operator_alone_is_so() -> None:
    count = len(operators.all_uses())
    verdicts = [operators.judged(seed) for seed in (*range(0, count, 61), *range(count, count + 200))]
    assert [(verdict.seed, verdict.about, verdict.failures) for verdict in verdicts if verdict.failures] == []
    assert sum(bool(verdict.unjudged) for verdict in verdicts) < len(verdicts) // 10


def test_there_are_sandwiches_of_all_sorts() -> None:
    """Operators, opsets, versions of the format, sizes that are named or not, bodies and functions."""
    cases = [sandwich.make(seed) for seed in range(0, sandwich.count(), 199)]
    ops = Counter(node.op_type for case in cases for node in case.model.graph.node)
    dims = [dim for case in cases for info in case.model.graph.input for dim in info.type.tensor_type.shape.dim]
    assert len(ops) > 100
    assert {"If", "Loop", "Scan", "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"} <= set(ops)
    assert {case.model.opset_import[0].version for case in cases} >= set(range(7, 24))
    assert {3, 8, 13} <= {case.model.ir_version for case in cases}
    assert any(case.model.functions for case in cases)
    assert any(dim.dim_param for dim in dims)
    assert any(dim.dim_value < 0 for dim in dims)


@pytest.mark.parametrize(
    ("op", "name"),
    [("GRU", "clip"), ("LSTM", "activations"), ("LSTM", "input_forget"), ("RNN", "clip"), ("Resize", "antialias")],
)
def test_the_engine_runs_nothing_that_it_would_compute_otherwise(op: str, name: str) -> None:
    found = [use for use in operators.all_uses() if use.op == op and use.attributes.get(name)]
    assert found
    for use in found[:3]:
        model, feeds = alone(use)
        with pytest.raises(CannotRun):
            operators.Engine(operators.Document(model, {}, None, ())).run(feeds)


@pytest.mark.parametrize("part", ["sizes", "constants", "engine"])
def test_a_wrong_word_on_an_operator_is_noticed(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(at for at, use in enumerate(operators.all_uses()) if use.op == "Sqrt")
    assert operators.judged(seed).failures == []
    if part == "sizes":
        monkeypatch.setattr(operators.Facts, "shape", lambda self, value: (7, 7))
    elif part == "constants":
        monkeypatch.setattr(operators, "evaluate", lambda proto, opset, feeds, port: feeds[0])
    else:
        monkeypatch.setattr(operators.Engine, "run", lambda self, feeds: {"out0": feeds["in0"]})
    assert operators.judged(seed).failures != []
