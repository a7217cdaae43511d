"""What the algebra asks of a graph, and what it calls a site: the border between the planner and the adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.algebra.edits import Drop, Node, Plan, Value


@dataclass(frozen=True, eq=False)
class Site:
    """An affine map that sits in a graph as nodes of its own: one BatchNorm, or a chain; `nodes` run downward."""

    name: str
    op: str
    nodes: tuple[Node, ...]
    refusal: Refusal | None = None


class Graph(Protocol):
    """What the planner asks of a graph. Nodes and values are the adapter's own hashable objects."""

    def kind(self, node: Node, along: Sequence[int] = ()) -> ops.Kind:
        """The node as a kind of the algebra; sizes that can be known are, at least along these axes of its output."""

    def name(self, node: Node) -> str:
        """The node's name, for people."""

    def value_name(self, value: Value) -> str:
        """The name of a value that no node makes, for people."""

    def inputs(self, node: Node) -> Sequence[Value | None]:
        """The values that it reads; None for an optional input left out."""

    def outputs(self, node: Node) -> Sequence[Value | None]:
        """The values that it makes."""

    def producer(self, value: Value) -> tuple[Node, int] | None:
        """The node and the output position that make a value; None for a graph input."""

    def readers(self, value: Value) -> Sequence[tuple[Node, int]]:
        """Who reads the elements of a value, and at which input; readers of its shape or type alone do not count."""

    def is_output(self, value: Value) -> bool:
        """Whether the graph hands the value out."""

    def is_constant(self, value: Value) -> bool:
        """Whether the value is known."""

    def constant(self, value: Value) -> Array:
        """A known value, in float64."""

    def rounding(self, node: Node, position: int, affine: Affine) -> Refusal | int:
        """The bytes that `affine` of the constant at this input adds to the graph, or why its type cannot hold it."""

    def undroppable(self, drops: Sequence[Drop]) -> Node | None:
        """Of these drops, carried out together, one that would leave an output of a graph without a maker."""

    def stored(self, array: Array, node: Node, like: int) -> Array:
        """An array rounded to the type of the node's input at position `like`."""

    def fits(self, array: Array, node: Node, like: int) -> Refusal | None:
        """Why an array cannot be held in the type of the node's input at position `like`, if it cannot."""


class EditableGraph(Graph, Protocol):
    """A graph that can also carry out a plan."""

    def sites(self) -> Sequence[Site]:
        """Every affine map that sits in the graph as nodes of its own, in topological order."""

    def apply(self, plan: Plan) -> None:
        """Carry out a whole plan."""

    def learn(self) -> bool:
        """Take in what the plans carried out since the last call tell of sizes; whether any was not known.

        What was asked of the graph before may have another answer then.
        """

    def op(self, node: Node) -> str:
        """The operator type, for people."""

    def scales(self, node: Node) -> bool:
        """Whether an affine node multiplies, so that it is more than a bias."""
