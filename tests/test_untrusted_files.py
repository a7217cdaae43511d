"""Files from people who are not known: reading one runs none of its code, whatever the door.

Every payload would leave a mark: a file of this name. The same payload behind `trust_pickle`, where PyTorch runs it,
shows that it is one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saved import save
from torch import nn

import bnfold
from bnfold.checks import data
from bnfold.errors import BnfoldError, ModelError
from bnfold.graphs.torch.archives import read_model, read_weights
from bnfold.graphs.torch.untrusted import check_program, is_arithmetic

Change = Callable[[Any, Path], None]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of PyTorch's readers


class Marks:
    """An object whose unpickling makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    sizes = {0: torch.export.Dim("batch", max=64)}
    return torch.export.export(net, (torch.randn(3, 3, 8, 8),), dynamic_shapes=(sizes,))


def rewritten(program: torch.export.ExportedProgram, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The program in a file whose members were changed."""
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def member(members: dict[str, bytes], end: str) -> str:
    return next(name for name in members if name.endswith(end))


def pickled(thing: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def in_json(end: str, change: Callable[[Any, str], None]) -> Callable[[dict[str, bytes], Path], None]:
    """A change of the JSON in a member; the source that would make the mark comes with it."""

    def changed(members: dict[str, bytes], mark: Path) -> None:
        name = member(members, end)
        content = json.loads(members[name])
        change(content, f"__import__('os').mkdir({str(mark)!r})")
        members[name] = json.dumps(content).encode()

    return changed


def sample_inputs(members: dict[str, bytes], mark: Path) -> None:
    members[member(members, "sample_inputs/model.pt")] = pickled(((Marks(mark),), {}))


def pickled_weight(members: dict[str, bytes], mark: Path) -> None:
    name = member(members, "model_weights_config.json")
    config = json.loads(members[name])
    config["config"]["0.weight"]["use_pickle"] = True
    members[name] = json.dumps(config).encode()
    members[member(members, "weights/weight_0")] = pickled(Marks(mark))


def opaque_constant(members: dict[str, bytes], mark: Path) -> None:
    name = member(members, "model_constants_config.json")
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    members[name] = json.dumps({"config": {"thing": entry}}).encode()
    members[name.replace("model_constants_config.json", "opaque_obj_0")] = pickle.dumps(Marks(mark))


def legacy_weights(members: dict[str, bytes], mark: Path) -> None:
    name = member(members, "model_weights_config.json")
    members[name.replace("model_weights_config.json", "model.pt")] = pickled({"w": Marks(mark)})


def compiled(members: dict[str, bytes], mark: Path) -> None:
    root = next(iter(members)).partition("/")[0]
    members[f"{root}/data/aotinductor/model/a.so"] = b"\x7fELF"


def put(path: str, make: Callable[[str], Any]) -> Callable[[Any, str], None]:
    """A change of one place in JSON, which is spelled with dots."""
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]

    def change(content: Any, code: str) -> None:
        for part in way:
            content = content[part]
        content[last] = make(code)

    return change


def operator(content: Any, code: str) -> None:
    node = content["graph_module"]["graph"]["nodes"][-1]
    node["target"] = "torch.os.mkdir"
    node["inputs"] = [{"name": "path", "arg": {"as_string": code.split("'")[3]}, "kind": 1}]


def tree(content: Any, code: str) -> None:
    signature = content["graph_module"]["module_call_graph"][0]["signature"]
    enum = {"__enum__": True, "fqn": "antigravity:X", "name": "Y"}
    children = [{"type": None, "context": None, "children_spec": []}]
    signature["in_spec"] = json.dumps(
        [1, {"type": "builtins.tuple", "context": json.dumps(enum), "children_spec": children}]
    )


def constant_input(content: Any, code: str) -> None:
    spec = {"constant_input": {"name": "k", "value": {"as_string": f"'), {code}, ('"}}}
    content["graph_module"]["signature"]["input_specs"].append(spec)


PROGRAM = {
    "sample inputs": sample_inputs,
    "a pickled weight": pickled_weight,
    "an opaque constant": opaque_constant,
    "weights of an older release": legacy_weights,
    "compiled code": compiled,
    "a size": in_json(
        "models/model.json",
        put("graph_module.graph.tensor_values.input.sizes.0.as_expr.expr_str", lambda code: f"Symbol('s0') + {code}"),
    ),
    "a range": in_json("models/model.json", put("range_constraints", lambda code: {code: {"min_val": 0}})),
    "a guard": in_json("models/model.json", put("guards_code", lambda code: [f"{code} is None"])),
    "the name of an input": in_json(
        "models/model.json", put("graph_module.graph.inputs.7.as_tensor.name", lambda code: f"x={code}")
    ),
    "the name of a parameter": in_json(
        "models/model.json",
        put(
            "graph_module.signature.input_specs.0.parameter.parameter_name",
            lambda code: f'0"), {code}, getattr(self, "',
        ),
    ),
    "an argument's name": in_json(
        "models/model.json",
        put("graph_module.module_call_graph.0.signature.forward_arg_names", lambda code: [f"x={code}"]),
    ),
    "an operator": in_json("models/model.json", operator),
    "an operator of files": in_json(
        "models/model.json", put("graph_module.graph.nodes.2.target", lambda code: "torch.ops.aten.from_file.default")
    ),
    "an operator of TorchScript": in_json(
        "models/model.json", put("graph_module.graph.nodes.2.target", lambda code: "torch.ops.aten.save")
    ),
    "the structure of inputs": in_json("models/model.json", tree),
    "a constant input": in_json("models/model.json", constant_input),
    "an object": in_json(
        "models/model.json",
        put(
            "graph_module.graph.nodes.2.inputs.0.arg",
            lambda code: {"as_custom_obj": {"name": "o", "class_fqn": "__torch__.torch.classes.x.Y"}},
        ),
    ),
}


@pytest.mark.parametrize("name", PROGRAM)
def test_a_program_with_code_in_it_is_refused(
    name: str, program: torch.export.ExportedProgram, tmp_path: Path, mark: Path
) -> None:
    path = rewritten(program, tmp_path / "m.pt2", lambda members: PROGRAM[name](members, mark))
    for use in (bnfold.fold, bnfold.inspect, lambda path: bnfold.convert(path, tmp_path / "m.onnx")):
        with pytest.raises(ModelError) as caught:
            use(path)
        assert str(caught.value).startswith(f"{path}: its member '")
        assert "--trust-pickle" in str(caught.value)
    assert not mark.exists()
    assert [item.name for item in tmp_path.iterdir()] == ["m.pt2"]


@pytest.mark.parametrize("name", ["sample inputs", "a pickled weight", "an opaque constant", "a size"])
def test_the_payloads_are_payloads(
    name: str, program: torch.export.ExportedProgram, tmp_path: Path, mark: Path
) -> None:
    path = rewritten(program, tmp_path / "m.pt2", lambda members: PROGRAM[name](members, mark))
    with contextlib.suppress(BnfoldError):
        bnfold.fold(path, trust_pickle=True)
    assert mark.exists()


def test_a_program_as_it_is_saved_is_read(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    path = rewritten(program, tmp_path / "m.pt2", lambda members: None)
    check_program(path)
    assert [site.folded for site in bnfold.fold(path).sites] == [True]


def test_a_member_that_only_one_reader_sees_is_looked_at(
    program: torch.export.ExportedProgram, tmp_path: Path, mark: Path
) -> None:
    """PyTorch falls back to Python's zipfile for archives that its own reader does not understand."""
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.1")
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", pickled({"w": Marks(mark)}))
    with pytest.raises(ModelError, match=r"its member 'serialized_state_dict\.pt' would run code"):
        bnfold.fold(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        *("__import__('os')", "eval('1')", "open('x')", "a.b", "(lambda: 1)()", "[x for x in y]", "x.__class__()"),
        *("9**9**9", "Pow(9, Pow(9, 9))", "f'{x}'", "x if y else z", "Symbol('a b')", "1" * 30, "(" * 500 + ")" * 500),
        *("", "x;y", "x\ny", "print(1)", "sympify('1')", "L['x'].data()"),
    ],
)
def test_what_is_no_arithmetic(text: str) -> None:
    assert not is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        *("s0", "2*s0 + 1", "FloorDiv(Symbol('s17', positive=True, integer=True), Integer(2))", "Max(1, s0)"),
        *("L['x'].size()[0] == L['y'].size()[1] + 3", "s0 >= 2 and not s1 < 3", "Pow(Symbol('s0'), Integer(2))"),
    ],
)
def test_what_is_arithmetic(text: str) -> None:
    assert is_arithmetic(text)


