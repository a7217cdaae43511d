"""Over all the sites of a graph: backward from the last site to the first, then forward from the first to the last.

Backward first, because what stands above absorbs without any condition on padding; from the last, because a chain BN,
Mul, Add then composes into one demand and is rounded once. What is left is tried forward, then split. A fold can open
the way for another, so the three sweeps are repeated while they find anything; the result depends on the graph alone,
not on the order in which a file lists its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from bnfold.algebra.affine import Refusal
from bnfold.algebra.edits import Append, Drop, Node, Plan, Supply
from bnfold.algebra.plan import Graph, Site, plan_backward, plan_forward, plan_split

Attempt = Callable[[Graph, Site], Plan | Refusal]

# A refusal that only says where the graph ends tells less than one that names an operator.
_DEAD_ENDS = ("graph-input", "graph-output")


class EditableGraph(Graph, Protocol):
    """A graph that can also carry out a plan."""

    def sites(self) -> Sequence[Site]:
        """Every affine map that sits in the graph as nodes of its own, in topological order."""

    def apply(self, plan: Plan) -> None:
        """Carry out a whole plan."""

    def op(self, node: Node) -> str:
        """The operator type, for people."""

    def scales(self, node: Node) -> bool:
        """Whether an affine node multiplies, so that it is more than a bias."""


@dataclass(frozen=True)
class Outcome:
    """What became of a site. Folded: `direction`, `into` and `through` by name; kept: `refusal`."""

    site: Site
    refusal: Refusal | None = None
    direction: str | None = None
    into: tuple[str, ...] = ()
    through: tuple[str, ...] = ()


def fold_graph(graph: EditableGraph, chosen: Callable[[int, Site], bool]) -> list[Outcome]:
    """Fold every site that is chosen and that algebra allows, in place; one outcome per site, in topological order."""
    return _Folding(graph, chosen).run()


class _Folding:
    """The state of one run: which sites wait, which nodes are gone, and what each attempt answered."""

    def __init__(self, graph: EditableGraph, chosen: Callable[[int, Site], bool]) -> None:
        self.graph = graph
        self.sites = list(graph.sites())
        self.owner = {node: index for index, site in enumerate(self.sites) for node in site.nodes}
        self.outcomes: dict[int, Outcome] = {}
        self.locked: set[Node] = set()
        for index, site in enumerate(self.sites):
            refusal = site.refusal
            if not refusal and not chosen(index, site):
                refusal = Refusal("not-selected", "it was left out on request")
            if refusal:
                self.outcomes[index] = Outcome(site, refusal)
                self.locked.update(site.nodes)

    def run(self) -> list[Outcome]:
        sweeps: list[tuple[Attempt, bool]] = [(plan_backward, True), (plan_forward, False), (plan_split, True)]
        refusals: dict[int, list[Refusal]] = {}
        progress = True
        while progress:
            progress = False
            refusals = {index: [] for index in range(len(self.sites)) if index not in self.outcomes}
            for attempt, upward in sweeps:
                for index in sorted(refusals, reverse=upward):
                    if index in self.outcomes:
                        continue
                    refusal = self._try(index, attempt)
                    if refusal:
                        refusals[index].append(refusal)
                    else:
                        progress = True
        for index, answers in refusals.items():
            self.outcomes[index] = Outcome(self.sites[index], _told(answers))
        return [self.outcomes[index] for index in range(len(self.sites))]

    def _try(self, index: int, attempt: Attempt) -> Refusal | None:
        """Fold one site one way; None when it is done."""
        site = self.sites[index]
        plan = attempt(self.graph, site)
        if isinstance(plan, Refusal):
            return plan
        if any(not isinstance(edit, Supply | Append) and edit.node in self.locked for edit in plan.edits):
            return Refusal("not-selected", "the fold would change a BatchNorm that was left out on request")
        done = Outcome(
            site,
            None,
            plan.direction,
            tuple(self.graph.name(node) for node in plan.into),
            tuple(self.graph.op(node) for node in plan.through),
        )
        self.graph.apply(plan)
        self.outcomes[index] = done
        for edit in plan.edits:
            if isinstance(edit, Drop) and self.owner.get(edit.node, index) != index:
                self._shrink(self.owner[edit.node], edit.node, done)
        return None

    def _shrink(self, index: int, node: Node, by: Outcome) -> None:
        """Another site's fold took one of this site's nodes along: the site is done when only a bias is left of it."""
        site = self.sites[index]
        left = tuple(other for other in site.nodes if other != node)
        if any(self.graph.scales(other) for other in left):
            self.sites[index] = replace(site, nodes=left)
        else:
            self.outcomes[index] = replace(by, site=site)


def _told(answers: list[Refusal]) -> Refusal:
    """The refusal to report: of upward and downward the one that names an operator; the sentence tells both."""
    up, down = answers[0], answers[1]
    first, second = (down, up) if up.reason in _DEAD_ENDS and down.reason not in _DEAD_ENDS else (up, down)
    words = {id(up): "above it", id(down): "below it"}
    place = f" at '{second.blocker}'" if second.blocker else ""
    return Refusal(first.reason, f"{first.detail}; {words[id(second)]}{place}, {second.detail}", first.blocker)
