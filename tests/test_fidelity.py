"""What a fold does not name stays byte for byte.

A file in which nothing folds is copied. Of a file in which something folds, the comparison below accepts no difference
but these: sites and what only they needed are gone; a node that absorbed one reads new constants, and has what was
noted on the site; a MatMul that got its first bias is followed by an Add; the node above a site makes the value that
the site made, or the one below reads the value that the site read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from graph_builder import DOUBLE, FLOAT
from graphs import op_types, parse
from onnx import NodeProto
from random_graphs import random_model

import bnfold
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.onnx import files, wire
from bnfold.graphs.onnx.document import from_bytes, from_proto, weights_of
from bnfold.graphs.onnx.fold import fold_document

MODELS = sorted((Path(__file__).parent.parent / "models").glob("*.onnx"))
# Field 1000, a string: what a newer release of ONNX, or a vendor, may have put there.
UNKNOWN_FIELD = bytes.fromhex("c23e") + b"\x05later"

RESNET = """(T[N,3,H,W] x) => (T[N,5] y) <
    T[4,3,3,3] W0, bn0[4], T[4,4,3,3] W1, bn1[4], T[4,4,3,3] W2, bn2[4],
    T[8,4,3,3] W3, bn3[8], T[8,8,3,3] W4, T[8] B4, bn4[8], T[8,4,1,1] W5, bn5[8], T[8,5] V, T[5] C> {
    c0 = Conv<pads=[1,1,1,1]>(x, W0)  b0 = BN0(c0)  r0 = Relu(b0)
    c1 = Conv<pads=[1,1,1,1]>(r0, W1) b1 = BN1(c1)  r1 = Relu(b1)
    c2 = Conv<pads=[1,1,1,1]>(r1, W2) b2 = BN2(c2)  a2 = Add(b2, r0) r2 = Relu(a2)
    c3 = Conv<pads=[1,1,1,1], strides=[2,2]>(r2, W3) b3 = BN3(c3)  r3 = Relu(b3)
    c4 = Conv<pads=[1,1,1,1]>(r3, W4, B4) b4 = BN4(c4)
    c5 = Conv<strides=[2,2]>(r2, W5) b5 = BN5(c5)  a5 = Add(b4, b5)  r5 = Relu(a5)
    p = GlobalAveragePool(r5)  f = Flatten(p)  y = Gemm(f, V, C) }"""

COMPUTED_BIASES = """(T[N,3,H,W] x) => (T[N,4,h,w] y) <
    T[4,3,3,3] W0, bn0[4], T[4,4,3,3] W1, bn1[4], int64[1] end = {1}> {
    zero = Constant<value_float = 0.0>()
    s0 = Shape<start=0, end=1>(W0)  e0 = Expand(zero, s0)  l0 = CastLike(e0, x)  o0 = Expand(l0, s0)
    c0 = Conv(x, W0, o0)  b0 = BN0(c0)  r0 = Relu(b0)
    s1 = Shape<start=0, end=1>(W1)  e1 = Expand(zero, s1)  l1 = CastLike(e1, r0)  o1 = Expand(l1, s1)
    c1 = Conv(r0, W1, o1)  y = BN1(c1) }"""

SQUEEZE_EXCITE = """(T[N,4,H,W] x) => (T[N,6] y) <
    T[8,4,1,1] W0, bn0[8], T[8,1,3,3] W1, bn1[8], T[2,8,1,1] W2, T[2] B2, T[8,2,1,1] W3, T[8] B3,
    T[4,8,1,1] W4, bn4[4], T[4,6] V, bn5[6], T[6] g, T[6] d> {
    c0 = Conv(x, W0)  b0 = BN0(c0)  h0 = HardSwish(b0)
    c1 = Conv<group=8, pads=[1,1,1,1]>(h0, W1)  b1 = BN1(c1)  h1 = HardSwish(b1)
    q = GlobalAveragePool(h1)  c2 = Conv(q, W2, B2)  r2 = Relu(c2)  c3 = Conv(r2, W3, B3)  s3 = HardSigmoid(c3)
    m = Mul(h1, s3)  c4 = Conv(m, W4)  b4 = BN4(c4)  a = Add(b4, x)
    p = GlobalAveragePool(a)  f = Flatten(p)  c5 = Gemm(f, V)  b5 = BN5(c5)  k = Mul(b5, g)  y = Add(k, d) }"""

TOKENS = """(T[N,6,5] x) => (T[M,4] y) <
    T[5,8] W0, bn0[8], T[8,8] W1, bn1[8], bn2[8], T[8,4] W2, T[4] B2, int64[3] back = {-1, 6, 8}> {
    c0 = MatMul(x, W0)  f0 = Flatten<axis=2>(c0)  b0 = BN0(f0)  u0 = Reshape(b0, back)  r0 = Relu(u0)
    c1 = MatMul(r0, W1)  f1 = Flatten<axis=2>(c1)  b1 = BN1(f1)  r1 = Sigmoid(b1)
    b2 = BN2(r1)  i2 = Identity(b2)  y = Gemm(i2, W2, B2) }"""

BUILT = {
    "residuals": RESNET,
    "computed biases": COMPUTED_BIASES,
    "squeeze and excite": SQUEEZE_EXCITE,
    "tokens, upward and downward": TOKENS,
}

NOTHING_TO_FOLD = {
    "no BN": "(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W> { c = Conv(x, W) y = Relu(c) }",
    "a BN that stays": "(T[N,3,H,W] x) => (T[N,3,H,W] y) <bn[3]> { b = BN(x) y = Relu(b) }",
    "one foldable branch of two": """(T[N,3,H,W] x, T[N,2,h,w] z) => (T[N,6,h,w] y) <T[4,3,3,3] W, bn[6]>
        { c = Conv(x, W) j = Concat<axis=1>(c, z) y = BN(j) }""",
    "large weights that stay": """(T[N,64] x) => (T[N,64] y) <T[64,64] W, bn[64]>
        { b = MatMul(x, W) r = Relu(b) y = BN(r) }""",
}


def decorated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with notes, declarations and unknown fields wherever there can be some."""
    model = onnx.shape_inference.infer_shapes(model)
    model.producer_name, model.doc_string, model.model_version = "a trainer", "what it is for", 3
    for message in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        message.metadata_props.add(key="origin", value=getattr(message, "name", "model"))
        message.doc_string = f"about {getattr(message, 'name', 'the model')}"
    for part in (model.graph, *model.graph.node, *model.graph.initializer, *model.graph.value_info):
        part.MergeFromString(UNKNOWN_FIELD)
    model.MergeFromString(UNKNOWN_FIELD)
    return model


