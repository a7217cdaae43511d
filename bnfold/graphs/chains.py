"""Chains of operators that spell one affine map, in whatever framework: what a site is that is no BatchNorm.

A chain is a maximal run of affine operators of a computed value by constants, each read by the next alone, in which

- every factor varies along one axis at most: one number per channel, or the same for all. What is multiplied by a table
  over several axes is no normalisation: rotary positions (`x * cos + rotated(x) * sin`, with tables over positions and
  features), windows, masks. Such an operator is part of no chain; folds pass it as they pass any affine operator;
- at least one constant factor has several elements: a bias, a scalar rescaling or the offset of an activation is no
  normalisation either.

What is added may vary along any axes. A bias behind a matrix product belongs to the product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

from bnfold.algebra import ops
from bnfold.algebra.affine import varying
from bnfold.algebra.edits import Node
from bnfold.algebra.graph import Graph

BATCH_NORM = "BatchNormalization"
CHAIN = "affine"


def scales(kind: ops.Kind) -> bool:
    """Whether an affine node has a factor per channel, say."""
    return isinstance(kind, ops.ConstAffine) and kind.factors > 1


def links(kind: ops.Kind) -> TypeGuard[ops.ConstAffine]:
    """Whether an affine node may be part of a chain: its factor varies along one axis at most."""
    return isinstance(kind, ops.ConstAffine) and len(varying(kind.affine.scale)) <= 1


def chain_from(
    graph: Graph, first: Node, is_link: Callable[[Node], bool], is_product: Callable[[Node], bool]
) -> tuple[Node, ...]:
    """The run of affine nodes that begins here; empty if the node is none.

    `is_link` says which operators may be part of a chain, `is_product` which ones take the addition behind them as
    their bias.
    """
    head = graph.kind(first)
    if not links(head):
        return ()
    chain = [first]
    while True:
        value = graph.outputs(chain[-1])[0]
        readers = graph.readers(value)
        if graph.is_output(value) or len(readers) != 1:
            break
        node, position = readers[0]
        if not is_link(node):
            break
        kind = graph.kind(node)
        if not links(kind) or kind.data != position:
            break
        chain.append(node)
    maker = graph.producer(graph.inputs(first)[head.data])
    to = head.absorber
    is_addition = to.shift is not None and to.scale is None and to.sign == 1 and not head.affine.has_scale
    return tuple(chain[1:] if is_addition and maker is not None and is_product(maker[0]) else chain)


def chain_name(names: list[str]) -> str:
    """What to call a chain of nodes of these names."""
    return names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
