"""Weights in files of their own: found, carried along, overwritten safely, and never read without need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import parse, weights
from saved import CONV_BN, NO_BATCH_NORM, TWO_BATCH_NORMS, folded_weight, names, save, save_external

import bnfold
from bnfold.errors import ModelError, OutputError
from bnfold.graphs.onnx import staging

GIB = 2**30


def convert(source: Path, target: Path, **options: object) -> bnfold.Report:
    return bnfold.convert(source, target, verify=False, bench=False, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model with its data in a folder of its own."""
    folder = tmp_path / "in"
    folder.mkdir()
    return folder / "a.onnx"


def folded_in_memory(model: onnx.ModelProto) -> np.ndarray:
    tensors = {tensor.name: tensor for tensor in bnfold.fold(model).model.graph.initializer}
    return onnx.numpy_helper.to_array(tensors["w.folded"])


@pytest.mark.parametrize("folder", [".", "in"], ids=["another folder", "the same folder"])
def test_external_data_stay_external(folder: str, source: Path, tmp_path: Path) -> None:
    model = save_external(source)
    data = source.with_name("a.onnx.data").read_bytes()
    target = tmp_path / folder / "b.onnx"
    report = convert(source, target)
    assert {"b.onnx", "b.onnx.data"} <= names(target.parent)
    assert len(names(tmp_path)) == 5
    np.testing.assert_array_equal(folded_weight(target), folded_in_memory(model))
    assert target.stat().st_size < 1000
    assert report.before.file_bytes == source.stat().st_size + len(data)
    assert report.after is not None
    assert report.after.file_bytes == target.stat().st_size + target.with_name("b.onnx.data").stat().st_size
    assert source.with_name("a.onnx.data").read_bytes() == data
    onnx.checker.check_model(target, full_check=True)


def test_weights_go_into_a_data_file_on_request(tmp_path: Path) -> None:
    model = save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    convert(tmp_path / "a.onnx", tmp_path / "b.onnx", save_as_external_data=True)
    assert names(tmp_path) == {"a.onnx", "b.onnx", "b.onnx.data"}
    expected, found = weights(bnfold.fold(model).model), weights(onnx.load(tmp_path / "b.onnx"))
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    offsets = [int(entry["offset"]) for entry in external_entries(tmp_path / "b.onnx")]
    assert len(offsets) == 2
    assert all(offset % staging.ALIGNMENT_BYTES == 0 for offset in offsets)


