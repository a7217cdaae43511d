"""Moving a run of nodes into a branch of If, the body of a Loop or Scan, or a function with attributes by reference."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from generators.sandwich.build import Build
from generators.sandwich.use import tensor


@dataclass
class Cut:
    """A run of nodes, what it reads from outside and what is read of it."""

    nodes: list[onnx.NodeProto]
    entering: list[str]
    leaving: list[str]


def reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, and what its bodies read from outside."""
    out = [name for name in node.input if name]
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            held = {info.name for info in item.g.input} | {t.name for t in item.g.initializer}
            held |= {name for inner in item.g.node for name in inner.output}
            out += [name for inner in item.g.node for name in reads(inner) if name not in held]
            out += [info.name for info in item.g.output if info.name not in held]
    return out


def _renamed_inside(node: onnx.NodeProto, new: Mapping[str, str]) -> None:
    """Read other names, in the bodies as well."""
    node.input[:] = [new.get(name, name) for name in node.input]
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            for inner in item.g.node:
                _renamed_inside(inner, new)


def cut(build: Build, parts: Sequence[str]) -> Cut | None:
    """The nodes of these parts, taken out of the build; None where what leaves has no known shape or an odd type."""
    chosen = [node for part, node in build.nodes if part in parts]
    others = [node for part, node in build.nodes if part not in parts]
    made = {name for node in chosen for name in node.output if name}
    entering = [name for node in chosen for name in reads(node) if name not in made]
    read = {name for node in others for name in reads(node)} | set(build.outputs)
    leaving = [name for node in chosen for name in node.output if name in read]
    if not chosen or not leaving or any(name not in build.values for name in leaving):
        return None
    if any(np.dtype(build.values[name].dtype).kind not in "fiub" for name in leaving):
        return None
    # What the others make must not depend on what leaves and enter again: such a run cannot be one node.
    behind = set(leaving)
    for node in others:
        if any(name in behind for name in reads(node)):
            behind.update(node.output)
    entering = list(dict.fromkeys(entering))
    if behind & set(entering):
        return None
    return Cut(chosen, entering, leaving)


def _replaced(build: Build, taken: Cut, node: onnx.NodeProto) -> None:
    """Put one node where the run was."""
    ids = {id(taken_node) for taken_node in taken.nodes}
    places = [at for at, (_, held) in enumerate(build.nodes) if id(held) in ids]
    kept = [(at, entry) for at, entry in enumerate(build.nodes) if at not in set(places)]
    later = set(taken.leaving)
    before, after = [entry for at, entry in kept if at < places[0]], []
    for at, entry in kept:
        if at < places[0]:
            continue
        if any(name in later for name in reads(entry[1])):
            later.update(entry[1].output)
            after.append(entry)
        else:
            before.append(entry)
    build.nodes = [*before, ("body", node), *after]


def renamed(nodes: Sequence[onnx.NodeProto], suffix: str) -> list[onnx.NodeProto]:
    """Copies whose own values have other names."""
    made = {name for node in nodes for name in node.output if name}
    out = []
    for node in nodes:
        twin = copy.deepcopy(node)
        twin.name = node.name + suffix if node.name else ""
        _renamed_inside(twin, {name: name + suffix for name in made})
        twin.output[:] = [name + suffix if name else "" for name in node.output]
        out.append(twin)
    return out


def _infos(build: Build, names: Sequence[str], suffix: str, shaped: bool = False) -> list[onnx.ValueInfoProto]:
    out = []
    for name in names:
        value = build.values[name]
        shape = list(value.shape) if shaped or build.chance(0.5) else None
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        out.append(helper.make_tensor_value_info(name + suffix, kind, shape))
    return out


