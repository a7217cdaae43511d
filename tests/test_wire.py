"""The encoding: weights taken out of a serialised model and put back, and what is no model."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import parse
from hypothesis import example, given, settings
from hypothesis import strategies as st

import bnfold
from bnfold.errors import ModelError
from bnfold.graphs.onnx import files, wire
from bnfold.graphs.onnx.document import Piece, from_bytes, from_proto, to_proto, weights_of

CONV = "(T[N,8,4,4] x) => (T[N,16,4,4] y) <T[16,8,3,3] w, bn[16]> { c = Conv<pads=[1,1,1,1]>(x, w) y = BN(c) }"
UNKNOWN_FIELD = b"\xca\x3e\x03new"  # number 1001, of three bytes
SIZES = (0, 1, wire.LARGE_BYTES - 1, wire.LARGE_BYTES, wire.LARGE_BYTES + 1, 70_000)


@st.composite
def tensors(draw: st.DrawFn) -> onnx.TensorProto:
    tensor = onnx.TensorProto(data_type=onnx.TensorProto.UINT8)
    if draw(st.integers(0, 9)):
        tensor.name = draw(st.text(max_size=4))
    how = draw(st.sampled_from(("raw", "raw", "raw", "numbers", "outside")))
    if how == "raw":
        size = draw(st.sampled_from(SIZES))
        tensor.dims.append(size)
        tensor.raw_data = bytes([draw(st.integers(0, 255))]) * size
    elif how == "numbers":
        tensor.float_data.extend([1.0] * draw(st.integers(0, 2000)))
    else:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
    if draw(st.booleans()):
        tensor.doc_string = draw(st.text(max_size=200))
    if draw(st.booleans()):
        tensor.metadata_props.add(key="k", value="v")
    if draw(st.booleans()):
        tensor.MergeFromString(UNKNOWN_FIELD)
    return tensor


@st.composite
def constants(draw: st.DrawFn) -> onnx.NodeProto:
    """A Constant node, or one that is nearly that."""
    names = draw(st.sampled_from((["k"], ["k"], ["l"], [""], [], ["k", "l"])))
    op = draw(st.sampled_from(("Constant", "Constant", "Constant", "Other")))
    node = onnx.helper.make_node(op, [], names, domain=draw(st.sampled_from(("", "", "ai.onnx", "elsewhere"))))
    for name in draw(st.sampled_from((["value"], ["value"], ["value"], ["other"], ["value", "other"], []))):
        node.attribute.append(onnx.helper.make_attribute(name, draw(tensors())))
    for message in (node, *node.attribute):
        if draw(st.booleans()):
            message.doc_string = draw(st.text(max_size=200))
        if draw(st.integers(0, 3)) == 0:
            message.MergeFromString(UNKNOWN_FIELD)
    return node


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    model = parse(CONV, "float")
    model.graph.initializer.extend(draw(st.lists(tensors(), max_size=6)))
    for node in draw(st.lists(constants(), max_size=4)):
        model.graph.node.insert(draw(st.integers(0, 2)), node)
    model.doc_string = draw(st.text(max_size=3))
    for message in (model, model.graph, model.graph.node[0]):
        if draw(st.booleans()):
            message.MergeFromString(UNKNOWN_FIELD)
    return model


def reattached(data: bytes, edit: Callable[[onnx.ModelProto], object] = lambda _: None) -> bytes:
    """The bytes of a model whose weights were detached, its skeleton parsed and edited, and its weights put back."""
    skeleton, segments = wire.detach(memoryview(data))
    model = onnx.ModelProto.FromString(skeleton)
    edit(model)
    out = io.BytesIO()
    payloads = {name: Piece(data, *segment) for name, segment in segments.items()}
    nbytes = wire.attach(model.SerializeToString(), payloads, out)
    assert nbytes == len(out.getvalue())
    return out.getvalue()


@given(models())
def test_detached_and_attached_is_the_same_file(model: onnx.ModelProto) -> None:
    data = model.SerializeToString()
    assert reattached(data) == data


@pytest.mark.parametrize("numbers", [[], [1] * 5000], ids=["small", "large"])
def test_a_model_that_makes_one_constant_twice_stays_whole(numbers: list[int]) -> None:
    model = parse(CONV, "float")
    raw = onnx.numpy_helper.from_array(np.ones(5000, np.float32))
    for tensor in (raw, onnx.helper.make_tensor("", onnx.TensorProto.INT32, [len(numbers)], numbers)):
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["k"], value=tensor))
    data = model.SerializeToString()
    assert reattached(data) == data
    assert to_proto(from_proto(model)).SerializeToString() == data


@given(models())
def test_a_model_in_memory_becomes_the_same_file(model: onnx.ModelProto) -> None:
    data = model.SerializeToString()
    document = from_proto(model)
    out = io.BytesIO()
    wire.attach(document.model.SerializeToString(), document.payloads, out)
    assert out.getvalue() == data
    assert model.SerializeToString() == data


@given(models())
def test_nothing_large_stays_in_the_skeleton(model: onnx.ModelProto) -> None:
    weights = list(weights_of(model.graph))
    names, count = [name for name, _ in weights], len(model.graph.initializer)
    data = model.SerializeToString()
    skeleton, segments = wire.detach(data)
    large = {name: tensor.raw_data for name, tensor in weights if len(tensor.raw_data) >= wire.LARGE_BYTES}
    if len(set(names)) == len(names):
        assert {name: data[at : at + size] for name, (at, size) in segments.items()} == large
        left = list(weights_of(onnx.ModelProto.FromString(skeleton).graph))
        assert [name for name, _ in left] == names
        assert all(len(tensor.raw_data) < wire.LARGE_BYTES for _, tensor in left)
    for group in (names[:count], names[count:]):  # a name that stands for two weights says nothing about which
        assert not [name for name in segments if group.count(name) > 1]


def test_an_edit_of_the_skeleton_leaves_every_weight_as_it_was() -> None:
    model = parse(CONV, "float")
    before = model.graph.initializer[0].raw_data
    assert len(before) > wire.LARGE_BYTES

    def edit(skeleton: onnx.ModelProto) -> None:
        skeleton.graph.node[0].doc_string = "long " * 5000  # the graph's length takes more bytes now
        skeleton.graph.initializer[0].doc_string = "edited"

    after = onnx.ModelProto.FromString(reattached(model.SerializeToString(), edit))
    assert after.graph.initializer[0].raw_data == before
    assert after.graph.initializer[0].doc_string == "edited"
    assert after.graph.node[0].doc_string.startswith("long long")


def backwards(message: bytes) -> bytes:
    """The message with its fields in falling order of their numbers; the elements of a repeated field keep theirs."""
    fields = sorted(wire.fields(message, 0, len(message)), key=lambda field: -field.number)
    return b"".join(message[field.start : field.end] for field in fields)


def length_delimited(number: int, content: bytes) -> bytes:
    head = bytearray()
    for value in (number << 3 | 2, len(content)):
        while value > 127:
            head.append(value & 127 | 128)
            value >>= 7
        head.append(value)
    return bytes(head) + content


def test_fields_in_an_unusual_order_are_read_as_what_they_mean() -> None:
    model = parse(CONV, "float")
    model.graph.initializer[0].doc_string = "behind the weight"
    initializers = [
        length_delimited(wire.INITIALIZER, backwards(tensor.SerializeToString())) for tensor in model.graph.initializer
    ]
    rest = onnx.GraphProto()
    rest.CopyFrom(model.graph)
    del rest.initializer[:]
    graph = b"".join(initializers) + rest.SerializeToString()
    head = onnx.ModelProto()
    head.CopyFrom(model)
    head.ClearField("graph")
    data = length_delimited(wire.GRAPH, graph) + head.SerializeToString()
    assert data != model.SerializeToString()
    assert onnx.ModelProto.FromString(reattached(data)) == model
    assert len(from_bytes(data).payloads) == 1


def test_a_graph_in_two_pieces_is_taken_whole() -> None:
    model = parse(CONV, "float")
    more = onnx.GraphProto(doc_string="the second piece")
    data = model.SerializeToString() + length_delimited(wire.GRAPH, more.SerializeToString())
    document = from_bytes(data)
    assert document.payloads == {}
    assert document.model.graph.doc_string == "the second piece"
    assert to_proto(document) == onnx.ModelProto.FromString(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def test_a_file_cut_off_at_any_byte_is_refused(path: Path) -> None:
    model = parse(CONV, "float")
    model.doc_string = "in front of the graph"
    data = model.SerializeToString()
    path.write_bytes(data)
    files.load(path)
    for size in range(len(data) - 1, -1, -1):
        os.truncate(path, size)
        with pytest.raises(ModelError) as caught:
            files.load(path)
        assert_one_line(caught.value, path)


@settings(max_examples=300, deadline=None)  # a disk takes its time
@given(st.data())
def test_a_file_with_a_wrong_byte_is_read_or_refused(path_of_damage: Path, data: st.DataObject) -> None:
    original = parse(CONV, "float").SerializeToString()
    _, segments = wire.detach(original)
    weight = segments["w"]
    place = data.draw(st.integers(0, len(original) - 1).filter(lambda at: not 0 <= at - weight.offset < weight.nbytes))
    path_of_damage.write_bytes(original[:place] + bytes([data.draw(st.integers(0, 255))]) + original[place + 1 :])
    try:
        files.load(path_of_damage)
    except ModelError as error:
        assert_one_line(error, path_of_damage)


@pytest.fixture(scope="module")
def path_of_damage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage") / "model.onnx"


@settings(max_examples=300, deadline=None)  # a disk takes its time
@given(st.binary(min_size=1, max_size=60))
@example(b"\x0a")
@example(b"\x3a\x00\x42\x00")
def test_bytes_of_any_kind_are_no_model(path_of_damage: Path, data: bytes) -> None:
    path_of_damage.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        files.load(path_of_damage)
    assert_one_line(caught.value, path_of_damage)


@pytest.mark.parametrize(
    "text", [b"\x42\x01w", b"\x22\x04Conv", b"\x12\x01N"], ids=["a weight", "an operator", "a size"]
)
@pytest.mark.parametrize("kind", ["path", "ModelProto"])
def test_a_text_that_is_no_utf8_is_refused(kind: str, text: bytes, path: Path) -> None:
    data = parse(CONV, "float").SerializeToString()
    assert text in data
    path.write_bytes(data.replace(text, text[:-1] + b"\xff"))
    model = path if kind == "path" else onnx.ModelProto.FromString(path.read_bytes())
    with pytest.raises(ModelError, match=r"not a valid ONNX (file|model): "):
        bnfold.fold(model)


def test_two_weights_of_one_name_are_refused(path: Path) -> None:
    model = parse(CONV, "float")
    model.graph.initializer.append(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    assert files.load(path).payloads == {}
    with pytest.raises(ModelError, match="two initializers are named 'w'"):
        bnfold.fold(path)


def unusual_weights() -> Iterator[tuple[str, Callable[[onnx.TensorProto], object]]]:
    """Ways to store the same weight, or to write more beside it."""

    def as_numbers(tensor: onnx.TensorProto) -> None:
        tensor.float_data.extend(np.frombuffer(tensor.raw_data, np.float32))
        tensor.ClearField("raw_data")

    yield "float_data", as_numbers
    yield "doc_string", lambda tensor: setattr(tensor, "doc_string", "behind")
    yield "an unknown field", lambda tensor: tensor.MergeFromString(UNKNOWN_FIELD)
    yield "a default that is spelled out", lambda tensor: setattr(tensor, "data_location", onnx.TensorProto.DEFAULT)


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in unusual_weights()])
@pytest.mark.parametrize("kind", ["path", "ModelProto"])
def test_a_weight_stored_in_any_way_folds_to_the_same(
    change: Callable[[onnx.TensorProto], object], kind: str, path: Path
) -> None:
    model = parse(CONV, "float")
    expected = folded_weight(bnfold.fold(model).model)
    change(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    found = folded_weight(bnfold.fold(path if kind == "path" else model).model)
    np.testing.assert_array_equal(found, expected)


def folded_weight(model: onnx.ModelProto) -> np.ndarray:
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    name = model.graph.node[0].input[1]
    return onnx.numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


@pytest.mark.parametrize("kind", ["path", "ModelProto"])
def test_a_weight_without_elements_is_kept(kind: str, path: Path) -> None:
    model = parse(CONV, "float")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((0, 3), np.float32), "empty"))
    model.graph.node.append(onnx.helper.make_node("Identity", ["empty"], ["e"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("e", onnx.TensorProto.FLOAT, [0, 3]))
    path.write_bytes(model.SerializeToString())
    result = bnfold.fold(path if kind == "path" else model)
    assert [site.folded for site in result.sites] == [True]
    assert model.graph.initializer[-1] in result.model.graph.initializer


def assert_one_line(error: ModelError, path: Path) -> None:
    assert str(error).startswith(f"{path}: ")
    assert "\n" not in str(error)
