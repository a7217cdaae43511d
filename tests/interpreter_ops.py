"""What each operator computes, as functions of attributes, inputs and opset, from the text of the ONNX standard.

A function takes (attributes, inputs, opset, number of outputs) and gives one array or a list of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from interpreter_recurrent import gru, lstm, rnn
from interpreter_windows import average_pool, conv, conv_transpose, max_pool, resize, upsample

Array = np.ndarray[Any, Any]
Attributes = dict[str, Any]
Operator = Callable[[Attributes, list[Any], int, int], Any]


def as_values(result: Any) -> list[Array]:
    return list(result) if isinstance(result, list | tuple) else [result]


def _plain(function: Callable[..., Any]) -> Operator:
    """An operator without attributes."""
    return lambda attributes, inputs, opset, count: function(*inputs)


def _given(attributes: Attributes, inputs: Sequence[Any], name: str, position: int) -> list[int] | None:
    """Integers that are an attribute in older opsets and an input in newer ones."""
    if len(inputs) > position and inputs[position] is not None:
        return [int(element) for element in np.ravel(inputs[position])]
    return list(attributes[name]) if name in attributes else None


def _batch_norm(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> list[Array]:
    x = inputs[0]
    gamma, beta, mean, var = (p.reshape([-1 if axis == 1 else 1 for axis in range(x.ndim)]) for p in inputs[1:5])
    statistics = []
    if attributes.get("training_mode"):
        axes, momentum = tuple(axis for axis in range(x.ndim) if axis != 1), attributes.get("momentum", 0.9)
        batch = [x.mean(axes, keepdims=True), x.var(axes, keepdims=True)]
        statistics = [
            (old * momentum + new * (1 - momentum)).ravel() for old, new in zip((mean, var), batch, strict=True)
        ]
        mean, var = batch
    eps = np.float32(attributes.get("epsilon", 1e-5))  # the default, too, is a float32
    return [gamma * (x - mean) / np.sqrt(var + eps) + beta, *statistics[: count - 1]]


def _instance_norm(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, scale, bias = inputs
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    y = _standardised(x, tuple(range(2, x.ndim)), attributes)
    return y * scale.reshape(shape) + bias.reshape(shape)


def _layer_norm(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, scale, *more = inputs
    y = _standardised(x, tuple(range(x.ndim))[attributes.get("axis", -1) :], attributes) * scale
    return y + more[0] if more else y


def _group_norm(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, scale, bias = inputs
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    groups = x.reshape(x.shape[0], attributes["num_groups"], -1)
    y = _standardised(groups, (2,), attributes).reshape(x.shape)
    return y * scale.reshape(shape) + bias.reshape(shape)


def _standardised(x: Array, axes: tuple[int, ...], attributes: Attributes) -> Array:
    variance = x.var(axes, keepdims=True) + np.float32(attributes.get("epsilon", 1e-5))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(variance)


def _gemm(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    a, b = inputs[:2]
    y = attributes.get("alpha", 1.0) * (
        (a.T if attributes.get("transA") else a) @ (b.T if attributes.get("transB") else b)
    )
    c = inputs[2] if len(inputs) > 2 else None
    return y if c is None else y + attributes.get("beta", 1.0) * c


def _einsum(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    return np.einsum(attributes["equation"].decode().replace(" ", ""), *inputs)


def _softmax(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x = inputs[0]
    shape = x.shape
    axis = attributes.get("axis", 1 if opset < 13 else -1)
    if opset < 13:
        x = x.reshape(math.prod(shape[:axis]), -1)
        axis = 1
    e = np.exp(x - x.max(axis, keepdims=True))
    return (e / e.sum(axis, keepdims=True)).reshape(shape)


def _clip(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    low = inputs[1] if len(inputs) > 1 else attributes.get("min")
    high = inputs[2] if len(inputs) > 2 else attributes.get("max")
    return np.clip(inputs[0], -np.inf if low is None else low, np.inf if high is None else high)


def _leaky_relu(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    return np.where(inputs[0] < 0, attributes.get("alpha", 0.01) * inputs[0], inputs[0])


def _reduced(reduce: Callable[..., Array]) -> Operator:
    def run(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
        axes = _given(attributes, inputs, "axes", 1)
        if not axes and attributes.get("noop_with_empty_axes"):
            return inputs[0]
        axis = tuple(axes) if axes else tuple(range(inputs[0].ndim))
        return reduce(inputs[0], axis=axis, keepdims=bool(attributes.get("keepdims", 1)))

    return run


def _globally(reduce: Callable[..., Array]) -> Operator:
    return lambda attributes, inputs, opset, count: reduce(
        inputs[0], axis=tuple(range(2, inputs[0].ndim)), keepdims=True
    )


def _pad(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, mode = inputs[0], attributes.get("mode", b"constant").decode()
    pads = _given(attributes, inputs, "pads", 1) or []
    value = inputs[2].item() if len(inputs) > 2 and inputs[2] is not None else attributes.get("value", 0.0)
    axes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else range(x.ndim)
    widths = [(0, 0)] * x.ndim
    for axis, before, after in zip(axes, pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True):
        widths[axis] = (before, after)
    cut = [slice(max(0, -a), size - max(0, -b)) for size, (a, b) in zip(x.shape, widths, strict=True)]
    x, widths = x[tuple(cut)], [(max(0, a), max(0, b)) for a, b in widths]
    return np.pad(x, widths, constant_values=value) if mode == "constant" else np.pad(x, widths, mode=mode)


def _reshape(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, shape = inputs[0], [int(size) for size in inputs[1]]
    if not attributes.get("allowzero"):
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    axis = attributes.get("axis", 1)
    if not -inputs[0].ndim <= axis <= inputs[0].ndim:
        raise ValueError(f"Flatten of rank {inputs[0].ndim} at axis {axis}")
    axis += inputs[0].ndim if axis < 0 else 0
    return inputs[0].reshape(math.prod(inputs[0].shape[:axis]), -1)


def _squeeze(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    axes = _given(attributes, inputs, "axes", 1)
    return np.squeeze(inputs[0], None if axes is None else tuple(axes))


def _unsqueeze(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    return np.expand_dims(inputs[0], tuple(_given(attributes, inputs, "axes", 1) or ()))


def _slice(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x = inputs[0]
    starts, ends = _given(attributes, inputs, "starts", 1) or [], _given(attributes, inputs, "ends", 2) or []
    axes = _given(attributes, inputs, "axes", 3) or list(range(len(starts)))
    steps = _given({}, inputs, "", 4) or [1] * len(starts)
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = x.shape[axis]
        # As Python does, except that an end below -size of a backward slice means "to the very first".
        cut[axis] = slice(start, None if step < 0 and end < -size else end, step)
    return x[tuple(cut)]


def _split(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> list[Array]:
    axis, sizes = attributes.get("axis", 0), _given(attributes, inputs, "split", 1)
    total = inputs[0].shape[axis]
    if sizes is None:
        part = math.ceil(total / count)
        sizes = [min(part, total - part * i) for i in range(count)]
    if sum(sizes) != total:
        raise ValueError("the pieces of the Split are not the whole")
    return np.split(inputs[0], np.cumsum(sizes)[:-1], axis)


def _gather(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    return np.take(inputs[0], inputs[1], attributes.get("axis", 0))


def _transpose(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    return np.transpose(inputs[0], attributes.get("perm"))


def _expand(x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(size) for size in shape)))


def _concat(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    return np.concatenate(inputs, attributes["axis"])


def _depth_to_space(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, block = inputs[0], attributes["blocksize"]
    n, c, h, w = x.shape
    y = np.empty((n, c // block**2, h * block, w * block))
    crd = attributes.get("mode", b"DCR") == b"CRD"
    for i, j in itertools.product(range(block), repeat=2):
        place = i * block + j
        y[:, :, i::block, j::block] = (
            x[:, place :: block**2] if crd else x[:, place * y.shape[1] : (place + 1) * y.shape[1]]
        )
    return y


def _space_to_depth(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    x, block = inputs[0], attributes["blocksize"]
    parts = [x[:, :, i::block, j::block] for i, j in itertools.product(range(block), repeat=2)]
    if attributes.get("mode", b"DCR") == b"CRD":
        return np.stack(parts, 2).reshape(x.shape[0], -1, *parts[0].shape[2:])
    return np.concatenate(parts, 1)


def _dropout(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> list[Array]:
    if len(inputs) > 2 and inputs[2]:
        raise NotImplementedError("Dropout in training mode")
    return [inputs[0], np.ones(inputs[0].shape, bool)][:count]


def _cast(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    """Between floating point types nothing happens: everything is held in float64."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    return inputs[0].astype(dtype if dtype.kind in "iub" else np.float64)


