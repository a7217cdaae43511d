"""Runs an ONNX model in NumPy and float64, whatever floating point type its values have.

An implementation of its own, held against ONNX Runtime in `test_fuzz.py`: ONNX Runtime lacks float64 kernels for half
of the operators, and onnx's reference implementation is wrong for some attributes and slow. Since float16 and float32
models are computed in float64 too, two of them differ by the rounding of their weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from interpreter_ops import OPERATORS, Attributes, as_values

Array = np.ndarray[Any, Any]


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The graph's outputs by name. Feeds override initializers of their name."""
    run_ = _Run({item.domain: item.version for item in model.opset_import}, model.functions)
    values = {**_initializers(model.graph), **{name: widened(array) for name, array in feeds.items()}}
    run_.nodes(model.graph.node, values)
    return {info.name: values[info.name] for info in model.graph.output}


def run_node(
    node: onnx.NodeProto, values: Mapping[str, Array], opset: int, functions: Sequence[onnx.FunctionProto]
) -> list[Array]:
    """The outputs of one node that sees these values by name."""
    scope = dict(values)
    _Run({"": opset}, functions).nodes([node], scope)
    return [scope[name] for name in node.output if name]


def widened(array: Array) -> Array:
    """Floating point numbers as float64; everything else as it is."""
    array = np.asarray(array)
    is_floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(np.float64) if is_floating else array


def _initializers(graph: onnx.GraphProto) -> dict[str, Array]:
    return {tensor.name: widened(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}


class _Run:
    """One run: opset versions and functions of the model."""

    def __init__(self, opsets: dict[str, int], functions: Sequence[onnx.FunctionProto]) -> None:
        self.opset = opsets.get("", opsets.get("ai.onnx", 1))
        self.functions = {(function.domain, function.name): function for function in functions}

    def nodes(self, nodes: Sequence[onnx.NodeProto], values: dict[str, Array]) -> None:
        """Run nodes in order; what they make is added to `values`."""
        for node in nodes:
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            inputs = [values[name] if name else None for name in node.input]
            with np.errstate(all="ignore"):
                outputs = self.call(node, attributes, inputs, values)
            for name, value in zip(node.output, outputs, strict=False):
                if name:
                    values[name] = np.asarray(value)

    def call(
        self, node: onnx.NodeProto, attributes: Attributes, inputs: list[Array | None], values: dict[str, Array]
    ) -> list[Array]:
        function = self.functions.get((node.domain, node.op_type))
        if function is not None:
            inner = dict(zip(function.input, inputs, strict=False))
            self.nodes(function.node, inner)
            return [inner[name] for name in function.output]
        if node.op_type == "If":
            return self.body(attributes["then_branch" if inputs[0] else "else_branch"], [], values)
        if node.op_type == "Loop":
            return self.loop(attributes["body"], inputs, values)
        if node.op_type == "Scan":
            return self.scan(attributes, inputs, values)
        return as_values(OPERATORS[node.op_type](attributes, inputs, self.opset, len(node.output)))

    def body(self, graph: onnx.GraphProto, inputs: Sequence[Array], values: dict[str, Array]) -> list[Array]:
        scope = {**values, **_initializers(graph), **{i.name: a for i, a in zip(graph.input, inputs, strict=True)}}
        self.nodes(graph.node, scope)
        return [scope[info.name] for info in graph.output]

    def loop(self, graph: onnx.GraphProto, inputs: list[Array | None], values: dict[str, Array]) -> list[Array]:
        trips, go_on, *carried = inputs
        state = [np.asarray(value) for value in carried]
        scans: list[list[Array]] = [[] for _ in graph.output[1 + len(state) :]]
        go_on, count = np.asarray(True) if go_on is None else go_on, 0
        while bool(go_on) and (trips is None or count < int(trips)):
            go_on, *made = self.body(graph, [np.asarray(count), np.asarray(go_on), *state], values)
            state, scanned = made[: len(state)], made[len(state) :]
            for column, value in zip(scans, scanned, strict=True):
                column.append(value)
            count += 1
        return [*state, *(np.stack(column) for column in scans)]

    def scan(self, attributes: Attributes, inputs: list[Array | None], values: dict[str, Array]) -> list[Array]:
        """Over the first axis of every input, forward, without a state."""
        if len(inputs) != attributes["num_scan_inputs"] or len(attributes) > 2:
            raise NotImplementedError("this kind of Scan")
        slices = zip(*(np.asarray(value) for value in inputs), strict=True)
        made = [self.body(attributes["body"], pieces, values) for pieces in slices]
        return [np.stack(column) for column in zip(*made, strict=True)]
