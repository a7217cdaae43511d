"""The floating-point types of a model, and how coarse they are."""

from __future__ import annotations

import onnx

from bnfold.graphs.onnx.index import graphs_of

RELATIVE_STEP: dict[int, float] = {
    onnx.TensorProto.FLOAT: 2.0**-23,
    onnx.TensorProto.FLOAT16: 2.0**-10,
    onnx.TensorProto.BFLOAT16: 2.0**-7,
    onnx.TensorProto.DOUBLE: 2.0**-52,
}


def coarsest(types: set[int]) -> float:
    """The relative step of the coarsest of these types; that of float32 where none is a floating-point type."""
    return max((RELATIVE_STEP[kind] for kind in types & RELATIVE_STEP.keys()), default=2.0**-23)


def coarsest_step(model: onnx.ModelProto) -> float:
    """That of all types in a model."""
    return coarsest(_types(model))


def only_float(model: onnx.ModelProto) -> int | None:
    """The one floating-point type in a model; None where there is none, or several."""
    found = _types(model) & RELATIVE_STEP.keys()
    return found.pop() if len(found) == 1 else None


def _types(model: onnx.ModelProto) -> set[int]:
    """All types that a model stores, declares, or casts to."""
    types: set[int] = set()
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        if isinstance(part, onnx.GraphProto):
            types.update(tensor.data_type for tensor in part.initializer)
            types.update(info.type.tensor_type.elem_type for info in (*part.input, *part.output))
        types.update(info.type.tensor_type.elem_type for info in part.value_info)
        for node in part.node:
            types.update(item.t.data_type for item in node.attribute if item.HasField("t"))
            types.update(item.i for item in node.attribute if item.name in ("to", "dtype"))
            waiting += graphs_of(node)
    return types
