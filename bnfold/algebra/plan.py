"""From one site to a complete edit, or to a refusal: the driver of the rules.

Backward, the demand of a site is pulled up from its input: a constant absorbs it; a value that anyone else sees refuses
it; otherwise the producer's rule turns it into demands on the producer's inputs. Every branch must absorb. Forward, the
affine is pushed down from the site's output through every reader until all of them absorb. Where neither takes it
whole, the scale may go one way and the shift the other. Nothing is edited here: the result is a value.

Soundness: after a plan is applied, a value demanded backward holds `demand(old value)`, a value reached forward holds
the old value before the affine that is still owed to it, and every value outside the plan is unchanged.

Decisions. Alternatives are tried in the order in which the rules give them; the whole search for one site is bounded by
`MOST_STEPS`, so that no graph, however made, takes more than a bounded time per site. The refusal that is reported is
that of the first alternative, which is the one that would have removed the most.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.algebra.edits import MOST_ADDED_BYTES, Append, Drop, Edit, Node, Plan, Rewrite, Step, Supply, Value
from bnfold.algebra.graph import Graph, Site
from bnfold.algebra.rules import backward, forward
from bnfold.results import Direction

MOST_STEPS = 2000
DEEPEST = 96  # five frames of Python each: well inside its default limit of 1000, whoever calls


@dataclass(eq=False)
class Trace:
    """What a search looked at: while none of these nodes or their neighbours change, it would find the same again.

    `passed_over` says that it met an affine operator that would have absorbed, had merging been allowed.
    """

    nodes: set[Node] = field(default_factory=set)
    passed_over: bool = False


class _Found(NamedTuple):
    """A part of a plan: edits, who absorbs, what is crossed, which values change."""

    edits: tuple[Edit, ...] = ()
    into: tuple[Node, ...] = ()
    through: tuple[Node, ...] = ()
    added_bytes: int = 0
    changed: tuple[Value, ...] = ()

    def plus(self, other: _Found) -> _Found:
        return _Found(
            self.edits + other.edits,
            self.into + other.into,
            self.through + other.through,
            self.added_bytes + other.added_bytes,
            self.changed + other.changed,
        )

    @property
    def appends(self) -> bool:
        return any(isinstance(edit, Append) for edit in self.edits)


def plan_backward(graph: Graph, site: Site, trace: Trace) -> Plan | Refusal:
    """Fold the site into what stands above it; a site that changes nothing goes into the operator right above it."""
    found = _Search(graph, trace).pull_site(site, site_affine(graph, site))
    if isinstance(found, Refusal):
        return found
    if not found.into:
        first = graph.kind(site.nodes[0])
        made = graph.producer(graph.inputs(site.nodes[0])[first.data if isinstance(first, ops.ConstAffine) else 0])
        found = found._replace(into=(made[0],) if made else ())
    return _plan(graph, found, "backward")


def plan_forward(graph: Graph, site: Site, trace: Trace) -> Plan | Refusal:
    """Fold the site into what stands below it."""
    affine = site_affine(graph, site)
    return _pushed(graph, site, affine, trace, lambda found: _plan(graph, found, "forward"))


def plan_split(graph: Graph, site: Site, trace: Trace) -> Plan | Refusal:
    """Fold the scale upward and the shift downward: `s x + t` is a shift by t after a scaling by s."""
    affine = site_affine(graph, site)
    trace.nodes.update(site.nodes)
    if not affine.has_scale or not affine.has_shift:
        return Refusal("not-equivariant", "there is nothing to split")
    up = _Search(graph, trace).pull_site(site, affine.scaling())
    if isinstance(up, Refusal):
        return up

    def both(down: _Found) -> Plan | Refusal:
        kept = tuple(edit for edit in down.edits if not (isinstance(edit, Drop) and edit.node in site.nodes))
        return _plan(graph, up.plus(down._replace(edits=kept)), "split")

    return _pushed(graph, site, affine.shifting(), trace, both)


def plan_merge(graph: Graph, site: Site, trace: Trace, others: Container[Node]) -> Plan | Refusal:
    """Fold the site into one of these other affine operators, above it or below: for those with nowhere else to go."""
    affine = site_affine(graph, site)
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


def site_affine(graph: Graph, site: Site) -> Affine:
    """The composition of the site's nodes."""
    kinds = [graph.kind(node) for node in site.nodes]
    affines = [kind.affine for kind in kinds if isinstance(kind, ops.ConstAffine)]
    whole = affines[0]
    for affine in affines[1:]:
        whole = affine.after(whole)
    return whole


