"""Casts of constants to a coarser type. Unlike the rounding of what inputs make, theirs is part of the function."""

from __future__ import annotations

import numpy as np
import onnx

from bnfold.graphs.onnx.exact.windows import Array
from bnfold.graphs.onnx.index import graphs_of, is_foreign


def constant_casts(graph: onnx.GraphProto) -> dict[str, int]:
    """What the casts of a graph make from constants alone, with the type of each."""
    fixed = {tensor.name for tensor in graph.initializer} - {info.name for info in graph.input}
    casts: dict[str, int] = {}
    for node in graph.node:
        is_plain = not is_foreign(node) and not graphs_of(node) and not node.op_type.startswith(("Random", "Bernoulli"))
        if is_plain and all(name in fixed for name in node.input if name):
            fixed.update(node.output)
            if node.op_type == "Cast":
                casts[node.output[0]] = next(item.i for item in node.attribute if item.name == "to")
    return casts


def rounded(array: Array, kind: int) -> Array:
    """Numbers in float64 as they are in another floating-point type; what is no number in float64 as it is."""
    if array.dtype != np.float64:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array.astype(onnx.helper.tensor_dtype_to_np_dtype(kind)), np.float64)