def converted(model: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, bnfold.Report]:
    onnx.save(model, folder / "in.onnx")
    report = bnfold.convert(folder / "in.onnx", folder / "out.onnx", verify=False, bench=False)
    return onnx.load(folder / "out.onnx"), report


@pytest.mark.parametrize("text", NOTHING_TO_FOLD.values(), ids=NOTHING_TO_FOLD)
def test_a_model_in_which_nothing_folds_comes_out_byte_identical(text: str, tmp_path: Path) -> None:
    data = decorated(parse(text, "float")).SerializeToString()
    (tmp_path / "in.onnx").write_bytes(data)
    bnfold.convert(tmp_path / "in.onnx", tmp_path / "out.onnx", verify=False, bench=False)
    assert (tmp_path / "out.onnx").read_bytes() == data
    assert bnfold.fold(tmp_path / "in.onnx").model.SerializeToString() == data


def test_a_file_in_an_unusual_order_comes_out_byte_identical(tmp_path: Path) -> None:
    """Protobuf fields may come in any order; a file that no library would write that way stays as it is."""
    model = parse(NOTHING_TO_FOLD["a BN that stays"], "float")
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    data = b"\x3a" + bytes([len(graph) & 0x7F | 0x80, len(graph) >> 7]) + graph + model.SerializeToString()
    (tmp_path / "in.onnx").write_bytes(data)
    bnfold.convert(tmp_path / "in.onnx", tmp_path / "out.onnx", verify=False, bench=False)
    assert (tmp_path / "out.onnx").read_bytes() == data


