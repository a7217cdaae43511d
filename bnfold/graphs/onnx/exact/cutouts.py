"""What differs between two models, cut out of both: pairs of small graphs that compute one value.

For each value that is to be the same in both models and is made otherwise (see `matching`), the nodes above it are
collected in both, up to the next values that are to be the same; these two collections compute the same value from the
same inputs if, and only if, what was done between is right. Each pair can be run by itself, on any inputs, so that one
fold is judged apart from all others, and whatever the rest of the network would let through. Folds that meet in one
value share its pair.

A body of If, Loop or Scan is cut like the graph around it: what it is given is settled, be it of the first trip or a
later one, and so is what it hands out; where it reads what lies outside and is not settled, a cut-out goes on there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx

from bnfold.graphs.onnx.document import Document, Ledger
from bnfold.graphs.onnx.exact.engine import needs
from bnfold.graphs.onnx.exact.matching import DRAWING, Graph, matched


@dataclass(frozen=True, eq=False)
class Cutout:
    """The nodes that compute `value` in the original (`before`) and in the folded model (`after`), in file order.

    `inputs` are the settled values that they read: of each, the name in the original by that in the folded model.
    `sites` are the places of the folds between.
    """

    value: str
    inputs: Mapping[str, str]
    before: tuple[onnx.NodeProto, ...]
    after: tuple[onnx.NodeProto, ...]
    sites: tuple[int, ...]


def settled_values(original: Document, folded: Document, ledger: Ledger) -> list[str]:
    """The computed values of the main graph that must be the same in both models, in the order in which the folded one
    makes them.
    """
    before, after = original.model.graph, folded.model.graph
    weights = {tensor.name for tensor in after.initializer}
    computed = {info.name for info in after.input} - weights
    for node in after.node:
        if any(name in computed for name in needs(node)) or node.op_type.startswith(DRAWING):
            computed.update(node.output)
    made = {name for node in before.node for name in node.output}
    made -= ledger.changed - {info.name for info in before.output}
    return [name for node in after.node for name in node.output if name in made and name in computed]


def cutouts(before: Graph, after: Graph, apart: Collection[str], sites: Mapping[str, int]) -> Iterator[Cutout]:
    """The pairs between two models, in the order of the second one's nodes, those of bodies first.

    `apart` are names that stand for different values in the two, `sites` the places of folds by the first output of
    each node of theirs. Where no fold stands between, a border that one side alone reads is none: it may be computed
    from another one.
    """
    matching = matched(before, after, apart)
    for name in matching.unequal:
        settled, originals = dict(matching.settled), set(matching.settled.values())
        while True:
            places, borders = before.above(name, originals)
            new_places, new_borders = after.above(name, settled)
            between = {
                sites[node.output[0]] for node in map(before.nodes.__getitem__, places) if node.output[0] in sites
            }
            lone = set(borders) ^ {settled[border] for border in new_borders}
            lone = {border for border in lone if border in before.maker}
            if between or not lone:
                break
            originals -= lone
            settled = {new: old for new, old in settled.items() if old not in lone}
        yield Cutout(
            name,
            {**{border: border for border in borders}, **{border: settled[border] for border in new_borders}},
            tuple(before.nodes[place] for place in places),
            tuple(after.nodes[place] for place in new_places),
            tuple(sorted(between)),
        )
