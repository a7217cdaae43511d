"""Random If, Loop and Scan nodes and model-local functions, whose bodies hold BatchNorms and what absorbs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from graph_builder import Array, Builder, RejectedError, Shared, Var, same_shape, tensor_of
from interpreter import widened
from onnx import TensorProto, helper
from random_linears import linear, norm
from random_passers import homogeneous


class FunctionBuilder(Builder):
    """The body of a model-local function: constants are parameters, which the caller gives, or nodes of its own."""

    def __init__(self, shared: Shared, caller: Builder) -> None:
        super().__init__(shared)
        self.parameters: dict[str, tuple[Array, int]] = {}

    def initializer(self, array: Array, elem_type: int) -> str:
        if self.chance(0.5):
            return self.made("Constant", [], value=tensor_of("", array, elem_type))
        name = self.shared.name("p")
        self.parameters[name] = (array, elem_type)
        stored = widened(onnx.numpy_helper.to_array(tensor_of("", array, elem_type)))
        self.values[name] = (stored,) * self.worlds
        return name


def body(b: Builder, x: Var) -> Var:
    """A node with bodies, two deep at most."""
    if b.parent is not None and b.parent.parent is not None:
        raise RejectedError("deep enough")
    if b.parent is None and b.options.ir_version >= 8 and not isinstance(b, FunctionBuilder) and b.chance(0.2):
        return called(b, x)
    return b.pick([branch, branch, loop, scan])(b, x)


def steps(b: Builder, x: Var) -> Var:
    """One to three operators that keep the shape, and now and then another body."""
    choices: list[Callable[[Builder, Var], Var]] = [_linear, norm, homogeneous]
    y = x
    for _ in range(b.integer(1, 3)):
        try:
            with b.attempt():
                y = b.pick(choices, [3, 3, 1])(b, y)
        except RejectedError:
            continue
    if not same_shape(x, y):
        raise RejectedError("the shape has changed")
    if b.parent is not None and b.parent.parent is None and b.chance(0.2):
        try:
            with b.attempt():
                y = branch(b, y)
        except RejectedError:
            return y
    return y


def _linear(b: Builder, x: Var) -> Var:
    return linear(b, x, same_shape=True)


def branch(b: Builder, x: Var) -> Var:
    if b.parent is None and b.chance(0.4):
        x = linear(b, x)
    graphs = [_branch_body(b, x) for _ in range(2)]
    if b.parent is None and not isinstance(b, FunctionBuilder) and b.chance(0.7):
        condition = b.input("cond", [np.asarray(True), np.asarray(False)], TensorProto.BOOL).name
    else:
        condition = b.initializer(np.asarray(b.chance(0.5)), TensorProto.BOOL)
    return _added(b, x, "If", [condition], then_branch=graphs[0], else_branch=graphs[1])


def _branch_body(b: Builder, x: Var) -> onnx.GraphProto:
    inner = Builder(b.shared, b)
    y = steps(inner, x)
    if b.chance(0.2):
        y = inner.one("Add", [y, x])
    if y is x:
        y = inner.one("Identity", [x])
    return inner.graph(b.shared.name("body"), [helper.make_tensor_value_info(y.name, x.elem_type, None)], [])


def _added(b: Builder, x: Var, op: str, inputs: list[str], **attributes: Any) -> Var:
    """A node with bodies that makes one value, of the element type of x."""
    node = helper.make_node(op, inputs, [b.shared.name("v")], name=b.shared.name(f"n_{op.lower()}"), **attributes)
    (y,) = b.append(node, [])
    x.reads += 1
    y.elem_type = x.elem_type
    b.vars.append(y)
    return y


def _given(inner: Builder, name: str, worlds: Any, elem_type: int) -> Var:
    """An input of a body."""
    var = Var(inner.shared.name(name), elem_type, tuple(worlds))
    inner.values[var.name] = var.worlds
    return var


def loop(b: Builder, x: Var) -> Var:
    inner = Builder(b.shared, b)
    count = _given(inner, "i", [np.asarray(0)] * b.worlds, TensorProto.INT64)
    on = _given(inner, "on", [np.asarray(True)] * b.worlds, TensorProto.BOOL)
    state = _given(inner, "s", x.worlds, x.elem_type)
    inner.vars.append(state)
    y = steps(inner, state)
    captured = [var for var in b.visible() if same_shape(var, x) and var is not x]
    if captured and b.chance(0.4):
        other = norm(inner, b.pick(captured)) if b.chance(0.5) else b.pick(captured)
        y = inner.one("Add", [y, other])
    y = inner.one("Tanh", [y])
    still = inner.one("Identity", [on])
    told = [*x.dims] if b.chance(0.5) else None
    graph = inner.graph(
        b.shared.name("body"),
        [
            helper.make_tensor_value_info(still.name, TensorProto.BOOL, []),
            helper.make_tensor_value_info(y.name, x.elem_type, None),
        ],
        [
            helper.make_tensor_value_info(count.name, TensorProto.INT64, []),
            helper.make_tensor_value_info(on.name, TensorProto.BOOL, []),
            helper.make_tensor_value_info(state.name, x.elem_type, told),
        ],
    )
    trips = b.initializer(np.asarray(b.integer(1, 3)), TensorProto.INT64)
    return _added(b, x, "Loop", [trips, "", x.name], body=graph)


def scan(b: Builder, x: Var) -> Var:
    """A body for every element along the first axis."""
    if x.rank < 3 or b.opset < 9:  # an older Scan is another operator
        raise RejectedError("slices of less than two axes")
    inner = Builder(b.shared, b)
    piece = _given(inner, "s", [world[0] for world in x.worlds], x.elem_type)
    inner.vars.append(piece)
    y = norm(inner, linear(inner, piece)) if b.chance(0.5) else linear(inner, norm(inner, piece))
    told = [*piece.dims] if b.chance(0.5) else None
    graph = inner.graph(
        b.shared.name("body"),
        [helper.make_tensor_value_info(y.name, x.elem_type, None)],
        [helper.make_tensor_value_info(piece.name, x.elem_type, told)],
    )
    return _added(b, x, "Scan", [x.name], body=graph, num_scan_inputs=1)


def called(b: Builder, x: Var) -> Var:
    """A function of the model, called once or twice, the second time with the same weights or with others."""
    inner = FunctionBuilder(b.shared, b)
    argument = _given(inner, "a", x.worlds, x.elem_type)
    inner.vars.append(argument)
    inner.inputs.append(argument)
    y = norm(inner, linear(inner, argument)) if b.chance(0.6) else linear(inner, norm(inner, argument))
    function = helper.make_function(
        "local",
        b.shared.name("function"),
        [argument.name, *inner.parameters],
        [y.name],
        inner.nodes,
        [helper.make_opsetid("", b.opset)],
    )
    b.shared.functions.append(function)
    results = []
    for call in range(b.pick([1, 1, 2])):
        arguments = [b.initializer(*given) if call == 0 or b.chance(0.3) else "" for given in inner.parameters.values()]
        if call == 0:
            first = arguments
        arguments = [new or old for new, old in zip(arguments, first, strict=True)]
        results.append(_added(b, x, function.name, [x.name, *arguments], domain="local"))
    return b.one("Add", results) if len(results) == 2 and b.chance(0.5) else results[-1]
