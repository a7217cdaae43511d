"""Values that are known before the model runs: initializers, and whatever is computed from nothing else.

Exporters hide weights behind Constant, Identity, Cast, Transpose, Expand of a shape and more. Such subgraphs are
evaluated operator by operator, as far as they are small enough to hold; an initializer is never read before its
elements are needed, and a fold's result is computed when it is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bnfold.algebra.affine import Refusal
from bnfold.graphs.onnx.document import Document, Payload
from bnfold.graphs.onnx.evaluation import evaluate
from bnfold.graphs.onnx.index import Node, Value, integer
from bnfold.graphs.onnx.known import Known
from bnfold.graphs.onnx.shapes import Shapes

MOST_ELEMENTS = 2**24

# How raw data are read, by element type; of other types, and what is not raw, onnx reads.
_RAW: dict[int, str] = {onnx.TensorProto.FLOAT: "<f4", onnx.TensorProto.DOUBLE: "<f8", onnx.TensorProto.INT64: "<i8"}

# The numbers that a Constant may hold as an attribute: their type, where they are, and the type of the attribute.
_NUMBERS: dict[str, tuple[type, Callable[[onnx.AttributeProto], Any], int]] = {
    "value_float": (np.float32, lambda attribute: attribute.f, onnx.AttributeProto.FLOAT),
    "value_floats": (np.float32, lambda attribute: attribute.floats[:], onnx.AttributeProto.FLOATS),
    "value_int": (np.int64, lambda attribute: attribute.i, onnx.AttributeProto.INT),
    "value_ints": (np.int64, lambda attribute: attribute.ints[:], onnx.AttributeProto.INTS),
}

# Operators whose result has no more elements than their operands have together.
_PLAIN = {
    *("Identity", "Cast", "CastLike", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Slice"),
    *("Neg", "Sqrt", "Reciprocal", "Abs", "Exp", "Log", "Floor", "Ceil", "Shape", "Sign", "Size", "Not"),
}
# Operators whose result may be larger; they are evaluated only where its size is known and bounded.
_GROWING = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Equal", "Greater", "Less", "Where", "And", "Or"),
    *("Expand", "ConstantOfShape", "Tile", "Gather", "Range", "MatMul"),
}
# Those whose result may have more elements than the numbers of elements of the operands multiply to.
_SIZED = {"Expand", "ConstantOfShape", "Tile", "Range", "MatMul"}
EVALUATED = {"Constant"} | _PLAIN | _GROWING
# Operators that have a result where an operand is not known, but its shape or type.
_LOOKING = {"Shape", "CastLike", "Size"}


def may_be_known(node: Node) -> bool:
    """Whether a node computes a constant where all that it reads is constant."""
    return node.op in EVALUATED and not node.domain and not node.is_open


class Constants:
    """Which values of a graph are known, and what they are."""

    def __init__(self, document: Document, shapes: Shapes, freeze_initializers: bool) -> None:
        self._document = document
        self._shapes = shapes
        self._freeze = freeze_initializers or document.model.ir_version < 4
        self._cache: dict[Value, Known | Refusal] = {}

    def get(self, value: Value) -> Known | Refusal:
        """The constant that a value is, or why it is none (reasons: computed-weight, overridable, quantized)."""
        found = self._cache.get(value)
        if found is not None:
            return found
        waiting = [value]
        while waiting:  # no recursion: chains of constants may be longer than Python's stack
            at = waiting[-1]
            operand = self._undecided(at)
            if operand is not None:
                waiting.append(operand)
                continue
            if at not in self._cache:
                self._cache[at] = self._resolve(at)
            waiting.pop()
        return self._cache[value]

    def _undecided(self, value: Value) -> Value | None:
        """The first operand of which has to be found out whether it is known before this can be said of a value."""
        node = value.producer
        if value.tensor is not None or node is None or not may_be_known(node):
            return None
        for source in node.inputs:
            found = self._cache.get(source) if source is not None else None
            if found is None and source is not None:
                return source
            if isinstance(found, Refusal) and node.op not in _LOOKING:
                return None
        return None

    def known(self, value: Value | None) -> Known | None:
        if value is None:
            return None
        found = self._cache.get(value)
        if found is None:
            if value.tensor is None and (value.producer is None or not may_be_known(value.producer)):
                return None  # as most values; nobody asks why
            found = self.get(value)
        return found if isinstance(found, Known) else None

    def reconsider(self) -> None:
        """Forget which values are no constants: with more shapes known, some may be."""
        self._cache = {value: found for value, found in self._cache.items() if isinstance(found, Known)}

    def put(self, value: Value, known: Known) -> None:
        """Say what a value is that a fold made."""
        self._cache[value] = known

    def _resolve(self, value: Value) -> Known | Refusal:
        if value.tensor is not None:
            if value.is_input and not self._freeze:
                return Refusal(
                    "overridable",
                    f"'{value.name}' is a graph input with a default that callers may override; "
                    "--freeze-initializers takes it as constant",
                )
            if any(size < 0 for size in value.tensor.dims[:]):
                return Refusal("unsupported", f"'{value.name}' has a size below zero; the model is not valid")
            return self._of_tensor(value.tensor, value)
        node = value.producer
        if node is None:
            return Refusal("computed-weight", f"'{value.name}' is an input, not a constant")
        if node.op == "DequantizeLinear":
            return Refusal("quantized", f"'{value.name}' is dequantized from integers")
        if node.domain:
            return Refusal("computed-weight", f"'{value.name}' is computed by {node.domain}.{node.op}")
        if node.is_open:
            return Refusal("computed-weight", f"'{value.name}' depends on what the caller of the function gives")
        if node.op == "Constant":
            return self._of_constant(node, value)
        if may_be_known(node):
            return self._evaluated(node, value)
        return _computed(node, value)

    def _of_tensor(self, tensor: onnx.TensorProto, value: Value) -> Known | Refusal:
        payload = self._payload(value)
        if payload is None:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                return Refusal("computed-weight", f"'{value.name}' lies outside the file in a subgraph")
            return self._of_message(tensor, value)
        return _of_payload(payload, tensor, value)

    def _payload(self, value: Value) -> Payload | None:
        """The data of a weight of the main graph that are not in the skeleton."""
        is_main = value.scope.parent is None and not value.scope.is_function
        return self._document.payloads.get(value.name) if is_main else None

    def _of_constant(self, node: Node, value: Value) -> Known | Refusal:
        attributes = node.proto.attribute[:]
        attribute = attributes[0] if len(attributes) == 1 else None
        name = "" if attribute is None else attribute.name
        if attribute is not None and name == "value" and all(size >= 0 for size in attribute.t.dims[:]):
            payload, tensor = self._payload(value), attribute.t
            return self._of_message(tensor, value) if payload is None else _of_payload(payload, tensor, value)
        if attribute is None or name not in _NUMBERS:
            return Refusal("computed-weight", f"'{value.name}' is a constant in a form that is not understood")
        dtype, read, held = _NUMBERS[name]
        if attribute.type != held:
            return Refusal("unsupported", f"the constant '{value.name}' contradicts itself; the model is not valid")
        return self._of_array(np.asarray(read(attribute), dtype), value)

    def _of_message(self, tensor: onnx.TensorProto, value: Value) -> Known | Refusal:
        """A tensor that has its data with it."""
        elem_type, shape = tensor.data_type, tuple(tensor.dims[:])
        raw = tensor.raw_data if elem_type in _RAW else b""
        try:  # most constants are raw, of these types, for which onnx takes twice as long
            array = np.frombuffer(raw, _RAW[elem_type]).reshape(shape) if raw else onnx.numpy_helper.to_array(tensor)
        except Exception:  # onnx raises what it likes on data of another size, segments, unknown types
            return Refusal("unsupported", f"the data of '{value.name}' cannot be read; the model is not valid")
        return Known(elem_type, shape, lambda: array, None, value.name)

    def _of_array(self, array: NDArray[Any], value: Value) -> Known:
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        return Known(elem_type, array.shape, lambda: array, base_name=value.name)

    def _evaluated(self, node: Node, value: Value) -> Known | Refusal:
        """One operator over constants."""
        if node.op == "Shape":
            return self._shape_of(node, value) or _computed(node, value)
        feeds: list[NDArray[Any] | None] = []
        total = 0
        for position, source in enumerate(node.inputs):
            if source is None:
                feeds.append(None)
                continue
            if node.op == "CastLike" and position == 1:
                known = self.known(source)
                elem_type = known.elem_type if known else self._shapes.elem_type(source)
                if not elem_type:
                    return _computed(node, value)
                feeds.append(np.zeros((), onnx.helper.tensor_dtype_to_np_dtype(elem_type)))
                continue
            found = self.get(source)
            if isinstance(found, Refusal):
                return found if found.reason != "computed-weight" else _computed(node, value)
            total += math.prod(found.shape)
            feeds.append(found.rounded())
        if total > MOST_ELEMENTS or (node.op in _GROWING and self._elements(node, value, feeds) > MOST_ELEMENTS):
            return Refusal("computed-weight", f"'{value.name}' is computed by '{node.name}' and too large to hold")
        result = evaluate(node.proto, node.opset, feeds, value.port)
        return _computed(node, value) if result is None else self._of_array(result, value)

    def _shape_of(self, node: Node, value: Value) -> Known | None:
        source = node.inputs[0]
        if source is None:
            return None
        known = self.known(source)
        shape = known.shape if known else self._shapes.shape(source)
        attributes = {item.name: item.i for item in node.proto.attribute}
        if shape is None:
            return None
        sizes = [size for size in shape[attributes.get("start", 0) : attributes.get("end")] if isinstance(size, int)]
        if len(sizes) != len(shape[attributes.get("start", 0) : attributes.get("end")]):
            return None
        return self._of_array(np.asarray(sizes, np.int64), value)

    def _elements(self, node: Node, value: Value, feeds: list[NDArray[Any] | None]) -> float:
        """How many elements the result has, or a larger number within bounds; infinite where neither is known."""
        arrays = [array for array in feeds if array is not None]
        if node.op not in _SIZED:
            product = math.prod([array.size for array in arrays])
            if product <= MOST_ELEMENTS:
                return product
        if node.op in ("Tile", "Range", "MatMul"):
            sizes = self._shapes.shape(value)
            known = [size for size in sizes or () if isinstance(size, int)]
            return math.inf if sizes is None or len(known) < len(sizes) else math.prod(known)
        if node.op == "Gather":
            return _gathered(node, [array.shape for array in arrays])
        if node.op == "ConstantOfShape":
            return math.prod(int(size) for size in arrays[-1])
        shapes = [array.shape for array in arrays]
        if node.op == "Expand":
            shapes[1] = tuple(arrays[1].tolist())
        try:
            return math.prod(np.broadcast_shapes(*shapes))
        except ValueError:  # it contradicts itself and has no result
            return 0


def _of_payload(payload: Payload, tensor: onnx.TensorProto, value: Value) -> Known | Refusal:
    """A tensor whose data are elsewhere."""
    elem_type, shape = tensor.data_type, tuple(tensor.dims[:])
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    except KeyError:
        return Refusal("unsupported", f"'{value.name}' is of an element type that is not known")
    if payload.nbytes != math.prod(shape) * dtype.itemsize:
        return Refusal("unsupported", f"'{value.name}' is stored in a packed form, or not as long as its shape")
    return Known(elem_type, shape, lambda: np.frombuffer(payload.read(), dtype).reshape(shape), None, value.name)


def _gathered(node: Node, shapes: list[tuple[int, ...]]) -> int:
    """How many elements a Gather makes of operands of these shapes; 0 where it contradicts itself."""
    axis = integer(node.proto, "axis", 0)
    if len(shapes) != 2 or not -len(shapes[0]) <= axis < len(shapes[0]):
        return 0
    data, indices = shapes
    axis %= len(data)
    return math.prod(data[:axis] + data[axis + 1 :]) * math.prod(indices)


def _computed(node: Node, value: Value) -> Refusal:
    return Refusal("computed-weight", f"'{value.name}' is computed by '{node.name}' ({node.op})")