def _plan(graph: Graph, found: _Found, direction: Direction) -> Plan | Refusal:
    slots: set[tuple[Node, int | type]] = set()
    for edit in found.edits:
        slot = (edit.node, edit.position if isinstance(edit, Rewrite | Supply) else type(edit))
        if slot in slots:  # an affine that reaches one operator on two ways
            return Refusal("conflict", "two demands meet in one operator", graph.name(edit.node))
        slots.add(slot)
        if isinstance(edit, Drop) and not graph.can_drop(edit.node, edit.data):
            return Refusal("graph-output", "its value is an output of the graph", graph.name(edit.node))
    added_bytes = found.added_bytes + sum(
        edit.array.nbytes for edit in found.edits if isinstance(edit, Supply | Append)
    )
    if added_bytes > MOST_ADDED_BYTES:
        size = f"{added_bytes / 2**20:.0f} MB"
        return Refusal("too-large", f"the fold would add {size} of parameters", graph.name(found.into[0]))
    into = tuple(dict.fromkeys(found.into))
    through = tuple(node for node in dict.fromkeys(found.through) if node not in into)
    return Plan(found.edits, into, through, direction, added_bytes, found.changed)


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
        found = self._enter(site) or self._pull(self.graph.inputs(first)[position], affine, first, position, 0)
        return self._without(site, "output", found)

    def push_site(self, site: Site, affine: Affine) -> _Found | Refusal:
        last = site.nodes[-1]
        found = self._enter(site) or self._push(self.graph.outputs(last)[0], affine, last, 0)
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
        return found._replace(edits=(*(Drop(node, self._data(node), keep) for node in site.nodes), *found.edits))

    def _pull(self, value: Value | None, a: Affine, reader: Node, position: int, depth: int) -> _Found | Refusal:
        """Make `value`, as `reader` sees it, hold `a(value)`."""
        if a.is_identity:
            return _Found()
        refusal = self._spend(reader, depth)
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
        found = _best((self._take(node, step, depth) for step in steps), adding=not _is_bias_add(kind))
        return found if isinstance(found, Refusal) else found._replace(changed=(*found.changed, value))

    def _take(self, node: Node, step: Step, depth: int) -> _Found | Refusal:
        """Meet all demands of one backward step."""
        refusal = self._holdable(step)
        if refusal:
            return refusal
        total = _Found(step.edits, (node,) if step.absorbs else (), () if step.absorbs else (node,))
        for position, demand in step.demands:
            found = self._pull(self.graph.inputs(node)[position], demand, node, position, depth + 1)
            if isinstance(found, Refusal):
                return self._blamed(step.otherwise, node) if step.otherwise else found
            total = total.plus(found)
        return total

    def _push(self, value: Value | None, a: Affine, maker: Node, depth: int) -> _Found | Refusal:
        """Let every reader of `value` do without `a`, which `maker` no longer applies."""
        if a.is_identity or value is None:
            return _Found()
        graph = self.graph
        refusal = self._spend(maker, depth) or self._infinite(a, maker)
        if refusal:
            return refusal
        if graph.is_output(value):
            return Refusal("graph-output", "its value is an output of the graph", graph.name(maker))
        total = _Found(changed=(value,))
        readers = graph.readers(value)
        if len({node for node, _ in readers}) < len(readers):
            return Refusal("conflict", "one operator reads the value twice", graph.name(readers[0][0]))
        for node, position in readers:
            found = self._pass(node, position, a, depth)
            if isinstance(found, Refusal):
                return found
            total = total.plus(found)
        return total

    def _pass(self, node: Node, position: int, a: Affine, depth: int) -> _Found | Refusal:
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
        return _best((self._leave(node, step, depth) for step in steps), adding=self.early)

    def _leave(self, node: Node, step: Step, depth: int) -> _Found | Refusal:
        """Meet the demands of one forward step and push on what its outputs carry."""
        graph = self.graph
        refusal = self._holdable(step)
        if refusal:
            return refusal
        total = _Found(step.edits, (node,) if step.absorbs else (), () if step.absorbs else (node,))
        for at, demand in step.demands:
            found = self._pull(graph.inputs(node)[at], demand, node, at, depth + 1)
            if isinstance(found, Refusal):
                return found
            total = total.plus(found._replace(through=()))
        for value, out in zip(graph.outputs(node), step.outs, strict=False):
            found = self._push(value, out, node, depth + 1)
            if isinstance(found, Refusal):
                return found
            total = total.plus(found)
        return total

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

    def _spend(self, node: Node, depth: int) -> Refusal | None:
        self.steps += 1
        if self.steps > MOST_STEPS or depth > DEEPEST:
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


def _best(attempts: Iterator[_Found | Refusal], adding: bool) -> _Found | Refusal:
    """The first alternative that works, one that adds no operator if `adding` is not wanted; else the first refusal."""
    tried: list[_Found | Refusal] = []
    for found in attempts:
        if isinstance(found, _Found) and (adding or not found.appends):
            return found
        tried.append(found)
    return next((found for found in tried if isinstance(found, _Found)), tried[0])


def _is_bias_add(kind: ops.Kind) -> bool:
    """An addition of a constant: better kept, as the bias it is, than replaced by a new addition."""
    return isinstance(kind, ops.ConstAffine) and kind.absorber.shift is not None and kind.absorber.scale is None
