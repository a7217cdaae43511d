"""Operators that write in place, read as if they made new values.

What torch.export traces from a module is not functional, and to make it so takes a second trace. Here an operator that
writes in place makes a new value, which all who come later read under the name of the old one. Where that renaming
would not be exact, because views of the memory overlap, every value in the memory is watched: it may not change. Where
it cannot be told which memory is written to, every value is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from bnfold.graphs.torch.index import Index, Node, Value, size_of, watch
from bnfold.graphs.torch.schemas import schema_of


def writes_in_place(node: fx.Node) -> bool:
    """Whether an operator writes in place."""
    schema = schema_of(node.target)
    return schema is not None and schema.writes


def storage_of(tensor: torch.Tensor) -> int | None:
    """What tells the memory of one tensor from that of another; None where that cannot be told."""
    if tensor.layout is not torch.strided:
        return None
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # of the tensors under a transform of torch.func
        return None


class Writes:
    """Which nodes lie in which memory, and what writing there does to `current`, what every node stands for now."""

    def __init__(self, index: Index, current: dict[fx.Node, list[Value | None]]) -> None:
        self.index = index
        self.current = current
        self.members: dict[int, list[fx.Node]] = {}
        self.outside: set[int | None] = set()
        self.overlapping: set[int] = set()
        self.anywhere = False

    def lies(self, node: fx.Node, value: Value) -> None:
        """Note in which memory a node's value lies."""
        if value.storage is not None:
            self.members.setdefault(value.storage, []).append(node)

    def enters(self, value: Value) -> None:
        """Note that a value is the caller's, who sees what is written to it."""
        self.outside.add(value.storage)

    def write(self, source: fx.Node, node: Node, later: set[fx.Node]) -> None:
        """Let those who come later read what an operator writes; `later` are the nodes that have yet to run."""
        for target in written(source):
            before = self.current[target][0]
            if before is not None and before.storage is not None:
                self._write(before, before.storage, node, later)
            else:
                self.anywhere = True

    def _write(self, before: Value, storage: int, node: Node, later: set[fx.Node]) -> None:
        self.index.written[storage] = node.at
        result = next((value for value in node.outputs if value is not None and value.storage == storage), None)
        members = self.members.get(storage, [])
        same = [member for member in members if _alike(self.current[member][0], before)]
        if result is None or any(later.intersection(member.users) for member in members if member not in same):
            self.overlapping.add(storage)
            return
        for member in same:
            old = self.current[member][0]
            if old is not None:
                old.target = None  # no constant: it holds something else when the graph runs again
            self.current[member] = [result]
        if storage in self.outside:
            watch(result, "the caller", f"'{before.name}' is written to in place")

    def pin(self) -> None:
        """Watch the values in memory whose views overlap where it is written to."""
        if not self.overlapping and not self.anywhere:
            return
        made = (value for node in self.index.nodes for value in node.outputs)
        entered = (value for values in self.current.values() for value in values)
        for value in dict.fromkeys((*entered, *made)):
            if value is not None and (value.storage in self.overlapping or self.anywhere):
                value.target, value.changes = None, True
                watch(value, "an operator that writes in place", "its memory is written to in place, through views")


def _alike(a: Value | None, b: Value) -> bool:
    """Whether two values in the same memory are the same elements in the same places."""
    if a is None or a.tensor is None or b.tensor is None:
        return False
    return _places(a.tensor) == _places(b.tensor)


def _places(tensor: torch.Tensor) -> list[Any]:
    return [size_of(number) for number in (*tensor.shape, *tensor.stride(), tensor.storage_offset())]


def written(source: fx.Node) -> Iterator[fx.Node]:
    """The arguments that an operator writes to."""
    schema = schema_of(source.target)
    for at, parameter in enumerate(schema.parameters if schema else ()):
        if not parameter.is_written:
            continue
        value = source.args[at] if at < len(source.args) else source.kwargs.get(parameter.name)
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, fx.Node):
                yield item
