"""The part of a graph that one outcome is about, for drawing: what goes, what takes it over, what stands in the way.

Taken where drawings are asked for alone, as it costs up to a tenth of a fold, and before a plan is applied, so that it
shows the graph as the plan found it: folds carried out earlier are done.
Bounded, so that an account of many sites stays small: a plan with more operators than `MOST_OPERATORS` is not drawn,
and a refusal shows the way to the blocker and at most `MOST_READERS` other readers of its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bnfold.algebra.affine import Refusal
from bnfold.algebra.edits import Append, Drop, Node, Plan
from bnfold.algebra.graph import EditableGraph, Graph, Site
from bnfold.results import Operator, Role

MOST_OPERATORS = 60
MOST_READERS = 3
_MOST_VISITED = 100


def of_plan(graph: EditableGraph, plan: Plan) -> tuple[Operator, ...]:
    """The operators that a plan takes away, crosses or changes; empty where they are too many."""
    roles: dict[Node, Role] = dict.fromkeys(plan.through, "crossed")
    roles |= dict.fromkeys(plan.into, "absorbs")
    roles |= {edit.node: "site" for edit in plan.edits if isinstance(edit, Drop)}
    gaining = {edit.node for edit in plan.edits if isinstance(edit, Append)}
    return _drawing(graph, roles, gaining) if len(roles) <= MOST_OPERATORS else ()


def of_refusal(graph: EditableGraph, site: Site, refusal: Refusal) -> tuple[Operator, ...]:
    """The site, the operator that blocks it, what lies between, and who else reads the blocker's value."""
    roles: dict[Node, Role] = dict.fromkeys(site.nodes[:MOST_OPERATORS], "site")
    if refusal.blocker is not None and all(graph.name(node) != refusal.blocker for node in site.nodes):
        way = _way(graph, site.nodes[0], refusal.blocker, _above) or _way(
            graph, site.nodes[-1], refusal.blocker, _below
        )
        roles |= dict.fromkeys(way[:-1], "beside")
        if way:
            roles[way[-1]] = "blocks"
            if refusal.reason == "shared-value":
                others = [reader for reader in _below(graph, way[-1]) if reader not in roles]
                roles |= dict.fromkeys(others[:MOST_READERS], "beside")
    return _drawing(graph, roles, set())


def _way(graph: Graph, start: Node, name: str, onward: Callable[[Graph, Node], Iterable[Node]]) -> tuple[Node, ...]:
    """The nodes after `start` on a shortest way to the node of this name, itself included; empty if there is none."""
    came_from: dict[Node, Node] = {start: start}
    waiting = [start]
    for node in waiting:  # grows meanwhile
        if graph.name(node) == name:
            way = [node]
            while came_from[way[-1]] != start:
                way.append(came_from[way[-1]])
            return tuple(reversed(way)) if len(way) < MOST_OPERATORS else ()
        for other in onward(graph, node):
            if other not in came_from and len(came_from) < _MOST_VISITED:
                came_from[other] = node
                waiting.append(other)
    return ()


def _above(graph: Graph, node: Node) -> list[Node]:
    made = (graph.producer(value) for value in graph.inputs(node) if value is not None)
    return list(dict.fromkeys(maker[0] for maker in made if maker))


def _below(graph: Graph, node: Node) -> list[Node]:
    values = (value for value in graph.outputs(node) if value is not None)
    return list(dict.fromkeys(reader for value in values for reader, _ in graph.readers(value)))


def _drawing(graph: EditableGraph, roles: dict[Node, Role], gaining: set[Node]) -> tuple[Operator, ...]:
    makers = {node: [maker for maker in _above(graph, node) if maker in roles] for node in roles}
    order: dict[Node, int] = {}
    waiting = list(reversed(roles))
    while waiting:
        node = waiting[-1]
        missing = [maker for maker in makers[node] if maker not in order]
        if node not in order and not missing:
            order[node] = len(order)
        if node in order:
            waiting.pop()
        else:
            waiting += reversed(missing)
    return tuple([_operator(graph, node, roles[node], makers[node], order, node in gaining) for node in order])


def _operator(
    graph: EditableGraph, node: Node, role: Role, makers: list[Node], order: dict[Node, int], gains_bias: bool
) -> Operator:
    outside = 0
    for value in graph.inputs(node):
        if value is not None and not graph.is_constant(value):
            made = graph.producer(value)
            outside += made is None or made[0] not in order
    made_values = [value for value in graph.outputs(node) if value is not None]
    readers = sum([reader not in order for reader in _below(graph, node)])
    readers += sum([graph.is_output(value) for value in made_values])
    reads = tuple(sorted([order[maker] for maker in makers]))
    return Operator(graph.name(node), graph.op(node), role, reads, outside, readers, gains_bias)
