"""Small whole files of every format that bnfold reads, to begin with."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from graphs import parse
from onnx import helper, numpy_helper

CONV = "(T[N,3,8,8] x) => (T[N,8,6,6] y) <T[8,3,3,3] w, bn[8]> { c = Conv(x, w) y = BN(c) }"
LARGE = "(T[N,8,4,4] x) => (T[N,16,4,4] y) <T[16,8,3,3] w, bn[16]> { c = Conv<pads=[1,1,1,1]>(x, w) y = BN(c) }"
MIXED = """(T[N,8] x, bool flag) => (T[N,8] y, T[N,8] z) <T[8,8] w, bn[8], T[8] k, int64[2] sizes = {-1, 8}> {
    m = MatMul(x, w) r = Reshape(m, sizes) b = BN(r) a = Mul(b, k) y = Add(a, x)
    z = If (flag) <
        then_branch = g1 () => (T[N,8] p) <T[8,8] u, bn2[8]> { q = MatMul(x, u) p = BN2(q) },
        else_branch = g2 () => (T[N,8] s) { s = Identity(a) }
    > }"""


@dataclass(frozen=True)
class Case:
    """A file, what else lies beside it, and the command to run on it, in which `{}` is the name of the file."""

    name: str
    content: bytes
    command: str
    beside: Mapping[str, bytes]


def _onnx(model: onnx.ModelProto, command: str, **beside: bytes) -> Case:
    return Case("m.onnx", model.SerializeToString(), command, {f"{name}.bin": data for name, data in beside.items()})


def _external() -> Case:
    model = parse(LARGE, "float")
    data = b""
    for tensor in model.graph.initializer:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", len(data)), ("length", len(tensor.raw_data))):
            tensor.external_data.add(key=key, value=str(value))
        data += tensor.raw_data
        tensor.ClearField("raw_data")
    return _onnx(model, "convert {} -o out.onnx --no-verify --no-bench", w=data)


def _functions() -> onnx.ModelProto:
    model = parse(MIXED, "float")
    opsets = list(model.opset_import)
    inner = [helper.make_node("Mul", ["a", "b"], ["c"]), helper.make_node("Constant", [], ["k"], value_float=2.0)]
    function = helper.make_function(
        "local", "Twice", ["a", "b"], ["d"], [*inner, helper.make_node("Mul", ["c", "k"], ["d"])], opsets, ["axis"]
    )
    model.functions.append(function)
    caller = helper.make_node("Outer", ["y", "k"], ["f"], domain="local", axis=1)
    calls = [helper.make_node("Twice", ["a", "b"], ["d"], domain="local", axis=1)]
    model.functions.append(
        helper.make_function("local", "Outer", ["a", "b"], ["d"], calls, [*opsets, helper.make_opsetid("local", 1)])
    )
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(caller)
    model.graph.output.append(helper.make_tensor_value_info("f", onnx.TensorProto.FLOAT, None))
    return model


def _in_constants(text: str) -> onnx.ModelProto:
    model = parse(text, "float")
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    del model.graph.initializer[:]
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _odd() -> onnx.ModelProto:
    """What few models have: a sparse weight, a sequence, metadata, a Loop, a string, training information."""
    model = parse("(T[N,4] x) => (T[N,4] y) <T[4,4] w, bn[4]> { m = MatMul(x, w) y = BN(m) }", "float")
    values = numpy_helper.from_array(np.ones(2, np.float32), "sparse")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 3]), "i"), [4])
    )
    model.graph.node.append(helper.make_node("Constant", [], ["text"], value_string="words"))
    model.graph.node.append(helper.make_node("SequenceConstruct", ["x", "y"], ["sequence"]))
    model.metadata_props.add(key="a", value="b")
    model.graph.quantization_annotation.add(tensor_name="w").quant_parameter_tensor_names.add(key="S", value="w")
    model.training_info.add().algorithm.node.append(helper.make_node("Identity", ["w"], ["v"]))
    return model


def _saved(write: Callable[[Path], object], name: str) -> bytes:
    with TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones((4, 3, 8, 8), np.float32), labels=np.arange(4))
    return buffer.getvalue()


def _array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asfortranarray(np.ones((2, 3, 8, 8), np.float32)))
    return buffer.getvalue()


def _picture(kind: str, **options: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_data(name: str, content: bytes) -> Case:
    data = "." if name.startswith("p.") else name
    command = f"verify good.model good.model --input-data {data} --check-n 0 --exact-seconds 0"
    return Case(name, content, command, {"good.model": parse(CONV, "float").SerializeToString()})


@cache
def of_onnx() -> tuple[Case, ...]:
    """Models of ONNX."""
    fold = "convert {} -o out.onnx --no-verify --no-bench"
    texts = {CONV: "inspect {} --report r.json", LARGE: fold, MIXED: f"{fold} --report r.md"}
    cases = [_onnx(parse(text, "float"), command) for text, command in texts.items()]
    cases.append(_onnx(_functions(), fold))
    cases.append(_onnx(_in_constants(LARGE), f"{fold} --save-as-external-data"))
    cases.append(_onnx(_in_constants(MIXED), "inspect {} --report r.html"))
    cases.append(_onnx(_odd(), f"{fold} --freeze-initializers --assume-eval"))
    both = "{} {} --check-n 1 --exact-seconds 1"
    cases += [_onnx(parse(text, "float"), f"verify {both}") for text in (CONV, MIXED)]
    cases.append(_onnx(parse(CONV, "float"), f"convert {both[3:]} -o out.onnx --no-bench --certify"))
    return (*cases, _external())


@cache
def of_data() -> tuple[Case, ...]:
    """Test data."""
    kinds = {"png": {}, "gif": {}, "bmp": {}, "jpeg": {}, "ppm": {}, "tiff": {}, "webp": {}}
    pictures = [with_data(f"p.{kind}", _picture(kind, **options)) for kind, options in kinds.items()]
    return (with_data("d.npz", _arrays()), with_data("d.npy", _array()), *pictures[:1] * 4, *pictures)


@cache
def of_torch() -> tuple[Case, ...]:
    """What PyTorch writes."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    program = torch.export.export(net, (torch.ones(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    state = net.state_dict()
    saved = {
        "m.pt2": lambda path: torch.export.save(program, path),
        "m.pth": lambda path: torch.save(state, path),
        "m.pt": lambda path: torch.jit.trace(net, torch.ones(1, 3, 8, 8)).save(path),
        "old.pth": lambda path: torch.save(state, path, _use_new_zipfile_serialization=False),
        "w.safetensors": lambda path: save_file(state, path),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # files of TorchScript are around all the same
        files = {name: _saved(write, name) for name, write in saved.items()}
    weights = [Case(name, files[name], "weights {}", {}) for name in ("m.pth", "old.pth", "w.safetensors")]
    models = [Case(name, files[name], "inspect {}", {}) for name in ("m.pt2", "m.pt2", "m.pt", "m.pth")]
    return (*models, *weights)