def test_a_model_too_large_for_one_message_gets_a_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save(tmp_path / "a.onnx")
    size = (tmp_path / "a.onnx").stat().st_size
    monkeypatch.setattr(staging, "PROTOBUF_LIMIT_BYTES", 2 * size)
    convert(tmp_path / "a.onnx", tmp_path / "b.onnx")
    monkeypatch.setattr(staging, "PROTOBUF_LIMIT_BYTES", size // 2)
    convert(tmp_path / "a.onnx", tmp_path / "c.onnx")
    assert names(tmp_path) == {"a.onnx", "b.onnx", "c.onnx", "c.onnx.data"}
    np.testing.assert_array_equal(folded_weight(tmp_path / "c.onnx"), folded_in_memory(model))


def external_entries(path: Path) -> list[dict[str, str]]:
    model = onnx.load(path, load_external_data=False)
    return [{entry.key: entry.value for entry in t.external_data} for t in model.graph.initializer if t.external_data]


def in_constants(path: Path, model: onnx.ModelProto, location: str | None = None) -> bytes:
    """Write the model with its initializers in Constant nodes, whose data are in a file if it is named."""
    data = b""
    for tensor in model.graph.initializer:
        node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        if location is not None:
            inner = node.attribute[0].t
            staging.externalise(inner, location, len(data), len(inner.raw_data))
            data += inner.raw_data
            inner.ClearField("raw_data")
        model.graph.node.insert(0, node)
    del model.graph.initializer[:]
    path.write_bytes(model.SerializeToString())
    if location is not None:
        path.with_name(location).write_bytes(data)
    return path.read_bytes()


LARGE_THAT_STAYS = """(T[N,8,4,4] x) => (T[N,16,4,4] y) <T[16,8,3,3] w, bn[16], T[16,16,3,3] v>
    { c = Conv<pads=[1,1,1,1]>(x, w) b = BN(c) y = Conv<pads=[1,1,1,1]>(b, v) }"""


@pytest.mark.parametrize("apart", [False, True], ids=["in the file", "in a data file"])
@pytest.mark.parametrize("on_request", [False, True])
def test_constants_stay_in_the_file_or_in_a_data_file(apart: bool, on_request: bool, source: Path) -> None:
    """Not every runtime looks for the tensor of a Constant node elsewhere."""
    model = parse(LARGE_THAT_STAYS, "float")
    expected = weights(model)["v"]
    in_constants(source, model, "w.bin" if apart else None)
    target = source.with_name("b.onnx")
    for _ in range(2):
        convert(source, target, save_as_external_data=on_request or None, force=True)
        written = onnx.load(target, load_external_data=False)
        kept = next(node.attribute[0].t for node in written.graph.node if node.output[0] == "v")
        assert bool(kept.external_data) is apart
        assert any(tensor.external_data for tensor in written.graph.initializer) is (apart or on_request)
        onnx.checker.check_model(target, full_check=True)
        found = next(node.attribute[0].t for node in onnx.load(target).graph.node if node.output[0] == "v")
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(found, str(source.parent)), expected)
        count = 1 + apart + 1 + (apart or on_request)
        assert len(names(source.parent)) == count
    assert bnfold.verify(source, target).passed


