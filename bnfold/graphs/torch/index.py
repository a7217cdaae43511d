"""An exported graph as objects: who makes a value, who reads it, in which module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

# Operators that look only at a value's shape or type at this input: they see no difference after a fold.
_LOOKERS = {
    *((name, 0) for name in ("sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "_assert_tensor_metadata")),
    *((name, 0) for name in ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like")),
    *((name, 0) for name in ("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided")),
    *((name, 1) for name in ("expand_as", "view_as", "reshape_as", "type_as")),
}
WATCHER = "watcher"
NESTED = "nested"


@dataclass(eq=False)
class Value:
    """A tensor in the graph. `target` is the name of the parameter, buffer or constant that it is.

    `tensor` is a fake one, which has a shape and a type; None for a symbolic integer and for constants that are made
    here. `number` is a Python number that stands where a tensor could. `storage` tells memory apart. `changes` says
    that its memory is written to while it may be read.
    """

    name: str
    tensor: torch.Tensor | None = None
    producer: Node | None = None
    port: int = 0
    target: str | None = None
    number: float | None = None
    is_input: bool = False
    is_output: bool = False
    changes: bool = False
    storage: int | None = None
    readers: dict[tuple[Node, int], None] = field(default_factory=dict)
    lookers: dict[tuple[Node, int], None] = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """Where an input stands among the arguments of the operator: in which, and at which place of a list."""

    argument: str
    place: int | None = None


@dataclass(eq=False)
class Node:
    """A call of an operator. `op` is its plain name ("relu" for aten.relu_.default), outside of aten with its `space`,
    and with ".out" where it writes its result into a tensor that it is given.

    `arguments` are all that are no tensors, with defaults; `given` names those that differ from their default. Sizes
    that are symbols are strings in them. `calls` are the calls of modules that the node lies in, outermost first, the
    root left out, each as (name of the call, path of the module). `at` is its place in the order of execution.
    """

    op: str
    name: str
    space: str = "aten"
    source: fx.Node | None = None
    inputs: list[Value | None] = field(default_factory=list)
    outputs: list[Value | None] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()
    calls: tuple[tuple[str, str], ...] = ()
    at: int = -1


@dataclass(eq=False)
class Index:
    """The nodes in order of execution; the fx node that stands for each value; when memory was last written in place.

    `state` are parameters, buffers and constants. `names` are the paths of modules, for nodes that stand for a call.
    """

    nodes: list[Node] = field(default_factory=list)
    sources: dict[Value, fx.Node] = field(default_factory=dict)
    state: list[Value] = field(default_factory=list)
    names: dict[Node, str] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)


def link(node: Node, position: int, value: Value | None) -> None:
    """Let a node read a value at a position, and forget what it read there before."""
    old = node.inputs[position]
    if old is not None:
        old.readers.pop((node, position), None)
        old.lookers.pop((node, position), None)
    node.inputs[position] = value
    if value is not None:
        kind = value.lookers if (node.op, position) in _LOOKERS else value.readers
        kind[(node, position)] = None


def watch(value: Value, who: str, detail: str) -> None:
    """Let someone outside the graph read a value, so that it may not change."""
    watcher = Node(WATCHER, who, arguments={"detail": detail})
    watcher.inputs.append(None)
    link(watcher, 0, value)


def is_transformed(value: Value | None) -> bool:
    """Whether a value stands for many, or for one that is differentiated, within a transform of torch.func."""
    tensor = value.tensor if value is not None else None
    return tensor is not None and bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def size_of(number: Any) -> Any:
    """A size as an int, or as a string where it is symbolic."""
    if type(number) is int:  # as nearly all are
        return number
    if isinstance(number, fx.Node):
        number = number.meta.get("val")
    if isinstance(number, torch.SymInt):
        expression = number.node.expr
        return int(expression) if expression.is_number else str(expression)
    return number


def leaves(item: Any) -> Iterator[Any]:
    """What lists, tuples and dicts hold, in order, however deep."""
    if isinstance(item, list | tuple | dict):
        for inner in item.values() if isinstance(item, dict) else item:
            yield from leaves(inner)
    else:
        yield item
