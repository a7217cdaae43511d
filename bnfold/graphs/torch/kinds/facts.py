"""What a translation may ask: arguments, shapes and constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bnfold.algebra import ops
from bnfold.algebra.axes import Shape
from bnfold.graphs.indexed import ConstantFacts, input_at
from bnfold.graphs.torch.constants import Constants, Known
from bnfold.graphs.torch.index import Node, Value, size_of


class Arguments:
    """The arguments of a node that are no tensors; it remembers which were read."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """An argument as the caller gave it, or as its schema has it; `default` where the schema lacks it."""
        self._read.add(name)
        return self._node.arguments.get(name, default)

    def many(self, name: str, count: int, default: int) -> list[Any]:
        """An argument of one number per axis, which may be given as a single one, or as none."""
        value = self.get(name)
        if value is None or value == []:
            return [default] * count
        items = value if isinstance(value, list) else [value]
        return items * count if len(items) == 1 else items

    def skip(self, *names: str) -> None:
        """Take note of arguments that change nothing here."""
        self._read.update(names)

    def unread(self) -> list[str]:
        return [] if self._node.given <= self._read else sorted(self._node.given - self._read)


@dataclass(frozen=True)
class Facts(ConstantFacts[Known]):
    """Shapes and constants of the graph."""

    constants: Constants

    def shape(self, value: Value | None) -> Shape | None:
        """The sizes of a value, symbols as names; None where it is no tensor."""
        if value is None:
            return None
        if value.producer is None:
            known = self.constants.known(value)
            if known is not None:
                return known.folded_shape
        return None if value.tensor is None else tuple([size_of(size) for size in value.tensor.shape])

    def integers(self, value: Value | None) -> list[int] | None:
        """The elements of a constant of integers, flattened; None for anything else."""
        known = self.constants.known(value)
        if known is None or known.is_floating or known.dtype is torch.bool:
            return None
        return [int(element) for element in known.read().flatten().tolist()]


Translation = Callable[[Node, Arguments, Facts], ops.Kind]


def normalised(axes: Sequence[int] | int, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in ascending order."""
    axes = [axes] if isinstance(axes, int) else axes
    return tuple(sorted(axis % rank if rank else axis for axis in axes))


def same_type(node: Node, position: int) -> bool:
    """Whether a node makes floating point numbers of the very type that it reads here."""
    source, target = input_at(node, position), node.outputs[0]
    if source is None or target is None or source.tensor is None or target.tensor is None:
        return source is not None and source.tensor is None
    return source.tensor.dtype == target.tensor.dtype and target.tensor.dtype.is_floating_point
