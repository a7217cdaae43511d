"""A few nodes of a model as a model of their own, for a runtime: to see whether it and float64 agree on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from bnfold.graphs.onnx.exact.engine import Engine, bodies, needs
from bnfold.graphs.onnx.exact.windows import Array


def alone(
    engine: Engine, nodes: Sequence[onnx.NodeProto], value: str, values: Mapping[str, Array], kind: int
) -> tuple[bytes, dict[str, Array]]:
    """A model that computes `value` by these nodes, serialised, and its inputs: these values, floats of this type."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    with np.errstate(over="ignore"):
        feeds = {name: array.astype(dtype) if array.dtype == np.float64 else array for name, array in values.items()}
    made = {name for node in nodes for name in node.output}
    read = [name for node in nodes for name in needs(node) if name not in feeds and name not in made]
    constant = engine.makers([*read, value])
    names = {*read, value, *(name for node in constant for name in node.input)}
    model = onnx.ModelProto(ir_version=engine.document.model.ir_version)
    model.opset_import.extend(engine.document.model.opset_import)
    graph = model.graph
    graph.name = "part"
    graph.node.extend([*constant, *nodes])
    inner = {tensor.name for body in bodies(nodes) for tensor in body.initializer}
    for name in sorted(name for name in names - inner if name and engine.is_weight(name)):
        graph.initializer.append(onnx.numpy_helper.from_array(engine.stored(name), name))
    for name, array in feeds.items():
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, elem_type, array.shape))
    graph.output.add(name=value)
    return model.SerializeToString(), feeds