@pytest.mark.parametrize("text", BUILT.values(), ids=BUILT)
def test_only_what_the_report_names_differs(text: str, tmp_path: Path) -> None:
    before = decorated(parse(text, "float"))
    after, report = converted(before, tmp_path)
    assert all(site.folded for site in report.sites)
    assert "BatchNormalization" not in op_types(after)
    assert_only_named_differences(before, after, report)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_only_what_the_report_names_differs_in_trained_models(path: Path, tmp_path: Path) -> None:
    before = onnx.load(path)
    after, report = converted(before, tmp_path)
    assert len(report.sites) == 4
    assert all(site.folded and site.direction == "backward" for site in report.sites)
    assert_only_named_differences(before, after, report)


@pytest.mark.skipif("BNFOLD_MODELS" not in os.environ, reason="BNFOLD_MODELS names no folder of further models")
def test_only_what_the_report_names_differs_in_further_models(tmp_path: Path) -> None:
    paths = sorted(Path(os.environ["BNFOLD_MODELS"]).glob("*.onnx"))
    assert paths
    for path in paths:
        folder = tmp_path / path.stem
        folder.mkdir()
        before = onnx.load(path)
        after, report = converted(before, folder)
        assert_only_named_differences(before, after, report)


def test_notes_on_conv_and_bn_both_survive(tmp_path: Path) -> None:
    model = parse("(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,1,1] W, bn[4]> { c = Conv(x, W) y = BN(c) }", "float")
    for node, layer in zip(model.graph.node, ("features.0", "features.1"), strict=True):
        node.metadata_props.add(key="module", value=layer)
        node.doc_string = f"from {layer}"
    model.graph.node[1].metadata_props.add(key="line", value="12")
    after, _ = converted(model, tmp_path)
    (node,) = after.graph.node
    notes = {item.key: item.value for item in node.metadata_props}
    assert notes["module"] == "features.0"
    assert notes["line"] == "12"
    assert "features.1" in notes.values()
    assert node.doc_string == "from features.0\nfrom features.1"


