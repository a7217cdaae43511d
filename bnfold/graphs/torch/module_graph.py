"""The graph of a module: that of its program, less what the structure of the module cannot carry.

Decisions. What can be left out is the call of a module, so the operators of one site that lie in one call are made one
node. An affine operator that is written out in code stays, but a parameter of it may still take a fold: it is read as
the bias of the matrix product above it, or else as the sum or the product that it is. Nothing can be added behind an
operator. A hook sees what goes into and comes out of its module, so these values stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.algebra.graph import Site
from bnfold.algebra.storing import composed
from bnfold.graphs.torch.calls import Calls
from bnfold.graphs.torch.graph import LAID_OUT, TorchGraph
from bnfold.graphs.torch.index import Index, Node, Value, link, watch
from bnfold.graphs.torch.kinds import BATCH_NORMS
from bnfold.graphs.torch.memory import may_be_overwritten
from bnfold.graphs.torch.sites import takes_bias, told_apart
from bnfold.graphs.torch.structure import STRUCTURE, Structure, Unit

_HOOK = "a hook sees it"
_TRAINING = "the module is in training mode; call eval() on it, or give assume_eval=True"
_OVERWRITTEN = "what it makes is written to in place, in memory that others would then share"


class ModuleGraph(TorchGraph):
    """The graph of a module's program. `units` are the calls that can be left out, by the node that stands for each.

    `hooks` are the paths of modules that bear hooks.
    """

    def __init__(
        self,
        index: Index,
        state: Mapping[str, Any],
        module: nn.Module,
        calls: Calls,
        hooks: Iterable[str] = (),
        unfit: Collection[str] = (),
        *,
        training: bool = False,
    ) -> None:
        super().__init__(index, state, unfit)
        self.training = training
        self.structure = Structure(module, index, self.facts, calls, self.members)
        self.units: dict[Node, Unit] = {}
        self._fixed: dict[Node, ops.Kind] = {}
        for path, value in list(self.structure.hooked(hooks)):
            watch(value, f"a hook of '{path}'", _HOOK)
        self._sites = told_apart(map(self._fitted, self.found_sites()))
        self._read_written_out()

    def sites(self) -> list[Site]:
        if not self.training:
            return self._sites
        refusal = Refusal("training-mode", _TRAINING)
        return [replace(site, refusal=replace(refusal, blocker=site.name)) for site in self._sites]

    def learn(self) -> bool:
        """Whether calls that folds have left out may let others go: those were the ones to share parameters with them.

        It is asked of BatchNorms alone; the nodes of a chain that was refused are no longer what they were.
        """
        gone = [self.units[node] for node in self.gone if node in self.units]
        if len(gone) == len(self.structure.gone) or not self.structure.wants_room:
            return False
        self.structure.gone, self.structure.wants_room = gone, False
        for at, site in enumerate(self._sites):
            (node, *others) = site.nodes
            if site.refusal and node in self._fixed and not others and node.op in BATCH_NORMS:
                del self._fixed[node]
                self._sites[at] = replace(self._fitted(replace(site, refusal=None)), name=site.name)
        return True

    def kind(self, node: Node, along: Sequence[int] = ()) -> ops.Kind:
        return self._fixed[node] if node in self._fixed else super().kind(node, along)

    def rounding(self, node: Node, position: int, affine: Affine) -> Refusal | int:
        added = super().rounding(node, position, affine)
        value = node.inputs[position]
        if isinstance(added, Refusal) or value is None:
            return added
        refusal = None if (node, position) in self.changed else self.structure.fixed(value)
        known = self._known(value)
        if refusal is None and known.then(affine).folded_shape != known.folded_shape:
            refusal = Refusal(STRUCTURE, f"'{known.name}' would need another shape")
        return refusal or added

    def fits(self, array: Array, node: Node, like: int) -> Refusal | None:
        kind = self.kind(node)
        if isinstance(kind, ops.Linear) and kind.bias is not None:
            weight = node.inputs[like]
            name = self._known(weight).name if self.constants.known(weight) else ""
            alone = weight is not None and len(weight.readers) == 1
            return self.structure.without_bias(node, name, alone=alone) or super().fits(array, node, like)
        return Refusal(STRUCTURE, f"'{self.name(node)}' has no bias that could take the shift")

    def _fitted(self, site: Site) -> Site:
        """A site whose nodes are the calls to be left out; or one that is refused."""
        if site.refusal:
            return site
        if self.is_unfit(site):
            return self._kept(site, LAID_OUT)
        units = self.structure.units(site.nodes)
        if isinstance(units, Refusal):
            return self._kept(site, units.detail)
        nodes = tuple(self._united(unit) for unit in units)
        fitted = replace(site, name=self.name(nodes[0]) if len(nodes) == 1 else site.name, nodes=nodes)
        return self._kept(fitted, _OVERWRITTEN) if self._overwritten(fitted) else fitted

    def _kept(self, site: Site, detail: str) -> Site:
        for node in site.nodes:
            self._fixed[node] = ops.Opaque(STRUCTURE, detail)
            self.units.pop(node, None)
        return self.refused(site, STRUCTURE, detail)

    def _overwritten(self, site: Site) -> bool:
        """Whether a node of a site, left out, would have memory shared that somebody writes to."""
        for node in () if site.refusal else site.nodes:
            source, result = node.inputs[0], node.outputs[0]
            if self._written_after(node, source):
                return True
            if self._written_after(node, result) and not may_be_overwritten(source, self.kind, self.units):
                return True
        return False

    def _written_after(self, node: Node, value: Value | None) -> bool:
        return value is not None and value.storage is not None and self.index.written.get(value.storage, -1) > node.at

    def _united(self, unit: Unit) -> Node:
        """One node that does what the nodes of a unit do."""
        if len(unit.nodes) == 1:
            self.units[unit.nodes[0]] = unit
            return unit.nodes[0]
        first, last = unit.nodes[0], unit.nodes[-1]
        whole, factors = composed(self, unit.nodes), 1
        for node in unit.nodes:
            kind = self.kind(node)
            if not isinstance(kind, ops.ConstAffine):
                raise TypeError(f"a chain holds a {type(kind).__name__}")
            factors = max(factors, kind.factors)
        head = self.kind(first)
        source = first.inputs[head.data] if isinstance(head, ops.ConstAffine) else None
        united = Node("affine", last.name, source=last.source, inputs=[None], outputs=list(last.outputs))
        united.calls, united.at = last.calls, first.at
        for node in unit.nodes:
            for position in range(len(node.inputs)):
                link(node, position, None)
        link(united, 0, source)
        for value in united.outputs:
            if value is not None:
                value.producer = united
        at = self.index.nodes.index(first)
        self.index.nodes[:] = [node for node in self.index.nodes if node not in unit.nodes]
        self.index.nodes.insert(at, united)
        self.index.names[united] = unit.path
        self._fixed[united] = ops.ConstAffine(0, whole, ops.Absorber(), factors)
        self.units[united] = unit
        return united

    def _read_written_out(self) -> None:
        """Read the affine operators that cannot be left out as the biases, sums and products that they are."""
        for node in list(self.index.nodes):
            kind = self.kind(node)
            if isinstance(kind, ops.ConstAffine) and node not in self.units and not self._is_bias(node, kind):
                self._fixed[node] = self._written_out(node, kind)

    def _is_bias(self, node: Node, kind: ops.ConstAffine) -> bool:
        """Make one node of a matrix product and the addition of a constant behind it, where that is what it is."""
        source, to = node.inputs[kind.data], kind.absorber
        product = source.producer if source else None
        if product is None or source is None or to.shift is None or kind.affine.has_scale:
            return False
        linear = self.kind(product)
        if not takes_bias(product) or not isinstance(linear, ops.Linear) or source.is_output or len(source.readers) > 1:
            return False
        bias, at = node.inputs[to.shift], len(product.inputs)
        whole = Node(product.op, product.name, product.space, product.source, at=product.at, calls=product.calls)
        whole.inputs = [None] * (at + 1)
        for position, value in enumerate((*product.inputs, bias)):
            link(whole, position, value)
        for gone in (product, node):
            for position in range(len(gone.inputs)):
                link(gone, position, None)
        whole.outputs = list(node.outputs)
        for value in whole.outputs:
            if value is not None:
                value.producer = whole
        self.index.nodes[self.index.nodes.index(product)] = whole
        self.index.nodes.remove(node)
        self.index.names[whole] = self.name(product)
        self._fixed[whole] = linear._replace(bias=ops.Bias(at, present=True, axis=None, gain=to.sign))
        return True

    def _written_out(self, node: Node, kind: ops.ConstAffine) -> ops.Kind:
        shapes = [self.facts.shape(value) if value and value.number is None else () for value in node.inputs]
        known = tuple(shape for shape in shapes if shape is not None)
        whole = known[kind.data]
        if node.op in ("add", "sub", "subtract", "rsub"):
            minus = -1.0 if node.op != "add" else 1.0
            return ops.Sum((minus, 1.0) if node.op == "rsub" else (1.0, minus), known, whole)
        open_ = tuple(range(len(known))) if node.op in ("mul", "multiply") else (0,)
        return ops.Gate(open_, known, whole)
