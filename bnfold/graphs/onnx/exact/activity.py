"""Whether every channel of a part is active: one that a ReLU keeps at zero on every input would hide a fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx

from bnfold.graphs.onnx.exact.windows import Array

# Operators that give one number for a whole range of inputs.
_FLAT = frozenset({"Clip", "HardSigmoid", "HardSwish", "Max", "Min", "Relu", "Shrink", "ThresholdedRelu"})


class Activity:
    """Which channels of operators with flat pieces have been active in runs of a part."""

    def __init__(self, nodes: Sequence[onnx.NodeProto]) -> None:
        self._nodes = [node for node in nodes if node.op_type in _FLAT]
        self._wanted = {name for node in self._nodes for name in (*node.input[:1], *node.output)}
        self._ranges: dict[str, list[tuple[Array, Array]]] = {}

    def note(self, name: str, array: Array) -> None:
        """Take down a value of a run."""
        if name not in self._wanted or array.dtype != np.float64 or not array.size:
            return
        found = [_range(array, axis) for axis in _channels(array)]
        if name in self._ranges:
            found = [
                (np.minimum(low, other[0]), np.maximum(high, other[1]))
                for (low, high), other in zip(found, self._ranges[name], strict=True)
            ]
        self._ranges[name] = found

    def inactive(self) -> str | None:
        """The first channel that stayed constant although what it is computed from did not, in words; or None."""
        for node in self._nodes:
            read, made = self._ranges.get(node.input[0], []), self._ranges.get(node.output[0], [])
            for before, after in zip(read, made, strict=False):
                if len(before[0]) == len(after[0]):
                    constant = np.flatnonzero((before[0] < before[1]) & (after[0] == after[1]))
                    if constant.size:
                        return f"channel {constant[0]} of '{node.output[0]}' is inactive on every input tried"
        return None


def _channels(array: Array) -> Iterator[int]:
    """The axes along which channels may lie."""
    if array.ndim > 1:
        yield 1
    if array.ndim == 3:  # tokens or time before channels
        yield 2


def _range(array: Array, axis: int) -> tuple[Array, Array]:
    others = tuple(other for other in range(array.ndim) if other != axis)
    return np.asarray(array.min(axis=others)), np.asarray(array.max(axis=others))