def test_constants_that_fit_in_no_file_are_one_line(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_constants(source, parse(LARGE_THAT_STAYS, "float"))
    monkeypatch.setattr(staging, "PROTOBUF_LIMIT_BYTES", 5000)
    with pytest.raises(OutputError, match=r"b\.onnx: .* its Constant nodes alone hold more than a file of 2 GB can"):
        convert(source, source.with_name("b.onnx"))
    assert names(source.parent) == {"a.onnx"}


# Overwriting.


def test_a_pair_is_overwritten_by_a_pair(source: Path) -> None:
    model = save_external(source)
    convert(source, source, force=True)
    assert names(source.parent) == {"a.onnx", data_file(source)}
    assert data_file(source) != "a.onnx.data"  # the old data were whole until the new model was there
    np.testing.assert_array_equal(folded_weight(source), folded_in_memory(model))


def data_file(path: Path) -> str:
    """The only data file of a model."""
    (location,) = {entry["location"] for entry in external_entries(path)}
    return location


def test_overwriting_again_and_again_leaves_one_pair(source: Path, tmp_path: Path) -> None:
    save_external(source)
    for _ in range(3):
        convert(source, tmp_path / "b.onnx", force=True)
        assert names(tmp_path) == {"in", "in/a.onnx", "in/a.onnx.data", "b.onnx", data_file(tmp_path / "b.onnx")}
    model = save(source.with_name("inline.onnx"))
    convert(source.with_name("inline.onnx"), tmp_path / "b.onnx", force=True)
    assert names(tmp_path) == {"in", "in/a.onnx", "in/a.onnx.data", "in/inline.onnx", "b.onnx"}
    np.testing.assert_array_equal(folded_weight(tmp_path / "b.onnx"), folded_in_memory(model))


def test_a_copy_onto_the_source_leaves_its_data(source: Path) -> None:
    save_external(source, NO_BATCH_NORM)
    before = source.read_bytes()
    convert(source, source, force=True)
    assert source.read_bytes() == before
    assert names(source.parent) == {"a.onnx", "a.onnx.data"}


def test_data_that_an_unreadable_model_may_read_outlive_an_overwritten_one(source: Path) -> None:
    save_external(source)
    source.with_name("other.onnx").write_bytes(b"cut off")
    convert(source, source, force=True)
    assert names(source.parent) == {"a.onnx", data_file(source), "other.onnx", "a.onnx.data"}


def test_a_copy_whose_data_another_run_has_removed_is_not_made(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that overwrites the source removes its old data, which the copy would share."""
    save_external(source, NO_BATCH_NORM)
    commit = staging.Staged.commit

    def overtaken(staged: staging.Staged, **options: bool) -> None:
        monkeypatch.undo()
        convert(source, source, force=True, save_as_external_data=True)
        commit(staged, **options)

    monkeypatch.setattr(staging.Staged, "commit", overtaken)
    with pytest.raises(
        OutputError, match=r"b\.onnx: another run has removed its data file 'a\.onnx\.data'; run it again"
    ):
        convert(source, source.with_name("b.onnx"))
    assert names(source.parent) == {"a.onnx", data_file(source)}


def test_data_that_another_model_reads_outlive_an_overwritten_one(source: Path) -> None:
    save_external(source)
    shutil.copy(source, source.with_name("other.onnx"))
    convert(source, source, force=True)
    assert names(source.parent) == {"a.onnx", data_file(source), "other.onnx", "a.onnx.data"}
    onnx.load(source.with_name("other.onnx"))


@pytest.mark.parametrize("old", [b"", b"no model", None], ids=["empty", "no model", "absent"])
def test_a_data_file_that_is_not_the_targets_own_is_left_alone(old: bytes | None, source: Path, tmp_path: Path) -> None:
    save_external(source)
    if old is not None:
        (tmp_path / "b.onnx").write_bytes(old)
    (tmp_path / "b.onnx.data").write_bytes(b"mine")
    convert(source, tmp_path / "b.onnx", force=True)
    assert (tmp_path / "b.onnx.data").read_bytes() == b"mine"
    folded_weight(tmp_path / "b.onnx")


# Nothing to fold: a copy.


@pytest.mark.parametrize("location", ["w.bin", "deep/er/w.bin", ".envrc", "sub/conftest.py", "out.onnx"])
def test_data_of_a_copy_are_named_after_the_target(location: str, source: Path, tmp_path: Path) -> None:
    """The names that a model gives its data are somebody else's words: no file is called by them."""
    model = save_external(source, NO_BATCH_NORM, location)
    before = names(tmp_path)
    report = convert(source, tmp_path / "out.onnx")
    assert names(tmp_path) - before == {"out.onnx", "out.onnx.data"}
    found = onnx.load(tmp_path / "out.onnx")
    assert weights(found).keys() == weights(model).keys()
    for name, array in weights(model).items():
        np.testing.assert_array_equal(weights(found)[name], array)
    assert [node.op_type for node in found.graph.node] == [node.op_type for node in model.graph.node]
    assert report.after is not None
    assert replace(report.after, file_bytes=None) == replace(report.before, file_bytes=None)


def test_a_copy_whose_data_have_moved_is_verified(source: Path, tmp_path: Path) -> None:
    save_external(source, NO_BATCH_NORM)
    report = bnfold.convert(source, tmp_path / "out.onnx", bench=False)
    assert report.verification is not None
    assert report.verification.passed
    assert report.verification.inputs


def test_a_copy_beside_the_source_shares_its_data(source: Path) -> None:
    save_external(source, NO_BATCH_NORM)
    report = convert(source, source.with_name("b.onnx"))
    assert source.with_name("b.onnx").read_bytes() == source.read_bytes()
    assert names(source.parent) == {"a.onnx", "b.onnx", "a.onnx.data"}
    assert report.after == report.before


@pytest.mark.parametrize("text", [CONV_BN, NO_BATCH_NORM], ids=["folded", "copy"])
def test_a_target_that_is_the_data_file_of_the_source_is_refused(text: str, source: Path) -> None:
    save_external(source, text, "b.onnx")
    before = {path: path.read_bytes() for path in source.parent.iterdir()}
    with pytest.raises(OutputError, match=r"b\.onnx: this file holds weights of the input"):
        convert(source, source.with_name("b.onnx"), force=True)
    assert {path: path.read_bytes() for path in source.parent.iterdir()} == before


def test_other_data_that_are_in_the_way_stay(source: Path, tmp_path: Path) -> None:
    save_external(source, NO_BATCH_NORM)
    (tmp_path / "out.onnx.data").write_bytes(b"mine")
    convert(source, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").read_bytes() == b"mine"
    onnx.load(tmp_path / "out.onnx")


# What is refused, and how.


def with_entry(key: str, value: str) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        entry = next(entry for entry in tensor.external_data if entry.key == key)
        entry.value = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (with_entry("location", "../secret"), "outside the model's folder"),
        (with_entry("location", "deep/../../secret"), "outside the model's folder"),
        (with_entry("location", "../in/a.onnx.data"), "outside the model's folder"),
        (with_entry("location", "/etc/passwd"), "outside the model's folder"),
        (with_entry("location", "link/secret"), "outside the model's folder"),
        (with_entry("location", ""), "outside the model's folder"),
        (with_entry("location", "gone.bin"), r"cannot be read \(No such file"),
        (with_entry("location", "."), r"cannot be read \(Is a directory"),
        (with_entry("offset", "-1"), "past the end"),
        (with_entry("offset", "1000000"), "past the end"),
        (with_entry("length", "1000000"), "past the end"),
        (with_entry("length", "-4"), "past the end"),
        (with_entry("offset", "one"), "does not say where"),
    ],
)
def test_data_that_are_not_where_they_may_be_are_refused(
    change: Callable[[onnx.TensorProto], None], why: str, source: Path, tmp_path: Path
) -> None:
    save_external(source)
    (tmp_path / "secret").write_bytes(bytes(100_000))
    (source.parent / "link").symlink_to(tmp_path)
    model = onnx.load(source, load_external_data=False)
    change(model.graph.initializer[0])
    source.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=why) as caught:
        convert(source, tmp_path / "b.onnx")
    assert str(caught.value).startswith(f"{source}: weight 'w' ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b.onnx").exists()


