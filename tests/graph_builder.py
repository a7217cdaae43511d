"""Builds a random ONNX graph node by node, always valid: every node is run as soon as it is added.

A value is held in two worlds that differ in every symbolic size, so that an axis is symbolic where the worlds disagree,
and what is added runs for both. A node that does not run, or whose result is too large or not finite, is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from interpreter import run_node, widened
from onnx import TensorProto, helper
from onnx.checker import ValidationError

Array = np.ndarray[Any, Any]

FLOATING = FLOAT, DOUBLE, HALF, BFLOAT = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
)
BOOL = TensorProto.BOOL
MOST_ELEMENTS, LARGEST, MOST_RANK = 3000, 1e4, 6


SIGNED = ("gamma+", "var", "positive")  # roles of constants without negative elements


class RejectedError(Exception):
    """What was tried does not make a valid node here."""


@dataclass(eq=False)
class Var:
    """A value: its name, element type, and what it is in each world."""

    name: str
    elem_type: int
    worlds: tuple[Array, ...]
    reads: int = 0

    @property
    def rank(self) -> int:
        return self.worlds[0].ndim

    @property
    def dims(self) -> tuple[int | None, ...]:
        """The sizes; None where they are symbolic."""
        shapes = [world.shape for world in self.worlds]
        return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))

    @property
    def is_static(self) -> bool:
        return None not in self.dims


@dataclass
class Options:
    """What holds for a whole model."""

    opset: int
    ir_version: int
    elem_type: int
    overridable: float
    disguise: float
    share: float
    overriding: bool  # whether callers feed what they may override, in the last world


@dataclass
class Shared:
    """What all graphs of one model share: the generator, options, names, and constants that may be read again."""

    rng: np.random.Generator
    options: Options
    count: int = 0
    pool: dict[tuple[int, tuple[int, ...], str], list[tuple[Builder, str]]] = field(default_factory=dict)
    functions: list[onnx.FunctionProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = type(onnx.checker.DEFAULT_CONTEXT)()
        self.context.ir_version, self.context.opset_imports = self.options.ir_version, {"": self.options.opset}

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"


class Builder:
    """One graph under construction; a body sees the values of the graphs around it."""

    def __init__(self, shared: Shared, parent: Builder | None = None) -> None:
        self.shared, self.parent = shared, parent
        self.rng, self.options, self.opset = shared.rng, shared.options, shared.options.opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.listed: list[str] = []  # initializers that are graph inputs too
        self.vars: list[Var] = []
        self.values: dict[str, tuple[Array, ...]] = {}
        self.inputs: list[Var] = []

    # Chance.

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, choices: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
        chances = None if weights is None else np.asarray(weights) / np.sum(weights)
        return choices[int(self.rng.choice(len(choices), p=chances))]

    def integer(self, low: int, high: int) -> int:
        """From `low` to `high`, both included."""
        if low > high:
            raise RejectedError("no number to choose")
        return int(self.rng.integers(low, high + 1))

    def normal(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape)

    # Values.

    def input(self, stem: str, worlds: Sequence[Array], elem_type: int) -> Var:
        var = Var(self.shared.name(stem), elem_type, tuple(worlds))
        self.inputs.append(var)
        self.vars.append(var)
        self.values[var.name] = var.worlds
        return var

    def visible(self) -> list[Var]:
        return self.vars + (self.parent.visible() if self.parent else [])

    def seen(self) -> dict[str, tuple[Array, ...]]:
        return {**(self.parent.seen() if self.parent else {}), **self.values}

    def initializer(self, array: Array, elem_type: int) -> str:
        """An initializer here, or in a graph around."""
        holder = self
        while holder.parent is not None and (self.options.ir_version < 4 or self.chance(0.5)):
            holder = holder.parent
        tensor = tensor_of(self.shared.name("c"), array, elem_type)
        holder.initializers.append(tensor)
        if holder.parent is None and (self.options.ir_version < 4 or self.chance(self.options.overridable)):
            holder.listed.append(tensor.name)
        stored = widened(onnx.numpy_helper.to_array(tensor))
        holder.values[tensor.name] = (stored,) * self.worlds
        if tensor.name in holder.listed and self.options.overriding and stored.dtype.kind == "f":
            other = rounded(stored * self.rng.uniform(0.5, 1.5, stored.shape), elem_type)
            holder.values[tensor.name] = (*(stored,) * (self.worlds - 1), other)
        return tensor.name

    @property
    def worlds(self) -> int:
        root = self
        while root.parent is not None:
            root = root.parent
        return len(root.inputs[0].worlds)

    def add(
        self, op: str, inputs: Sequence[Var | str | None], outputs: int = 1, *, like: int = 0, **attributes: Any
    ) -> list[Var]:
        """A node and what it makes, in the element type of the input `like`; RejectedError if it is not valid."""
        names = [item.name if isinstance(item, Var) else item or "" for item in inputs]
        made = [self.shared.name("v") for _ in range(outputs)]
        attributes = {name: value for name, value in attributes.items() if value is not None}
        node_name = "" if self.chance(0.05) else self.shared.name(f"n_{op.lower()}")
        node = helper.make_node(op, names, made, name=node_name, **attributes)
        return self.append(node, inputs, like)

    def append(self, node: onnx.NodeProto, inputs: Sequence[Var | str | None], like: int = 0) -> list[Var]:
        types = {item.elem_type for item in inputs if isinstance(item, Var)} & set(FLOATING)
        if len(types) > 1 and node.op_type != "Cast":
            raise RejectedError(f"{node.op_type}: two element types")
        seen = self.seen()
        try:
            if not node.domain and node.op_type not in ("If", "Loop", "Scan"):  # bodies are checked node by node
                onnx.checker.check_node(node, self.shared.context)
            results = [
                run_node(
                    node, {name: values[world] for name, values in seen.items()}, self.opset, self.shared.functions
                )
                for world in range(self.worlds)
            ]
        except (ValueError, IndexError, ZeroDivisionError, NotImplementedError, ValidationError) as error:
            raise RejectedError(f"{node.op_type}: {error}") from error
        for array in (array for result in results for array in result):
            if array.ndim > MOST_RANK or array.size > MOST_ELEMENTS or 0 in array.shape:
                raise RejectedError(f"{node.op_type}: shape {array.shape}")
            if array.dtype.kind == "f" and not np.abs(array).max(initial=0) < LARGEST:
                raise RejectedError(f"{node.op_type}: not finite, or too large")
        if any(len({array.ndim for array in arrays}) > 1 for arrays in zip(*results, strict=True)):
            raise RejectedError(f"{node.op_type}: a rank that depends on a size")
        source = next((item for item in inputs[like:] if isinstance(item, Var)), None)
        elem_type = source.elem_type if source else self.options.elem_type
        for item in inputs:
            if isinstance(item, Var):
                item.reads += 1
        self.nodes.append(node)
        made = [Var(name, elem_type, worlds) for name, *worlds in zip(filter(None, node.output), *results, strict=True)]
        for var in made:
            var.worlds = tuple(var.worlds)
            self.values[var.name] = var.worlds
        return made

    def one(self, op: str, inputs: Sequence[Var | str | None], **attributes: Any) -> Var:
        """A node of one output, which later nodes may read."""
        (var,) = self.add(op, inputs, **attributes)
        self.vars.append(var)
        return var

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Take everything back that was added inside if it is rejected."""
        graphs: list[Builder] = [self]
        while graphs[-1].parent is not None:
            graphs.append(graphs[-1].parent)
        functions = len(self.shared.functions)
        marks = [(g, len(g.nodes), len(g.initializers), len(g.listed), len(g.vars)) for g in graphs]
        reads = [(var, var.reads) for var in self.visible()]
        pool = {key: list(entries) for key, entries in self.shared.pool.items()}
        try:
            yield
        except RejectedError:
            for g, nodes, initializers, listed, variables in marks:
                del g.nodes[nodes:], g.initializers[initializers:], g.listed[listed:], g.vars[variables:]
            for var, count in reads:
                var.reads = count
            self.shared.pool = pool
            del self.shared.functions[functions:]
            raise

    # Constants.

    def constant(self, array: Array | float, like: Var | int | None = None, role: str = "") -> str:
        """The name of a constant of floating point numbers: shared, plain or in disguise."""
        elem_type = like.elem_type if isinstance(like, Var) else like or self.options.elem_type
        array = rounded(np.asarray(array, np.float64), elem_type)
        # Whatever has the shape may be read again, but for roles that need a sign.
        role = role if role in SIGNED else ""
        key = (elem_type, array.shape, role)
        known = [name for holder, name in self.shared.pool.get(key, ()) if self.reaches(holder)]
        if known and self.chance(self.options.share):
            return str(self.pick(known))
        name = (
            self.disguised(array, elem_type)
            if self.chance(self.options.disguise)
            else self.initializer(array, elem_type)
        )
        holder = self
        while name not in holder.values and holder.parent is not None:
            holder = holder.parent
        self.shared.pool.setdefault(key, []).append((holder, name))
        return name

    def reaches(self, other: Builder) -> bool:
        return other is self or (self.parent is not None and self.parent.reaches(other))

    def integers(self, *values: int) -> str:
        """A constant of int64, as a vector."""
        array = np.asarray(values, np.int64)
        if self.chance(0.3):
            return self.made("Constant", [], value=onnx.numpy_helper.from_array(array))
        return self.initializer(array, TensorProto.INT64)

    def made(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node over constants alone; later nodes read what it makes only as a constant."""
        return self.add(op, inputs, **attributes)[0].name

    def disguised(self, array: Array, elem_type: int) -> str:
        """A constant computed from initializers, exactly."""
        spelling: Callable[[Array, int], str] = self.pick(
            [
                self._constant_node,
                lambda a, t: self.made("Identity", [self.initializer(a, t)]),
                self._transposed,
                self._reshaped,
                self._unsqueezed,
                self._cast,
                self._arithmetic,
                self._halves,
                self._filled,
                self._gathered,
                self._cut,
                self._computed,
            ]
        )
        return spelling(array, elem_type)

    def _constant_node(self, array: Array, elem_type: int) -> str:
        if elem_type == FLOAT and array.ndim < 2 and self.opset >= 12 and self.chance(0.3):
            if array.ndim == 0:
                return self.made("Constant", [], value_float=float(array))
            return self.made("Constant", [], value_floats=[float(element) for element in array])
        return self.made("Constant", [], value=tensor_of("", array, elem_type))

    def _transposed(self, array: Array, elem_type: int) -> str:
        perm = [int(axis) for axis in self.rng.permutation(array.ndim)]
        source = self.initializer(np.transpose(array, np.argsort(perm)), elem_type)
        return self.made("Transpose", [source], perm=perm) if perm else self.made("Identity", [source])

    def _reshaped(self, array: Array, elem_type: int) -> str:
        return self.made("Reshape", [self.initializer(array.reshape(-1), elem_type), self.integers(*array.shape)])

    def _unsqueezed(self, array: Array, elem_type: int) -> str:
        axis = self.integer(0, array.ndim)
        source = self.initializer(np.expand_dims(array, axis), elem_type)
        if self.opset >= 13:
            return self.made("Squeeze", [source, self.integers(axis)])
        return self.made("Squeeze", [source], axes=[axis])

    def _cast(self, array: Array, elem_type: int) -> str:
        return self.made("Cast", [self.initializer(array, DOUBLE if elem_type != DOUBLE else FLOAT)], to=elem_type)

    def _arithmetic(self, array: Array, elem_type: int) -> str:
        op, other = self.pick([("Mul", 2.0), ("Div", 0.5), ("Neg", -1.0), ("Add", 0.0)])
        source = self.initializer(array / other if op == "Mul" else array * other if other else array, elem_type)
        if op == "Neg":
            return self.made("Neg", [source])
        return self.made(op, [source, self.initializer(np.asarray(other), elem_type)])

    def _halves(self, array: Array, elem_type: int) -> str:
        if array.ndim == 0 or array.shape[0] < 2:
            return self.made("Identity", [self.initializer(array, elem_type)])
        cut = self.integer(1, array.shape[0] - 1)
        parts = [self.initializer(part, elem_type) for part in (array[:cut], array[cut:])]
        return self.made("Concat", parts, axis=0)

    def _filled(self, array: Array, elem_type: int) -> str:
        """A constant of equal elements, as exporters fill a missing bias."""
        if not array.size or not np.all(array == array.ravel()[0]):
            return self.made("Identity", [self.initializer(array, elem_type)])
        value = array.ravel()[:1]
        if self.chance(0.5):
            return self.made("ConstantOfShape", [self.integers(*array.shape)], value=tensor_of("", value, elem_type))
        shape = self.made("Shape", [self.initializer(array, elem_type)])
        return self.made("Expand", [self.initializer(value.reshape(()), elem_type), shape])

    def _gathered(self, array: Array, elem_type: int) -> str:
        if array.ndim == 0:
            return self.made("Identity", [self.initializer(array, elem_type)])
        order = self.rng.permutation(array.shape[0])
        source = np.empty_like(array)
        source[order] = array
        return self.made("Gather", [self.initializer(source, elem_type), self.integers(*map(int, order))], axis=0)

    def _cut(self, array: Array, elem_type: int) -> str:
        """A piece of a larger constant."""
        if array.ndim == 0 or self.opset < 10:
            return self.made("Identity", [self.initializer(array, elem_type)])
        axis = self.integer(0, array.ndim - 1)
        source = np.concatenate([array, array], axis)
        ends = [self.integers(size) for size in (array.shape[axis], 2 * array.shape[axis])]
        return self.made("Slice", [self.initializer(source, elem_type), *ends, self.integers(axis)])

    def _computed(self, array: Array, elem_type: int) -> str:
        """The root of squares, where the elements have one sign: nearly the array."""
        if np.any(array <= 0) or elem_type in (HALF, BFLOAT):
            return self.made("Identity", [self.initializer(array, elem_type)])
        return self.made("Sqrt", [self.initializer(array * array, elem_type)])

    def graph(
        self, name: str, outputs: Sequence[onnx.ValueInfoProto], inputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.GraphProto:
        listed = [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in self.initializers
            if tensor.name in self.listed
        ]
        return helper.make_graph(self.nodes, name, [*inputs, *listed], outputs, self.initializers)


def same_shape(a: Var, b: Var) -> bool:
    """Whether two values have one element type, and one shape in every world."""
    return a.elem_type == b.elem_type and all(p.shape == q.shape for p, q in zip(a.worlds, b.worlds, strict=True))


def rounded(array: Array, elem_type: int) -> Array:
    """The array as the element type holds it. Doubles get numbers that a float holds too, so that casts are exact."""
    dtype = np.float32 if elem_type == DOUBLE else helper.tensor_dtype_to_np_dtype(elem_type)
    return array.astype(dtype).astype(np.float64)


def tensor_of(name: str, array: Array, elem_type: int) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(array).astype(helper.tensor_dtype_to_np_dtype(elem_type)), name)