def _constant(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    (value,) = attributes.values()
    array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array


def _constant_of_shape(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    value = onnx.numpy_helper.to_array(attributes["value"])[0] if "value" in attributes else np.float64(0)
    full = np.full([int(size) for size in inputs[0]], value)
    return full.astype(np.float64) if full.dtype.kind == "f" else full


def _shape(attributes: Attributes, inputs: list[Any], opset: int, count: int) -> Array:
    return np.asarray(inputs[0].shape[attributes.get("start", 0) : attributes.get("end")], np.int64)


OPERATORS: dict[str, Operator] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _plain(lambda x, like: x.astype(like.dtype)),
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": _plain(np.divide),
    "Dropout": _dropout,
    "Einsum": _einsum,
    "Expand": _plain(_expand),
    "Flatten": _flatten,
    "Gather": _gather,
    "GRU": gru,
    "Gemm": _gemm,
    "GlobalAveragePool": _globally(np.mean),
    "GlobalMaxPool": _globally(np.max),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "Identity": _plain(lambda x: x),
    "LSTM": lstm,
    "LeakyRelu": _leaky_relu,
    "MatMul": _plain(np.matmul),
    "MaxPool": max_pool,
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "PRelu": _plain(lambda x, slope: np.where(x < 0, slope * x, x)),
    "Pad": _pad,
    "Pow": _plain(np.power),
    "RNN": rnn,
    "Reciprocal": _plain(np.reciprocal),
    "ReduceMax": _reduced(np.max),
    "ReduceMean": _reduced(np.mean),
    "ReduceMin": _reduced(np.min),
    "ReduceSum": _reduced(np.sum),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Reshape": _reshape,
    "Resize": resize,
    "Shape": _shape,
    "Sigmoid": _plain(lambda x: 1 / (1 + np.exp(-x))),
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Sum": _plain(lambda *values: sum(values)),
    "Tanh": _plain(np.tanh),
    "Tile": _plain(lambda x, repeats: np.tile(x, [int(times) for times in repeats])),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": upsample,
}