class Saves(nn.Module):
    """TorchScript that writes a file when it runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


def test_torchscript_needs_the_word_of_the_user(tmp_path: Path) -> None:
    script = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval())
    torch.jit.save(script, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"this is TorchScript, which is code .* give --trust-pickle"):
        bnfold.convert(tmp_path / "m.pt", tmp_path / "m.onnx")
    assert isinstance(read_model(tmp_path / "m.pt", trust_pickle=True), torch.jit.ScriptModule)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pt2"])
@pytest.mark.parametrize("in_dict", [False, True])
def test_pickles_do_not_run(suffix: str, in_dict: bool, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / f"m{suffix}"
    thing = {"state_dict": {"w": Marks(mark)}} if in_dict else Marks(mark)
    for write in (torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))):
        write(thing, path)
        for read in (read_model, read_weights):
            with pytest.raises(ModelError) as caught:
                read(path)
            assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_arrays_with_objects_do_not_run(tmp_path: Path, mark: Path) -> None:
    save(tmp_path / "m.onnx")
    objects = np.empty(1, object)
    objects[0] = Marks(mark)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=objects)
    for name in ("x.npy", "x.npz"):
        options = bnfold.CheckOptions(input_data=tmp_path / name)
        with pytest.raises(BnfoldError, match="cannot be read"):
            bnfold.convert(tmp_path / "m.onnx", tmp_path / "f.onnx", options=options)
    assert not mark.exists()


def bomb(path: Path) -> None:
    np.savez_compressed(path, x=np.zeros(2**23, np.uint8))


def text_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "hello")


def endless(path: Path) -> None:
    """An array whose header says more than the file has."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**20)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())


