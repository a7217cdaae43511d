"""Shapes as far as the operators above a value tell them: ranks and numbers of channels, most of all.

They answer what most translations ask, without inference over the whole model, and they go on where inference knows
nothing, as in the body of a loop. A size that no operator tells is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce

import onnx

from bnfold.algebra.axes import Shape
from bnfold.graphs import kinds
from bnfold.graphs.indexed import input_at
from bnfold.graphs.onnx.constants import Constants
from bnfold.graphs.onnx.index import Node, Value, integer, integers

_KEEPING = {
    *("Abs", "BatchNormalization", "Cast", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid"),
    *("HardSwish", "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Mish"),
    *("Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt", "Tanh"),
    "ThresholdedRelu",
}
_BROADCASTING = {"Add", "Div", "Mul", "Pow", "PRelu", "Sub"}
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}
_MOVING = {"Flatten", "MatMul", "ReduceMean", "Transpose"}
_POOLS = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"}


class Outlines:
    """The outlines of a graph's values; `inferred` is asked first, and gives None where it does not know."""

    def __init__(self, constants: Constants, inferred: Callable[[Value], Shape | None]) -> None:
        self._constants = constants
        self._inferred = inferred
        self._found: dict[Value, Shape | None] = {}

    def shape(self, value: Value) -> Shape | None:
        """The sizes of a value; None where its rank is not known."""
        found = self._found
        waiting = [value]
        entered: dict[Value, tuple[Value, ...]] = {}
        while waiting:
            at = waiting[-1]
            if at in found:
                waiting.pop()
                continue
            sources = entered.get(at)
            if sources is None:
                shape = self._at_once(at)
                if shape is not None:
                    found[at] = shape
                    continue
                sources = entered[at] = self._sources(at)
                missing = [source for source in sources if source not in found]
                if missing:
                    waiting.extend(missing)
                    continue
            found[at] = self._made(at, [found.get(source) for source in sources])
        return found[value]

    def forget(self) -> None:
        """Derive everything anew."""
        self._found.clear()

    def _at_once(self, value: Value) -> Shape | None:
        known = self._constants.known(value)
        return known.folded_shape if known is not None else self._inferred(value)

    def _sources(self, value: Value) -> tuple[Value, ...]:
        """The values whose shapes decide on that of this one."""
        node = value.producer
        if node is None or node.domain or node.is_open or (value.port and node.op != "If"):
            return ()
        if node.op == "If":
            return tuple(_results(node, value.port))
        if node.op in _BROADCASTING or node.op == "Concat":
            sources = tuple(source for source in node.inputs if source is not None)
            return sources if len(sources) == len(node.inputs) else ()
        if node.op in _KEEPING or node.op in _POOLS or node.op in _MOVING:
            return _first_input(node)
        if node.op == "Reshape":
            return _whose_shape(input_at(node, 1))
        return ()

    def _made(self, value: Value, shapes: list[Shape | None]) -> Shape | None:
        """What an operator tells of its result, from the shapes of what it reads."""
        node = value.producer
        if node is None or node.domain or node.is_open:
            return None
        first = shapes[0] if shapes else None
        if node.op in _WEIGHTED or node.op == "MatMul":
            return self._from_weight(node, first)
        if node.op == "Reshape":
            return _unless_empty(first) if shapes else self._from_target(node)
        if node.op == "Flatten":
            return _flat(node, first)
        if node.op == "ReduceMean":
            return self._reduced(node, first)
        if node.op == "Transpose":
            return _transposed(node, first)
        told = [shape for shape in shapes if shape is not None]
        if not told or len(told) < len(shapes):
            return None
        if node.op == "If":
            return _agreed(told)
        if node.op == "Concat":
            return _joined(node, told)
        if node.op in _POOLS:
            return (*told[0][:2], *(None for _ in told[0][2:]))
        return reduce(kinds.broadcast, told)

    def _from_weight(self, node: Node, x: Shape | None) -> Shape | None:
        """The rank and the channels that an operator's weight gives its result."""
        weight = self._constants.known(input_at(node, 1))
        if weight is None or len(weight.shape) < 2:
            return None
        first, second = weight.shape[:2]
        if node.op == "MatMul":
            return (*x[:-1], second) if x and len(x) > 1 and len(weight.shape) == 2 else None
        if node.op == "Conv":
            channels = first
        elif node.op == "ConvTranspose":
            channels = second * integer(node.proto, "group", 1)
        else:
            channels = first if integer(node.proto, "transB", 0) else second
        return (None, channels, *(None for _ in weight.shape[2:]))

    def _from_target(self, node: Node) -> Shape | None:
        """The sizes that a Reshape names; 0 and -1 stand for sizes that it does not."""
        target = self._written(input_at(node, 1))
        return None if target is None else tuple(size if size > 0 else None for size in target)

    def _written(self, value: Value | None) -> list[int] | None:
        """The integers of a list that is written out, so that no shape has to be inferred for them."""
        known = self._constants.known(value) if value is not None and _is_written(value) else None
        if known is None or known.is_floating or len(known.shape) != 1:
            return None
        listed: list[int] = known.read().tolist()
        return listed

    def _reduced(self, node: Node, shape: Shape | None) -> Shape | None:
        """The axes that a mean leaves, where it names those that it is taken over."""
        given = input_at(node, 1)
        axes = integers(node.proto, "axes") if given is None else self._written(given)
        if shape is None or not axes or any(not -len(shape) <= axis < len(shape) for axis in axes):
            return None
        gone = {axis % len(shape) for axis in axes}
        kept = integer(node.proto, "keepdims", 1)
        return tuple([1 if at in gone else size for at, size in enumerate(shape) if kept or at not in gone])


