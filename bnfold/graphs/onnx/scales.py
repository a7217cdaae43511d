"""What values a model's inputs have, as far as the first thing that it does with them tells.

A network that takes pixels of 0 to 255 normalises them, by constants of its own or by its first BatchNorm. On standard
normal numbers, what comes behind that would be constant.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from bnfold.graphs.onnx.document import Document, weights_of
from bnfold.graphs.onnx.index import is_foreign

# Operators whose result holds the elements of their first input, and nothing else.
_PASSING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_USUAL = 4.0  # standard normal numbers do where a mean is no further from 0, and a spread from 1


def input_scales(document: Document) -> dict[str, tuple[float, float]]:
    """By graph input, the mean and the standard deviation that its first normalisation expects, where both are not
    nearly 0 and 1.
    """
    graph = document.model.graph
    constants = {name: tensor for name, tensor in weights_of(graph) if name not in document.payloads}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = {}
    for info in graph.input:
        mean, std = _expected(info.name, readers, constants)
        if abs(mean) > _USUAL * std or not 1 / _USUAL <= std <= _USUAL:
            found[info.name] = mean, std
    return found


def _expected(
    name: str, readers: dict[str, list[onnx.NodeProto]], constants: dict[str, onnx.TensorProto]
) -> tuple[float, float]:
    """The mean and the spread of x for which what is first made of it, `factor x + summand`, is standard normal."""
    factor, summand = 1.0, 0.0
    while len(readers.get(name, ())) == 1:
        (node,) = readers[name]
        op, first = node.op_type, node.input[0] == name
        operands = [_number(constants[other], op in ("Mul", "Div")) for other in node.input if other in constants]
        if is_foreign(node) or len(node.output) != 1 or None in operands:
            break
        if op == "BatchNormalization" and len(operands) == 4:
            means, variances = (
                onnx.numpy_helper.to_array(constants[other]).astype(np.float64) for other in node.input[3:]
            )
            deviation = float(np.sqrt(np.mean(variances, dtype=np.float64) + np.var(means, dtype=np.float64)))
            return (float(np.mean(means)) - summand) / factor, abs(deviation / factor) or 1.0
        number = operands[0] if len(operands) == 1 else None
        if op in _PASSING and first:
            pass
        elif op == "Add" and number is not None:
            summand += number
        elif op == "Sub" and number is not None:
            factor, summand = (factor, summand - number) if first else (-factor, number - summand)
        elif op == "Mul" and number:
            factor, summand = factor * number, summand * number
        elif op == "Div" and number and first:
            factor, summand = factor / number, summand / number
        else:
            break
        name = node.output[0]
    mean, std = -summand / factor, abs(1 / factor)
    return (mean, std) if math.isfinite(mean) and math.isfinite(std) else (0.0, 1.0)


def _number(tensor: onnx.TensorProto, is_factor: bool) -> float | None:
    """The mean of a constant, or its root mean square as a factor; None for what is no float, or cannot be read."""
    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
        return None
    try:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
    except Exception:  # onnx raises what it likes on data that it cannot read
        return None
    if not array.size or not np.isfinite(array).all():
        return None
    return float(np.sqrt(np.mean(np.square(array))) if is_factor else array.mean())
