"""Sizes and element types of values, from onnx's own shape inference.

A symbol is a name that stands for one number; a size that inference does not know is None. Inference runs when the
first shape is asked for that is not written in the model, and its answers are read one by one: most folds need few of
them, many none. It may be told more (`learn`), and runs again then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import onnx

from bnfold.algebra.axes import Shape, Size
from bnfold.graphs.onnx.index import Scope, Value
from bnfold.graphs.onnx.inference import Inference, Told
from bnfold.graphs.onnx.inferred import sizes_of

_OF_NUMBERS = {
    **dict.fromkeys(("value_float", "value_floats"), onnx.TensorProto.FLOAT),
    **dict.fromkeys(("value_int", "value_ints"), onnx.TensorProto.INT64),
}
# Their schemas do not say so: a sequence of tensors on one side, one tensor on the other, of the same element type.
_THROUGH_SEQUENCES = ("SplitToSequence", "SequenceAt", "ConcatFromSequence")


class Shapes:
    """What is known about each value; a shape is None where not even the rank is known.

    `consult` is called once, when a size is asked for that inference does not know: it may `learn` more.
    """

    def __init__(self, model: onnx.ModelProto, scopes: list[Scope]) -> None:
        self.consult: Callable[[], None] | None = None
        self._inference = Inference(model, scopes[0])
        self._known: dict[Value, tuple[int, Shape | None]] = {}
        self._same: dict[Value, Value] = {}
        self._types: dict[Value, int] = {}
        self._infos: dict[Scope, dict[str, onnx.ValueInfoProto]] | None = None

    def shape(self, value: Value) -> Shape | None:
        return self._find(value)[1]

    def elem_type(self, value: Value) -> int:
        """The TensorProto.DataType of the elements; 0 where it is not known."""
        return self._type_above(value) or self._find(value)[0]

    def copy(self, old: Value, new: Value) -> None:
        """Say of a new value what is known of another."""
        self._same[new] = old

    def is_settled(self, value: Value) -> bool:
        """Whether every size is a number, or a symbol that inference did not make up."""
        shape = self._find(value)[1]
        return shape is not None and not any(size is None or made_up(size) for size in shape)

    def is_static(self, value: Value) -> bool:
        """Whether every size is a number."""
        shape = self._find(value)[1]
        return shape is not None and all(isinstance(size, int) for size in shape)

    def so_far(self, value: Value) -> Shape | None:
        """The shape as far as it is known without anything being computed for this answer."""
        value = self._same.get(value, value)
        if value not in self._known and value.tensor is None and self._infos is None:
            return None
        return (self._known.get(value) or self._look_up(value))[1]

    def learn(self, found: Mapping[Value, Told]) -> None:
        """Infer once more, with this told beforehand."""
        found = {self._same.get(value, value): told for value, told in found.items()}
        self._inference.tell(found)
        self._infer()

    def _type_above(self, value: Value) -> int:
        """The type of the elements as far as one of the weights, inputs and casts above tells, without inference."""
        met = {value: None}
        waiting = [value]
        found = 0
        while waiting and not found:
            at = waiting.pop()
            found = self._types.get(at, -1)
            if found < 0:
                found = self._written_type(at) or _made_type(at)
                alike = [operand for operand in _of_the_type(at) if operand not in met]
                met.update(dict.fromkeys(alike))
                waiting += sorted(alike, key=lambda operand: operand.tensor is not None)  # a weight is asked next
        self._types.update(dict.fromkeys(met, found))
        return found

    def _written_type(self, value: Value) -> int:
        """The type of an initializer, or of an input of the model, as the file says; else 0."""
        if value.tensor is not None:
            return value.tensor.data_type
        main = value.scope.graph
        if not value.is_input or value.scope.parent is not None or not isinstance(main, onnx.GraphProto):
            return 0
        return next((info.type.tensor_type.elem_type for info in main.input if info.name == value.name), 0)

    def _find(self, value: Value) -> tuple[int, Shape | None]:
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = self._look_up(self._same.get(value, value))
            if self.consult is not None and not self.is_settled(value):
                consult, self.consult = self.consult, None
                consult()
                known = self._find(value)
        return known

    def _look_up(self, value: Value) -> tuple[int, Shape | None]:
        if value.tensor is not None:
            return value.tensor.data_type, tuple(value.tensor.dims[:])
        if self._infos is None:
            self._infer()
        info = (self._infos or {}).get(value.scope, {}).get(value.name)
        if info is None:
            return 0, None
        kind = info.type.tensor_type
        return kind.elem_type, sizes_of(kind.shape) if kind.HasField("shape") else None

    def _infer(self) -> None:
        self._infos = {part.scope: part.infos for part in self._inference.run().walk()}
        self._known.clear()


def made_up(size: Size) -> bool:
    """Whether a size has its name from inference alone."""
    return isinstance(size, str) and size.startswith("unk__")


def _made_type(value: Value) -> int:
    """The type of what an operator makes where an attribute says it; else 0."""
    node = value.producer
    if node is None or node.domain or node.is_open or node.op not in ("Cast", "Constant", "ConstantOfShape"):
        return 0
    for item in node.proto.attribute:
        if item.name == "to":
            return item.i
        if item.name == "value":
            return item.t.data_type
        if item.name in _OF_NUMBERS:
            return _OF_NUMBERS[item.name]
    return 0


def _of_the_type(value: Value) -> list[Value]:
    """What the operator that makes a value reads of the same element type."""
    node = value.producer
    if node is None or node.domain:
        return []
    read = (node.inputs[at] for at in _alike(node.op, node.opset, value.port) if at < len(node.inputs))
    return [operand for operand in read if operand is not None]


@cache
def _alike(op: str, opset: int, port: int) -> tuple[int, ...]:
    """The inputs of an operator that have the type of an output, by its schema."""
    if op in _THROUGH_SEQUENCES:
        return (0,)
    try:
        schema = onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return ()
    made = schema.outputs[min(port, len(schema.outputs) - 1)] if schema.outputs else None
    if made is None or not made.is_homogeneous:
        return ()
    return tuple(at for at, read in enumerate(schema.inputs) if read.is_homogeneous and read.type_str == made.type_str)
