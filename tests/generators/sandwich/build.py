"""A model under construction: values whose shapes are known, constants in every spelling, inputs with named sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from generators.sandwich.use import Array, attribute, element, tensor


@dataclass(frozen=True)
class Value:
    """A tensor of the model, with the shape that it has on the inputs it is judged on."""

    name: str
    shape: tuple[int, ...]
    dtype: Any = np.float32

    @property
    def size(self) -> int:
        """How many elements it has."""
        return int(np.prod(self.shape))

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)


@dataclass
class Build:
    """Nodes in order, in parts that may later move into a body together."""

    rng: np.random.Generator
    opset: int
    dtype: Any = np.float32
    nodes: list[tuple[str, onnx.NodeProto]] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, Array] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    part: str = "front"
    free: bool = False  # whether what is built may have another shape than asked for
    named: bool = True
    made: int = 0

    def chance(self, probability: float) -> bool:
        """A biased coin."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[Any]) -> Any:
        """One of them."""
        return options[int(self.rng.integers(len(options)))]

    def between(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def fresh(self, stem: str) -> str:
        """A name that is not in use."""
        self.made += 1
        return f"{stem}{self.made}"

    def know(self, name: str, shape: Sequence[int], dtype: Any = None) -> Value:
        """Note a value."""
        value = Value(name, tuple(int(size) for size in shape), np.dtype(dtype or self.dtype))
        self.values[name] = value
        return value

    def input(self, array: Array, stem: str = "x") -> Value:
        """A graph input that is fed this array."""
        name = self.fresh(stem)
        self.inputs[name] = array
        return self.know(name, array.shape, array.dtype)

    def add(
        self,
        op: str,
        inputs: Sequence[str | Value],
        shape: Sequence[int],
        dtype: Any = None,
        **settings: Any,
    ) -> Value:
        """An operator with one output."""
        names = [item.name if isinstance(item, Value) else item for item in inputs]
        if op in ("Conv", "Gemm") and len(names) == 2:
            names += [""] * self.chance(0.06)  # a summand that is left out by an empty name
        output = self.fresh("v")
        node = helper.make_node(op, names, [output], name=self.node_name(op))
        node.attribute.extend(attribute(key, value) for key, value in settings.items())
        self.nodes.append((self.part, node))
        return self.know(output, shape, dtype)

    def node_name(self, op: str) -> str | None:
        """A name for a node, in models whose nodes have names."""
        return f"{op.lower()}_{len(self.nodes)}" if self.named else None

    def const(self, array: Array, plain: bool = False) -> Value:
        """A constant: an initializer, a Constant node, or either behind operators that undo each other."""
        array = np.asarray(array)
        if array.dtype.kind == "f" and not plain and self.chance(0.05) and (twins := self._alike(array)):
            return self.values[self.pick(twins)]
        spelling = self.rng.random()
        if plain or spelling < 0.62:
            return self._initializer(array)
        if spelling < 0.85 and (self.opset >= 9 or array.dtype.kind == "f"):
            return self.add("Constant", [], array.shape, array.dtype, value=array)
        return self._hidden(array)

    def _alike(self, array: Array) -> list[str]:
        """The constants that could stand here as well, so that one constant has several readers."""
        return [
            name
            for name, held in self.constants.items()
            if held.shape == array.shape
            and held.dtype == array.dtype
            and (held.min(initial=1) > 0 or array.min(initial=1) <= 0)
        ]

    def _initializer(self, array: Array) -> Value:
        name = self.fresh("c")
        self.constants[name] = array
        return self.know(name, array.shape, array.dtype)

    def _hidden(self, array: Array) -> Value:
        kind = self.pick(("identity", "cast", "transpose", "reshape", "halves", "negative"))
        if kind == "cast" and array.dtype == np.float32:
            wide = self._initializer(array.astype(np.float64))
            return self.add("Cast", [wide], array.shape, array.dtype, to=element(array))
        if kind == "transpose" and array.ndim >= 2:
            order = [int(at) for at in self.rng.permutation(array.ndim)]
            turned = self._initializer(np.transpose(array, np.argsort(order)))
            # Transposing back: axis k of the result is axis order[k] of the stored array.
            return self.add("Transpose", [turned], array.shape, array.dtype, perm=list(map(int, order)))
        if kind == "reshape" and array.size:
            flat = self._initializer(array.reshape(-1))
            target = self._initializer(np.array(array.shape, np.int64))
            return self.add("Reshape", [flat, target], array.shape, array.dtype)
        if kind == "halves" and array.ndim >= 1 and array.shape[0] >= 2:
            parts = [self._initializer(array[:1]), self._initializer(array[1:])]
            return self.add("Concat", parts, array.shape, array.dtype, axis=0)
        if kind == "negative" and array.dtype.kind == "f":
            return self.add("Neg", [self._initializer(-array)], array.shape, array.dtype)
        return self.add("Identity", [self._initializer(array)], array.shape, array.dtype)

    def weight(self, *shape: int, low: float = 0.3, high: float = 1.6) -> Array:
        """Parameters of both signs, none of them small."""
        size = self.rng.uniform(low, high, size=shape)
        signs = self.rng.choice([-1.0, 1.0], size=shape)
        draw = self.rng.random()
        if draw < 0.1:
            signs = np.ones(shape)  # all positive: more may pass
        elif draw < 0.15:
            size = np.full(shape, self.rng.uniform(low, high))
        return np.asarray(size * signs).astype(self.dtype)

    def data(self, *shape: int) -> Array:
        """What a graph input is fed."""
        return np.asarray(self.rng.normal(size=shape)).astype(self.dtype)


def dims(build: Build, array: Array, style: str, prefix: str) -> list[int | str | None]:
    """Sizes as a file may declare them: numbers, names, nothing, or -1."""
    if style == "fixed":
        return list(array.shape)
    out: list[int | str | None] = []
    for axis, size in enumerate(array.shape):
        if style == "batch" and axis:
            out.append(size)
        elif style == "shared":
            out.append(f"n{size}")  # sizes that coincide have one name
        elif style == "unnamed":
            out.append(None)
        elif style == "minus":
            out.append(-1 if build.chance(0.5) else size)
        elif style == "mixed" and build.chance(0.5):
            out.append(size)
        else:
            out.append(f"{prefix}_{axis}")
    return out


def finished(build: Build, style: str, ir_version: int) -> onnx.ModelProto:
    """The model of all that was built."""
    inputs = [
        helper.make_tensor_value_info(name, element(array), dims(build, array, style, name))
        for name, array in build.inputs.items()
    ]
    initializers = [tensor(array, name) for name, array in build.constants.items()]
    if ir_version >= 4 and build.chance(0.06):
        build.optional.update(name for name in build.constants if build.chance(0.3))
    overridable = set(build.constants) if ir_version < 4 else build.optional & set(build.constants)
    for name in build.constants:
        if name in overridable:
            array = build.constants[name]
            inputs.append(helper.make_tensor_value_info(name, element(array), array.shape))
    outputs = []
    told = build.rng.random()  # whether the outputs' sizes are declared
    for name in dict.fromkeys(build.outputs):
        value = build.values[name]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        full = list(value.shape) if style == "fixed" and told < 0.4 else [None] * value.rank
        outputs.append(helper.make_tensor_value_info(name, kind, full))
    graph = helper.make_graph([node for _, node in build.nodes], "sandwich", inputs, outputs, initializers)
    imports = [helper.make_opsetid("", build.opset)]
    if build.functions:
        imports.append(helper.make_opsetid("local", 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=build.functions)
