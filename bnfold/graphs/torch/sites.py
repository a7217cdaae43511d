"""The sites of an exported graph: its BatchNorms, and the chains of operators that spell the same affine map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from bnfold.algebra import ops
from bnfold.algebra.affine import Refusal
from bnfold.algebra.graph import Graph, Site
from bnfold.graphs.chains import BATCH_NORM, CHAIN, chain_from, scales
from bnfold.graphs.torch.index import Node
from bnfold.graphs.torch.kinds import BATCH_NORMS
from bnfold.graphs.torch.kinds.facts import Facts

_FACTORS = {"mul", "multiply", "div", "divide", "true_divide"}
_LINKS = {*_FACTORS, "add", "sub", "subtract", "rsub", "neg", "negative"}
_PRODUCTS = {"matmul", "mm", "bmm", "mv", "einsum"}


def find_sites(
    graph: Graph, nodes: Sequence[Node], facts: Facts, named: Callable[[Sequence[Node]], str]
) -> Iterator[Site]:
    """All sites in order of execution; `named` says what to call a chain."""
    chained: set[Node] = set()
    for node in nodes:
        if node.op in BATCH_NORMS:
            yield _batch_norm(graph, node)
        elif node not in chained and node.op in _LINKS and not facts.known(node.outputs[0]):
            chain = chain_from(graph, node, lambda other: other.op in _LINKS, takes_bias)
            chained.update(chain)
            if any(scales(graph.kind(link)) for link in chain):
                yield Site(named(chain), CHAIN, chain)
            elif node.op in _FACTORS and not chain:
                yield from _refused(graph, node, facts)


def told_apart(sites: Iterable[Site]) -> list[Site]:
    """The sites, each with a name of its own: another site of the same name has a number behind it."""
    taken: set[str] = set()
    found = []
    for site in sites:
        name, number = site.name, 1
        while name in taken:
            name, number = f"{site.name}#{number + 1}", number + 1
        taken.add(name)
        found.append(site if name == site.name else replace(site, name=name))
    return found


def takes_bias(node: Node) -> bool:
    """Whether an addition behind an operator is its bias."""
    return node.op in _PRODUCTS or (node.op == "linear" and node.inputs[2] is None)


def _batch_norm(graph: Graph, node: Node) -> Site:
    kind, name = graph.kind(node), graph.name(node)
    refusal = Refusal(kind.reason, kind.detail, name) if isinstance(kind, ops.Opaque) else None
    return Site(name, BATCH_NORM, (node,), refusal)


def _refused(graph: Graph, node: Node, facts: Facts) -> Iterator[Site]:
    value = facts.enlarged(node)
    if value is None or value.producer is None or not isinstance(graph.kind(value.producer), ops.Linear):
        return
    refusal = Refusal("off-channel", "its constant factor gives the value another shape", graph.name(node))
    yield Site(graph.name(node), CHAIN, (node,), refusal)
