"""Which values of two models are the same, because they are made in the same way from the same.

Every value has a number: inputs by their names, weights by their bytes, everything else by its operator, attributes and
the numbers of what that reads. Equal numbers are equal functions, in one model and across both; names play no part.

Values of one name in both models are *settled*: they are to be the same. Where their numbers differ, that is left to be
proven, and the later one goes on under the number of the first, so that what follows is judged apart from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from bnfold.graphs.onnx.exact.engine import Engine, bodies, needs, with_bodies
from bnfold.graphs.onnx.index import is_foreign, named_graphs_of

DRAWING = ("Random", "Bernoulli", "Multinomial")


class Graph:
    """A model by who makes what; the nodes of bodies stand before the nodes that hold them.

    `computed` are the values that depend on inputs, `handed_out` those that the graph or a body hands out.
    """

    def __init__(self, engine: Engine) -> None:
        main = engine.document.model.graph
        self.engine = engine
        self.graphs = [main, *bodies(main.node)]
        self.nodes = list(with_bodies(main.node))
        self.maker = {name: place for place, node in enumerate(self.nodes) for name in node.output if name}
        self.handed_out = {info.name for graph in self.graphs for info in graph.output}
        self.inputs = [info.name for graph in self.graphs for info in graph.input if not engine.is_weight(info.name)]
        self.computed = {*self.inputs, *(name for name in self.maker if not engine.is_constant(name))}

    def above(self, value: str, settled: Collection[str]) -> tuple[list[int], list[str]]:
        """The places of the nodes that compute a value from settled ones and constants, and the settled ones."""
        places: set[int] = set()
        borders: dict[str, None] = {}
        waiting = [self.maker[value]] if value in self.computed and value in self.maker else []
        while waiting:
            place = waiting.pop()
            if place in places:
                continue
            places.add(place)
            for name in needs(self.nodes[place]):
                if name in settled:
                    borders[name] = None
                elif name in self.maker and name in self.computed:
                    waiting.append(self.maker[name])
        return sorted(places), list(borders)


@dataclass(frozen=True, eq=False)
class Matching:
    """By value of the second model, the value of the first that it is to be; and those that are made otherwise, in the
    order in which the second model makes them. `same` names, of values of the first that are the same, one for all.
    """

    settled: Mapping[str, str]
    unequal: tuple[str, ...]
    same: Mapping[str, str]


def matched(before: Graph, after: Graph, apart: Collection[str]) -> Matching:
    """The values that two models share. `apart` are names that stand for different values in them."""
    table: dict[Hashable, int] = {}
    numbers = _numbered(before, table, lambda name, number: number)
    holders: dict[int, str] = {}
    for name, number in numbers.items():
        if name in before.computed:
            holders.setdefault(number, name)
    settled: dict[str, str] = {}
    unequal: list[str] = []

    def settle(name: str, number: int) -> int:
        to_be = numbers.get(name)
        is_shared = to_be is not None and name not in apart
        if is_shared and (name in after.computed or name in after.handed_out):
            if name in before.computed:
                settled[name] = name
            if to_be != number:
                unequal.append(name)
            return to_be  # type: ignore[return-value]
        if name in after.computed and number in holders:
            settled[name] = holders[number]
        return number

    _numbered(after, table, settle)
    same = {name: holders[number] for name, number in numbers.items() if number in holders}
    return Matching(settled, tuple(unequal), same)


def _numbered(graph: Graph, table: dict[Hashable, int], settle: Callable[[str, int], int]) -> dict[str, int]:
    """The number of every value, as it is after `settle`."""
    versions = {item.domain: item.version for item in graph.engine.document.model.opset_import}
    since: dict[tuple[str, str], int] = {}
    numbers: dict[str, int] = {}

    def put(name: str, key: Hashable) -> None:
        numbers[name] = settle(name, table.setdefault(key, len(table)))

    for name in graph.inputs:
        put(name, ("input", name))
    for tensor in (tensor for part in graph.graphs for tensor in part.initializer):
        array = graph.engine.stored(tensor.name)
        if array.dtype == object:
            digest = hashlib.blake2b(repr(array.tolist()).encode())
        else:
            digest = hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        put(tensor.name, (tensor.data_type, array.shape, digest.digest()))
    for node in graph.nodes:
        kind = (node.domain, node.op_type)
        if kind not in since:
            since[kind] = _since(node, versions)
        read = tuple(numbers.get(name, name) for name in node.input)
        held = tuple(
            (attribute, tuple(info.name for info in body.input), tuple(numbers[info.name] for info in body.output))
            for attribute, body in named_graphs_of(node)
        )
        alone = node.output[0] if node.op_type.startswith(DRAWING) else None
        key = (kind, since[kind], _attributes(node), read, held, len(node.output), alone)
        for port, name in enumerate(node.output):
            if name:
                put(name, (*key, port))
    return numbers


def _since(node: onnx.NodeProto, versions: Mapping[str, int]) -> int:
    """The version of an operator that counts in a model; that of the domain where the operator is not known."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = versions.get(domain, versions.get("ai.onnx", 1) if not domain else 1)
    if is_foreign(node):
        return version
    try:
        return int(onnx.defs.get_schema(node.op_type, version, domain).since_version)
    except (onnx.defs.SchemaError, TypeError):  # TypeError: a version that takes more than 32 bits
        return version


def _attributes(node: onnx.NodeProto) -> Hashable:
    found: list[Any] = []
    for item in node.attribute:
        if not item.HasField("g") and not item.graphs:
            plain = onnx.AttributeProto()
            plain.CopyFrom(item)
            plain.ClearField("doc_string")
            found.append(plain.SerializeToString(deterministic=True))
    return tuple(sorted(found))
