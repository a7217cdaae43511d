"""Models on the disk, for tests of what reads and writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from graphs import parse

# Its weight is large enough to be handled apart from the rest of the model, its BatchNorm parameters are not.
CONV_BN = "(T[N,8,4,4] x) => (T[N,16,4,4] y) <T[16,8,3,3] w, bn[16]> { c = Conv<pads=[1,1,1,1]>(x, w) y = BN(c) }"
NO_BATCH_NORM = "(T[N,8,4,4] x) => (T[N,16,4,4] y) <T[16,8,3,3] w> { c = Conv<pads=[1,1,1,1]>(x, w) y = Relu(c) }"
TWO_BATCH_NORMS = """(T[N,16,4,4] x) => (T[N,16,4,4] y) <T[16,16,3,3] w, T[16,16,3,3] v, bn[16], bn2[16]>
    { c = Conv<pads=[1,1,1,1]>(x, w) b = BN(c) r = Relu(b) d = Conv<pads=[1,1,1,1]>(r, v) y = BN2(d) }"""


def save(path: Path, text: str = CONV_BN, *, dtype: str = "float") -> onnx.ModelProto:
    """Write the model that the text spells; returns it."""
    model = parse(text, dtype)
    onnx.save(model, path)
    return model


def save_external(path: Path, text: str = CONV_BN, location: str | None = None) -> onnx.ModelProto:
    """Write the model with every weight in a data file, named `location` or after the model; returns it."""
    model = parse(text, "float")
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    location = location or f"{path.name}.data"
    (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(copy, path, save_as_external_data=True, location=location, size_threshold=0)
    return model


def folded_weight(path: Path) -> np.ndarray:
    """The weight of the only Conv that is left, read by onnx from the file and its data."""
    model = onnx.load(path)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    name = model.graph.node[0].input[1]
    return onnx.numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def names(folder: Path) -> set[str]:
    """Everything in a folder, hidden files and what lies deeper included."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
