"""Models that contradict themselves or the standard: folded, or refused in one line, by every command."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from graphs import parse
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from saved import names

import bnfold
from bnfold.cli import main
from bnfold.errors import ModelError
from bnfold.graphs.onnx import fold as folding
from bnfold.graphs.onnx import wire

TEXT = """(T[N,3,8,8] x) => (T[N,8,6,6] y) <T[8,3,3,3] w, bn[8], T[8] k, int64[4] sizes = {-1, 8, 6, 6}> {
    c = Conv(x, w) r = Reshape(c, sizes) y = BN(r) }"""
Change = Callable[[onnx.ModelProto], object]


def weight(model: onnx.ModelProto, name: str = "w") -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def outside(**entries: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = weight(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    return change


def constant(change: Callable[[onnx.NodeProto], object]) -> Change:
    """The weight in a Constant node, with a change."""

    def changed(model: onnx.ModelProto) -> None:
        tensor = weight(model)
        node = helper.make_node("Constant", [], ["w"], value=tensor)
        model.graph.initializer.remove(tensor)
        change(node)
        model.graph.node.insert(0, node)

    return changed


def function(calls: str, *more: str) -> Change:
    """Functions of one node each, which calls the function of the name given; the graph calls the first."""

    def change(model: onnx.ModelProto) -> None:
        opsets = [*model.opset_import, helper.make_opsetid("local", 1)]
        for name, callee in zip(("F", *more), (*more, calls), strict=True):
            node = helper.make_node(callee, ["a"], ["b"], domain="local")
            model.functions.append(helper.make_function("local", name, ["a"], ["b"], [node], opsets))
        model.opset_import.append(helper.make_opsetid("local", 1))
        model.graph.node.append(helper.make_node("F", ["y"], ["z"], domain="local"))
        model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))

    return change


def nested(depth: int) -> Change:
    """Branches inside branches."""

    def change(model: onnx.ModelProto) -> None:
        info = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        body = helper.make_graph([helper.make_node("Identity", ["y"], ["d"])], "g", [], [info])
        body.output[0].name = "d"
        for _ in range(depth):
            node = helper.make_node("If", ["flag"], ["d"], then_branch=body, else_branch=body)
            body = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("d", TensorProto.FLOAT, None)])
            del body.node[0].attribute[1].g.node[:]
        model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
        model.graph.node.append(helper.make_node("If", ["flag"], ["z"], then_branch=body, else_branch=body))

    return change


def dims(*sizes: int, name: str = "w") -> Change:
    def change(model: onnx.ModelProto) -> None:
        weight(model, name).dims[:] = sizes

    return change


def attribute(**values: object) -> Change:
    return lambda model: model.graph.node[0].attribute.extend(
        helper.make_attribute(name, value) for name, value in values.items()
    )


HOSTILE: dict[str, Change] = {
    "NUL in a location": outside(location="a\0b"),
    "a location of 5000 characters": outside(location="a" * 5000),
    "an offset of 400 digits": outside(location="w.bin", offset="9" * 400, length="864"),
    "an offset that overflows": outside(location="w.bin", offset=str(2**63), length="864"),
    "a length below zero": outside(location="w.bin", offset="8", length="-8"),
    "no location": outside(offset="0"),
    "a location that is the model": outside(location="m.onnx"),
    "a tensor in segments": lambda model: weight(model).segment.SetInParent(),
    "a weight of negative size": dims(-8, 3, 3, 3),
    "a weight of two negative sizes": dims(-8, -3, 3, 3),
    "sizes whose product overflows": dims(2**62, 2**62),
    "sizes whose product overflows to the right one": dims(2**63 - 1, 2**63 - 1, 216),
    "sizes of a BatchNorm that overflow": dims(2**62, 4, name="gamma"),
    "no sizes": dims(),
    "an element type of nobody's": lambda model: setattr(weight(model), "data_type", 99),
    "an undefined element type": lambda model: setattr(weight(model), "data_type", 0),
    "a negative element type": lambda model: setattr(weight(model), "data_type", -1),
    "text for a weight": lambda model: setattr(weight(model), "data_type", TensorProto.STRING),
    "data in two places": lambda model: weight(model).float_data.extend([1.0] * 216),
    "data in the wrong place": lambda model: (weight(model).ClearField("raw_data"), weight(model).int32_data.append(1)),
    "no data": lambda model: weight(model).ClearField("raw_data"),
    "data of half the size": lambda model: setattr(weight(model), "raw_data", weight(model).raw_data[:431]),
    "a Constant of a type of nobody's": constant(lambda node: setattr(node.attribute[0].t, "data_type", 99)),
    "a Constant of negative size": constant(lambda node: node.attribute[0].t.dims.__setitem__(0, -8)),
    "a Constant without data": constant(lambda node: node.attribute[0].t.ClearField("raw_data")),
    "a Constant without a tensor": constant(lambda node: node.attribute[0].ClearField("t")),
    "a Constant without attributes": constant(lambda node: node.ClearField("attribute")),
    "a Constant without a result": constant(lambda node: node.ClearField("output")),
    "a Constant of two results": constant(lambda node: node.output.append("w2")),
    "a sparse Constant": constant(lambda node: setattr(node.attribute[0], "name", "sparse_value")),
    "a function that calls itself": function("F"),
    "functions that call each other": function("F", "G"),
    "two functions of one name": function("Relu", "F"),
    "a function that calls what is not there": function("G"),
    "a node that reads itself": lambda model: model.graph.node[0].input.__setitem__(0, "y"),
    "two values of one name": lambda model: model.graph.node[1].output.__setitem__(0, "c"),
    "a node without an operator": lambda model: model.graph.node[0].ClearField("op_type"),
    "a node without inputs": lambda model: model.graph.node[0].ClearField("input"),
    "a node without outputs": lambda model: model.graph.node[0].ClearField("output"),
    "a BatchNorm of one input": lambda model: model.graph.node[2].input.__delitem__(slice(1, None)),
    "a BatchNorm of no output": lambda model: model.graph.node[2].ClearField("output"),
    "an attribute without a name": lambda model: model.graph.node[0].attribute.add(),
    "an attribute of two kinds": lambda model: model.graph.node[0].attribute.add(
        name="group", type=AttributeProto.INTS, i=1, f=2.0
    ),
    "an attribute twice": lambda model: (attribute(group=1)(model), attribute(group=2)(model)),
    "no groups": attribute(group=0),
    "groups below zero": attribute(group=-1),
    "many groups": attribute(group=2**62),
    "strides below zero": attribute(strides=[-1, -1]),
    "pads that overflow": attribute(pads=[2**62] * 4),
    "a kernel of another rank": attribute(kernel_shape=[3]),
    "an output that nothing makes": lambda model: model.graph.output.add(name="nobody"),
    "an output without a type": lambda model: model.graph.output[0].ClearField("type"),
    "an output of an undefined type": lambda model: model.graph.output[0].type.tensor_type.ClearField("elem_type"),
    "an input without a type": lambda model: model.graph.input[0].ClearField("type"),
    "an input of a type of nobody's": lambda model: setattr(
        model.graph.input[0].type.tensor_type, "elem_type", 2**31 - 1
    ),
    "an input without a name": lambda model: model.graph.input[0].ClearField("name"),
    "an input of negative size": lambda model: setattr(
        model.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", -3
    ),
    "an input that no memory holds": lambda model: setattr(
        model.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 2**62
    ),
    "an input that is an optional": lambda model: model.graph.input[0].type.optional_type.SetInParent(),
    "no opset": lambda model: model.ClearField("opset_import"),
    "an opset of 0": lambda model: setattr(model.opset_import[0], "version", 0),
    "an opset below zero": lambda model: setattr(model.opset_import[0], "version", -5),
    "an opset that overflows": lambda model: setattr(model.opset_import[0], "version", 2**62),
    "two opsets": lambda model: model.opset_import.append(helper.make_opsetid("", 7)),
    "no IR version": lambda model: model.ClearField("ir_version"),
    "an IR version below zero": lambda model: setattr(model, "ir_version", -1),
    "an IR version that overflows": lambda model: setattr(model, "ir_version", 2**62),
    "no graph": lambda model: model.ClearField("graph"),
    "branches 5 deep": nested(5),
    "branches 25 deep": nested(25),
    "a target shape of text": lambda model: weight(model, "sizes").CopyFrom(
        numpy_helper.from_array(np.array([b"a"] * 4, object), "sizes")
    ),
    "a target shape that overflows": lambda model: weight(model, "sizes").CopyFrom(
        numpy_helper.from_array(np.array([2**62] * 4), "sizes")
    ),
    "a metadata key twice": lambda model: [model.metadata_props.add(key="a") for _ in range(2)],
}
COMMANDS = (
    "inspect m.onnx",
    "convert m.onnx -o out.onnx --no-verify --no-bench",
    "convert m.onnx -o out.onnx --no-bench --check-n 1 --certify",
    "verify m.onnx m.onnx --check-n 1",
)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_models_are_folded_or_refused_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = parse(TEXT, "float")
    HOSTILE[kind](model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "w.bin").write_bytes(bytes(864))
    for command in COMMANDS:
        result = CliRunner().invoke(main, command.split())
        assert result.exit_code in (0, 1, 2), result.stderr
        assert re.fullmatch("" if not result.exit_code else r"Error: [^\n]+\n", result.stderr)
        assert names(tmp_path) == {"m.onnx", "w.bin", *(["out.onnx"] if (tmp_path / "out.onnx").exists() else [])}
        assert (tmp_path / "out.onnx").exists() is (command.startswith("convert") and not result.exit_code)
        (tmp_path / "out.onnx").unlink(missing_ok=True)


@pytest.mark.parametrize("depth", [40, 5000])
def test_branches_deeper_than_parsers_go_are_one_line(depth: int, tmp_path: Path) -> None:
    graph = b""
    for _ in range(depth):
        for number in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            graph = wire._head(number, len(graph)) + graph
    model = parse(TEXT, "float")
    data = model.graph.SerializeToString() + graph
    model.ClearField("graph")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString() + wire._head(wire.GRAPH, len(data)) + data)
    with pytest.raises(ModelError, match=r"m\.onnx: not a valid ONNX file"):
        bnfold.inspect(path)


def test_an_unexpected_error_on_an_invalid_model_is_put_down_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(folding, "_fold", fails)
    model = parse(TEXT, "float")
    with pytest.raises(IndexError):  # an error of bnfold's own
        bnfold.fold(model)
    model.graph.node[0].attribute.add()
    with pytest.raises(ModelError, match=r"^g: not a valid ONNX model \(Field 'name' of .* export it again$") as caught:
        bnfold.fold(model)
    assert isinstance(caught.value.__cause__, IndexError)
    contradicting = parse(TEXT.replace("{-1, 8, 6, 6}", "{-1, 9, 6, 6}"), "float")
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        bnfold.fold(contradicting)
