"""A scope is a graph, a body or a function that grows. It holds the nodes and the data of every value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import AttributeProto, helper

from generators.grown.dice import Array, Dice
from generators.grown.engines import Context, evaluate, is_float
from generators.grown.naming import Namer


@dataclass(eq=False)
class Value:
    """A named value and its data, one array per feed, or one for all. `fixed`: computed from constants alone."""

    name: str
    arrays: list[Any]
    fixed: bool = False
    readers: int = 0
    marks: set[str] = field(default_factory=set)

    @property
    def array(self) -> Array:
        return self.arrays[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.arrays[0].shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return is_float(self.arrays[0])

    @property
    def varies(self) -> bool:
        """Whether its shape differs between the feeds."""
        return len({np.shape(array) for array in self.arrays}) > 1


@dataclass
class World:
    """What all scopes of one model share."""

    dice: Dice
    namer: Namer
    ir_version: int
    opset: int
    dtype: Any
    loose: bool
    trust: bool
    sizes: Sequence[int]
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    domains: dict[str, int] = field(default_factory=dict)
    calls: list[Any] = field(default_factory=list)  # what `functions` needs to call one again
    nodes_left: int = 40
    hide: float = 0.4  # how often a constant is computed
    reuse: float = 0.15  # how often one of the same shape is there already
    grip: float = 0.72  # how often the next operator works on the newest value
    docs: bool = False
    decades: int = 0  # by how many powers of ten factors may be large or small
    sliced: bool = False  # whether there is a Slice anywhere
    feeds: int = 1


class Scope:
    """Grows node by node. `kind` is "graph", "body" or "function"; a body sees the values of its parent."""

    def __init__(self, world: World, opset: int, kind: str = "graph", parent: Scope | None = None) -> None:
        self.world, self.opset, self.kind, self.parent = world, opset, kind, parent
        self.dice = world.dice
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.values: list[Value] = []
        self.formals: list[tuple[Value, Value | None]] = []  # of a function: its own name, and what the caller gives
        self.focus: Value | None = None
        self.depth: int = 0 if parent is None else parent.depth + 1

    # ---- nodes

    def add(
        self, op: str, inputs: Sequence[Value | None], outputs: int = 1, blanks: int = 0, **attributes: Any
    ) -> tuple[Value, ...]:
        """Add a node and give its outputs; nothing is added, and `()` comes back, where it does not run.

        `blanks` outputs with an empty name follow those that are wanted.
        """
        given = {key: value for key, value in attributes.items() if value is not None}
        names = [self.world.namer.fresh() for _ in range(outputs)]
        node = helper.make_node(op, [item.name if item else "" for item in inputs], names + [""] * blanks)
        node.name = self.world.namer.node(op)
        for key, value in given.items():
            node.attribute.append(_attribute(key, value))
        return self.place(node, [item for item in inputs if item])

    def place(self, node: onnx.NodeProto, inputs: Sequence[Value]) -> tuple[Value, ...]:
        """Evaluate a node that is made already, and add it where it runs."""
        holds = bool(node.domain) or any(item.type == AttributeProto.GRAPH for item in node.attribute)
        if self.world.nodes_left <= 0 and not holds:
            return ()
        read = list(inputs)
        read += [found for name in free_names(node) if (found := self.lookup(name)) is not None]
        answers = evaluate(node, {value.name: value.arrays for value in read}, self.context())
        if answers is None or any(len({_rank(array) for array in arrays}) > 1 for arrays in answers):
            return ()
        if not all(value.fixed for value in read) and any(self._vanishes(arrays) for arrays in answers):
            return ()
        if self.world.docs and self.dice.chance(0.2):
            node.doc_string = "a\nnote"
        self.world.nodes_left -= 1
        self.world.sliced |= node.op_type == "Slice"
        self.nodes.append(node)
        fixed = all(value.fixed for value in read)
        results = tuple(
            Value(name, arrays, fixed) for name, arrays in zip([n for n in node.output if n], answers, strict=True)
        )
        for value in read:
            value.readers += 1
        self.values.extend(results)
        if results and isinstance(results[0].array, np.ndarray) and results[0].is_float and not results[0].fixed:
            self.focus = results[0]
        return results

    def _vanishes(self, arrays: Sequence[Any]) -> bool:
        """Whether next to nothing is left of a value: what is, would be rounding."""
        least = 10.0 ** -(2 + self.world.decades)
        return any(is_float(array) and array.size and float(np.abs(array).max()) < least for array in arrays)

    def context(self) -> Context:
        return Context(
            self.world.ir_version,
            self.opset,
            self.world.functions,
            self.world.domains,
            loose=self.world.loose,
            trust=self.world.trust,
            decades=self.world.decades,
            only=np.dtype(self.world.dtype).name if self.world.dtype == ml_dtypes.bfloat16 else "",
        )

    def undo(self, mark: tuple[int, int, Value | None]) -> None:
        """Drop the nodes and values that were added since `mark`."""
        nodes, values, self.focus = mark
        self.world.nodes_left += len(self.nodes) - nodes
        del self.nodes[nodes:]
        del self.values[values:]

    @property
    def mark(self) -> tuple[int, int, Value | None]:
        return len(self.nodes), len(self.values), self.focus

    # ---- values

    def lookup(self, name: str) -> Value | None:
        for value in self.visible():
            if value.name == name:
                return value
        return None

    def visible(self) -> list[Value]:
        """The values that a node here may read: outer ones first."""
        outer = self.parent.visible() if self.parent is not None and self.kind == "body" else []
        return [*outer, *self.values]

    def floats(self, low: int = 0, high: int = 5) -> list[Value]:
        """The floating-point values of the model's own type, by rank."""
        return [
            value
            for value in self.visible()
            if value.is_float
            and value.array.dtype == self.world.dtype
            and low <= value.rank <= high
            and "constant" not in value.marks
        ]

    def subject(self, low: int = 0, high: int = 5) -> Value | None:
        """A value to work on: mostly the newest one."""
        focus = self.focus
        fits = focus is not None and low <= focus.rank <= high and focus.array.dtype == self.world.dtype
        if fits and self.dice.chance(self.world.grip):
            return focus
        found = self.floats(low, high)
        moving = [value for value in found if not value.fixed]
        if moving and self.dice.chance(0.94):
            found = moving
        if not found:
            return None
        if self.dice.chance(0.6):
            found = found[-4:]
        return self.dice.pick(found)

    def other(self, like: Value, low: int = 0) -> Value:
        """A second value beside `like`: of the same shape if there is one, perhaps `like` itself."""
        found = [value for value in self.floats(low) if value is not like]
        same = [value for value in found if value.shape == like.shape]
        if same and self.dice.chance(0.85):
            return self.dice.pick(same[-5:])
        return self.dice.pick(found[-6:]) if found and self.dice.chance(0.7) else like


def _rank(array: Any) -> int:
    return -1 if isinstance(array, list) else int(np.ndim(array))


def _attribute(key: str, value: Any) -> AttributeProto:
    if isinstance(value, list) and not value:
        return helper.make_attribute(key, value, attr_type=AttributeProto.INTS)
    return helper.make_attribute(key, value)


def free_names(node: onnx.NodeProto) -> list[str]:
    """The names that the bodies of a node read from outside of it."""
    found: dict[str, None] = {}
    for item in node.attribute:
        if item.type == AttributeProto.GRAPH:
            found.update(dict.fromkeys(_free_in(item.g)))
    return [name for name in found if name not in node.input]


def _free_in(graph: onnx.GraphProto) -> list[str]:
    known = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    found: list[str] = []
    for node in graph.node:
        inner = [name for item in node.attribute if item.type == AttributeProto.GRAPH for name in _free_in(item.g)]
        found += [name for name in [*node.input, *inner] if name and name not in known]
        known.update(node.output)
    return found + [info.name for info in graph.output if info.name not in known]
