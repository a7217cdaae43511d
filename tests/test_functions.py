"""Model-local functions: attributes that the caller gives, and functions that no model may have."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from oracle import Case, judge

import bnfold
from bnfold.errors import ModelError

INT, INTS, FLOAT = AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT


def constant(name: str, *shape: int) -> onnx.NodeProto:
    array = np.random.default_rng(len(name) + sum(shape)).normal(size=shape).astype(np.float32)
    return helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(array, name))


def ones(name: str, size: int) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(np.ones(size, np.float32), name)
    return helper.make_node("Constant", [], [name], name=name, value=tensor)


def integers(name: str, values: list[int]) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(np.asarray(values, np.int64), name)
    return helper.make_node("Constant", [], [name], name=name, value=tensor)


def node(op: str, inputs: str, output: str, **given: int) -> onnx.NodeProto:
    """A node whose attributes are those of its caller: the types of them, by name."""
    made = helper.make_node(op, inputs.split(), [output], name=output)
    made.attribute.extend(AttributeProto(name=name, ref_attr_name=name, type=kind) for name, kind in given.items())
    return made


# Per row: the function, which reads x and makes y, and the attributes of the call. The default of every attribute gives
# another function, or none.
REFERENCES = {
    "Concat of a weight": (
        [constant("a", 3, 2), constant("bb", 3, 2), node("Concat", "a bb", "w", axis=INT), node("MatMul", "x w", "m")],
        {"axis": 1},
    ),
    "Transpose of a weight": (
        [constant("a", 4, 3), node("Transpose", "a", "w", perm=INTS), node("MatMul", "x w", "m")],
        {"perm": [1, 0]},
    ),
    "Flatten of a weight": (
        [constant("a", 3, 2, 2), node("Flatten", "a", "w", axis=INT), node("MatMul", "x w", "m")],
        {"axis": 1},
    ),
    "Gather of a weight": (
        [
            *(constant("a", 3, 4), integers("i", [2, 1, 0, 2])),
            *(node("Gather", "a i", "w", axis=INT), node("MatMul", "x w", "m")),
        ],
        {"axis": 1},
    ),
    "Constant": ([node("Constant", "", "w", value_float=FLOAT), node("Mul", "x w", "m")], {"value_float": 0.5}),
    "transB": ([constant("w", 4, 3), node("Gemm", "x w", "m", transB=INT)], {"transB": 1}),
    "alpha": ([constant("w", 3, 4), node("Gemm", "x w", "m", alpha=FLOAT)], {"alpha": 3.0}),
    "Transpose on the way": (
        [constant("w", 3, 4), node("MatMul", "x w", "l"), node("Transpose", "l", "m", perm=INTS)],
        {"perm": [0, 1]},
    ),
    "Softmax": (
        [constant("w", 3, 4), node("MatMul", "x w", "l"), node("Softmax", "l", "m", axis=INT)],
        {"axis": 0},
    ),
    "Cast of a weight": ([constant("w", 3, 4), node("Cast", "w", "v", to=INT), node("MatMul", "x v", "m")], {"to": 1}),
}


@pytest.mark.parametrize("by_default", [False, True], ids=["given", "by default"])
@pytest.mark.parametrize("deep", [False, True], ids=["in a function", "in a function of a function"])
@pytest.mark.parametrize("name", REFERENCES)
def test_an_attribute_of_a_function_is_not_read_as_its_operator_has_it(name: str, deep: bool, by_default: bool) -> None:
    nodes, settings = REFERENCES[name]
    given, defaults = ({}, settings) if by_default else (settings, {})
    width = 3 if name == "Constant" else 4
    nodes = [*nodes, constant("scale", width), constant("shift", width), ones("ones", width)]
    nodes.append(helper.make_node("BatchNormalization", ["m", "scale", "shift", "shift", "ones"], ["y"]))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    attributes = [helper.make_attribute(key, value) for key, value in defaults.items()]
    functions = [helper.make_function("local", "F", ["x"], ["y"], nodes, opsets, list(given), attributes)]
    call = "F"
    if deep:
        kinds = {} if by_default else {key: item.type for key, item in _references(nodes).items()}
        inner = node("F", "x", "y", **kinds)
        inner.domain = "local"
        functions.append(helper.make_function("local", "G", ["x"], ["y"], [inner], opsets, list(given)))
        call = "G"
    graph = helper.make_graph(
        [helper.make_node(call, ["x"], ["y"], domain="local", **given)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", "N"])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets, functions=functions)
    onnx.checker.check_model(model)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    judgement = judge(Case(model, ({"x": x},)))
    assert judgement.failures == []
    assert not judgement.unjudged
    assert judgement.sites


def _references(nodes: list[onnx.NodeProto]) -> dict[str, AttributeProto]:
    return {item.ref_attr_name: item for node in nodes for item in node.attribute if item.ref_attr_name}


def chain_of_calls(depth: int, calls: int, last: str = "Relu") -> onnx.ModelProto:
    """Functions that call the next one so many times each, the last one an operator."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = []
    for place in range(depth):
        op = f"F{place + 1}" if place + 1 < depth else last
        names = ["x", *(f"t{at}" for at in range(calls - 1)), "y"]
        nodes = [
            helper.make_node(op, [a], [b], domain="local" if op.startswith("F") else "") for a, b in pairwise(names)
        ]
        functions.append(helper.make_function("local", f"F{place}", ["x"], ["y"], nodes, opsets))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("F0", ["x"], ["y"], domain="local")],
        "g",
        [info("x", TensorProto.FLOAT, [1, 3])],
        [info("y", TensorProto.FLOAT, [1, 3])],
    )
    return helper.make_model(graph, ir_version=9, opset_imports=opsets, functions=functions)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (chain_of_calls(30, 2), r"are 1073741824 nodes, which is too many"),
        (chain_of_calls(200, 1), r"are calls 201 deep, which is too many"),
        (chain_of_calls(3, 1, "F1"), r"the function 'F1' calls itself"),
        (chain_of_calls(1, 1, "F0"), r"the function 'F0' calls itself"),
    ],
    ids=["too large", "too deep", "recursive", "directly recursive"],
)
def test_functions_that_cannot_be_written_out_are_refused(model: onnx.ModelProto, what: str) -> None:
    with pytest.raises(ModelError, match=what):
        bnfold.fold(model)