def reorder(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([nodes[1], nodes[0], *nodes[2:]])


TAMPERINGS: dict[str, Callable[[onnx.ModelProto], object]] = {
    "a note on an operator": lambda m: m.graph.node[1].metadata_props.add(key="a", value="b"),
    "a note on the absorber lost": lambda m: m.graph.node[0].ClearField("metadata_props"),
    "an attribute of the absorber": lambda m: m.graph.node[0].attribute.add(name="group", i=1, type=2),
    "an unknown field lost": lambda m: m.DiscardUnknownFields(),
    "the order of operators": reorder,
    "a weight that nothing absorbs into": lambda m: m.graph.initializer[0].metadata_props.add(key="a", value="b"),
    "a declaration": lambda m: m.graph.value_info.pop(),
    "an import": lambda m: m.opset_import.add(domain="d", version=1),
    "an output": lambda m: m.graph.output[0].type.tensor_type.shape.dim[0].ClearField("dim_param"),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_the_comparison_can_fail(tamper: Callable[[onnx.ModelProto], object], tmp_path: Path) -> None:
    before = decorated(parse(RESNET, "float"))
    after, report = converted(before, tmp_path)
    tamper(after)
    with pytest.raises(AssertionError):
        assert_only_named_differences(before, after, report)


def assert_only_named_differences(before: onnx.ModelProto, after: onnx.ModelProto, report: bnfold.Report) -> None:
    assert without(before, "graph") == without(after, "graph")
    changing = ("node", "initializer", "value_info")
    assert without(before.graph, *changing) == without(after.graph, *changing)

    sites = site_nodes(before, report)
    absorbers = {name for site in report.sites for name in site.into}
    crossed = {op for site in report.sites for op in site.through}
    old, new = ({node.name: node for node in model.graph.node} for model in (before, after))
    assert [name for name in new if name in old] == [name for name in old if name in new], "another order"
    read = {name for node in after.graph.node for name in node.input} | {info.name for info in after.graph.output}
    for name in old.keys() - new.keys():
        assert name in sites or not read & set(old[name].output), f"'{name}' is gone"
    for name in new.keys() - old.keys():
        assert is_first_bias(new[name], absorbers, after)
    for name in old.keys() & new.keys():
        if same(old[name], new[name]):
            continue
        assert name in absorbers or old[name].op_type in crossed, f"'{name}' is changed"
        assert_moved_up_or_down(old[name], new[name], [old[site] for site in sites], absorbs=name in absorbers)

    old_weights, new_weights = (
        {t.name: t.SerializeToString(deterministic=True) for t in m.graph.initializer} for m in (before, after)
    )
    assert [n for n in new_weights if n in old_weights] == [n for n in old_weights if n in new_weights]
    for name in old_weights.keys() & new_weights.keys():
        assert new_weights[name] == old_weights[name]
    for name in old_weights.keys() - new_weights.keys():
        assert name not in read
    for name in new_weights.keys() - old_weights.keys():
        readers = [node for node in after.graph.node if name in node.input]
        assert all(node.name in absorbers or node.name not in old for node in readers)

    made = {name for node in after.graph.node for name in node.output}
    kept = made | set(new_weights) | {info.name for info in after.graph.input}
    assert list(after.graph.value_info) == [info for info in before.graph.value_info if info.name in kept]


def same(old: NodeProto, new: NodeProto) -> bool:
    return old.SerializeToString(deterministic=True) == new.SerializeToString(deterministic=True)


def is_first_bias(node: NodeProto, absorbers: set[str], model: onnx.ModelProto) -> bool:
    """An Add of a constant to what an absorber makes."""
    (maker,) = (other for other in model.graph.node if node.input[0] in other.output)
    return node.op_type == "Add" and maker.name in absorbers and maker.op_type == "MatMul"


def assert_moved_up_or_down(old: NodeProto, new: NodeProto, sites: list[NodeProto], *, absorbs: bool) -> None:
    """A node beside a site has its place; one that absorbs it reads other constants, and keeps what was noted on it."""
    changing = ["input", "output"] + ["metadata_props", "doc_string"] * absorbs
    assert without(old, *changing) == without(new, *changing)
    assert new.input[0] in {old.input[0], *(site.input[0] for site in sites)}
    assert absorbs or new.input[1:] == old.input[1:]
    if new.output[0] != old.output[0] and not (absorbs and old.op_type == "MatMul"):
        assert new.output[0] in {site.output[0] for site in sites}
    assert list(new.metadata_props)[: len(old.metadata_props)] == list(old.metadata_props)
    assert new.doc_string.startswith(old.doc_string)


def site_nodes(model: onnx.ModelProto, report: bnfold.Report) -> set[str]:
    """The nodes of all sites; of a chain "first..last" those from the one to the other."""
    readers = {name: node for node in model.graph.node for name in node.input}
    by_name = {node.name: node for node in model.graph.node}
    names: set[str] = set()
    for site in report.sites:
        first, _, last = site.name.partition("..")
        while first not in names:
            names.add(first)
            if last and first != last:
                first = readers[by_name[first].output[0]].name
    return names


def without(message: onnx.ModelProto | onnx.GraphProto | NodeProto, *fields: str) -> bytes:
    """The rest of a message, unknown fields included."""
    rest = type(message)()
    rest.CopyFrom(message)
    for name in fields:
        rest.ClearField(name)
    return rest.SerializeToString(deterministic=True)


# Weights in Constant nodes, as some exporters write them.


def in_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every weight that is no input in a Constant node, with notes and unknown fields on all of it."""
    inputs = {info.name for info in model.graph.input}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name not in inputs]
    nodes = []
    for tensor in tensors:
        name = tensor.name
        tensor.name = f"the tensor of {name}"
        node = onnx.helper.make_node("Constant", [], [name], value=tensor, doc_string=f"about {name}")
        for message in (node, node.attribute[0], node.attribute[0].t):
            message.MergeFromString(UNKNOWN_FIELD)
        nodes.append(node)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in inputs]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


STAYS = """(T[N,8,H,W] x) => (T[N,64,h,w] y) <T[64,8,3,3] W, bn[64], T[64,64,1,1] V, T[64,64,1,1] U> {
    c = Conv(x, W) b = BN(c) r = Relu(b) d = Conv(r, V) e = Conv(d, U) y = Relu(e) }"""


@pytest.mark.parametrize("kind", ["path", "ModelProto", "ir.Model"])
def test_weights_in_constants_are_set_apart_and_come_back(kind: str, tmp_path: Path) -> None:
    model = in_constants(parse(STAYS, "float"))
    data = model.SerializeToString()
    (tmp_path / "in.onnx").write_bytes(data)
    large = {"W", "V", "U"}
    assert files.load(tmp_path / "in.onnx").payloads.keys() == large
    assert from_proto(model).payloads.keys() == large
    given = {"path": tmp_path / "in.onnx", "ModelProto": model, "ir.Model": onnx_ir.from_proto(model)}[kind]
    result = bnfold.fold(given, skip=["*"]).model
    if kind != "ir.Model":  # which does not keep what it does not know
        assert result.SerializeToString() == data
    folded = bnfold.fold(given).model
    folded = onnx_ir.to_proto(folded) if kind == "ir.Model" else folded
    expected = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    found = {node.output[0]: node for node in folded.graph.node if node.op_type == "Constant"}
    assert found.keys() == {"V", "U"}
    for name, node in found.items():
        assert node.attribute[0].t.raw_data == expected[name].attribute[0].t.raw_data
        assert kind == "ir.Model" or node == expected[name]
    assert len(folded.graph.initializer) == 2
    assert model.SerializeToString() == data


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE])
@pytest.mark.parametrize("constants", [False, True], ids=["initializers", "Constant nodes"])
def test_a_fold_is_the_same_whichever_weights_are_set_apart(
    constants: bool, dtype: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 100 bytes, so that small models have some; what an exporter computes shapes from has fewer."""
    apart = 0
    for seed in range(60):
        model = random_model(seed, dtype).model
        data = (in_constants(model) if constants else model).SerializeToString()
        monkeypatch.setattr(wire, "LARGE_BYTES", 10**9)
        expected = fold_of(data)
        monkeypatch.setattr(wire, "LARGE_BYTES", 100)
        apart += len(from_bytes(data).payloads)
        assert fold_of(data) == expected, seed
        in_memory = bnfold.fold(onnx.ModelProto.FromString(data))
        assert in_memory.model.SerializeToString() == expected[1], seed
    assert apart > 50


def test_models_with_weights_in_constants_are_verified_and_certified(tmp_path: Path) -> None:
    onnx.save(in_constants(parse(STAYS, "float")), tmp_path / "in.onnx")
    report = bnfold.convert(tmp_path / "in.onnx", tmp_path / "out.onnx", bench=False, certify=True, depth=True)
    assert report.verification is not None
    assert report.verification.passed
    assert report.verification.depth
    assert all(output.noise_floor is not None for output in report.verification.outputs)
    assert [site.certificate is not None for site in report.sites] == [True]
    broken = onnx.load(tmp_path / "out.onnx")
    tensor = next(tensor for name, tensor in weights_of(broken.graph) if name == "V")
    tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * 1.01).tobytes()
    assert not bnfold.verify(tmp_path / "in.onnx", broken).passed


def fold_of(data: bytes) -> tuple[object, bytes]:
    """The account of a model and what it becomes, written as a file is."""
    document = from_bytes(data)
    sites = fold_document(document, "the model", FoldOptions())
    out = io.BytesIO()
    wire.attach(document.model.SerializeToString(), document.payloads, out)
    return sites, out.getvalue()
