"""What rounding in a type may do to a run: every value is moved at random, by as much as rounding it can do.

This is stochastic arithmetic (J. Vignes, "A stochastic arithmetic for reliable scientific computation", 1993). Moving
what operators read, as well as what they make, covers the rounding of products inside them. Decisions: what only moves,
compares or selects numbers rounds nothing. Runtimes approximate bounded functions to a step of their bound rather than
of their value, and add up long rows one by one, which rounds the sum at every element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

_BOUNDED = frozenset(
    {"Cos", "Erf", "GRU", "HardSigmoid", "LSTM", "RNN", "Sigmoid", "Sin", "Softmax", "Softsign", "Tanh"}
)
_GATED = frozenset({"Celu", "Elu", "Gelu", "HardSwish", "Mish", "Selu", "Softplus", "Swish"})
_KEEPING = frozenset(
    {
        *("Abs", "Clip", "Compress", "Concat", "ConcatFromSequence", "Constant", "ConstantOfShape", "DepthToSpace"),
        *("Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "GlobalMaxPool", "Identity", "If"),
        *("Loop", "Max", "MaxPool", "Min", "Neg", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape", "Scan"),
        *("ScatterElements", "ScatterND", "SequenceAt", "SequenceConstruct", "Slice", "SpaceToDepth", "Split"),
        *("SplitToSequence", "Squeeze", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where"),
    }
)
_SUMMING = ("CumSum", "GlobalAveragePool", "GlobalLpPool", "ReduceL", "ReduceMean", "ReduceSum", "ReduceLogSum")


@dataclass(frozen=True, eq=False)
class Rounding:
    """Rounding to a relative step, 2**-23 for float32, drawn from `rng`."""

    step: float
    rng: np.random.Generator

    def of(self, node: onnx.NodeProto, inputs: Sequence[Any], results: Sequence[Any]) -> list[Any]:
        """What a node makes of these inputs, moved."""
        if node.op_type in _KEEPING:
            return list(results)
        return [self.moved(result, self._size(node.op_type, inputs, result)) for result in results]

    def moved(self, value: Any, size: Any = None) -> Any:
        """A value, each element moved by up to half a step of its size, or of the sizes given."""
        if not isinstance(value, np.ndarray) or value.dtype != np.float64:
            return value
        with np.errstate(all="ignore"):
            moves = self.step / 2 * (np.abs(value) if size is None else size) * self.rng.uniform(-1, 1, value.shape)
        return value + np.where(np.isfinite(moves), moves, 0.0)

    @staticmethod
    def _size(op: str, inputs: Sequence[Any], result: Any) -> Any:
        if op in _BOUNDED:
            return 1.0
        read = inputs[0] if inputs and isinstance(inputs[0], np.ndarray) else None
        if read is None or not isinstance(result, np.ndarray):
            return None
        if op in _GATED and read.shape == result.shape:
            return np.abs(read)
        if op.startswith(_SUMMING) and result.size:
            return np.abs(result) * math.sqrt(max(1.0, read.size / result.size))
        return None
