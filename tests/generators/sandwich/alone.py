"""Models that hold one use and nothing else."""

from __future__ import annotations

import onnx
from onnx import helper

from generators.sandwich.use import Array, Use, element, tensor

# The oldest opsets may carry any version of the file format; this one is old enough for all runtimes.
IR_VERSION = 10


def alone(use: Use, fixed: bool = True, index_constant: bool = False) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of the use and its feeds: inputs of fixed or symbolic shape, or the indices among them constant."""
    infos, initializers, feeds, names = [], [], {}, []
    for place, operand in enumerate(use.inputs):
        if operand is None:
            names.append("")
            continue
        name = f"in{place}"
        names.append(name)
        if index_constant and operand.role == "index":
            initializers.append(tensor(operand.array, name))
            continue
        shape = list(operand.array.shape) if fixed else [f"{name}_{axis}" for axis in range(operand.array.ndim)]
        infos.append(helper.make_tensor_value_info(name, element(operand.array), shape))
        feeds[name] = operand.array
    outputs = [f"out{place}" if there else "" for place, there in enumerate(use.outputs)]
    made = [helper.make_empty_tensor_value_info(name) for name in outputs if name]
    graph = helper.make_graph([use.node(names, outputs)], "alone", infos, made, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", use.opset)], ir_version=IR_VERSION)
    return model, feeds
