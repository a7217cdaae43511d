"""What operators compute, in float64: those written here, and those borrowed from onnx's reference implementation.

Borrowed are operators whose implementation computes in the type of its input and agrees with ONNX Runtime (a test runs
each); the others are written here because onnx's own are slow, wrong for some attributes, or compute in float32.

Where an implementation and ONNX Runtime part, there is none here until it is known who is right:
- GRU, LSTM, RNN with `clip`, `activations`, `input_forget` or lengths of sequences: the reference ignores them.
- pools with dilations and `auto_pad` SAME: ONNX Runtime pads by the kernel without its dilations.
- `auto_pad` SAME with windows further apart than they reach: ONNX Runtime crops by a negative padding.
- pools, means and sums of squares of integers, means over no elements.
- Dropout's mask below opset 12: ONNX Runtime leaves it false.
- Resize where rounding decides which element is the nearest, or how many there are; to fewer below opset 11; by
  scales that change no size, where ONNX Runtime takes the operand as it is.
- Casts to float16 and bfloat16 round nothing here, so that numbers beyond their range stay finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx

from bnfold.graphs.onnx.corrected import CORRECTED, Operator, cast
from bnfold.graphs.onnx.exact.interpolation import resize
from bnfold.graphs.onnx.exact.windows import Array, Attributes, average_pool, conv, conv_transpose, max_pool

Inputs = Sequence[Any]

FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
)


class CannotRun(Exception):
    """A model, or a node of it, cannot be run here; the text is why. An outcome, caught by who asks for a run."""


def widened(array: Any) -> Array:
    """Floating-point numbers as float64; everything else as it is."""
    array = np.asarray(array)
    is_floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return np.asarray(array, np.float64) if is_floating else array


def _windowed(function: Callable[..., Array]) -> Operator:
    def run(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
        if count > 1:
            raise CannotRun("the places of the maxima are asked for")
        return function(attributes, *inputs)

    return run


def _batch_norm(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    """`gamma (x - mean) / sqrt(var + eps) + beta` (Ioffe and Szegedy 2015, algorithm 2)."""
    in_training = attributes.get("training_mode") or (opset < 7 and not attributes.get("is_test"))
    if in_training or not attributes.get("spatial", 1):
        raise CannotRun("it normalises by the statistics of the batch, or per element")
    x = inputs[0]
    gamma, beta, mean, var = (p.reshape(-1, *[1] * (x.ndim - 2)) for p in inputs[1:5])
    eps = np.float32(attributes.get("epsilon", 1e-5)).astype(np.float64)
    scale = gamma / np.sqrt(var + eps)
    y = x * scale
    y += beta - mean * scale
    return np.asarray(y)


def _gemm(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    a, b, c = [*inputs, None][:3]
    product = (a.T if attributes.get("transA") else a) @ (b.T if attributes.get("transB") else b)
    y = attributes.get("alpha", 1.0) * product
    return np.asarray(y if c is None else y + attributes.get("beta", 1.0) * c)


def _cast(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    """Between floating-point types nothing happens: everything is held in float64."""
    if attributes["to"] in FLOATS:
        if inputs[0].dtype.kind not in "fiub":
            raise CannotRun(f"a cast from {inputs[0].dtype}")
        return np.asarray(inputs[0], np.float64)
    return cast(np.asarray(inputs[0]), onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _constant(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    ((name, value),) = attributes.items()
    if name == "value":
        return widened(onnx.numpy_helper.to_array(value))
    if name.startswith("value_float"):
        return np.asarray(value, np.float64)
    if name.startswith("value_int"):
        return np.asarray(value, np.int64)
    raise CannotRun("a constant that is no array of numbers")


def _constant_of_shape(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    value = onnx.numpy_helper.to_array(attributes["value"]).reshape(-1)[0] if "value" in attributes else np.float64(0)
    return widened(np.full([int(size) for size in inputs[0]], value))


def _dropout(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> list[Array]:
    if (len(inputs) > 2 and inputs[2]) or (opset < 7 and not attributes.get("is_test")):
        raise CannotRun("a Dropout in training mode")
    if count > 1 and opset < 12:
        raise CannotRun("the mask is asked for")
    return [inputs[0], np.ones(inputs[0].shape, bool)][:count]


def _rows(attributes: Attributes, x: Array, opset: int, function: Callable[[Array], Array]) -> Array:
    """A function of the last axis along the axis; before opset 13, along all from the axis on as one."""
    axis = attributes.get("axis", 1 if opset < 13 else -1)
    if opset >= 13:
        return np.asarray(np.moveaxis(function(np.moveaxis(x, axis, -1)), -1, axis))
    return function(x.reshape(math.prod(x.shape[:axis]), -1)).reshape(x.shape)


def _softmax(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    def softmax(rows: Array) -> Array:
        powers = np.exp(rows - rows.max(-1, keepdims=True))
        return np.asarray(powers / powers.sum(-1, keepdims=True))

    return _rows(attributes, inputs[0], opset, softmax)


def _log_softmax(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    def log_softmax(rows: Array) -> Array:
        below = rows - rows.max(-1, keepdims=True)
        return np.asarray(below - np.log(np.exp(below).sum(-1, keepdims=True)))

    return _rows(attributes, inputs[0], opset, log_softmax)


def _lp_normalization(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    x, p = inputs[0], attributes.get("p", 2)
    norm = (np.abs(x) ** p).sum(attributes.get("axis", -1), keepdims=True) ** (1 / p)
    return np.asarray(x / np.where(norm == 0, 1, norm))


def _reduce_mean(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    x, given = inputs[0], attributes.get("axes") if opset < 18 else [*inputs, None][1]
    if not x.size or x.dtype.kind != "f":
        raise CannotRun("a mean of integers, or over no elements")
    if given is None or not len(given):
        if attributes.get("noop_with_empty_axes"):
            return np.asarray(x)
        given = range(x.ndim)
    return np.asarray(x.mean(tuple(int(axis) for axis in given), keepdims=bool(attributes.get("keepdims", 1))))


def _standardised(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return np.asarray((x - mean) / np.sqrt(var + np.float64(np.float32(eps))))


def _layer_norm(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    if count > 1:
        raise CannotRun("its statistics are asked for")
    x, scale, bias = [*inputs, None][:3]
    axis = attributes.get("axis", -1) % x.ndim
    y = scale * _standardised(x, tuple(range(axis, x.ndim)), attributes.get("epsilon", 1e-5))
    return np.asarray(y if bias is None else y + bias)


def _instance_norm(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    x = inputs[0]
    scale, bias = (p.reshape(-1, *[1] * (x.ndim - 2)) for p in inputs[1:3])
    y = _standardised(x, tuple(range(2, x.ndim)), attributes.get("epsilon", 1e-5))
    return np.asarray(scale * y + bias)


def _group_norm(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    """Scale and bias are per group in opset 18 and per channel from opset 21 on."""
    x, groups = inputs[0], attributes["num_groups"]
    y = _standardised(x.reshape(x.shape[0], groups, -1), (2,), attributes.get("epsilon", 1e-5)).reshape(x.shape)
    repeats = x.shape[1] // groups if opset < 21 else 1
    scale, bias = (np.repeat(p, repeats).reshape(-1, *[1] * (x.ndim - 2)) for p in inputs[1:3])
    return np.asarray(scale * y + bias)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(attributes: Attributes, inputs: Inputs, opset: int, count: int) -> Array:
    x = inputs[0]
    if attributes.get("approximate", b"none") == b"tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _sigmoid(x: Array) -> Array:
    """Exact relative to its value, however near 0 that is."""
    return np.asarray(np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x))))


def _of(function: Callable[..., Any]) -> Operator:
    """An operator without attributes."""
    return lambda attributes, inputs, opset, count: function(*inputs)


WRITTEN: dict[str, Operator] = {
    **CORRECTED,
    "AveragePool": _windowed(average_pool),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _of(lambda x, like: x.astype(like.dtype)),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _windowed(conv),
    "ConvTranspose": _windowed(conv_transpose),
    "Dropout": _dropout,
    "Erf": _of(_erf),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _of(lambda x: x.mean(tuple(range(2, x.ndim)), keepdims=True)),
    "GlobalMaxPool": _of(lambda x: x.max(tuple(range(2, x.ndim)), keepdims=True)),
    "GroupNormalization": _group_norm,
    "HardSwish": _of(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Identity": _of(lambda x: x),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_normalization,
    "MatMul": _of(np.matmul),
    "MaxPool": _windowed(max_pool),
    "Mish": _of(lambda x: x * np.tanh(np.logaddexp(0, x))),
    "ReduceMean": _reduce_mean,
    "PRelu": _of(lambda x, slope: np.where(x < 0, slope * x, x)),
    "Resize": resize,
    "Sigmoid": _of(_sigmoid),
    "Softmax": _softmax,
}

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_IGNORED = frozenset({"activation_alpha", "activation_beta", "activations", "clip", "input_forget"})


def unlike(op: str, attributes: Iterable[str], inputs: Inputs) -> str | None:
    """What a borrowed implementation of a node would compute otherwise than ONNX Runtime."""
    if op == "ReduceSumSquare" and inputs[0].dtype.kind != "f":
        return "a sum of squares of integers"  # which NumPy makes wider
    if op not in _RECURRENT:
        return None
    if len(inputs) > 4 and inputs[4] is not None:
        return "lengths of sequences"
    return next((f"the attribute '{name}'" for name in attributes if name in _IGNORED), None)


BORROWED = frozenset(
    {
        *("Abs", "Add", "And", "ArgMax", "ArgMin", "Celu", "Clip", "Concat", "ConcatFromSequence", "Cos", "CumSum"),
        *("DepthToSpace", "Div", "Einsum", "Elu", "Equal", "Exp", "Expand", "Flatten", "Floor", "GRU", "Gather"),
        *("GatherElements", "GatherND", "Greater", "GreaterOrEqual", "HardSigmoid", "LSTM", "LeakyRelu", "Less"),
        *("LessOrEqual", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "Pad", "Pow", "RNN"),
        *("Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin"),
        *("ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round", "ScatterElements", "ScatterND"),
        *("Selu", "SequenceAt", "SequenceConstruct", "Shape", "Sign", "Sin", "Size", "Softplus", "Softsign"),
        *("SpaceToDepth", "Split", "SplitToSequence", "Sqrt", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile"),
        *("TopK", "Transpose", "Trilu", "Where", "Xor"),
    }
)
