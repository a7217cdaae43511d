"""From one site to a complete edit, or to a refusal: the driver of the rules.

Backward, the demand of a site is pulled up from its input: a constant absorbs it; a value that anyone else sees refuses
it; otherwise the producer's rule turns it into demands on the producer's inputs. Every branch must absorb. Forward, the
affine is pushed down from the site's output through every reader until all of them absorb. Where neither takes it
whole, the scale may go one way and the shift the other. Nothing is edited here: the result is a value.

Soundness: after a plan is applied, a value demanded backward holds `demand(old value)`, a value reached forward holds
the old value before the affine that is still owed to it, and every value outside the plan is unchanged.

Decisions. Alternatives are tried in the order in which the rules give them. A search takes `MOST_STEPS` at most, and
what all searches in one graph take beyond `USUAL_STEPS` each is bounded together (`Budget`): the time for a graph,
however it is made, grows with its number of sites. The refusal that is reported is that of the first alternative,
which is the one that would have removed the most.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.algebra.edits import MOST_ADDED_BYTES, Append, Drop, Edit, Node, Plan, Rewrite, Step, Supply, Value
from bnfold.algebra.graph import Graph, Site
from bnfold.algebra.rules import backward, forward
from bnfold.algebra.storing import composed
from bnfold.results import Direction

MOST_STEPS = 2000
USUAL_STEPS = 64


@dataclass(eq=False)
class Budget:
    """How many steps beyond the usual ones are left to all searches in one graph."""

    steps: int = 100_000


@dataclass(eq=False)
class Trace:
    """What a search looked at: while none of these nodes or their neighbours change, it would find the same again.

    `passed_over` says that it met an affine operator that would have absorbed, had merging been allowed. `budget` is
    what it may use up.
    """

    nodes: set[Node] = field(default_factory=set)
    passed_over: bool = False
    budget: Budget = field(default_factory=Budget)


class _Found(NamedTuple):
    """A part of a plan: edits, who absorbs, what is crossed, which values change; then `parts`, found further on.

    `appends` says whether a node is added, here or in the parts.
    """

    edits: tuple[Edit, ...] = ()
    into: tuple[Node, ...] = ()
    through: tuple[Node, ...] = ()
    added_bytes: int = 0
    changed: tuple[Value, ...] = ()
    parts: tuple[_Found, ...] = ()
    appends: bool = False

    def plus(self, other: _Found) -> _Found:
        return self._replace(parts=(*self.parts, other), appends=self.appends or other.appends)

    def whole(self) -> _Found:
        """The same without parts, all that is in them in its order."""
        edits: list[Edit] = []
        into: list[Node] = []
        through: list[Node] = []
        changed: list[Value] = []
        added_bytes = 0
        waiting = [self]
        while waiting:
            found = waiting.pop()
            edits += found.edits
            into += found.into
            through += found.through
            changed += found.changed
            added_bytes += found.added_bytes
            waiting += reversed(found.parts)
        return _Found(tuple(edits), tuple(into), tuple(through), added_bytes, tuple(changed), (), self.appends)


def plan_backward(graph: Graph, site: Site, trace: Trace) -> Plan | Refusal:
    """Fold the site into what stands above it.

    A site that changes nothing goes into the operator right above it.
    """
    found = _Search(graph, trace).pull_site(site, composed(graph, site.nodes))
    if isinstance(found, Refusal):
        return found
    found = found.whole()
    if not found.into:
        first = graph.kind(site.nodes[0])
        made = graph.producer(graph.inputs(site.nodes[0])[first.data if isinstance(first, ops.ConstAffine) else 0])
        found = found._replace(into=(made[0],) if made else ())
    return _plan(graph, found, "backward")


def plan_forward(graph: Graph, site: Site, trace: Trace) -> Plan | Refusal:
    """Fold the site into what stands below it."""
    affine = composed(graph, site.nodes)
    return _pushed(graph, site, affine, trace, lambda found: _plan(graph, found, "forward"))


def plan_split(graph: Graph, site: Site, trace: Trace) -> Plan | Refusal:
    """Fold the scale upward and the shift downward: `s x + t` is a shift by t after a scaling by s."""
    affine = composed(graph, site.nodes)
    trace.nodes.update(site.nodes)
    if not affine.has_scale or not affine.has_shift:
        return Refusal("not-equivariant", "there is nothing to split")
    up = _Search(graph, trace).pull_site(site, affine.scaling())
    if isinstance(up, Refusal):
        return up

    def both(down: _Found) -> Plan | Refusal:
        whole = down.whole()
        kept = tuple(edit for edit in whole.edits if not (isinstance(edit, Drop) and edit.node in site.nodes))
        return _plan(graph, up.plus(whole._replace(edits=kept)), "split")

    return _pushed(graph, site, affine.shifting(), trace, both)


def plan_merge(graph: Graph, site: Site, trace: Trace, others: Container[Node]) -> Plan | Refusal:
    """Fold the site into one of these other affine operators, above it or below: for those with nowhere else to go."""
    affine = composed(graph, site.nodes)
    up = _Search(graph, trace, merging=others).pull_site(site, affine)
    found = _Search(graph, trace, merging=others).push_site(site, affine) if isinstance(up, Refusal) else up
    if isinstance(found, Refusal):
        return up if isinstance(up, Refusal) else found
    return _plan(graph, found, "merged")


def _pushed(
    graph: Graph, site: Site, affine: Affine, trace: Trace, plan: Callable[[_Found], Plan | Refusal]
) -> Plan | Refusal:
    """Push an affine down from a site; where two ways meet in one operator, with biases above it instead."""

    def attempt(early: bool) -> Plan | Refusal:
        found = _Search(graph, trace, early=early).push_site(site, affine)
        return found if isinstance(found, Refusal) else plan(found)

    made = attempt(early=False)
    if isinstance(made, Plan) or made.reason != "conflict":
        return made
    other = attempt(early=True)
    return other if isinstance(other, Plan) else made


def _plan(graph: Graph, found: _Found, direction: Direction) -> Plan | Refusal:
    found = found.whole()
    slots: set[tuple[Node, int | type]] = set()
    gone = {edit.node for edit in found.edits if isinstance(edit, Drop)}
    for edit in found.edits:
        slot = (edit.node, edit.position if isinstance(edit, Rewrite | Supply) else type(edit))
        if slot in slots:  # an affine that reaches one operator on two ways
            return Refusal("conflict", "two demands meet in one operator", graph.name(edit.node))
        slots.add(slot)
    stuck = graph.undroppable([edit for edit in found.edits if isinstance(edit, Drop)])
    if stuck is not None:
        return Refusal("graph-output", "its value is an output of the graph", graph.name(stuck))
    added_bytes = found.added_bytes + sum(
        edit.array.nbytes for edit in found.edits if isinstance(edit, Supply | Append)
    )
    if added_bytes > MOST_ADDED_BYTES:
        size = f"{added_bytes / 2**20:.0f} MB"
        return Refusal("too-large", f"the fold would add {size} of parameters", graph.name(found.edits[0].node))
    into = tuple(node for node in dict.fromkeys(found.into) if node not in gone)
    through = tuple(node for node in dict.fromkeys(found.through) if node not in into)
    read = [edit for edit in found.edits if isinstance(edit, Rewrite) and edit.node in gone]
    constants = tuple(graph.value_name(graph.inputs(edit.node)[edit.position]) for edit in read)
    return Plan(found.edits, into, through, direction, added_bytes, found.changed, constants)


_Way: TypeAlias = Generator["_Way", Any, "_Found | Refusal"]
"""A step of a search; it yields the steps on whose results it depends."""


def _walked(way: _Way) -> _Found | Refusal:
    """The result of a step and of all that it depends on, however deep the graph is: Python's stack is not used."""
    stack = [way]
    answer: _Found | Refusal | None = None
    while stack:
        try:
            stack.append(stack[-1].send(answer))
            answer = None
        except StopIteration as stop:
            stack.pop()
            answer = stop.value
    if answer is None:
        raise TypeError("a search gave no answer")
    return answer


