"""One operator over arrays: what exporters compute from weights is small and of few kinds.

Those kinds are spelled in NumPy, as far as NumPy means the same: floating point numbers of one type, no attributes.
Everything else is run by onnx's own reference implementation, which takes ten times as long and a while to import, but
for operators that it computes wrongly (`corrected`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bnfold.graphs.onnx.corrected import CORRECTED

Arrays = Sequence[NDArray[Any]]

_SINCE_OPSET = 13  # by then all of these broadcast, and take as inputs what they take today
_FLOATS = {np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)}
_ARITHMETIC: dict[str, Callable[..., NDArray[Any]]] = {
    "Add": np.add,
    "Div": np.divide,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
}


def evaluate(node: onnx.NodeProto, opset: int, feeds: Sequence[NDArray[Any] | None], port: int) -> NDArray[Any] | None:
    """One output of one operator of the standard; None where it has none. NumPy may warn of what is not finite."""
    arrays = [feed for feed in feeds if feed is not None]
    try:
        corrected = CORRECTED.get(node.op_type)
        if corrected is not None:
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            return _array(corrected(attributes, feeds, opset, len(node.output)))
        direct = _by_numpy(node, arrays) if len(arrays) == len(feeds) and opset >= _SINCE_OPSET else None
        result = _by_reference(node, opset, feeds)[port] if direct is None else direct
        return _array(result)
    except Exception:  # the reference raises what it likes; an operator that it cannot run is no constant
        return None


def _array(result: Any) -> NDArray[Any] | None:
    """A result as an array; None where there is nothing in it, as NumPy has it of an input that is left out."""
    array = np.asarray(result)
    return None if array.dtype == object and None in array.ravel().tolist() else array


def _by_numpy(node: onnx.NodeProto, arrays: Arrays) -> NDArray[Any] | None:
    """The only output of an operator; None where NumPy may mean something else."""
    x = arrays[0] if arrays else np.zeros(0, bool)
    if node.op_type == "Concat" and len({array.dtype for array in arrays}) == 1:
        return np.concatenate(arrays, node.attribute[0].i)
    if node.op_type == "Reshape" and 0 not in (sizes := arrays[1].tolist()):  # which may have a meaning
        return x.reshape(sizes)
    if node.attribute:
        return None
    if node.op_type == "Identity":
        return x
    if node.op_type == "Expand" and x.dtype.kind in "fi":
        return x * np.ones(arrays[1], x.dtype)
    if x.dtype not in _FLOATS:
        return None
    function = _ARITHMETIC.get(node.op_type)
    return function(*arrays) if function and all(array.dtype == x.dtype for array in arrays) else None


def _by_reference(node: onnx.NodeProto, opset: int, feeds: Sequence[NDArray[Any] | None]) -> Sequence[Any]:
    from onnx.reference.ops import load_op

    settings = {
        "log": lambda *_: None,
        "opsets": {"": opset},
        "verbose": 0,
        "new_ops": None,
        "evaluator_cls": None,
    }
    return load_op("", node.op_type, opset)(node, settings).run(*feeds)  # type: ignore[no-any-return]
