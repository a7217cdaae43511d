"""Model-local functions: grown on the data of their first call, and called again with other data and attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.defs
from onnx import AttributeProto, helper, numpy_helper

from generators.grown.constants import constant
from generators.grown.dice import Dice
from generators.grown.engines import is_float
from generators.grown.scope import Scope, Value, World

Grow = Callable[[Scope, int], None]


@dataclass
class Call:
    """What a further call of a function needs to know of the first one."""

    function: onnx.FunctionProto
    data: list[Value]  # formal inputs, with the arrays of the first call
    tables: list[Value]  # formal inputs that a constant was given for
    attributes: list[AttributeProto]
    optional: set[str]


def define(scope: Scope, grow: Grow) -> Value | None:
    """Grow a function on the data of a value or two, and call it."""
    dice, world = scope.dice, scope.world
    value = scope.subject()
    if value is None or world.ir_version < 8 or scope.depth > 2:
        return None
    actual = [value, scope.other(value)] if dice.chance(0.4) else [value]
    opset = scope.opset if dice.chance(0.8) else max(8, min(27, world.opset + dice.between(-3, 3)))
    inner = Scope(world, opset, "function", scope)
    data = [Value(world.namer.fresh("i"), list(item.arrays)) for item in actual]
    inner.values += data
    inner.focus = data[0]
    before = len(world.functions), len(world.calls)
    grow(inner, dice.between(1, 5))
    made = {name for node in inner.nodes for name in node.output}
    own = [item for item in inner.values if item.name in made and item.is_float and not item.fixed]
    own = own or list(inner.add("Identity", [data[0]]))
    if not own:
        return None
    results = [own[-1] if dice.chance(0.8) else dice.pick(own)]
    if dice.chance(0.25):
        results += [item for item in [dice.pick(own)] if item is not results[0]]
    if any(_since(node, opset) != _since(node, world.opset) for node in _all_nodes(inner.nodes)):
        return _forget(world, before)
    attributes, optional = _by_reference(inner), set()
    defaults = attributes if world.ir_version >= 9 and dice.chance(0.15) else []
    if defaults:
        optional = {item.name for item in defaults}
    domain, name, overload = _name(world)
    function = helper.make_function(
        domain=domain,
        fname=name,
        inputs=[item.name for item in (*data, *(formal for formal, _ in inner.formals))],
        outputs=[item.name for item in results],
        nodes=inner.nodes,
        opset_imports=[helper.make_opsetid("", opset), *_domains(inner)],
        attributes=[item.name for item in attributes if item.name not in optional],
        attribute_protos=defaults or None,
        overload=overload or None,
    )
    if dice.chance(0.4):
        _use_names_of(world, function)
    world.functions.append(function)
    world.domains.setdefault(function.domain, 1)
    call = Call(function, data, [formal for formal, _ in inner.formals], attributes, optional)
    tables = [table for _, table in inner.formals if table is not None]
    placed = _place(scope, call, [*actual, *tables], attributes)
    if not placed:
        return _forget(world, before)
    world.calls.append(call)
    return placed[0]


def _use_names_of(world: World, function: onnx.FunctionProto) -> None:
    """Give the values of a function names that the model has elsewhere: the names of a function are its own."""
    made = [name for node in _all_nodes(function.node) for name in node.output if name]
    own = list(dict.fromkeys([*function.input, *made]))
    others = world.dice.shuffled(sorted(world.namer.used - {""}))
    table = dict(zip(own, others, strict=False)) if len(others) >= len(own) else {}
    if any(item.type == AttributeProto.GRAPH for node in function.node for item in node.attribute):
        return
    for field in (
        function.input,
        function.output,
        *(field for node in function.node for field in (node.input, node.output)),
    ):
        for at, name in enumerate(field):
            field[at] = table.get(name, name)


def _name(world: World) -> tuple[str, str, str]:
    """Domain, name and overload of a function; an operator or another function may have the name as well."""
    dice = world.dice
    taken = {(item.domain, item.name, item.overload) for item in world.functions}
    domain = dice.pick(["local", "my.own", "local"])
    name, overload = world.namer.fresh("F").replace("/", "_"), ""
    if dice.chance(0.25):
        name = dice.pick(["Relu", "Identity", "Transpose", "BatchNormalization", "Conv", "Reshape", "Gemm"])
    elif world.functions and dice.chance(0.3):
        name = dice.pick(world.functions).name + dice.pick(["", "", "__1", "_1", ".folded", "__2"])
    if (domain, name, overload) in taken:
        overload = f"o{len(taken)}" if world.ir_version >= 10 else ""
        if not overload:
            name = world.namer.fresh("F").replace("/", "_")
    return domain, name, overload


def called(nodes: Sequence[onnx.NodeProto], functions: Sequence[onnx.FunctionProto]) -> list[onnx.FunctionProto]:
    """The functions that nodes call, or functions that they call."""
    wanted: set[tuple[str, str, str]] = set()
    waiting = [nodes]
    while waiting:
        for node in _all_nodes(waiting.pop()):
            key = (node.domain, node.op_type, node.overload)
            if node.domain and key not in wanted:
                wanted.add(key)
                waiting += [item.node for item in functions if (item.domain, item.name, item.overload) == key]
    return [item for item in functions if (item.domain, item.name, item.overload) in wanted]


def _forget(world: World, before: tuple[int, int]) -> None:
    """Drop the functions and calls that were noted since."""
    del world.functions[before[0] :]
    del world.calls[before[1] :]


def _all_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                yield from _all_nodes(item.g.node)


def _since(node: onnx.NodeProto, opset: int) -> int:
    """The version of an operator in an opset; a function and its model must agree on it."""
    if node.domain:
        return 0
    return int(onnx.defs.get_schema(node.op_type, opset).since_version) if onnx.defs.has(node.op_type, opset) else -1


def _domains(inner: Scope) -> list[onnx.OperatorSetIdProto]:
    found = {node.domain for node in _all_nodes(inner.nodes)}
    return [helper.make_opsetid(domain, 1) for domain in sorted(found - {""})]


def _by_reference(inner: Scope) -> list[AttributeProto]:
    """Turn some attributes of the nodes into references, and give the attributes of the call."""
    dice = inner.dice
    out: list[AttributeProto] = []
    waiting = list(inner.nodes)
    rate = dice.pick([0.0, 0.3, 0.7])
    while waiting:
        node = waiting.pop()
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                waiting += item.g.node
                continue
            if item.ref_attr_name or not dice.chance(rate):
                continue
            same = [other for other in out if other.type == item.type and _plain(other) == _plain(item)]
            if same and dice.chance(0.5):
                given = dice.pick(same)
            else:
                given = AttributeProto()
                given.CopyFrom(item)
                taken = {other.name for other in out}
                given.name = item.name if item.name not in taken else f"{item.name}_{len(out)}"
                out.append(given)
            kind, name = item.type, item.name
            item.Clear()
            item.name, item.type, item.ref_attr_name = name, kind, given.name
    return out


def _plain(item: AttributeProto) -> bytes:
    copy = AttributeProto()
    copy.CopyFrom(item)
    copy.name = ""
    return copy.SerializeToString(deterministic=True)


def _place(scope: Scope, call: Call, inputs: list[Value | None], attributes: list[AttributeProto]) -> tuple[Value, ...]:
    function = call.function
    names = [scope.world.namer.fresh() for _ in function.output]
    if len(names) > 1 and scope.dice.chance(0.2):
        # An output that nobody wants: left out, or with an empty name.
        names[1:] = [] if scope.dice.chance(0.5) else [""]
    node = helper.make_node(function.name, [item.name if item else "" for item in inputs], names)
    node.domain = function.domain
    if function.overload:
        node.overload = function.overload
    node.name = scope.world.namer.node(function.name)
    node.attribute.extend(attributes)
    return scope.place(node, [item for item in inputs if item])


def call_again(scope: Scope, grow: Grow) -> Value | None:
    """Call a function once more: other data, other constants, other attributes, inputs left out."""
    del grow
    dice, world = scope.dice, scope.world
    if not world.calls:
        return None
    call = dice.pick(world.calls)
    inputs: list[Value | None] = []
    for formal in call.data:
        fitting = [
            item
            for item in scope.floats()
            if item.shape == formal.shape and len(item.arrays) in (1, len(formal.arrays)) and not item.fixed
        ]
        if not fitting:
            return None
        inputs.append(scope.focus if scope.focus in fitting and dice.chance(0.5) else dice.pick(fitting[-5:]))
    for formal in call.tables:
        data = formal.array
        if dice.chance(0.5) and is_float(data) and data.size:
            data = (data * dice.positive([], data.dtype)).astype(data.dtype)
        inputs.append(None if dice.chance(0.12) else constant(scope, data))
    while inputs and inputs[-1] is None and dice.chance(0.5):
        inputs.pop()
    attributes = [_other_value(dice, item) if dice.chance(0.4) else item for item in call.attributes]
    attributes = [item for item in attributes if item.name not in call.optional or dice.chance(0.6)]
    made = _place(scope, call, inputs, attributes)
    if not made:
        full = [item or constant(scope, formal.array) for item, formal in zip(inputs, call.data, strict=False)]
        full += [constant(scope, formal.array) for formal in call.tables]
        made = _place(scope, call, list(full), call.attributes)
    return made[0] if made else None


def _other_value(dice: Dice, item: AttributeProto) -> AttributeProto:
    """An attribute of the same type with another value, which may or may not be a valid one."""
    out = AttributeProto()
    out.CopyFrom(item)
    if item.type == AttributeProto.FLOAT:
        out.f = item.f * 1.5
    elif item.type == AttributeProto.INT:
        out.i = dice.pick([item.i + 1, item.i - 1, 0, 1, -1])
    elif item.type == AttributeProto.INTS:
        kind = dice.pick(["shuffle", "change"])
        numbers = dice.shuffled(list(item.ints)) if kind == "shuffle" else [dice.pick([n, n + 1, 1]) for n in item.ints]
        del out.ints[:]
        out.ints.extend(numbers)
    elif item.type == AttributeProto.FLOATS:
        numbers = [number * 1.5 for number in item.floats]
        del out.floats[:]
        out.floats.extend(numbers)
    elif item.type == AttributeProto.TENSOR and item.t.data_type in (1, 10, 11):
        data = numpy_helper.to_array(item.t)
        out.t.CopyFrom(numpy_helper.from_array((data * np.asarray(1.25, data.dtype)).astype(data.dtype)))
    return out
