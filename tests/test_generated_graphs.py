"""Graphs that were grown on data: folded they give what they gave before, and everything else that must hold does.

`scripts/fuzz.py --kind grown` does the same for as many of them as wanted.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from fuzzing import canonical
from generators.grown.grow import make
from generators.grown.judging import judged
from onnx import TensorProto

import bnfold
from bnfold.graphs.onnx.fold import all_nodes

CHUNK = 25


@pytest.mark.parametrize("start", range(0, 250, CHUNK))
def test_grown_graphs_stay_the_same_function(start: int) -> None:
    verdicts = [judged(seed) for seed in range(start, start + CHUNK)]
    assert [(verdict.seed, verdict.failures) for verdict in verdicts if verdict.failures] == []
    assert sum(site.folded for verdict in verdicts for site in verdict.sites) >= CHUNK // 5, "hardly anything folded"
    assert sum(bool(verdict.disputed or verdict.unjudged) for verdict in verdicts) <= CHUNK // 5


def test_a_seed_grows_one_graph() -> None:
    for seed in range(1000, 1010):
        one, two = make(seed), make(seed)
        assert canonical(one.model) == canonical(two.model)
        for feed, other in zip(one.feeds, two.feeds, strict=True):
            np.testing.assert_equal(dict(feed), dict(other))


def test_grown_graphs_are_of_all_sorts() -> None:
    """Every kind of body, calls within calls, attributes of callers, hidden and shared constants, sizes of zero."""
    ops, opsets, versions, directions = Counter[str](), set[int](), set[int](), Counter[str | None]()
    calls = references = empty = overridden = captured = 0
    for seed in range(2000, 2150):
        case = make(seed)
        model, nodes = case.model, list(all_nodes(case.model))
        ops.update(node.op_type for node in nodes if not node.domain)
        opsets.add(model.opset_import[0].version)
        versions.add(model.ir_version)
        directions.update(site.direction for site in bnfold.fold(model).sites)
        calls += bool(model.functions)
        references += any(item.ref_attr_name for node in nodes for item in node.attribute)
        empty += any(0 in array.shape for feed in case.feeds for array in feed.values())
        overridden += bool({tensor.name for tensor in model.graph.initializer}.intersection(*case.feeds[-1:]))
        captured += any(_captures(node) for node in model.graph.node)
    assert {"backward", "forward", "merged", "shortened"} <= set(directions)
    assert {"If", "Loop", "Scan", "Einsum", "ConvTranspose", "Resize", "CastLike"} <= set(ops)
    assert len(ops) > 80
    assert len(opsets) > 15
    assert {3, 13} <= versions
    assert min(calls, references, captured) > 10
    assert empty > 0
    assert overridden > 2


def _captures(node: onnx.NodeProto) -> bool:
    """Whether a body reads a value from outside of it."""
    bodies = [item.g for item in node.attribute if item.HasField("g")]
    made = {name for body in bodies for inner in body.node for name in inner.output}
    made |= {item.name for body in bodies for item in (*body.input, *body.initializer)}
    return any(name and name not in made for body in bodies for inner in body.node for name in inner.input)


def test_a_wrong_fold_of_a_grown_graph_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    fold = bnfold.fold

    def wrong(model: onnx.ModelProto) -> bnfold.FoldResult:
        result = fold(model)
        for tensor in result.model.graph.initializer:
            if tensor.name.endswith(".folded") and tensor.data_type == TensorProto.FLOAT:
                array = 1.01 * onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), tensor.name))
        return result

    monkeypatch.setattr(bnfold, "fold", wrong)
    noticed = sum(any("is off by" in message for message in judged(seed).failures) for seed in range(60))
    assert noticed >= 8
