"""Makes a model of a grown graph: inputs, outputs, types of values in between, notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from generators.grown.functions import called
from generators.grown.scope import Scope, Value


def model_of(scope: Scope, inputs: Sequence[Value]) -> onnx.ModelProto:
    """The whole model. Outputs are values that nobody reads, and now and then one in the middle."""
    dice, world = scope.dice, scope.world
    detail = dice.weighted([("sizes", 4), ("names", 3), ("unknown", 1.5), ("mixed", 1.5)])
    inner = [value for value in scope.values if _made(scope, value)]
    outputs = choose_outputs(scope, inner)
    names: dict[int, str] = {}
    outputs += odd_outputs(scope, inputs)
    graph = helper.make_graph(
        scope.nodes,
        "graph",
        [_info(scope, value, detail, names) for value in inputs],
        [_info(scope, value, detail, names) for value in outputs],
        scope.initializers,
    )
    known = dice.weighted([(0.0, 4), (1.0, 2), (0.5, 2)])
    chosen = {value.name for value in outputs}
    for value in inner:
        if value.name not in chosen and not isinstance(value.array, list) and dice.chance(known):
            graph.value_info.append(_info(scope, value, detail, names))
    for tensor in scope.initializers:
        value = next(item for item in scope.values if item.name == tensor.name)
        if world.ir_version < 4 or "overridable" in value.marks:
            array = numpy_helper.to_array(tensor)
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(helper.make_tensor_value_info(tensor.name, kind, array.shape))
    opsets = [helper.make_opsetid("" if dice.chance(0.95) else "ai.onnx", scope.opset)]
    opsets += [helper.make_opsetid(domain, version) for domain, version in sorted(world.domains.items())]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=world.ir_version, functions=called(scope.nodes, world.functions) or None
    )
    if world.docs:
        helper.set_model_props(model, {"key": "value"})
        model.doc_string = "of the model"
        graph.doc_string = "of the graph"
        if world.ir_version >= 10 and scope.nodes:
            model.graph.node[0].metadata_props.add(key="origin", value="layer 1")
    return model


def _made(scope: Scope, value: Value) -> bool:
    return any(value.name in node.output for node in scope.nodes)


def choose_outputs(scope: Scope, inner: list[Value]) -> list[Value]:
    dice = scope.dice
    plain = [value for value in inner if not isinstance(value.array, list) and _fine(scope, value)]
    unread = [value for value in plain if not value.readers]
    moving = [value for value in unread if not value.fixed or dice.chance(0.1)] or unread or plain
    chosen = [moving[-1]] if moving else []
    rate = dice.pick([1.0, 1.0, 0.5])
    chosen += [value for value in moving[:-1] if dice.chance(rate)]
    middle = [value for value in plain if value not in chosen]
    if middle and dice.chance(0.25):
        chosen += dice.some(middle)[: dice.between(1, 2)]
    return chosen if dice.chance(0.7) else dice.shuffled(chosen)


def odd_outputs(scope: Scope, inputs: Sequence[Value]) -> list[Value]:
    """Now and then an input that goes straight out, or a constant that others read."""
    if scope.dice.chance(0.03):
        names = {tensor.name for tensor in scope.initializers}
        read = [value for value in scope.values if value.name in names and value.readers and value.is_float]
        return [scope.dice.pick(read)] if read else []
    return [scope.dice.pick(inputs)] if scope.dice.chance(0.01) else []


def _fine(scope: Scope, value: Value) -> bool:
    """Whether the type of a value tells how exact it is: one that was cast from a narrower type is less so."""
    return not value.is_float or value.array.dtype.itemsize <= np.dtype(scope.world.dtype).itemsize


def _info(scope: Scope, value: Value, detail: str, names: dict[int, str]) -> onnx.ValueInfoProto:
    """The type of a value; sizes that differ between the feeds are never given as numbers."""
    dice = scope.dice
    kind = helper.np_dtype_to_tensor_dtype(value.array.dtype)
    shapes = [np.shape(array) for array in value.arrays]
    dims: list[Any] = []
    for at, size in enumerate(value.shape):
        same = len({shape[at] for shape in shapes}) == 1
        style = dice.pick(["sizes", "sizes", "names", "unknown"]) if detail == "mixed" else detail
        if style == "sizes" and same:
            dims.append(size)
        elif style == "unknown":
            dims.append(None)
        elif same and dice.chance(0.3):
            dims.append(size)
        elif same and dice.chance(0.4):
            # One name for all axes of a size is a true statement about these feeds.
            dims.append(names.setdefault(size, f"d{size}"))
        else:
            dims.append(f"u{scope.world.namer.counter}_{at}" if dice.chance(0.7) else None)
            scope.world.namer.counter += 1
    info = helper.make_tensor_value_info(value.name, kind, dims)
    if dice.chance(0.01) and not scope.world.sliced:
        # Exporters write -1 for an unknown size; the shape inference of onnx aborts where a Slice meets one.
        for dim in info.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = -1
    return info