def test_a_data_file_that_was_cut_off_is_refused(source: Path, tmp_path: Path) -> None:
    save_external(source)
    data = source.with_name("a.onnx.data")
    os.truncate(data, data.stat().st_size - 1)
    with pytest.raises(ModelError, match=r"past the end of 'a\.onnx\.data': copy the data file again"):
        convert(source, tmp_path / "b.onnx")
    os.truncate(data, 0)
    with pytest.raises(ModelError, match=r"past the end of 'a\.onnx\.data'"):
        bnfold.inspect(source)


def test_a_model_in_memory_whose_data_are_not_is_refused(source: Path) -> None:
    save_external(source)
    model = onnx.load(source, load_external_data=False)
    with pytest.raises(ModelError, match="weight 'w' lies in an external file; give the path of the model"):
        bnfold.fold(model)


# Less usual places.


def test_a_weight_without_offset_and_length_begins_its_file(source: Path, tmp_path: Path) -> None:
    model = save(source)
    expected = folded_in_memory(model)
    weight = model.graph.initializer[0]
    source.with_name("w.bin").write_bytes(weight.raw_data + b"more")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    source.write_bytes(model.SerializeToString())
    convert(source, tmp_path / "b.onnx")
    np.testing.assert_array_equal(folded_weight(tmp_path / "b.onnx"), expected)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_a_model_behind_links_finds_its_data_behind_links(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    model = save_external(tmp_path / "blobs/a.onnx")
    for name in ("a.onnx", "a.onnx.data"):
        (blobs / name).rename(blobs / f"0{name[-4:]}")
        (snapshot / name).symlink_to(f"../../blobs/0{name[-4:]}")
    convert(snapshot / "a.onnx", tmp_path / "b.onnx")
    np.testing.assert_array_equal(folded_weight(tmp_path / "b.onnx"), folded_in_memory(model))


IN_A_BODY = """(bool flag, T[N,8,4,4] x) => (T[N,16,4,4] y) {
    y = If (flag) <
        then_branch = g1 () => (T[N,16,4,4] a) <T[16,8,3,3] w, bn[16]> { c = Conv<pads=[1,1,1,1]>(x, w) a = BN(c) },
        else_branch = g2 () => (T[N,16,4,4] b) <T[16,8,3,3] w2> { b = Conv<pads=[1,1,1,1]>(x, w2) }
    >
}"""


@pytest.mark.parametrize("text", [IN_A_BODY, IN_A_BODY.replace("bn[16]", "T[16] s").replace("BN(c)", "Relu(c)")])
def test_weights_of_bodies_and_attributes_come_along(text: str, source: Path, tmp_path: Path) -> None:
    model = parse(text, "float")
    model.graph.node.append(
        onnx.helper.make_node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.arange(3.0), "k"))
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info("k", onnx.TensorProto.DOUBLE, [3]))
    expected = {tensor.name: tensor.raw_data for tensor in inner_tensors(bnfold.fold(model).model)}
    data = b""
    for tensor in inner_tensors(model):
        staging.externalise(tensor, "w.bin", len(data), len(tensor.raw_data))
        data += tensor.raw_data
        tensor.ClearField("raw_data")
    source.with_name("w.bin").write_bytes(data)
    source.write_bytes(model.SerializeToString())
    convert(source, tmp_path / "b.onnx")
    after = onnx.load(tmp_path / "b.onnx")
    found = {
        tensor.name: onnx.numpy_helper.to_array(tensor, str(tmp_path)).tobytes() for tensor in inner_tensors(after)
    }
    assert found == expected
    result = bnfold.fold(source).model
    assert {tensor.name: tensor.raw_data for tensor in inner_tensors(result)} == expected