class _Search:
    """One bounded search; its methods return a part of a plan or a refusal and change nothing but budget and trace.

    An affine operator that multiplies may absorb too if it is one of `merging`; with `early`, a product gets a bias of
    its own rather than another operator below it.
    """

    def __init__(self, graph: Graph, trace: Trace, *, merging: Container[Node] = (), early: bool = False) -> None:
        self.graph = graph
        self.trace = trace
        self.merging = merging
        self.early = early
        self.steps = 0

    def pull_site(self, site: Site, affine: Affine) -> _Found | Refusal:
        first = site.nodes[0]
        position = self._data(first)
        found = self._enter(site) or _walked(self._pull(self.graph.inputs(first)[position], affine, first, position))
        return self._without(site, "output", found)

    def push_site(self, site: Site, affine: Affine) -> _Found | Refusal:
        last = site.nodes[-1]
        found = self._enter(site) or _walked(self._push(self.graph.outputs(last)[0], affine, last))
        return self._without(site, "input", found)

    def _enter(self, site: Site) -> Refusal | None:
        """Why the site cannot go as a whole: someone sees a value between its nodes."""
        self.trace.nodes.update(site.nodes)
        unseen = (self._unseen(self.graph.inputs(node)[self._data(node)], node) for node in site.nodes[1:])
        return next(filter(None, unseen), None)

    def _without(self, site: Site, keep: Literal["input", "output"], found: _Found | Refusal) -> _Found | Refusal:
        """What was found, with the nodes of the site dropped."""
        if isinstance(found, Refusal):
            return found
        return _Found(tuple(Drop(node, self._data(node), keep) for node in site.nodes)).plus(found)

    def _pull(self, value: Value | None, a: Affine, reader: Node, position: int) -> _Way:
        """Make `value`, as `reader` sees it, hold `a(value)`."""
        if a.is_identity:
            return _Found()
        refusal = self._spend(reader)
        if refusal:
            return refusal
        graph = self.graph
        if graph.is_constant(value):  # it says itself what is not finite
            rounded = graph.rounding(reader, position, a)
            if isinstance(rounded, Refusal):
                return self._blamed(rounded, reader)
            return _Found((Rewrite(reader, position, a),), (reader,), added_bytes=rounded)
        made = graph.producer(value)
        refusal = self._infinite(a, reader) or self._unseen(value, reader)
        if refusal:
            return refusal
        if made is None:
            return Refusal("graph-input", "the value is an input of the graph", graph.value_name(value))
        node, port = made
        self.trace.nodes.add(node)
        kind = graph.kind(node, a.axes)
        steps = backward(kind, node, port, a)
        if isinstance(steps, Refusal):
            return self._blamed(steps, node)
        steps = self._allowed(node, kind, steps)
        found = yield self._best(node, steps, self._take, adding=not _is_bias_add(kind))
        return found if isinstance(found, Refusal) else _Found(changed=(value,)).plus(found)

    def _take(self, node: Node, step: Step) -> _Way:
        """Meet all demands of one backward step."""
        refusal = self._holdable(step)
        if refusal:
            return refusal
        total = _found(node, step)
        for position, demand in step.demands:
            found = yield self._pull(self.graph.inputs(node)[position], demand, node, position)
            if isinstance(found, Refusal):
                return self._blamed(step.otherwise, node) if step.otherwise else found
            total = total.plus(found)
        return total

    def _push(self, value: Value | None, a: Affine, maker: Node) -> _Way:
        """Let every reader of `value` do without `a`, which `maker` no longer applies."""
        if a.is_identity or value is None:
            return _Found()
        graph = self.graph
        refusal = self._spend(maker) or self._infinite(a, maker)
        if refusal:
            return refusal
        if graph.is_output(value):
            return Refusal("graph-output", "its value is an output of the graph", graph.name(maker))
        total = _Found(changed=(value,))
        readers = graph.readers(value)
        if len({node for node, _ in readers}) < len(readers):
            return Refusal("conflict", "one operator reads the value twice", graph.name(readers[0][0]))
        for node, position in readers:
            found = yield self._pass(node, position, a)
            if isinstance(found, Refusal):
                return found
            total = total.plus(found)
        return total

    def _pass(self, node: Node, position: int, a: Affine) -> _Way:
        """Let one reader do without `a`."""
        graph = self.graph
        self.trace.nodes.add(node)

        def read(at: int) -> Array:
            return graph.constant(graph.inputs(node)[at])

        kind = graph.kind(node)
        steps = forward(kind, node, position, a, read)
        if isinstance(steps, Refusal):
            return self._blamed(steps, node)
        steps = self._allowed(node, kind, steps)
        if self.early and isinstance(kind, ops.Linear):
            steps = steps[::-1]
        found: _Found | Refusal = yield self._best(node, steps, self._leave, adding=self.early)
        return found

    def _leave(self, node: Node, step: Step) -> _Way:
        """Meet the demands of one forward step and push on what its outputs carry."""
        graph = self.graph
        refusal = self._holdable(step)
        if refusal:
            return refusal
        total = _found(node, step)
        for at, demand in step.demands:
            found = yield self._pull(graph.inputs(node)[at], demand, node, at)
            if isinstance(found, Refusal):
                return found
            total = total.plus(found.whole()._replace(through=()))
        for value, out in zip(graph.outputs(node), step.outs, strict=False):
            found = yield self._push(value, out, node)
            if isinstance(found, Refusal):
                return found
            total = total.plus(found)
        return total

    def _best(self, node: Node, steps: Sequence[Step], follow: Callable[[Node, Step], _Way], *, adding: bool) -> _Way:
        """The first alternative that works, of those that add no operator if `adding` is not wanted; else a refusal."""
        tried: list[_Found | Refusal] = []
        for step in steps:
            found = yield follow(node, step)
            if isinstance(found, _Found) and (adding or not found.appends):
                return found
            tried.append(found)
        return next((found for found in tried if isinstance(found, _Found)), tried[0])

    def _allowed(self, node: Node, kind: ops.Kind, steps: Sequence[Step]) -> Sequence[Step]:
        """The alternatives without those in which another affine operator absorbs, unless that is the purpose."""
        if not isinstance(kind, ops.ConstAffine) or kind.absorber.scale is None or node in self.merging:
            return steps
        allowed = [step for step in steps if not step.absorbs]
        self.trace.passed_over |= len(allowed) < len(steps)
        return allowed

    def _unseen(self, value: Value | None, reader: Node) -> Refusal | None:
        """Why a value cannot change: someone other than `reader` sees it."""
        graph = self.graph
        readers = graph.readers(value)
        if len(readers) <= 1 and not graph.is_output(value):
            return None
        made = graph.producer(value)
        maker = graph.name(made[0]) if made else graph.value_name(value)
        if graph.is_output(value):
            return Refusal("graph-output", "its value before the BatchNorm is an output of the graph", maker)
        others = list(dict.fromkeys(node for node, _ in readers if node != reader))
        return Refusal("shared-value", f"its value is also read by {self._listed(others)}", maker)

    def _spend(self, node: Node) -> Refusal | None:
        self.steps += 1
        if self.steps <= USUAL_STEPS:
            return None
        budget = self.trace.budget
        budget.steps -= 1
        if self.steps > MOST_STEPS or budget.steps < 0:
            return Refusal("unsupported", "the way to a linear operator is too long", self.graph.name(node))
        return None

    def _infinite(self, a: Affine, node: Node) -> Refusal | None:
        if a.is_finite:
            return None
        return Refusal("non-finite", "the parameters to fold are not finite numbers", self.graph.name(node))

    def _holdable(self, step: Step) -> Refusal | None:
        for edit in step.edits:
            if isinstance(edit, Supply | Append):
                like = edit.like
                refusal = self.graph.fits(edit.array, edit.node, like)
                if refusal:
                    return self._blamed(refusal, edit.node)
        return None

    def _blamed(self, refusal: Refusal, node: Node) -> Refusal:
        return refusal if refusal.blocker else Refusal(refusal.reason, refusal.detail, self.graph.name(node))

    def _listed(self, nodes: list[Node]) -> str:
        """Nodes in a sentence; of many only the first."""
        if not nodes:
            return "the same operator a second time"
        first = self.graph.name(nodes[0])
        return first if len(nodes) == 1 else f"{first} and {len(nodes) - 1} more"

    def _data(self, node: Node) -> int:
        kind = self.graph.kind(node)
        return kind.data if isinstance(kind, ops.ConstAffine) else 0


def _found(node: Node, step: Step) -> _Found:
    """What a step does to the node itself."""
    appends = any(isinstance(edit, Append) for edit in step.edits)
    absorbs = step.absorbs
    return _Found(step.edits, (node,) if absorbs else (), () if absorbs else (node,), appends=appends)


def _is_bias_add(kind: ops.Kind) -> bool:
    """An addition of a constant: better kept, as the bias it is, than replaced by a new addition."""
    return isinstance(kind, ops.ConstAffine) and kind.absorber.shift is not None and kind.absorber.scale is None
