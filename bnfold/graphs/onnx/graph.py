"""An ONNX model as the graph that the algebra asks for, and the place where plans are carried out.

Plans change the index; `emit` writes the changes into the protobuf messages, once, at the end. What no plan names is
not touched. Decisions:

- Where a node goes upward, what is left makes the value that the node made, under its name: readers, bodies and graph
  outputs see no change. Downward, the value keeps the name that it had above.
- A changed constant is a new one with a name of its own, beside its reader; the old one goes when nobody reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.algebra.edits import Append, Drop, Plan, Rewrite, Supply
from bnfold.algebra.graph import Site
from bnfold.graphs.indexed import IndexedGraph
from bnfold.graphs.onnx.constants import Constants
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.index import Node, Scope, Value, index_model, link
from bnfold.graphs.onnx.kinds import translate
from bnfold.graphs.onnx.kinds.facts import Facts
from bnfold.graphs.onnx.known import Known
from bnfold.graphs.onnx.revealed import Revealed
from bnfold.graphs.onnx.settled import settle_again, settled
from bnfold.graphs.onnx.sites import find_sites
from bnfold.graphs.rounding import lost, norm

_ELEMENTWISE = ("Add", "Sub", "Mul", "Div")


class OnnxGraph(IndexedGraph):
    """The model in a document. It edits the document's skeleton, in `emit`, and nothing else."""

    def __init__(self, document: Document, where: str, *, freeze_initializers: bool = False) -> None:
        self.document = document
        self.scopes = index_model(document.model, where)
        self.constants: Constants
        self.shapes, self.constants = settled(document, self.scopes, freeze_initializers)
        self.facts = Facts(self.shapes, self.constants)
        self._inferred = Facts(self.shapes, self.constants, outlined=False)
        self._exact: set[Node] = set()  # nodes of which outlines have not told enough
        self._revealed = Revealed()
        self._evaluated = False  # whether a fold has made a constant of what was none
        self._kinds: dict[Node, ops.Kind] = {}
        self._names: set[str] = set()
        # What `emit` has to write: constants made, nodes gone, and whose metadata go where.
        self.new: dict[Scope, list[Value]] = {}
        self.gone: set[Node] = set()
        self.added: dict[Node, Node] = {}
        self.metadata: dict[Node, list[Node]] = {}

    def all_scopes(self) -> list[Scope]:
        return [inner for scope in self.scopes for inner in scope.walk()]

    # What the planner asks.

    def sites(self) -> list[Site]:
        return find_sites(self, self.scopes, self.facts, self.gone)

    def kind(self, node: Node, along: Sequence[int] = ()) -> ops.Kind:
        kind = self._kinds.get(node)
        if kind is None:
            kind = self._kinds[node] = translate(node, self._inferred if node in self._exact else self.facts)
        if along and node not in self._exact and isinstance(kind, ops.Sum | ops.Gate) and _is_vague(kind, along):
            self._exact.add(node)
            kind = self._kinds[node] = translate(node, self._inferred)
        return kind

    def name(self, node: Node) -> str:
        """The node's name; of one that a plan added, that of the node behind which it stands."""
        return self.added.get(node, node).name

    def rounding(self, node: Node, position: int, affine: Affine) -> Refusal | int:
        value = node.inputs[position]
        known = self.constants.known(value)
        if known is None or value is None or not known.is_floating:
            return Refusal("computed-weight", "a constant to fold into is of a type that is not understood")
        after = known.then(affine)
        refusal = after.refusal() or lost(after, self.kind(node), position)
        if refusal:
            return refusal
        if len(value.readers) > 1 or value.is_output:
            return after.nbytes
        return 0 if after.folded_shape == known.folded_shape else max(0, after.nbytes - known.nbytes)

    def undroppable(self, drops: Sequence[Drop]) -> Node | None:
        made = {edit.node.outputs[0]: edit for edit in drops}
        for edit in drops:
            node: Node = edit.node
            target, source = node.outputs[0], node.inputs[edit.data]
            if target is None or source is None:
                return node
            if not target.is_output:
                continue
            while source in made:  # its maker goes, too, so that the one above has to make the output
                if source.scope is not target.scope or source.is_output or not _is_read_by(node, source):
                    return node
                node, source = made[source].node, made[source].node.inputs[made[source].data]
            if source is None or self.is_constant(source):  # which a plan replaces by one without a maker
                return node
            if source.scope is not target.scope or not self._merges_upward(node, source):
                return node
        return None

    def _merges_upward(self, node: Node, source: Value) -> bool:
        """Whether the maker of a value can make what the node makes instead."""
        can_make = source.producer is not None and not source.is_output and source.scope is node.scope
        return can_make and _is_read_by(node, source)

    def stored(self, array: Array, node: Node, like: int) -> Array:
        known = self.constants.known(node.inputs[like])
        return array if known is None else _made(array, known, "").stored64()

    def fits(self, array: Array, node: Node, like: int) -> Refusal | None:
        known = self.constants.known(node.inputs[like])
        if known is None:
            return Refusal("computed-weight", "the type of a new constant is not known")
        return None if norm(array) < known.limit / 2 else _made(array, known, "a new bias").refusal()

    # What a plan does.

    def apply(self, plan: Plan) -> None:
        if not self._names:
            self._names = self._all_names()
        for edit in plan.edits:
            if isinstance(edit, Rewrite):
                self._rewrite(edit)
            elif isinstance(edit, Supply):
                self._supply(edit)
            elif isinstance(edit, Append):
                self._append(edit)
        dropped = [edit for edit in plan.edits if isinstance(edit, Drop)]
        for edit in dropped:
            self._drop(edit)
        for node in plan.into:
            self.metadata.setdefault(node, []).extend(edit.node for edit in dropped)

    def learn(self) -> bool:
        told, evaluated, self._evaluated = self._revealed.news(self.shapes), self._evaluated, False
        if told:
            settle_again(self.shapes, self.constants, self.scopes[0], told)
        elif evaluated:
            self.constants.reconsider()
        if told or evaluated:
            self.facts.forget()
            self._inferred.forget()
            self._exact.clear()
            self._kinds.clear()
        return bool(told) or evaluated

    def _rewrite(self, edit: Rewrite) -> None:
        node: Node = edit.node
        old = node.inputs[edit.position]
        known = self.constants.known(old)
        if known is None or old is None:
            raise KeyError(f"input {edit.position} of '{node.name}' is no constant")
        after = known.then(edit.affine)
        self._set_constant(node, edit.position, after, old.name)
        if node.outputs[0] is not None and node.op in _ELEMENTWISE and after.folded_shape != known.folded_shape:
            self._revealed.spanned.append((node.outputs[0], after.folded_shape))

    def _supply(self, edit: Supply) -> None:
        node: Node = edit.node
        like = self._like(node, edit.like)
        self._set_constant(node, edit.position, _made(edit.array, like, "bias"), f"{node.name}.bias")

    def _append(self, edit: Append) -> None:
        """An Add behind the node: it makes the value that the node made, the node makes a new one."""
        node: Node = edit.node
        like = self._like(node, edit.like)
        final = node.outputs[0]
        if final is None:
            raise KeyError(f"'{node.name}' makes nothing")
        inner = Value(self._unique(f"{final.name}.unbiased"), node.scope, node, 0)
        self.shapes.copy(final, inner)
        node.scope.values[inner.name] = inner
        node.outputs[0] = inner
        node.changed = True
        proto = onnx.NodeProto(op_type="Add", name=self._unique(f"{node.name}.bias_add"))
        add = Node(proto, node.scope)
        add.outputs.append(final)
        add.changed = True
        self.added[add] = self.added.get(node, node)
        final.producer, final.port = add, 0
        link(add, 0, inner)
        array = edit.array.reshape(edit.array.shape[_leading_ones(edit.array) :])
        self._set_constant(add, 1, _made(array, like, "bias"), f"{node.name}.bias")
        self._revealed.spanned.append((final, array.shape))
        node.scope.nodes.insert(node.scope.nodes.index(node) + 1, add)
        node.scope.changed = True

    def _drop(self, edit: Drop) -> None:
        """Merge what the node reads and what it makes into one value."""
        node: Node = edit.node
        source, target = node.inputs[edit.data], node.outputs[0]
        if source is None or target is None:
            raise KeyError(f"'{node.name}' reads or makes nothing")
        self._revealed.merged.append((source, target))
        self._evaluated |= self.constants.known(source) is not None
        maker = source.producer
        # What a foreign operator makes keeps its name: of this value alone the file is believed what it says of sizes.
        keeps_output = edit.keep == "output" and not (maker is not None and maker.domain)
        upward = self._merges_upward(node, source) and (keeps_output or target.is_output)
        if upward and maker is not None:
            maker.outputs[source.port] = target
            maker.changed = True
            target.producer, target.port = maker, source.port
            for reader, position in [*source.lookers]:
                self._read(reader, position, target)
            source.producer = None
            source.scope.values.pop(source.name, None)
        else:
            for reader, position in [*target.readers, *target.lookers]:
                self._read(reader, position, source)
            target.producer = None
            target.scope.values.pop(target.name, None)
        for position in range(len(node.inputs)):  # last: a constant that only this node has read may stay for others
            self._unlink(node, position)
        self._remove(node)

    def _set_constant(self, node: Node, position: int, known: Known, base: str) -> None:
        value = Value(self._unique(f"{base.removesuffix('.folded')}.folded"), node.scope)
        node.scope.values[value.name] = value
        self.constants.put(value, known)
        self.new.setdefault(node.scope, []).append(value)
        self._read(node, position, value)

    def _read(self, node: Node, position: int, value: Value) -> None:
        old = node.inputs[position] if position < len(node.inputs) else None
        link(node, position, value)
        node.changed = True
        self._kinds.pop(node, None)
        if old is not None:
            self._sweep(old)

    def _unlink(self, node: Node, position: int) -> None:
        old = node.inputs[position]
        link(node, position, None)
        if old is not None:
            self._sweep(old)

    def _sweep(self, value: Value) -> None:
        """Remove what only this value needed, now that a plan has taken its reader away."""
        waiting = [value]
        while waiting:
            value = waiting.pop()
            if value.readers or value.lookers or value.is_output:
                continue
            if value.producer is None:
                if not value.is_input or (value.tensor is not None and self.document.model.ir_version < 4):
                    value.scope.values.pop(value.name, None)
                continue
            node = value.producer
            needed = [one for one in node.outputs if one and (one.readers or one.lookers or one.is_output)]
            if needed or self.constants.known(value) is None:
                continue
            for position, source in enumerate(node.inputs):
                link(node, position, None)
                if source is not None:
                    waiting.append(source)
            value.scope.values.pop(value.name, None)
            self._remove(node)

    def alive(self, scope: Scope) -> list[Value]:
        """The constants that plans made in a scope and that are still read; a later plan may have replaced some."""
        return [value for value in self.new.get(scope, ()) if scope.values.get(value.name) is value]

    def _remove(self, node: Node) -> None:
        self.gone.add(node)
        node.scope.changed = True

    def _like(self, node: Node, position: int) -> Known:
        known = self.constants.known(node.inputs[position])
        if known is None:
            raise KeyError(f"input {position} of '{node.name}' is no constant")
        return known

    def _unique(self, base: str) -> str:
        name, count = base, 1
        while name in self._names:
            name, count = f"{base}_{count}", count + 1
        self._names.add(name)
        return name

    def _all_names(self) -> set[str]:
        """The names that are taken."""
        scopes = self.all_scopes()
        names = set[str]().union(*(scope.values for scope in scopes))
        names.update([node.proto.name for scope in scopes for node in scope.nodes])
        names.update([info.name for info in self.document.model.graph.value_info[:]])
        return names


def _is_read_by(node: Node, value: Value) -> bool:
    """Whether no other node reads the value."""
    return all(reader is node for reader, _ in value.readers)


def _is_vague(kind: ops.Sum | ops.Gate, along: Sequence[int]) -> bool:
    """Whether the size of an operand along one of these axes of the result is not known."""
    return any(
        shape[axis - len(kind.y_shape)] is None
        for shape in kind.shapes
        for axis in along
        if axis >= len(kind.y_shape) - len(shape)
    )


def _made(array: Array, like: Known, base: str) -> Known:
    """A constant with these values in the type of another."""
    zeros = np.zeros(array.shape, like.dtype)
    return Known(like.elem_type, array.shape, lambda: zeros, Affine(np.ones((1,) * array.ndim), array), base)


def _leading_ones(array: Array) -> int:
    return next((axis for axis, size in enumerate(array.shape) if size != 1), array.ndim - 1 if array.ndim else 0)
