"""What a plan consists of: four kinds of edit, as values. An adapter carries them out; the rules only name them.

Edits and steps are named tuples, as a search makes many and a tuple is made in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.results import Direction

Node = Any  # the adapter's own objects, hashable by identity; the algebra only hands them on
Value = Any

MOST_ADDED_BYTES = 64 * 2**20  # by one plan; beyond it a fold costs more than it brings


class Rewrite(NamedTuple):
    """The constant at this input of the node becomes `affine(constant)`; other readers keep the old one."""

    node: Node
    position: int
    affine: Affine


class Supply(NamedTuple):
    """The optional input at this position, left out so far, becomes this constant, in the type of `like`."""

    node: Node
    position: int
    array: Array
    like: int


class Append(NamedTuple):
    """Behind the node's only output goes an Add of this constant, in the type of the node's input `like`."""

    node: Node
    array: Array
    like: int


class Drop(NamedTuple):
    """The node goes; its input at `data` and its output become one value, which keeps the name of either."""

    node: Node
    data: int
    keep: Literal["input", "output"]


Edit = Rewrite | Supply | Append | Drop


@dataclass(frozen=True, eq=False)
class Demands:
    """A demand on each of the inputs 0 to count - 1, made when its turn comes: most searches end at the first."""

    count: int
    make: Callable[[int], Affine]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, Affine]]:
        return ((at, self.make(at)) for at in range(self.count))


class Step(NamedTuple):
    """What one rule asks for: demands on the node's inputs, edits to the node, and what its outputs then carry.

    Backward rules leave `outs` empty. A forward rule gives one affine per output: what is still to be applied to it.
    `absorbs` says that the operator itself takes something in, `otherwise` what to say if the demands cannot be met.
    """

    demands: tuple[tuple[int, Affine], ...] | Demands = ()
    edits: tuple[Edit, ...] = ()
    outs: tuple[Affine, ...] = ()
    absorbs: bool = False
    otherwise: Refusal | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """The complete edit for one site. `into` are the nodes that absorb, `through` the nodes that are crossed;
    `constants` are the names of those that absorb by themselves: what a site on a constant makes is one, too.

    `added_bytes` is at most how much larger the model becomes: copies of constants that others still read, constants
    that grow, and new biases, these counted in float64. `changed` are the values that hold something else afterwards
    than they did, where they are still there: all others are what they were.
    """

    edits: tuple[Edit, ...]
    into: tuple[Node, ...]
    through: tuple[Node, ...]
    direction: Direction = "backward"
    added_bytes: int = 0
    changed: tuple[Value, ...] = ()
    constants: tuple[str, ...] = ()


Steps = Sequence[Step] | Refusal
Read = Callable[[int], Array]  # position -> the constant at that input, in float64
