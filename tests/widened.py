"""A model with float64 in the place of every narrower floating-point type."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

NARROW = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with float64 in the place of every narrower floating-point type."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    waiting: list[Any] = [wide.graph, *wide.functions]
    for item in wide.opset_import:
        item.domain = "" if item.domain == "ai.onnx" else item.domain  # the reference knows one spelling
    while waiting:
        part = waiting.pop()
        if isinstance(part, onnx.GraphProto):
            for info in (*part.input, *part.output, *part.value_info):
                _widen_type(info.type)
            for tensor in part.initializer:
                _widen_tensor(tensor)
        for node in part.node:
            node.domain = "" if node.domain == "ai.onnx" else node.domain
            for item in node.attribute:
                if item.type == AttributeProto.TENSOR:
                    _widen_tensor(item.t)
                elif item.type == AttributeProto.TENSORS:
                    for tensor in item.tensors:
                        _widen_tensor(tensor)
                elif item.type == AttributeProto.GRAPH:
                    waiting.append(item.g)
                elif item.type == AttributeProto.GRAPHS:
                    waiting.extend(item.graphs)
                elif item.name in ("to", "dtype") and item.i in NARROW:
                    item.i = TensorProto.DOUBLE
    return wide


def _widen_type(kind: onnx.TypeProto) -> None:
    if kind.HasField("sequence_type"):
        _widen_type(kind.sequence_type.elem_type)
    elif kind.HasField("optional_type"):
        _widen_type(kind.optional_type.elem_type)
    elif kind.HasField("tensor_type") and kind.tensor_type.elem_type in NARROW:
        kind.tensor_type.elem_type = TensorProto.DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in NARROW:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
