"""If, Loop and Scan, whose bodies grow from captured values, carried states and slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper

from generators.grown.constants import constant, scalar
from generators.grown.indexing import first
from generators.grown.scope import Scope, Value

Grow = Callable[[Scope, int], None]


def graph_of(scope: Scope, inputs: Sequence[Value], outputs: Sequence[Value], full: bool = False) -> onnx.GraphProto:
    """The graph of a body; types and shapes are given, or left out."""
    dice = scope.dice
    detail = "full" if full else dice.pick(["full", "type", "rank"])
    return helper.make_graph(
        scope.nodes,
        scope.world.namer.node("body") or "body",
        [_info(value, detail) for value in inputs],
        [_info(value, detail) for value in outputs],
        scope.initializers,
    )


def _info(value: Value, detail: str) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(value.array.dtype)
    shape = {"full": list(value.shape), "type": None, "rank": [None] * value.rank}[detail]
    if value.varies and detail == "full":
        shape = [None] * value.rank
    return helper.make_tensor_value_info(value.name, kind, shape)


def _body(scope: Scope) -> Scope:
    return Scope(scope.world, scope.opset, "body", scope)


def _own(body: Scope, made_from: int = 0) -> list[Value]:
    """The floating-point values that nodes of this body give."""
    names = {name for node in body.nodes for name in node.output}
    return [value for value in body.values[made_from:] if value.name in names and value.is_float]


def branch(scope: Scope, grow: Grow) -> Value | None:
    """A condition, and two branches of one or two operators, or of more, with one output or two."""
    dice = scope.dice
    condition = _condition(scope)
    value = scope.subject()
    if condition is None or value is None:
        return None
    count = 2 if dice.chance(0.2) else 1
    graphs: list[onnx.GraphProto] = []
    shapes: list[tuple[int, ...]] = []
    for _ in range(2):
        body = _body(scope)
        body.focus = value if dice.chance(0.7) else None
        grow(body, dice.weighted([(0, 1), (1, 3), (2, 2), (3, 1)]))
        outputs: list[Value] = []
        for at in range(count):
            wanted = shapes[at] if len(shapes) == count else value.shape if dice.chance(0.6) else None
            out = _output(body, value, wanted, outputs)
            if out is None:
                return None
            outputs.append(out)
        shapes = shapes or [out.shape for out in outputs]
        if shapes != [out.shape for out in outputs] and dice.chance(0.8):
            return None
        graphs.append(graph_of(body, [], outputs))
    if dice.chance(0.15):
        # Both branches ask the same of what they capture.
        graphs[1].CopyFrom(graphs[0])
    elif dice.chance(0.3):
        _same_names(*graphs)
    made = scope.add("If", [condition], count, then_branch=graphs[0], else_branch=graphs[1])
    return dice.pick(made) if made else None


def _output(body: Scope, value: Value, shape: tuple[int, ...] | None, taken: list[Value]) -> Value | None:
    """What a branch gives: of the shape that is wanted if the branch has such a value."""
    dice = body.dice
    found = [item for item in _own(body) if item.array.dtype == value.array.dtype and item not in taken]
    if shape is not None:
        found = [item for item in found if item.shape == shape]
    if found:
        return found[-1] if dice.chance(0.8) else dice.pick(found)
    near = [item for item in body.floats() if shape is None or item.shape == shape] or [value]
    made = body.add(dice.pick(["Identity", "Relu", "Neg"]), [dice.pick(near)])
    return made[0] if made else None


def _condition(scope: Scope) -> Value | None:
    dice = scope.dice
    found = [value for value in scope.visible() if not isinstance(value.array, list)]
    found = [value for value in found if value.array.dtype == bool and value.array.size == 1]
    if found and dice.chance(0.7):
        return dice.pick(found)
    if dice.chance(0.5):
        return constant(scope, np.asarray(dice.chance(0.5)), 0)
    value = scope.subject()
    total = first(scope.add("ReduceMax", [value], keepdims=0)) if value and 0 not in value.shape else None
    limit = constant(scope, np.asarray(0.3, scope.world.dtype), 0, 0)
    return first(scope.add("Greater", [total, limit])) if total else None


def _same_names(one: onnx.GraphProto, two: onnx.GraphProto) -> None:
    """Give the values of the second branch the names that the first one uses: scopes of their own allow it."""
    mine = [name for node in one.node for name in node.output if name] + [item.name for item in one.initializer]
    theirs = [name for node in two.node for name in node.output if name] + [item.name for item in two.initializer]
    if any(item.type == onnx.AttributeProto.GRAPH for node in two.node for item in node.attribute):
        return
    table = dict(zip(theirs, mine, strict=False))
    for node in two.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = table.get(name, name)
    for item in (*two.initializer, *two.output):
        item.name = table.get(item.name, item.name)


def loop(scope: Scope, grow: Grow) -> Value | None:
    """A Loop with one or two carried states and perhaps a scan output."""
    dice = scope.dice
    value = scope.subject()
    if value is None:
        return None
    start = [value, scope.other(value)] if dice.chance(0.35) else [value]
    body = _body(scope)
    number = _formal(body, [np.asarray(0, np.int64)])
    going = _formal(body, [np.asarray(True)])
    states = [_formal(body, item.arrays) for item in start]
    body.focus = states[0]
    grow(body, dice.between(1, 4))
    carried = _carried(body, states)
    still = first(body.add("Identity", [going]))
    if carried is None or still is None:
        return None
    scans = [dice.pick(own)] if (own := _own(body)) and dice.chance(0.4) else []
    graph = graph_of(body, [number, going, *states], [still, *carried, *scans], full=dice.chance(0.6))
    count = scalar(scope, dice.weighted([(0, 0.6), (1, 1), (2, 2), (3, 1)]))
    condition = constant(scope, np.asarray(True), 0) if dice.chance(0.4) else None
    made = scope.add("Loop", [count, condition, *start], len(carried) + len(scans), body=graph)
    return dice.pick(made) if made else None


def _formal(body: Scope, arrays: Sequence[np.ndarray]) -> Value:
    value = Value(body.world.namer.fresh("s"), list(arrays))
    body.values.append(value)
    return value


def _carried(body: Scope, states: list[Value]) -> list[Value] | None:
    """What the next round starts from: a value of the same shape, or the state as it was."""
    out = []
    for state in states:
        fitting = [item for item in _own(body) if item.shape == state.shape and item.array.dtype == state.array.dtype]
        fitting = [item for item in fitting if item not in out]
        if fitting and body.dice.chance(0.85):
            out.append(fitting[-1] if body.dice.chance(0.6) else body.dice.pick(fitting))
            continue
        made = body.add("Identity", [state])
        if not made:
            return None
        out.append(made[0])
    return out


def scan(scope: Scope, grow: Grow) -> Value | None:
    """A Scan over an axis of a value, forwards or backwards, with a state or without."""
    dice = scope.dice
    value = scope.subject(1)
    if value is None or scope.opset < 9:
        return None
    axis = dice.between(0, value.rank - 1) if dice.chance(0.5) else 0
    if not value.shape[axis]:
        return None
    body = _body(scope)
    start = [scope.other(value)] if dice.chance(0.5) else []
    states = [_formal(body, item.arrays) for item in start]
    piece = _formal(body, [np.ascontiguousarray(np.take(array, 0, axis)) for array in value.arrays])
    body.focus = piece
    grow(body, dice.between(1, 4))
    carried = _carried(body, states)
    if carried is None:
        return None
    own = _own(body) or list(body.add("Identity", [piece]))
    scans = dice.some(own)[:2]
    scans = [item for item in scans if item not in carried] or list(body.add("Identity", [piece]))
    if not scans or any(0 in item.shape for item in (*carried, *scans)):  # with which ONNX Runtime ends the process
        return None
    graph = graph_of(body, [*states, piece], [*carried, *scans], full=True)
    backwards = [dice.between(0, 1)] if dice.chance(0.3) else None
    places = [dice.between(0, min(item.rank for item in scans))] * len(scans) if dice.chance(0.3) else None
    made = scope.add(
        "Scan",
        [*start, value],
        len(carried) + len(scans),
        body=graph,
        num_scan_inputs=1,
        scan_input_axes=[axis] if axis or dice.chance(0.3) else None,
        scan_input_directions=backwards,
        scan_output_axes=places,
    )
    return dice.pick(made) if made else None