def in_branch(build: Build, taken: Cut) -> None:
    """Into a branch of If; the other branch holds the same nodes, or constants."""
    condition = build.fresh("cond")
    if build.chance(0.7):
        build.inputs[condition] = np.array(True)
    else:
        build.constants[condition] = np.array(bool(build.chance(0.5)))
    build.know(condition, (), np.bool_)
    moved = []
    if build.chance(0.3):
        # Constants that only this run reads live in the branch.
        elsewhere = {name for _, node in build.nodes if not _among(node, taken.nodes) for name in reads(node)}
        elsewhere |= set(build.outputs)
        moved = [name for name in taken.entering if name in build.constants and name not in elsewhere]
    first = helper.make_graph(
        renamed(taken.nodes, "_t"),
        "then",
        [],
        _infos(build, taken.leaving, "_t"),
        [tensor(build.constants[name], name) for name in moved],
    )
    if build.chance(0.5) and not moved:
        second = helper.make_graph(renamed(taken.nodes, "_e"), "else", [], _infos(build, taken.leaving, "_e"))
    else:
        arrays = []
        for name in taken.leaving:
            value = build.values[name]
            arrays.append(tensor(build.rng.normal(size=value.shape).astype(value.dtype), name + "_c"))
        nodes = [helper.make_node("Identity", [name + "_c"], [name + "_e"]) for name in taken.leaving]
        second = helper.make_graph(nodes, "else", [], _infos(build, taken.leaving, "_e"), arrays)
    for name in moved:
        del build.constants[name]
    branches = (first, second) if build.chance(0.7) else (second, first)
    node = helper.make_node("If", [condition], taken.leaving, then_branch=branches[0], else_branch=branches[1])
    _replaced(build, taken, node)


