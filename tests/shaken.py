"""How far rounding may move what a model gives: its constants and inputs are moved, each by one step of a type.

A fold rounds constants. Where a sum nearly cancels, or a type changes on the way, the size of an output says nothing
about what that does to it; running the original on moved constants does. The step is that of the coarsest type in the
model, because a constant may pass a cast to it. What decides sizes is left alone, and so are round numbers, at which
comparisons and roundings jump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

Answers = dict[str, Any]
DRAWS = 4
STEPS = {
    TensorProto.DOUBLE: 2.0**-52,
    TensorProto.FLOAT: 2.0**-23,
    TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
}
_SIZED = ("Range", "Resize", "Upsample")


def movement(
    model: onnx.ModelProto,
    feeds: Mapping[str, Any],
    run: Callable[[onnx.ModelProto, Mapping[str, Any]], Answers | str],
) -> dict[str, float]:
    """By how much each output of an engine moves at most, in a few random draws."""
    rng = np.random.default_rng(0)
    plain, out = run(model, feeds), dict[str, float]()
    step = max((STEPS[kind] for kind in _types(model) if kind in STEPS), default=0.0)
    for _ in range(DRAWS):
        fed = {name: _moved(array, step, rng) for name, array in feeds.items()}
        found = run(_shaken(model, step, rng), fed)
        if isinstance(found, str) or isinstance(plain, str):
            continue
        for name, want in plain.items():
            got = found.get(name)
            if got is not None and got.shape == want.shape and want.dtype.kind == "f":
                with np.errstate(all="ignore"):
                    away = np.abs(got.astype(np.float64) - want.astype(np.float64))
                out[name] = max(out.get(name, 0.0), float(np.nan_to_num(away, posinf=0.0).max(initial=0.0)))
    return out


def _moved(array: Any, step: float, rng: np.random.Generator) -> Any:
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        return array
    with np.errstate(all="ignore"):
        signs = rng.choice((-1.0, 1.0), array.shape)
        wide = array.astype(np.float64)
        return np.where(wide * 256 == np.rint(wide * 256), wide, wide * (1 + step * signs)).astype(array.dtype)


def _shaken(model: onnx.ModelProto, step: float, rng: np.random.Generator) -> onnx.ModelProto:
    out = onnx.ModelProto()
    out.CopyFrom(model)
    parts = list(_parts(out))
    sizes = {name for part in parts for node in part.node if node.op_type in _SIZED for name in node.input}
    for part in parts:
        tensors = {t.name: t for t in part.initializer} if isinstance(part, onnx.GraphProto) else {}
        tensors |= {node.output[0]: item.t for node in part.node for item in node.attribute if item.HasField("t")}
        for name, tensor in tensors.items():
            if tensor.data_type in STEPS and name not in sizes:
                array = _moved(onnx.numpy_helper.to_array(tensor), step, rng)
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array), tensor.name))
    return out


def _types(model: onnx.ModelProto) -> Iterator[int]:
    """The element types of inputs and constants, and those that are cast to."""
    casts = _cast_to(model)
    yield from (info.type.tensor_type.elem_type for info in model.graph.input)
    for part in _parts(model):
        if isinstance(part, onnx.GraphProto):
            yield from (tensor.data_type for tensor in part.initializer)
        for node in part.node:
            for item in node.attribute:
                if item.HasField("t"):
                    yield item.t.data_type
                elif item.name in casts:
                    yield item.i
        if isinstance(part, onnx.FunctionProto):
            yield from (item.i for item in part.attribute_proto if item.name in casts)


def _cast_to(model: onnx.ModelProto) -> set[str]:
    """The names of attributes that say what is cast to, those of functions that hand it on among them."""
    nodes = [node for part in _parts(model) for node in part.node]
    found, handed_on = set[str](), {"to", "dtype"}
    while handed_on:
        found |= handed_on
        items = [item for node in nodes for item in node.attribute if item.ref_attr_name and item.name in handed_on]
        handed_on = {item.ref_attr_name for item in items} - found
    return found


def _parts(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The graph, the functions, and the bodies inside them."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        yield part
        for node in part.node:
            for item in node.attribute:
                waiting += [item.g] if item.type == AttributeProto.GRAPH else item.graphs