def test_two_functions_of_one_name_are_refused() -> None:
    model = chain_of_calls(2, 1)
    model.functions.append(model.functions[0])
    with pytest.raises(ModelError, match="two functions are named 'F0'"):
        bnfold.fold(model)


def test_a_function_whose_body_hands_out_one_value_twice_stays() -> None:
    """The inliner of onnx gives such a value two names."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    info, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    branches = [
        helper.make_graph([helper.make_node(op, ["m"], ["b"])], "branch", [], [info("b", kind, None)] * 2)
        for op in ("Relu", "Neg")
    ]
    nodes = [
        *(constant("w", 3, 3), constant("scale", 3), ones("ones", 3), helper.make_node("MatMul", ["x", "w"], ["m"])),
        helper.make_node("If", ["k"], ["p", "q"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("BatchNormalization", ["q", "scale", "scale", "scale", "ones"], ["y"]),
    ]
    graph = helper.make_graph(
        [helper.make_node("F", ["x", "k"], ["y"], domain="local")],
        "g",
        [info("x", kind, [5, 3]), info("k", TensorProto.BOOL, [])],
        [info("y", kind, [5, 3])],
    )
    function = helper.make_function("local", "F", ["x", "k"], ["y"], nodes, opsets)
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets, functions=[function])
    onnx.checker.check_model(model)
    result = bnfold.fold(model)
    assert [site.status for site in result.sites] == ["kept"]
    assert result.model == model