def _among(node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> bool:
    return any(node is other for other in nodes)


def _states(build: Build, taken: Cut, nodes: list[onnx.NodeProto]) -> tuple[list[str], list[onnx.ValueInfoProto]]:
    """What the states of a body start as, and their declarations: zeros, or what enters where the shapes allow it."""
    starts, states = [], []
    for name in taken.leaving:
        value = build.values[name]
        state = name + "_s"
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        states.append(helper.make_tensor_value_info(state, kind, None))
        alike = [
            held
            for held in taken.entering
            if held in build.values
            and build.values[held].shape == value.shape
            and np.dtype(build.values[held].dtype) == np.dtype(value.dtype)
            and held not in build.constants
        ]
        if alike and build.chance(0.5):
            starts.append(alike[0])
            for node in nodes:
                _renamed_inside(node, {alike[0]: state})
        else:
            start = build.fresh("start")
            build.constants[start] = np.zeros(value.shape, value.dtype)
            starts.append(start)
    return starts, states


def _first(build: Build, taken: Cut, stacks: Sequence[str]) -> None:
    """Take one trip out of what the trips were stacked to."""
    place = build.fresh("place")
    build.constants[place] = np.array(0)
    nodes = [
        helper.make_node("Gather", [stack, place], [name]) for stack, name in zip(stacks, taken.leaving, strict=True)
    ]
    at = next(at for at, (_, node) in enumerate(build.nodes) if list(node.output) == list(stacks))
    build.nodes[at + 1 : at + 1] = [("body", node) for node in nodes]


def in_loop(build: Build, taken: Cut) -> None:
    """Into the body of a Loop, whose states or stacked outputs are what leaves."""
    trips = build.fresh("trips")
    build.constants[trips] = np.array(build.between(1, 3))
    condition, step, going = (build.fresh(stem) for stem in ("cond", "step", "going"))
    build.constants[condition] = np.array(True)
    nodes = renamed(taken.nodes, "_b")
    stacked = build.opset >= 11 and build.chance(0.4)
    starts, states = ([], []) if stacked else _states(build, taken, nodes)
    if not stacked and build.chance(0.15):
        build.constants[trips] = np.array(0)  # no trip at all: the states are what they were
    passing = helper.make_node("Identity", [going], [going + "_o"])
    heads = [
        helper.make_tensor_value_info(step, TensorProto.INT64, []),
        helper.make_tensor_value_info(going, TensorProto.BOOL, []),
    ]
    tails = [helper.make_tensor_value_info(going + "_o", TensorProto.BOOL, []), *_infos(build, taken.leaving, "_b")]
    body = helper.make_graph([passing, *nodes], "body", [*heads, *states], tails)
    outputs = [name + "_all" for name in taken.leaving] if stacked else taken.leaving
    _replaced(build, taken, helper.make_node("Loop", [trips, condition, *starts], outputs, body=body))
    if stacked:
        _first(build, taken, outputs)


def in_scan(build: Build, taken: Cut) -> None:
    """Into the body of a Scan over numbers that nothing reads."""
    numbers, number = build.fresh("numbers"), build.fresh("number")
    build.constants[numbers] = np.zeros((build.between(1, 3), 1), np.float32)
    nodes = renamed(taken.nodes, "_b")
    stacked = build.chance(0.5)
    starts, states = ([], []) if stacked else _states(build, taken, nodes)
    heads = [*states, helper.make_tensor_value_info(number, TensorProto.FLOAT, [1])]
    body = helper.make_graph(nodes, "body", heads, _infos(build, taken.leaving, "_b", shaped=True))
    outputs = [name + "_all" for name in taken.leaving] if stacked else taken.leaving
    _replaced(build, taken, helper.make_node("Scan", [*starts, numbers], outputs, body=body, num_scan_inputs=1))
    if stacked:
        _first(build, taken, outputs)


def in_function(build: Build, taken: Cut, referred: onnx.NodeProto | None) -> None:
    """Into a model-local function. Attributes of `referred` are given by the call, or by default, where they can be."""
    # The first version of Constant has floats alone.
    held = [name for name in taken.entering if name in build.constants]
    inside = [
        name for name in held if build.chance(0.5) and (build.opset >= 9 or build.constants[name].dtype.kind == "f")
    ]
    kept = [name for name in taken.entering if name not in inside]
    nodes = [
        helper.make_node("Constant", [], [name], value=tensor(build.constants[name], name + "_v")) for name in inside
    ]
    given: list[onnx.AttributeProto] = []
    defaults: list[onnx.AttributeProto] = []
    formal: list[str] = []
    for node in taken.nodes:
        twin = copy.deepcopy(node)
        if node is referred:
            for item in twin.attribute:
                if build.chance(0.3):
                    continue
                value = copy.deepcopy(item)
                value.name = "a_" + item.name
                by_default = build.chance(0.1)
                (defaults if by_default else given).append(value)
                if not by_default:
                    formal.append(value.name)
                kind = item.type
                name = item.name
                item.Clear()
                item.name, item.type, item.ref_attr_name = name, kind, value.name
        nodes.append(twin)
    imports = [helper.make_opsetid("", build.opset)]
    if any(node.domain == "local" for node in taken.nodes):
        imports.append(helper.make_opsetid("local", 1))
    # A function may not read outer values, so all that is left enters.
    function = helper.make_function(
        "local",
        build.fresh("Part"),
        kept,
        taken.leaving,
        nodes,
        imports,
        formal,
        defaults,
    )
    build.functions.append(function)
    call = helper.make_node(function.name, kept, taken.leaving, domain="local", name="call" if build.named else None)
    call.attribute.extend(given)
    _replaced(build, taken, call)
    if build.chance(0.2):
        again = [build.fresh(name + "_again") for name in taken.leaving]
        twin = helper.make_node(function.name, kept, again, domain="local", name="again" if build.named else None)
        twin.attribute.extend(given)
        build.nodes.append(("body", twin))
        for name, second in zip(taken.leaving, again, strict=True):
            value = build.values[name]
            build.know(second, value.shape, value.dtype)
        build.outputs.append(again[0])
    for name in inside:
        if name not in build.outputs and not any(name in reads(node) for _, node in build.nodes):
            build.constants.pop(name, None)
