"""What a value inside a body is called from outside: `y/then_branch/c` for the value `c` in that branch of the node
that makes `y`.

Names need to be unique only among the graphs that see each other, so that both branches of an If may make a `c`. Under
these names, all values of a model can stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from bnfold.graphs.onnx.document import constant_tensor
from bnfold.graphs.onnx.index import Scope, named_graphs_of


def path_of(scope: Scope) -> str:
    """What stands before the names of a scope's values; nothing for the main graph."""
    if scope.parent is None or scope.owner is None:
        return f"{scope.graph.name}()/" if scope.is_function else ""
    bodies = [body for body in scope.parent.bodies if body.owner is scope.owner]
    attribute, _ = named_graphs_of(scope.owner.proto)[bodies.index(scope)]
    return _inner(path_of(scope.parent) + _first(scope.owner.proto), attribute)


def _inner(owner: str, attribute: str) -> str:
    return f"{owner}/{attribute}/"


def _first(node: onnx.NodeProto) -> str:
    return next(filter(None, node.output), node.op_type)


def spell_out_paths(graph: onnx.GraphProto) -> None:
    """Give every value inside a body of this graph the name that it has from outside; Constant nodes become weights.

    Those of the graph itself do, too.

    Raises ValueError if two values have one name then.
    """
    taken = set(_local_names(graph))
    _constants_to_weights(graph)
    for node in graph.node:
        _spell_out(node, _first(node), {}, taken)


def _spell_out(node: onnx.NodeProto, owner: str, outer: Mapping[str, str], taken: set[str]) -> None:
    for attribute, body in named_graphs_of(node):
        path = _inner(owner, attribute)
        local = {name: path + name for name in _local_names(body)}
        if not taken.isdisjoint(local.values()):
            raise ValueError(f"values of the body '{path}' share their names with others")
        taken.update(local.values())
        names = {**outer, **local}
        _constants_to_weights(body)
        for tensor in body.initializer:
            tensor.name = names[tensor.name]
        for info in (*body.input, *body.value_info, *body.output):
            info.name = names.get(info.name, info.name)
        for inner in body.node:
            below = path + _first(inner)
            inner.input[:] = [names.get(name, name) for name in inner.input]
            inner.output[:] = [names.get(name, name) for name in inner.output]
            _spell_out(inner, below, names, taken)


def _local_names(graph: onnx.GraphProto) -> list[str]:
    """The names that a graph gives to values; "" stands for none."""
    made = [name for node in graph.node for name in node.output if name]
    return [*(info.name for info in graph.input), *(tensor.name for tensor in graph.initializer), *made]


def _constants_to_weights(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        tensor = constant_tensor(node)
        if tensor is None:
            kept.append(node)
            continue
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = node.output[0]
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)
