"""Over all the sites of a graph: backward from the last site to the first, then forward from the first to the last.

Backward first, because what stands above absorbs without any condition on padding; from the last, because a chain BN,
Mul, Add then composes into one demand and is rounded once. What is left is tried forward, then split, then merged
into another site. A fold can open the way for another, so the sweeps are repeated while they find anything, but for
attempts that would look at what no fold has changed since; the result depends on the graph alone, not on the order in
which a file lists its nodes. Chains that stay are shortened then, which may let another site fold, so all of this is
repeated while any becomes shorter, or while folds tell the graph of sizes that it did not know. So nothing is left that
a second fold would find.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby

from bnfold.algebra.affine import Refusal
from bnfold.algebra.edits import Append, Drop, Edit, Node, Plan, Supply, Value
from bnfold.algebra.graph import EditableGraph, Graph, Site
from bnfold.algebra.neighbours import of_plan, of_refusal
from bnfold.algebra.ops import ConstAffine
from bnfold.algebra.plan import Budget, Trace, plan_backward, plan_forward, plan_merge, plan_split
from bnfold.algebra.reduction import plan_reduction
from bnfold.results import Direction, Operator

Attempt = Callable[[Graph, Site, Trace], Plan | Refusal]


@dataclass(frozen=True)
class Outcome:
    """What became of a site. Folded: `direction`, the names of `into` and the types of `through`; kept: `refusal`.

    `operators` is the part of the graph that this is about, if it is to be drawn. `nodes` are the site's own as they
    were at first, `changed` the values that hold something else after the fold.
    """

    site: Site
    refusal: Refusal | None = None
    direction: Direction | None = None
    into: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    added_bytes: int = 0
    operators: tuple[Operator, ...] = ()
    nodes: tuple[Node, ...] = ()
    changed: tuple[Value, ...] = ()


def fold_graph(graph: EditableGraph, chosen: Callable[[int, Site], bool], *, drawn: bool = False) -> list[Outcome]:
    """Fold every site that is chosen and that algebra allows, in place; one outcome per site, in topological order.

    Sites that are seen to be such only with sizes that folds tell come last. `drawn` asks for the `operators` of the
    outcomes. Whoever calls sets NumPy's warnings aside, for the graph that it makes too: what is not finite is refused.
    """
    with _uncollected():
        return _Folding(graph, chosen, drawn).run()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without searches for garbage: what a fold makes lives until its end.

    They would go through all that the process holds, again and again, and find nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True, eq=False)
class _Answer:
    refusal: Refusal
    passed_over: bool


class _Folding:
    """The state of one run: which sites wait, which nodes are gone, and what each attempt answered.

    `answers` are the refusals that still hold; `watchers` says which of them a change at a node takes away.
    """

    def __init__(self, graph: EditableGraph, chosen: Callable[[int, Site], bool], drawn: bool) -> None:
        self.graph = graph
        self.chosen = chosen
        self.draws = drawn
        self.sites: list[Site] = []
        self.whole: list[tuple[Node, ...]] = []
        self.owner: dict[Node, int] = {}
        self.outcomes: dict[int, Outcome | Plan] = {}
        self.shortened: dict[Plan, int] = {}
        self.absorbed: dict[Node, Plan] = {}
        self.drawn: dict[Plan, tuple[Operator, ...]] = {}
        self.locked: set[Node] = set()
        self.answers: dict[tuple[int, Attempt], _Answer] = {}
        self.watchers: dict[Node, list[tuple[int, Attempt]]] = {}
        self.budget = Budget()
        for site in graph.sites():
            self._enter(site)

    def _enter(self, site: Site) -> None:
        """Note a site that was not known, or that was refused when it was noted before."""
        index = min((self.owner[node] for node in site.nodes if node in self.owner), default=len(self.sites))
        self.sites[index : index + 1] = [site]
        self.whole[index : index + 1] = [site.nodes]
        self.owner.update(dict.fromkeys(site.nodes, index))
        self.outcomes.pop(index, None)
        refusal = site.refusal
        if not refusal and not self.chosen(index, site):
            refusal = Refusal("not-selected", "it was left out on request", self.graph.name(site.nodes[0]))
            self.locked.update(site.nodes)
        if refusal:
            self.outcomes[index] = Outcome(site, refusal)

    def run(self) -> list[Outcome]:
        sweeps: list[tuple[Attempt, bool]] = [
            (plan_backward, True),
            (plan_forward, False),
            (plan_split, True),
            (self._merge, True),
        ]
        refusals = self._swept(sweeps)
        while self._learn() or self._shorten(refusals):  # either may make room for another fold
            refusals = self._swept(sweeps)
        last = {index: plan for plan, index in self.shortened.items()}
        for index, answers in refusals.items():
            self.outcomes[index] = last.get(index) or Outcome(self.sites[index], _told(answers))
        return [self._told_of(index) for index in range(len(self.sites))]

    def _swept(self, sweeps: list[tuple[Attempt, bool]]) -> dict[int, list[Refusal]]:
        """Try the sites that wait until nothing folds any more; what every one that stays was answered last."""
        while True:
            progress = False
            waiting = [index for index in range(len(self.sites)) if index not in self.outcomes]
            refusals: dict[int, list[Refusal]] = {index: [] for index in waiting}
            for attempt, upward in sweeps:
                for index in sorted(refusals, reverse=upward):
                    if index in self.outcomes:
                        continue
                    refusal = self._known(index, attempt) or self._try(index, attempt)
                    if refusal:
                        refusals[index].append(refusal)
                    else:
                        progress = True
            if not progress:
                return refusals

    def _learn(self) -> bool:
        """Begin anew with what stays where the graph knows more by now; more of it may be sites, too."""
        if not self.graph.learn():
            return False
        self.answers.clear()
        self.watchers.clear()
        for site in self.graph.sites():
            owners = {self.owner[node] for node in site.nodes if node in self.owner}
            if all(self.sites[index].refusal for index in owners):
                self._enter(site)
        return True

    def _shorten(self, kept: Collection[int]) -> bool:
        """Make chains that stay as short as they can be: as they are by now, with what folds have left next to them.

        They still wait: what becomes of others may let them fold. Returns whether any has become shorter.
        """
        if all(self._is_norm(node) for index in kept for node in self.sites[index].nodes):
            return False
        shortened = False
        for chain in self.graph.sites():
            indices = {self.owner[node] for node in chain.nodes if node in self.owner} & set(kept)
            if not any(node in self.owner for node in chain.nodes):  # a fold above it has let it be seen as one
                self._enter(chain)
                shortened = True
                continue
            if chain.refusal or not indices:
                continue
            index = min(indices)
            site = self.sites[index]
            if set(chain.nodes) < set(site.nodes):  # what it began with is by now the bias of a product
                self.sites[index] = replace(site, nodes=chain.nodes)
                self.answers = {key: answer for key, answer in self.answers.items() if key[0] != index}
                shortened = True
                continue
            if len(chain.nodes) < 2:
                continue
            self.sites[index] = replace(site, nodes=chain.nodes)
            if self._try(index, plan_reduction):
                self.sites[index] = site
            else:
                self._stand_in(index, indices)
                shortened = True
        return shortened

    def _stand_in(self, index: int, indices: set[int]) -> None:
        """Let one of the sites of a chain that has been shortened wait on for all of them, as what is left of it.

        What becomes of it becomes of all, see `_told_of`.
        """
        plan = self.outcomes.pop(index)
        if not isinstance(plan, Plan):
            raise TypeError("a chain is shortened by a plan")
        self.outcomes.update(dict.fromkeys(indices - {index}, plan))
        self.sites[index] = replace(self.sites[index], nodes=plan.into)
        self.owner.update(dict.fromkeys(plan.into, index))
        self.shortened[plan] = index

    def _is_norm(self, node: Node) -> bool:
        """Whether one node does all that a chain can do."""
        kind = self.graph.kind(node)
        return isinstance(kind, ConstAffine) and kind.absorber.scale is not None and kind.absorber.shift is not None

    def _told_of(self, index: int) -> Outcome:
        outcome = self.outcomes[index]
        while isinstance(outcome, Plan) and outcome in self.shortened:
            later = self.outcomes[self.shortened[outcome]]
            if later is outcome:
                break
            outcome = later
        if isinstance(outcome, Outcome):
            if not self.draws or not outcome.refusal:
                return outcome
            return replace(outcome, operators=of_refusal(self.graph, outcome.site, outcome.refusal))
        into = tuple(dict.fromkeys([*map(self.graph.name, self._ends(outcome.into)), *outcome.constants]))
        crossed = [self.graph.op(node) for node in outcome.through if node not in self.sites[index].nodes]
        through = tuple(op for op, _ in groupby(crossed))
        return Outcome(
            self.sites[index],
            None,
            outcome.direction,
            into,
            through,
            outcome.added_bytes,
            self.drawn.get(outcome, ()),
            self.whole[index],
            outcome.changed,
        )

    def _ends(self, nodes: tuple[Node, ...]) -> list[Node]:
        """Where a fold ended up: an operator that absorbed it may since have been folded into others itself."""
        ends: list[Node] = []
        waiting = list(reversed(nodes))
        while waiting:
            node = waiting.pop()
            later = self.absorbed.get(node)
            if later is None:
                ends.append(node)
            else:
                waiting += reversed(later.into)
        return ends

    def _known(self, index: int, attempt: Attempt) -> Refusal | None:
        """What an attempt would answer once more; a merge answers as the upward attempt where nothing else was met."""
        answer = self.answers.get((index, attempt))
        if answer is None and attempt == self._merge:
            up, down = (self.answers.get((index, way)) for way in (plan_backward, plan_forward))
            met = up is None or up.passed_over or down is None or down.passed_over
            return None if up is None or met else up.refusal
        return answer.refusal if answer else None

    def _merge(self, graph: Graph, site: Site, trace: Trace) -> Plan | Refusal:
        """A merge into another site alone: an operator that becomes a site by it would be one that is never tried."""
        return plan_merge(graph, site, trace, self.owner)

    def _try(self, index: int, attempt: Attempt) -> Refusal | None:
        """Fold one site one way; None when it is done."""
        for node in self.sites[index].nodes:
            if not isinstance(self.graph.kind(node), ConstAffine):  # what merged into it varies along more axes
                return Refusal("conflict", "another fold has made it more than an affine map", self.graph.name(node))
        trace = Trace(budget=self.budget)
        plan = attempt(self.graph, self.sites[index], trace)
        kept: list[Node] = []
        if self.locked and isinstance(plan, Plan):
            kept = [edit.node for edit in plan.edits if self._is_locked(edit)]
        if kept:
            detail = "the fold would change a BatchNorm that was left out on request"
            plan = Refusal("not-selected", detail, self.graph.name(kept[0]))
        if isinstance(plan, Refusal):
            self._note(index, attempt, plan, trace)
            return plan
        self._forget(plan)
        if self.draws:
            self.drawn[plan] = of_plan(self.graph, plan)
        self.graph.apply(plan)
        self.outcomes[index] = plan
        for edit in plan.edits:
            if isinstance(edit, Drop):
                self.absorbed[edit.node] = plan
                if self.owner.get(edit.node, index) != index:
                    self._shrink(self.owner[edit.node], edit.node, plan)
        return None

    def _is_locked(self, edit: Edit) -> bool:
        return not isinstance(edit, Supply | Append) and edit.node in self.locked

    def _note(self, index: int, attempt: Attempt, refusal: Refusal, trace: Trace) -> None:
        if refusal.reason == "too-large":  # it depends on who else reads the constants, wherever that is
            return
        self.answers[index, attempt] = _Answer(refusal, trace.passed_over)
        for node in trace.nodes:
            self.watchers.setdefault(node, []).append((index, attempt))

    def _forget(self, plan: Plan) -> None:
        """Take away the answers that a plan may change, before it is carried out."""
        if not self.answers:
            return
        for changed in {edit.node for edit in plan.edits}:
            for node in self._around(changed):
                for key in self.watchers.pop(node, ()):
                    self.answers.pop(key, None)

    def _around(self, node: Node) -> Iterator[Node]:
        """A node, and all that make or read a value that it reads or makes; constants aside."""
        yield node
        graph = self.graph
        for value in [*graph.inputs(node), *graph.outputs(node)]:
            if value is None or graph.is_constant(value):
                continue
            made = graph.producer(value)
            if made:
                yield made[0]
            for reader, _ in graph.readers(value):
                yield reader

    def _shrink(self, index: int, node: Node, by: Plan) -> None:
        """Another site's fold took one of this site's nodes along: the site is done when only a bias is left of it."""
        site = self.sites[index]
        left = tuple(other for other in site.nodes if other != node)
        if any(self.graph.scales(other) for other in left):
            self.sites[index] = replace(site, nodes=left)
        else:
            self.outcomes[index] = by


def _told(answers: list[Refusal]) -> Refusal:
    """The refusal to report: the upward one, unless it only says that the graph begins there."""
    up, down = answers[0], answers[1]
    first, second = (down, up) if up.reason == "graph-input" and down.reason != "graph-output" else (up, down)
    words = {id(up): "above it", id(down): "below it"}
    place = f" at '{second.blocker}'" if second.blocker else ""
    return Refusal(first.reason, f"{first.detail}; {words[id(second)]}{place}, {second.detail}", first.blocker)
