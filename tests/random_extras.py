"""What exporters leave in graphs beside the operators: operators of their own, sizes of an example, odd outputs.

Put into a model that has grown, by chances of its own: the graph of a seed stays what it was, and so do its results.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from graph_builder import FLOATING, Array, Builder, Var
from onnx import TensorProto, helper

FOREIGN = "foreign"
# Elementwise, so that nothing else has to be known of them; the interpreter looks at their names alone.
_MADE_FOREIGN = ("Sigmoid", "Tanh", "Clip", "Relu", "LeakyRelu", "Abs", "Identity")
# Operators over one constant, and another, that give the first; Pow of integers since opset 12.
_SPELLINGS: tuple[tuple[str, int | None], ...] = (
    ("Identity", None),
    ("Mul", 1),
    ("Add", 0),
    ("Sub", 0),
    ("Reshape", 0),
    ("Pow", 1),
)


def add_extras(model: onnx.ModelProto, b: Builder, rng: np.random.Generator) -> dict[str, Sequence[Array]]:
    """Change a model in place; what its new outputs are in each world."""
    vars_ = {var.name: var for node in model.graph.node for var in b.vars if var.name in node.output}
    if rng.random() < 0.15:
        _own_operators(model, vars_, rng)
    if rng.random() < 0.2:
        standard = {name for node in model.graph.node if not node.domain for name in node.output}
        _sizes_of_an_example(model, [var for var in vars_.values() if var.name in standard], rng)
    if rng.random() < 0.15:
        _compute_integers(model, rng)
    outputs: dict[str, Sequence[Array]] = {}
    if rng.random() < 0.1:
        outputs |= _constants_as_outputs(model, b, rng)
    if rng.random() < 0.2:
        outputs |= _shapes_as_outputs(model, list(vars_.values()), rng)
    return outputs


def _own_operators(model: onnx.ModelProto, vars_: dict[str, Var], rng: np.random.Generator) -> None:
    """Operators that inference knows nothing of, most of them with what the file says of their results, in part."""
    made = set()
    for node in model.graph.node:
        if node.op_type in _MADE_FOREIGN and rng.random() < 0.5:
            node.domain = FOREIGN
            made.update(node.output)
    if made:
        model.opset_import.add(domain=FOREIGN, version=1)
    known = {info.name for info in model.graph.output}
    for var in [vars_[name] for name in sorted(made & vars_.keys()) if name not in known]:
        if rng.random() < 0.8:
            told = [size if size is not None and rng.random() < 0.7 else None for size in var.dims]
            model.graph.value_info.append(helper.make_tensor_value_info(var.name, var.elem_type, told))


def _sizes_of_an_example(model: onnx.ModelProto, vars_: list[Var], rng: np.random.Generator) -> None:
    """Sizes that hold in the first world alone, of values of which nobody has to believe what a file says."""
    known = {info.name for info in [*model.graph.output, *model.graph.value_info]}
    for var in vars_:
        if var.name not in known and rng.random() < 0.7:
            info = helper.make_tensor_value_info(var.name, var.elem_type, var.worlds[0].shape)
            model.graph.value_info.append(info)


def _compute_integers(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Sizes, axes and bounds computed from constants, by operators that inference does not all follow."""
    made: list[onnx.NodeProto] = []
    listed = {info.name: info for info in model.graph.input}
    spellings = _SPELLINGS if model.opset_import[0].version >= 12 else _SPELLINGS[:-1]
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.INT64 or rng.random() < 0.4:
            continue
        name, tensor.name = tensor.name, f"{tensor.name}.given"
        if name in listed:
            listed[name].name = tensor.name
        op, other = spellings[int(rng.integers(len(spellings)))]
        other = list(tensor.dims) if op == "Reshape" else other
        inputs = [tensor.name] if other is None else [tensor.name, f"{name}.other"]
        if other is not None:
            constant = onnx.numpy_helper.from_array(np.asarray(other, np.int64))
            made.append(helper.make_node("Constant", [], inputs[1:], name=f"n_{name}.other", value=constant))
        made.append(helper.make_node(op, inputs, [name], name=f"n_{name}"))
    nodes = [*made, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _constants_as_outputs(model: onnx.ModelProto, b: Builder, rng: np.random.Generator) -> dict[str, Sequence[Array]]:
    made = {}
    for tensor in model.graph.initializer:
        if tensor.data_type in FLOATING and rng.random() < 0.2:
            model.graph.output.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            made[tensor.name] = b.values[tensor.name]
    return made


def _shapes_as_outputs(
    model: onnx.ModelProto, vars_: list[Var], rng: np.random.Generator
) -> dict[str, Sequence[Array]]:
    """The shapes of values, which a fold that takes a value away has to find elsewhere."""
    made = {}
    for var in vars_:
        if rng.random() < 0.4:
            name = f"shape_of_{var.name}"
            model.graph.node.append(helper.make_node("Shape", [var.name], [name], name=f"n_{name}"))
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, [var.rank]))
            made[name] = [np.asarray(world.shape) for world in var.worlds]
    return made
