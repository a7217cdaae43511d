"""A use of one operator: a version of its schema, attributes and input arrays.

A `Draft` names no version. `spread` turns it into one `Use` for every version of the schema, from opset 7 on, that
knows all of its attributes and takes inputs of its number and types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]

FIRST, NEWEST = 7, onnx.defs.onnx_opset_version()


@dataclass(frozen=True, eq=False)
class Operand:
    """An input. Data flows from above, a weight is a parameter, and an index (a shape, axes) steers the operator."""

    array: Array
    role: str = "data"


@dataclass(frozen=True, eq=False)
class Draft:
    """An operator with attributes and inputs; `since` and `until` bound the opsets where the setting is legal."""

    op: str
    inputs: tuple[Operand | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[bool, ...] = (True,)
    since: int = FIRST
    until: int = NEWEST


@dataclass(frozen=True, eq=False)
class Use:
    """A draft at one version of the schema, which holds from `opset` to `last`."""

    op: str
    opset: int
    last: int
    attributes: Mapping[str, Any]
    inputs: tuple[Operand | None, ...]
    outputs: tuple[bool, ...] = (True,)

    def node(self, inputs: Sequence[str], outputs: Sequence[str], name: str = "") -> onnx.NodeProto:
        """The operator between values of these names."""
        node = helper.make_node(self.op, list(inputs), list(outputs), name=name or None)
        node.attribute.extend(attribute(key, value) for key, value in self.attributes.items())
        return node

    def text(self) -> str:
        """One line that says it all but the values of the floats."""
        inputs = ", ".join("-" if operand is None else _shown(operand) for operand in self.inputs)
        settings = ", ".join(f"{key}={_plain(value)}" for key, value in self.attributes.items())
        missing = "".join("1" if there else "0" for there in self.outputs) if not all(self.outputs) else ""
        return f"{self.op}-{self.opset}({inputs}){{{settings}}}" + (f" outputs {missing}" if missing else "")


def _shown(operand: Operand) -> str:
    array = operand.array
    if array.dtype.kind in "iub" and array.size <= 12:
        return f"{array.dtype}{list(array.shape)} {array.tolist()}"
    return f"{array.dtype}{list(array.shape)}" + ("" if operand.role == "data" else f" {operand.role}")


def _plain(value: Any) -> Any:
    return f"{value.dtype}{value.tolist()}" if isinstance(value, np.ndarray) else value


def words(text: str) -> frozenset[str]:
    """The words of a list that would be long as a list."""
    return frozenset(text.split())


def attribute(key: str, value: Any) -> onnx.AttributeProto:
    """An attribute of the kind that the value suggests; arrays become tensors."""
    if isinstance(value, np.ndarray):
        return helper.make_attribute(key, tensor(value))
    if isinstance(value, list) and not value:
        return helper.make_attribute(key, value, attr_type=onnx.AttributeProto.INTS)
    return helper.make_attribute(key, value)


def tensor(array: Array, name: str = "") -> onnx.TensorProto:
    """A tensor of the array, bfloat16 included."""
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def element(array: Array) -> int:
    """The ONNX element type of an array."""
    return helper.np_dtype_to_tensor_dtype(array.dtype)


@cache
def versions(op: str) -> tuple[onnx.defs.OpSchema, ...]:
    """The schemas of an operator of the standard domain, oldest first."""
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op and s.domain == ""]
    return tuple(sorted(schemas, key=lambda schema: schema.since_version))


def spread(draft: Draft) -> Iterator[Use]:
    """The uses of a draft, one for every version of the schema that takes it."""
    schemas = versions(draft.op)
    for place, schema in enumerate(schemas):
        last = schemas[place + 1].since_version - 1 if place + 1 < len(schemas) else NEWEST
        first, last = max(schema.since_version, draft.since), min(last, draft.until)
        if first <= last and not schema.deprecated and takes(schema, draft):
            yield Use(draft.op, first, last, draft.attributes, draft.inputs, draft.outputs)


def takes(schema: onnx.defs.OpSchema, draft: Draft) -> bool:
    """Whether the version knows the attributes, and inputs and outputs of this number and of these types."""
    if any(key not in schema.attributes for key in draft.attributes):
        return False
    if any(item.required and key not in draft.attributes for key, item in schema.attributes.items()):
        return False
    if not schema.min_input <= len(draft.inputs) <= schema.max_input:
        return False
    if not schema.min_output <= len(draft.outputs) <= schema.max_output:
        return False
    for place, operand in enumerate(draft.inputs):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        if operand is None:
            if formal.option != onnx.defs.OpSchema.FormalParameterOption.Optional:
                return False
        elif _spelled(operand.array) not in formal.types:
            return False
    return True


def _spelled(array: Array) -> str:
    return f"tensor({onnx.TensorProto.DataType.Name(element(array)).lower()})"


class Maker:
    """A source of operands with a random state of its own."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def x(self, *shape: int, dtype: Any = np.float32, low: float | None = None, high: float = 1.0) -> Operand:
        """Data: normal, or uniform between bounds."""
        return Operand(self._values(shape, dtype, low, high), "data")

    def w(self, *shape: int, dtype: Any = np.float32, low: float | None = None, high: float = 1.0) -> Operand:
        """A parameter: as data, and usually constant."""
        return Operand(self._values(shape, dtype, low, high), "weight")

    def _values(self, shape: tuple[int, ...], dtype: Any, low: float | None, high: float) -> Array:
        values = self.rng.normal(size=shape) if low is None else self.rng.uniform(low, high, size=shape)
        return np.asarray(values).astype(dtype)

    def ints(self, *shape: int, low: int = -4, high: int = 5, dtype: Any = np.int64) -> Operand:
        """Integer data."""
        return Operand(np.asarray(self.rng.integers(low, high, size=shape)).astype(dtype), "data")

    def bools(self, *shape: int, role: str = "data") -> Operand:
        """Random truth values."""
        return Operand(np.asarray(self.rng.integers(0, 2, size=shape)).astype(bool), role)


def index(values: Any, dtype: Any = np.int64) -> Operand:
    """Integers that steer an operator."""
    return Operand(np.asarray(values, dtype=dtype), "index")


def given(values: Any, dtype: Any = np.float32, role: str = "data") -> Operand:
    """These very values."""
    return Operand(np.asarray(values, dtype=dtype), role)


BF16 = ml_dtypes.bfloat16