def damaged(path: Path) -> None:
    np.savez(path, x=np.zeros(3))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 10 : content.index(b"PK\x01\x02") + 12] = struct.pack("<H", 99)
    path.write_bytes(bytes(content))


def bad_name(path: Path) -> None:
    np.savez(path, x=np.zeros(3))
    content = path.read_bytes().replace(b"x.npy", b"\xff.npy")
    at = content.index(b"PK\x01\x02") + 8
    path.write_bytes(content[:at] + struct.pack("<H", 0x800) + content[at + 2 :])


@pytest.mark.parametrize("write", [bomb, text_member, endless, damaged, bad_name], ids=lambda write: write.__name__)
def test_archives_of_arrays_that_are_none(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "MOST_BYTES", 2**20)
    save(tmp_path / "m.onnx")
    write(tmp_path / "x.npz")
    options = bnfold.CheckOptions(input_data=tmp_path / "x.npz")
    with pytest.raises(BnfoldError, match=r"^input data .*x\.npz") as caught:
        bnfold.convert(tmp_path / "m.onnx", tmp_path / "f.onnx", options=options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [damaged, bad_name], ids=lambda write: write.__name__)
@pytest.mark.parametrize("suffix", [".pt2", ".pth", ".pt"])
def test_damaged_archives_of_models(write: Callable[[Path], None], suffix: str, tmp_path: Path) -> None:
    write(tmp_path / "x.npz")
    path = (tmp_path / "x.npz").rename(tmp_path / f"x{suffix}")
    for read in (read_model, read_weights):
        with pytest.raises(ModelError) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_a_picture_that_is_a_program_is_not_run(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives PostScript of any name to Ghostscript, which is looked up on the path."""
    (tmp_path / "in").mkdir()
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "in/a.png").write_bytes(postscript)
    ghostscript = tmp_path / "bin/gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\nmkdir {mark}\nexit 1\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    save(tmp_path / "m.onnx", "(T[N,3,H,W] x) => (T[N,8,h,w] y) <T[8,3,3,3] w, bn[8]> { c = Conv(x, w) y = BN(c) }")
    options = bnfold.CheckOptions(input_data=tmp_path / "in", input_shapes={"x": (None, 3, 8, 8)})
    with pytest.raises(BnfoldError, match=r"a\.png cannot be read"):
        bnfold.convert(tmp_path / "m.onnx", tmp_path / "f.onnx", options=options)
    assert not mark.exists()


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "in/a.png")
    save(tmp_path / "m.onnx", "(T[N,3,H,W] x) => (T[N,8,h,w] y) <T[8,3,3,3] w, bn[8]> { c = Conv(x, w) y = BN(c) }")
    options = bnfold.CheckOptions(input_data=tmp_path / "in", input_shapes={"x": (None, 3, 8, 8)})
    with pytest.raises(BnfoldError, match=r"a\.png cannot be read .*decompression bomb"):
        bnfold.convert(tmp_path / "m.onnx", tmp_path / "f.onnx", options=options)


def test_safetensors_with_a_header_that_lies(tmp_path: Path) -> None:
    for header in (b"{", b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,99999]}}', b"\xff" * 8):
        path = tmp_path / "w.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(ModelError) as caught:
            read_weights(path)
        assert str(caught.value).startswith(str(path))
    path.write_bytes(struct.pack("<Q", 2**60))
    with pytest.raises(ModelError):
        read_weights(path)
