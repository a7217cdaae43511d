"""An exported program as the graph that the algebra asks for, and the index in which plans are carried out.

Plans change the index alone; `emit` writes the changes into a program, `module` into a module. What no plan names is
not touched. A node that goes leaves its input to its readers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.algebra.edits import Append, Drop, Plan, Rewrite, Supply
from bnfold.algebra.graph import Site
from bnfold.graphs.chains import chain_name
from bnfold.graphs.indexed import IndexedGraph, input_at
from bnfold.graphs.rounding import lost
from bnfold.graphs.torch.constants import Constants, Known, made
from bnfold.graphs.torch.index import Index, Node, Slot, Value, link
from bnfold.graphs.torch.kinds import BATCH_NORMS, translate
from bnfold.graphs.torch.kinds.facts import Facts
from bnfold.graphs.torch.sites import find_sites, told_apart
from bnfold.results import Counts

_PRODUCTS = ("linear", "addmm", "mm", "bmm", "matmul", "mv")
LAID_OUT = "an operator below relies on how it lays out its result in memory"


class TorchGraph(IndexedGraph):
    """The graph of an index; `state` holds the tensors of parameters, buffers and constants by their names.

    `unfit` are the names of nodes that must stay, because of how they lay out what they make.
    """

    def __init__(self, index: Index, state: Mapping[str, Any], unfit: Collection[str] = ()) -> None:
        self.index = index
        self.unfit = unfit
        self.constants: Constants = Constants(state)
        self.facts = Facts(self.constants)
        self._kinds: dict[Node, ops.Kind] = {}
        # What has to be written: which constants changed, nodes made and gone, and which value took another's place.
        self.changed: dict[tuple[Node, int], Value] = {}
        self.evaluated: dict[Value, tuple[Node, int]] = {}  # constants that took a node's place, and where it read them
        self.appended: list[Node] = []
        self.gone: dict[Node, None] = {}
        self.merged: dict[Value, Value] = {}
        # Per call of a module the nodes in it that compute something from the inputs, and BatchNorms. What is constant
        # is found out here, in the order of execution: asked for the last value first, the search would go as deep as
        # the graph.
        self.members: dict[str, list[Node]] = {}
        for node in index.nodes:
            computed = any(value and value.tensor is not None and not self.facts.known(value) for value in node.outputs)
            if computed or node.op in BATCH_NORMS:
                for key, _ in node.calls:
                    self.members.setdefault(key, []).append(node)
        self.before = self.count()
        for node in index.nodes:
            if node.op in BATCH_NORMS:
                self._complete(node)

    def _complete(self, node: Node) -> None:
        """Give a BatchNorm without gamma and beta those that it has in effect, so that it can absorb another."""
        var = self.facts.floating(input_at(node, 4))
        for position, number in ((1, 1.0), (2, 0.0)):
            if var is not None and node.inputs[position] is None:
                value = Value(f"{node.name}.{node.slots[position].argument}")
                self.constants.put(value, made(torch.full(var.shape, number).double().numpy(), var, value.name))
                link(node, position, value)

    def count(self) -> Counts:
        """What the graph holds, constants that nobody reads aside; `linears` are linear layers and matrix products."""
        nodes: set[Node] = set()
        for node in reversed(self.index.nodes):
            readers = [reader for value in node.outputs if value for reader, _ in value.readers]
            if not self.facts.known(node.outputs[0]) or any(reader in nodes for reader in readers):
                nodes.add(node)
        return Counts(
            batch_norms=sum(node.op in BATCH_NORMS for node in nodes),
            convs=sum(node.op.startswith("conv") for node in nodes),
            linears=sum(node.op in _PRODUCTS for node in nodes),
            nodes=len(nodes),
        )

    # What the planner asks.

    def sites(self) -> list[Site]:
        sites = self.found_sites()
        return [self.refused(site, "unsupported", LAID_OUT) if self.is_unfit(site) else site for site in sites]

    def found_sites(self) -> list[Site]:
        return told_apart(find_sites(self, self.index.nodes, self.facts, self._chain_name))

    def _chain_name(self, chain: Sequence[Node]) -> str:
        """The path of the module whose call a chain is; else the names of its ends."""
        key, path = chain[0].calls[-1] if chain[0].calls else ("", "")
        if key and set(self.members[key]) == set(chain):
            return path + "".join(key.partition("@")[1:])
        return chain_name([self.name(node) for node in chain])

    def is_unfit(self, site: Site) -> bool:
        return any(node.name in self.unfit for node in site.nodes)

    def refused(self, site: Site, reason: str, detail: str) -> Site:
        return replace(site, refusal=site.refusal or Refusal(reason, detail, site.name))

    def kind(self, node: Node, along: Sequence[int] = ()) -> ops.Kind:
        if node not in self._kinds:
            self._kinds[node] = translate(node, self.facts)
        return self._kinds[node]

    def name(self, node: Node) -> str:
        """The path of the module that the node alone is the call of; else the node's own name."""
        return self.index.names.get(node, node.name)

    def value_name(self, value: Value) -> str:
        return value.target or value.name

    def rounding(self, node: Node, position: int, affine: Affine) -> Refusal | int:
        value = node.inputs[position]
        known = self.facts.floating(value)
        if known is None or value is None:
            return Refusal("computed-weight", "a constant to fold into is of a type that is not understood")
        after = known.then(affine)
        kept = len(value.readers) > 1 or value.is_output
        refusal = after.refusal() or lost(after, self.kind(node), position)
        return refusal or (after.nbytes if kept else max(0, after.nbytes - known.nbytes))

    def undroppable(self, drops: Sequence[Drop]) -> Node | None:
        return None

    def stored(self, array: Array, node: Node, like: int) -> Array:
        known = self.constants.known(node.inputs[like])
        return array if known is None else made(array, known, "").stored64()

    def fits(self, array: Array, node: Node, like: int) -> Refusal | None:
        known = self.constants.known(node.inputs[like])
        if known is None:
            return Refusal("computed-weight", "the type of a new constant is not known")
        return made(array, known, "bias").refusal()

    def final(self, value: Value) -> Value:
        """The value that stands for one whose maker went."""
        while value in self.merged:
            value = self.merged[value]
        return value

    # What a plan does.

    def apply(self, plan: Plan) -> None:
        for edit in plan.edits:
            if isinstance(edit, Rewrite):
                known = self._known(edit.node.inputs[edit.position])
                self._set_constant(edit.node, edit.position, known.then(edit.affine))
            elif isinstance(edit, Supply):
                like = self._known(edit.node.inputs[edit.like])
                self._set_constant(edit.node, edit.position, made(edit.array, like, _bias_name(like)))
            elif isinstance(edit, Append):
                self._append(edit)
        for edit in plan.edits:
            if isinstance(edit, Drop):
                self._drop(edit)

    def _append(self, edit: Append) -> None:
        """An addition behind the node: it makes the value that the node made, the node makes a new one."""
        node: Node = edit.node
        final = node.outputs[0]
        if final is None:
            raise KeyError(f"'{node.name}' makes nothing")
        inner = Value(f"{final.name}_unbiased", final.tensor, node, 0)
        node.outputs[0] = inner
        slots = [Slot("self"), Slot("other")]
        add = Node("add", f"{node.name}_bias_add", inputs=[None, None], outputs=[final], slots=slots, calls=node.calls)
        final.producer, final.port = add, 0
        link(add, 0, inner)
        ones = next((axis for axis, size in enumerate(edit.array.shape) if size != 1), max(edit.array.ndim - 1, 0))
        like = self._known(node.inputs[edit.like])
        self._set_constant(add, 1, made(edit.array.reshape(edit.array.shape[ones:]), like, _bias_name(like)))
        self.index.nodes.insert(self.index.nodes.index(node) + 1, add)
        self.appended.append(add)
        self.index.names[add] = self.name(node)

    def _drop(self, edit: Drop) -> None:
        node: Node = edit.node
        source, target = node.inputs[edit.data], node.outputs[0]
        if source is None or target is None:
            raise KeyError(f"'{node.name}' reads or makes nothing")
        if self.changed.get((node, edit.data)) is source:
            self.evaluated[source] = node, edit.data
        for position in range(len(node.inputs)):
            link(node, position, None)
        for reader, position in [*target.readers, *target.lookers]:
            link(reader, position, source)
        source.is_output = source.is_output or target.is_output
        self.merged[target] = source
        self.gone[node] = None
        self.index.nodes.remove(node)

    def _set_constant(self, node: Node, position: int, known: Known) -> None:
        value = Value(known.name)
        self.constants.put(value, known)
        link(node, position, value)
        self._kinds.pop(node, None)
        self.changed[node, position] = value

    def rewritten(self) -> Iterator[tuple[Node, int, Value]]:
        """The constants that plans made and that are still read: where the old one is, or was, read."""
        for (node, position), value in self.changed.items():
            if node in self.gone:
                if self.evaluated.get(value) == (node, position) and (value.readers or value.is_output):
                    yield node, position, value
            elif node.inputs[position] is value:
                yield node, position, value

    def _known(self, value: Value | None) -> Known:
        known = self.constants.known(value)
        if known is None:
            raise KeyError("a value that a plan changes is no constant")
        return known


def _bias_name(weight: Known) -> str:
    """What to call the bias that goes with a weight."""
    home, dot, name = weight.name.rpartition(".")
    return f"{home}{dot}bias" if name == "weight" else f"{weight.name}_bias"
