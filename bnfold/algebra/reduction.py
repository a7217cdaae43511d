"""A chain that has nowhere to go, made as short as it can be: one factor and one addend say whatever it says.

Of a site's own nodes those that are needed stay and get new constants; the others go. With a chain `s x + t`, a node
that multiplies by m and one that makes `e x + g d` of its constant d (`e` is -1 for `d - x`, `g` is -1 for `x - d`):

    m before d:   e (m x) + g d = s x + t   for  m = e s,  d = g t
    d before m:   m (e x + g d) = s x + t   for  m = e s,  d = g e p / q

where q x + p is the chain up to its last addend.

Decisions. Constants are replaced, not scaled, so that a factor of zero is no obstacle. No constant gets more elements
than the largest parameter of the chain had.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np

from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.algebra.edits import Drop, Node, Plan, Rewrite
from bnfold.algebra.graph import Graph, Site
from bnfold.algebra.ops import ConstAffine
from bnfold.algebra.plan import Trace
from bnfold.algebra.storing import composed

Kept = dict[int, Array]  # place in the chain -> the new constant of the node there


def plan_reduction(graph: Graph, site: Site, trace: Trace) -> Plan | Refusal:
    """Let the site's map be computed by fewer of its own nodes, at most by one that multiplies and one that adds."""
    trace.nodes.update(site.nodes)
    links = [kind for kind in map(graph.kind, site.nodes) if isinstance(kind, ConstAffine)]
    refusal = Refusal("conflict", "no fewer operators say the same", graph.name(site.nodes[0]))
    if len(links) < len(site.nodes) or not _is_unbroken(graph, site.nodes, links):
        return refusal
    largest = max(max(link.affine.scale.size, link.affine.shift.size) for link in links)
    for kept in sorted(_candidates(graph, site.nodes, links), key=len):
        fits = all(constant.size <= largest and np.isfinite(constant).all() for constant in kept.values())
        if len(kept) < len(links) and fits:
            plan = _plan(graph, site.nodes, links, kept)
            if isinstance(plan, Plan):
                return plan
    return refusal


def _is_unbroken(graph: Graph, nodes: tuple[Node, ...], links: list[ConstAffine]) -> bool:
    """Whether each node is read by the next alone."""
    for (above, below), link in zip(pairwise(nodes), links[1:], strict=True):
        value = graph.outputs(above)[0]
        if graph.inputs(below)[link.data] is not value or graph.is_output(value) or len(graph.readers(value)) > 1:
            return False
    return True


def _candidates(graph: Graph, nodes: tuple[Node, ...], links: list[ConstAffine]) -> Iterator[Kept]:
    """The ways to compute the map of the whole chain by one of its nodes, or by two of them."""
    whole = composed(graph, nodes)
    factors = [at for at, link in enumerate(links) if link.absorber.scale is not None and link.absorber.shift is None]
    addends = [at for at, link in enumerate(links) if link.absorber.shift is not None and link.absorber.scale is None]
    if not whole.has_shift:
        yield from ({at: _factor(links[at], whole.scale)} for at in factors)
    for at in addends:
        sign, own = links[at].absorber.sign, links[at].affine.scale
        if bool((whole.scale == own).all()):
            yield {at: sign * whole.shift}
    before = composed(graph, nodes[: addends[-1] + 1]) if addends else whole
    for m, d in sorted(product(factors, addends), key=lambda pair: pair[0] > pair[1]):
        sign, own = links[d].absorber.sign, links[d].affine.scale
        factor = _factor(links[m], own * whole.scale)
        if m < d:
            yield {m: factor, d: sign * whole.shift}
        elif bool(before.scale.all()):
            yield {m: factor, d: sign * own * before.shift / before.scale}


def _factor(link: ConstAffine, factor: Array) -> Array:
    """The constant by which the node multiplies, or divides, to scale by this factor."""
    with np.errstate(divide="ignore"):
        return 1 / factor if link.absorber.inverse else factor


def _plan(graph: Graph, nodes: tuple[Node, ...], links: list[ConstAffine], kept: Kept) -> Plan | Refusal:
    edits: list[Rewrite | Drop] = []
    added = 0
    for at, constant in kept.items():
        absorber = links[at].absorber
        position = absorber.shift if absorber.scale is None else absorber.scale
        if position is None:
            raise ValueError("an affine operator without a constant cannot stay")
        edit = Rewrite(nodes[at], position, Affine(np.zeros((1,) * constant.ndim), constant))
        rounded = graph.rounding(edit.node, edit.position, edit.affine)
        if isinstance(rounded, Refusal):
            return rounded
        added += rounded
        edits.append(edit)
    last = max(kept)
    for at, node in enumerate(nodes):
        if at not in kept:
            edits.append(Drop(node, links[at].data, "input" if at < last else "output"))
    stuck = graph.undroppable([edit for edit in edits if isinstance(edit, Drop)])
    if stuck is not None:
        return Refusal("graph-output", "its value is an output of the graph", graph.name(stuck))
    inside = tuple(graph.outputs(node)[0] for node in nodes[:-1])
    return Plan(tuple(edits), tuple(nodes[at] for at in sorted(kept)), (), "shortened", added, inside)
