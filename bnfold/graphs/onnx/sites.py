"""The sites of a model: its BatchNorms, and the chains of Mul, Add, Sub, Div and Neg that spell the same affine map.

Where a factor would enlarge what a linear operator makes, the site is listed and refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

from bnfold.algebra import ops
from bnfold.algebra.affine import Refusal
from bnfold.algebra.graph import Graph, Site
from bnfold.graphs.chains import BATCH_NORM, CHAIN, chain_from, chain_name, scales
from bnfold.graphs.onnx.index import Node, Scope
from bnfold.graphs.onnx.kinds.facts import Facts

_LINKS = ("Mul", "Add", "Sub", "Div", "Neg")
_FACTORS = ("Mul", "Div")


def find_sites(graph: Graph, scopes: list[Scope], facts: Facts, gone: Collection[Node]) -> list[Site]:
    """All sites in topological order, those of a body right before the node that holds it; `gone` are nodes no more."""
    return [site for scope in scopes for site in _in_scope(graph, scope, facts, gone)]


def _in_scope(graph: Graph, scope: Scope, facts: Facts, gone: Collection[Node]) -> Iterator[Site]:
    def links(node: Node) -> bool:
        if node.op not in _LINKS or node.domain or node.scope is not scope:
            return False
        return node.op == "Neg" or any(facts.floating(value) for value in node.inputs)

    bodies: dict[Node, list[Scope]] = {}
    for body in scope.bodies:
        if body.owner is not None:
            bodies.setdefault(body.owner, []).append(body)
    chained: set[Node] = set()
    for node in scope.nodes:
        if node in gone:
            continue
        for body in bodies.get(node, ()):
            yield from _in_scope(graph, body, facts, gone)
        if node.op == BATCH_NORM and not node.domain:
            yield _batch_norm(node, graph.kind(node))
        elif node not in chained and links(node) and not facts.known(node.outputs[0]):
            run = list(_run_from(graph, node, links))
            if not any(_has_factors(link, facts) for link in run):  # most often so: no need to translate them
                chained.update(run)
                continue
            chain = chain_from(graph, node, links, lambda maker: maker.op == "MatMul")
            chained.update(chain)
            if any(scales(graph.kind(link)) for link in chain):
                yield Site(chain_name([link.name for link in chain]), CHAIN, chain)
            elif node.op in _FACTORS and not chain:
                yield from _refused(graph, node, facts)


def _run_from(graph: Graph, node: Node, links: Callable[[Node], bool]) -> Iterator[Node]:
    """The operators of which a chain that begins here may consist."""
    yield node
    while True:
        value = node.outputs[0]
        readers = graph.readers(value)
        if graph.is_output(value) or len(readers) != 1 or not links(readers[0][0]):
            return
        node = readers[0][0]
        yield node


def _has_factors(node: Node, facts: Facts) -> bool:
    """Whether a node multiplies by a constant of several elements, which makes a chain a site."""
    constants = map(facts.floating, node.inputs) if node.op in _FACTORS else ()
    return any(known is not None and math.prod(known.folded_shape) > 1 for known in constants)


def _batch_norm(node: Node, kind: ops.Kind) -> Site:
    if isinstance(kind, ops.ConstAffine):
        return Site(node.name, BATCH_NORM, (node,))
    if isinstance(kind, ops.Opaque):
        refusal = Refusal(kind.reason, kind.detail, node.name)
        if node.opset < 7:
            refusal = _of_old_opset(node) or refusal
        return Site(node.name, BATCH_NORM, (node,), refusal)
    raise TypeError(f"a BatchNormalization was read as {type(kind).__name__}")


def _of_old_opset(node: Node) -> Refusal | None:
    """Before opset 7 a BatchNormalization is in training mode unless is_test says otherwise."""
    if any(item.name == "is_test" and item.i for item in node.proto.attribute):
        return None
    return Refusal("training-mode", "it lacks is_test=1 (opset 6 and older); export in eval mode", node.name)


def _refused(graph: Graph, node: Node, facts: Facts) -> Iterator[Site]:
    value = facts.enlarged(node)
    if value is None or value.producer is None or not isinstance(graph.kind(value.producer), ops.Linear):
        return
    refusal = Refusal("off-channel", "its constant factor gives the value another shape", node.name)
    yield Site(node.name, CHAIN, (node,), refusal)
