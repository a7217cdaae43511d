"""Graphs of any length: nothing goes through a graph by recursion, and time grows with the number of nodes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.algebra import fold as folding
from bnfold.algebra.plan import Budget
from bnfold.errors import ModelError

LENGTH = 4000  # four times as deep as Python's stack

# One step of a chain: the nodes from a value to the next, by their names.
STEPS = {
    "Identity": lambda a, b: [helper.make_node("Identity", [a], [b])],
    "Transpose": lambda a, b: [helper.make_node("Transpose", [a], [b], perm=[1, 0, 2, 3])],
    "Abs": lambda a, b: [helper.make_node("Abs", [a], [b])],
    "Mul": lambda a, b: [helper.make_node("Mul", [a, "one"], [b])],
    "Add": lambda a, b: [helper.make_node("Add", [a, a], [b])],
    "Concat": lambda a, b: [helper.make_node("Concat", [a], [b], axis=1)],
    "Reshape": lambda a, b: [helper.make_node("Reshape", [a, "as_is"], [b])],
    "Shape": lambda a, b: [
        helper.make_node("Shape", [a], [f"{b}_shape"]),
        helper.make_node("ConstantOfShape", [f"{b}_shape"], [b]),
    ],
}


def long_model(step: str, place: str) -> onnx.ModelProto:
    """A Conv, a BatchNorm and a padded Conv, with a chain at a place: the weight, in front, between, or behind."""
    nodes: list[onnx.NodeProto] = []

    def chain(start: str) -> str:
        names = [start, *(f"{start}_{at}" for at in range(LENGTH))]
        for a, b in pairwise(names):
            nodes.extend(STEPS[step](a, b))
        return names[-1]

    x = chain("x") if place == "in front" else "x"
    nodes.append(helper.make_node("Conv", [x, chain("w") if place == "weight" else "w"], ["c"], name="conv"))
    c = chain("c") if place == "between" else "c"
    nodes.append(helper.make_node("BatchNormalization", [c, *"gbmv"], ["n"], name="bn"))
    n = chain("n") if place == "behind" else "n"
    nodes.append(helper.make_node("Conv", [n, "w3"], ["y"], pads=[1, 1, 1, 1], name="padded"))
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(3, 3, 1, 1)), "w3": rng.normal(size=(3, 3, 3, 3)), "one": np.ones(())}
    arrays |= {name: rng.uniform(0.5, 2, 3) for name in "gbmv"}
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    weights.append(numpy_helper.from_array(np.zeros(4, np.int64), "as_is"))
    info = helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, [3, 3, 4, 4])]
    graph = helper.make_graph(nodes, "g", inputs, [info("y", TensorProto.FLOAT, ["N", 3, "H", "W"])], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("place", ["weight", "in front", "between", "behind"])
@pytest.mark.parametrize("step", STEPS)
def test_a_chain_of_any_length_ends_in_an_account(step: str, place: str) -> None:
    model = long_model(step, place)
    result = bnfold.fold(model)
    assert all(site.folded or site.detail for site in result.sites)
    assert {"bn"} <= {site.name for site in result.sites}
    onnx.checker.check_model(result.model)


def test_searches_in_one_graph_share_what_they_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorms in a row are one affine map, whose factor no float32 can hold: each of them looks at all others."""
    count, made = 300, helper.make_node
    nodes = [made("BatchNormalization", [f"v{at}", *"gbmv"], [f"v{at + 1}"], name=f"bn{at}") for at in range(count)]
    weights = [numpy_helper.from_array(np.full(3, 1.9, np.float32), name) for name in "gbmv"]
    weights.append(numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w"))
    inputs, outputs = (helper.make_tensor_value_info(name, 1, [1, 3, 4, 4]) for name in ("x", f"v{count}"))
    graph = helper.make_graph([made("Conv", ["x", "w"], ["v0"]), *nodes], "g", [inputs], [outputs], weights)
    budgets: list[Budget] = []

    def small() -> Budget:
        budgets.append(Budget(1000))
        return budgets[-1]

    monkeypatch.setattr(folding, "Budget", small)
    result = bnfold.fold(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    assert len(result.sites) == count
    assert [budget.steps < 0 for budget in budgets] == [True]


def test_a_long_way_is_too_long() -> None:
    model = long_model("Identity", "between")
    (site,) = bnfold.fold(model).sites
    assert site.detail is not None
    assert "the way to a linear operator is too long" in site.detail


def test_an_inspection_of_a_long_graph_draws_it() -> None:
    report = bnfold.inspect(long_model("Abs", "between"))
    assert report.sites


CYCLES = {
    "itself": [helper.make_node("Sub", ["y", "x"], ["y"])],
    "two": [helper.make_node("Sub", ["a", "x"], ["y"]), helper.make_node("Mul", ["y", "x"], ["a"])],
    "through a body": [
        helper.make_node(
            "If",
            ["k"],
            ["y"],
            then_branch=helper.make_graph(
                [helper.make_node("Neg", ["y"], ["t"])], "t", [], [helper.make_tensor_value_info("t", 1, [2])]
            ),
            else_branch=helper.make_graph(
                [helper.make_node("Neg", ["x"], ["e"])], "e", [], [helper.make_tensor_value_info("e", 1, [2])]
            ),
        )
    ],
    "a body that hands out what its node makes": [
        helper.make_node(
            "If",
            ["k"],
            ["y"],
            then_branch=helper.make_graph([], "t", [], [helper.make_tensor_value_info("y", 1, [2])]),
            else_branch=helper.make_graph(
                [helper.make_node("Neg", ["x"], ["e"])], "e", [], [helper.make_tensor_value_info("e", 1, [2])]
            ),
        )
    ],
}


@pytest.mark.parametrize("name", CYCLES)
def test_a_cycle_is_refused(name: str) -> None:
    inputs = [helper.make_tensor_value_info("x", 1, [2]), helper.make_tensor_value_info("k", TensorProto.BOOL, [])]
    graph = helper.make_graph(CYCLES[name], "g", inputs, [helper.make_tensor_value_info("y", 1, [2])])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(ModelError, match=r"node 'y' .* depends on its own result"):
        bnfold.fold(model)


def test_a_file_in_another_order_is_read_as_what_it_means() -> None:
    model = long_model("Identity", "weight")
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert [site.folded for site in bnfold.fold(model).sites] == [True]
