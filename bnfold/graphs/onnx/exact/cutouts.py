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

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx

from bnfold.graphs.onnx.document import Document, Ledger
from bnfold.graphs.onnx.exact.engine import needs
from bnfold.graphs.onnx.exact.matching import DRAWING, Graph, Matching


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


@dataclass(frozen=True, eq=False)
class GraphDiff:
    """The parts in which two models differ, given which of their values are the same.

    `sites` are the places of folds by the first output of each node of theirs. Where no fold stands between, a border
    that one side alone reads is none, if it is one of those that are `drawn`: it may be computed from another one. One
    that is only asked for its size may stay.
    """

    before: Graph
    after: Graph
    matching: Matching
    sites: Mapping[str, int]
    drawn: Collection[str]

    def cutouts(self) -> Iterator[Cutout]:
        """The pairs between two models, in the order of the second one's nodes, those of bodies first."""
        return (self.cutout(name) for name in self.matching.unequal)

    def cutout(self, name: str, without: Collection[str] = ()) -> Cutout:
        """The pair that computes one value, which goes on above these borders."""
        settled = {theirs: own for theirs, own in self.matching.settled.items() if own not in without}
        originals = set(self.matching.settled.values()) - set(without)
        while True:
            places, borders = self.before.above(name, originals)
            new_places, new_borders = self.after.above(name, settled)
            old, new = (
                tuple(graph.nodes[place] for place in at)
                for graph, at in ((self.before, places), (self.after, new_places))
            )
            between = {self.sites[node.output[0]] for node in old if node.output[0] in self.sites}
            lone = _read(old, borders) ^ {settled[border] for border in _read(new, new_borders)}
            lone = {border for border in lone if border in self.before.maker and border in self.drawn}
            if between or not lone:
                break
            originals -= lone
            settled = {theirs: own for theirs, own in settled.items() if own not in lone}
        return Cutout(
            name,
            {**{border: border for border in borders}, **{border: settled[border] for border in new_borders}},
            old,
            new,
            tuple(sorted(between)),
        )


def _read(nodes: Iterable[onnx.NodeProto], names: Iterable[str]) -> set[str]:
    """Those of these names whose elements nodes read, and not only their sizes."""
    read = {name for node in nodes if node.op_type not in ("Shape", "Size") for name in needs(node)}
    return read.intersection(names)
