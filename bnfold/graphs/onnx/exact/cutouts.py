"""What folds changed, cut out of the original and of the folded model: pairs of small graphs that compute one value.

A value that both models have and that no plan changed is *settled*: it must be the same in both. For each settled value
whose makers differ between the models, the nodes above it are collected in both, up to the next settled values; these
two collections compute the same value from the same inputs if, and only if, the folds between are right. Each pair can
be run by itself, on any inputs, so that one fold is judged apart from all others. Folds that meet in one value share
its pair.

A body of If, Loop or Scan is cut like the graph around it: what it is given is settled, be it of the first trip or a
later one, and so is what it hands out; where it reads what lies outside and is not settled, a cut-out goes on there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from bnfold.graphs.onnx.document import Document, Ledger
from bnfold.graphs.onnx.exact.engine import bodies, needs
from bnfold.graphs.onnx.index import graphs_of


@dataclass(frozen=True, eq=False)
class Cutout:
    """The nodes that compute `value` in the original (`before`) and in the folded model (`after`), in file order.

    `inputs` are the settled values that they read, `constants` what they read that is computed from constants alone,
    `sites` the places of the folds between.
    """

    value: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    before: tuple[onnx.NodeProto, ...]
    after: tuple[onnx.NodeProto, ...]
    sites: tuple[int, ...]


class _Graph:
    """A model by who makes what, and which values depend on the graph's inputs; with `inside`, bodies stand before the
    nodes that hold them, whose values must have names of their own for that (see `paths`).
    """

    def __init__(self, document: Document, *, inside: bool) -> None:
        main = document.model.graph
        graphs = [main, *bodies(main.node)] if inside else [main]
        self.nodes = list(_with_bodies(main.node) if inside else main.node)
        self.maker = {name: place for place, node in enumerate(self.nodes) for name in node.output if name}
        self.handed_out = {info.name for graph in graphs for info in graph.output}
        weights = {tensor.name for graph in graphs for tensor in graph.initializer}
        self.computed = {info.name for graph in graphs for info in graph.input if info.name not in weights}
        for node in self.nodes:
            if any(name in self.computed for name in needs(node)) or node.op_type.startswith("Random"):
                self.computed.update(name for name in node.output if name)

    def above(self, value: str, settled: set[str]) -> tuple[list[int], list[str], list[str]]:
        """The places of the nodes that compute a value from settled ones and constants, and both of these."""
        places: set[int] = set()
        borders: dict[str, None] = {}
        constants: dict[str, None] = {}
        waiting = [self.maker[value]]
        while waiting:
            place = waiting.pop()
            if place in places:
                continue
            places.add(place)
            for name in needs(self.nodes[place]):
                if name in settled:
                    borders[name] = None
                elif name in self.maker and name not in self.computed:
                    constants[name] = None
                elif name in self.maker:
                    waiting.append(self.maker[name])
        return sorted(places), list(borders), list(constants)


def _with_bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        for body in graphs_of(node):
            yield from _with_bodies(body.node)
        yield node


def settled_values(original: Document, folded: Document, ledger: Ledger) -> list[str]:
    """The values of the main graph that must be the same in both models, in the order in which the folded one makes
    them.
    """
    before, after = _Graph(original, inside=False), _Graph(folded, inside=False)
    return _settled(before, after, ledger)


def _settled(before: _Graph, after: _Graph, ledger: Ledger) -> list[str]:
    common = (before.computed & after.computed) - (ledger.changed - before.handed_out)
    made = [name for node in after.nodes for name in node.output if name in common]
    return [*(name for name in common if name not in after.maker), *made]


def cutouts(original: Document, folded: Document, ledger: Ledger) -> Iterator[Cutout]:
    """The pairs between which folds stand, in the order of the folded model's nodes, those of bodies first."""
    before, after = _Graph(original, inside=True), _Graph(folded, inside=True)
    names = _settled(before, after, ledger)
    settled = set(names)
    for name in names:
        if name not in after.maker or name not in before.maker:
            continue
        new, old = after.nodes[after.maker[name]], before.nodes[before.maker[name]]
        if new == old and all(read in settled or read not in after.computed for read in needs(new)):
            continue
        places, borders, constants = before.above(name, settled)
        new_places, new_borders, new_constants = after.above(name, settled)
        outputs = [before.nodes[place].output[0] for place in places]
        sites = {ledger.sites[output] for output in outputs if output in ledger.sites}
        if sites:
            yield Cutout(
                name,
                tuple(dict.fromkeys((*borders, *new_borders))),
                tuple(dict.fromkeys((*constants, *new_constants))),
                tuple(before.nodes[place] for place in places),
                tuple(after.nodes[place] for place in new_places),
                tuple(sorted(sites)),
            )