def _is_written(value: Value) -> bool:
    """Whether a value is a constant, or a row of constants, for whose elements no shape has to be inferred."""
    node = value.producer
    if node is None or node.op == "Constant":
        return True
    return node.op == "Concat" and all(
        item is not None and (item.producer is None or item.producer.op == "Constant") for item in node.inputs
    )


def _whose_shape(target: Value | None) -> tuple[Value, ...]:
    """The value that has the shape that a Reshape aims at, where that is taken off one as it is."""
    node = target.producer if target is not None else None
    if node is None or node.op != "Shape" or node.domain or node.proto.attribute:
        return ()
    return _first_input(node)


def _first_input(node: Node) -> tuple[Value, ...]:
    return tuple(source for source in node.inputs[:1] if source is not None)


def _unless_empty(shape: Shape | None) -> Shape | None:
    """A shape, as what a Reshape aims at: there a 0 means the size that stands in its place already."""
    return None if shape is None or 0 in shape else shape


def _results(node: Node, port: int) -> Iterator[Value]:
    """What the branches of an If hand out there."""
    for body in node.scope.bodies:
        if body.owner is node and isinstance(body.graph, onnx.GraphProto):
            value = body.resolve(body.graph.output[port].name)
            if value is not None:
                yield value


def _agreed(shapes: list[Shape]) -> Shape | None:
    """The sizes on which shapes of one rank agree."""
    if len({len(shape) for shape in shapes}) != 1:
        return None
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


def _joined(node: Node, shapes: list[Shape]) -> Shape | None:
    """The shape of a Concat."""
    agreed = _agreed(shapes)
    axis = integer(node.proto, "axis", 1)
    if agreed is None or not -len(agreed) <= axis < len(agreed):
        return None
    axis %= len(agreed)
    parts = [shape[axis] for shape in shapes]
    whole = sum(part for part in parts if isinstance(part, int))
    size = whole if all(isinstance(part, int) for part in parts) else None
    # One operand that knows a size knows it for all of them.
    others = [
        next((shape[at] for shape in shapes if isinstance(shape[at], int)), agreed[at]) for at in range(len(agreed))
    ]
    return tuple(size if at == axis else others[at] for at in range(len(agreed)))


def _transposed(node: Node, shape: Shape | None) -> Shape | None:
    """The shape of a Transpose."""
    order = integers(node.proto, "perm")
    if shape is None or (order and sorted(order) != list(range(len(shape)))):
        return None
    return tuple([shape[axis] for axis in order]) if order else shape[::-1]


def _flat(node: Node, shape: Shape | None) -> Shape:
    """The shape of a Flatten: the axes in front of one and those from it on become one each."""
    axis = integer(node.proto, "axis", 1)
    if shape is None:
        return (None, None)
    halves = (shape[:axis], shape[axis:])
    return tuple(half[0] if len(half) == 1 else None for half in halves)