def inner_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from attribute.g.initializer
            if attribute.HasField("t"):
                yield attribute.t


# More than fits.


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_model_above_2_gb_is_folded_without_being_read(tmp_path: Path) -> None:
    block, count = GIB // 4, 9  # weights that share their bytes: 2.4 GB of model in a quarter of a GiB of file
    memory_disk = Path("/dev/shm")  # noqa: S108 - what is written there goes at once
    place = memory_disk if memory_disk.is_dir() and shutil.disk_usage(memory_disk).free > 4 * GIB else tmp_path
    if shutil.disk_usage(place).free < 3 * GIB:
        pytest.skip("less than 3 GiB of disk are free")
    model = parse(CONV_BN, "float")
    for number in range(count):
        tensor = onnx.TensorProto(name=f"w{number}", data_type=onnx.TensorProto.UINT8, dims=[block])
        staging.externalise(tensor, "w.bin", 0, block)
        model.graph.initializer.append(tensor)
        model.graph.node.append(onnx.helper.make_node("Identity", [tensor.name], [f"y{number}"]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(f"y{number}", tensor.data_type, [block]))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with (tmp_path / "w.bin").open("wb") as file:
        file.seek(block - 256)
        file.write(bytes(range(256)))
    code = """
import sys
import bnfold
bnfold.convert(sys.argv[1], sys.argv[2], verify=False, bench=False)
# Not getrusage: its peak includes the process that started this one.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        target = Path(folder) / "b.onnx"
        argv = [sys.executable, "-c", code, str(tmp_path / "a.onnx"), str(target)]
        peak = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True).stdout
        assert int(peak) * 1024 < GIB // 4
        after = onnx.load(target, load_external_data=False)
        assert [node.op_type for node in after.graph.node] == ["Conv", *["Identity"] * count]
        last = next(tensor for tensor in after.graph.initializer if tensor.name == f"w{count - 1}")
        place_of = {entry.key: entry.value for entry in last.external_data}
        assert int(place_of["offset"]) > 2**31 - 1
        with (Path(folder) / place_of["location"]).open("rb") as file:
            file.seek(int(place_of["offset"]) + block - 256)
            assert file.read(256) == bytes(range(256))
