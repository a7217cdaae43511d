"""Operators that onnx's reference implementation computes wrongly for some attributes, written out.

Whoever evaluates an operator looks here first. Each entry says what the reference does wrong (seen with onnx 1.23).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Operator = Callable[[Mapping[str, Any], Sequence[Any], int, int], Any]
"""Called with attributes, inputs (None where one is left out), opset and the number of outputs; gives one or a list.

Raises what it likes where the operator contradicts itself.
"""

AXES_ARE_AN_INPUT_FROM = 13


def _axes(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int) -> tuple[int, ...]:
    given = attributes.get("axes") if opset < AXES_ARE_AN_INPUT_FROM else inputs[1]
    if given is None or not len(given):
        raise ValueError("no axes: implementations differ in what that means")
    return tuple(int(axis) for axis in given)


def _unsqueeze(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int, count: int) -> NDArray[Any]:
    """Axes count in the result; the reference inserts one after the other."""
    return np.asarray(np.expand_dims(inputs[0], _axes(attributes, inputs, opset)))


def _squeeze(attributes: Mapping[str, Any], inputs: Sequence[Any], opset: int, count: int) -> NDArray[Any]:
    """Axes count in the operand, in any order; the reference removes one after the other."""
    has_axes = "axes" in attributes or (len(inputs) > 1 and inputs[1] is not None)
    return np.asarray(np.squeeze(inputs[0], _axes(attributes, inputs, opset) if has_axes else None))


CORRECTED: dict[str, Operator] = {
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
