"""onnx.reference with the operators corrected where it departs from their specification.

A fold must not be blamed for an error of the engine that judges it. Every class here says what the reference does
otherwise than its specification and ONNX Runtime (seen with onnx 1.23).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


def _opset(op: OpRun) -> int:
    return int(op.run_params["opsets"].get("", 0))


class BatchNormalization(OpRun):
    """Up to opset 13 the reference normalises by a mixture with the statistics of the batch."""

    def _run(self, x, scale, bias, mean, var, epsilon=None, momentum=None, spatial=None, training_mode=None):  # type: ignore[no-untyped-def]
        epsilon = 1e-5 if epsilon is None else epsilon
        momentum = 0.9 if momentum is None else momentum
        if training_mode or (_opset(self) < 14 and len(self.onnx_node.output) > 1):
            axes = tuple(axis for axis in range(x.ndim) if axis != 1)
            batch_mean, batch_var = x.mean(axis=axes), x.var(axis=axes)
            running = (mean * momentum + batch_mean * (1 - momentum), var * momentum + batch_var * (1 - momentum))
            y = _normalised(x, scale, bias, batch_mean, batch_var, epsilon)
            return (y, *running, batch_mean, batch_var)[: len(self.onnx_node.output)]
        return (_normalised(x, scale, bias, mean, var, epsilon),)


def _normalised(x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float) -> Array:
    behind = (1,) * (x.ndim - 1 - scale.ndim)
    scale, bias, mean, var = (table.reshape(*table.shape, *behind) for table in (scale, bias, mean, var))
    return ((x - mean) / np.sqrt(var + epsilon) * scale + bias).astype(x.dtype)


class ConvTranspose(OpRun):
    """The reference mixes batches up where there are groups."""

    def _run(  # type: ignore[no-untyped-def]
        self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, output_padding=None,
        output_shape=None, pads=None, strides=None,
    ):  # fmt: skip
        space = x.shape[2:]
        rank = len(space)
        strides, dilations = strides or [1] * rank, dilations or [1] * rank
        extra = output_padding or [0] * rank
        group = group or 1
        full = [
            (n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(space, strides, dilations, w.shape[2:], strict=True)
        ]
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            target = list(output_shape or [n * s for n, s in zip(space, strides, strict=True)])[-rank:]
            total = [max(0, f + e - t) for f, e, t in zip(full, extra, target, strict=True)]
            small, large = [t // 2 for t in total], [t - t // 2 for t in total]
            begin = small if auto_pad == "SAME_UPPER" else large
            end = large if auto_pad == "SAME_UPPER" else small
        else:
            pads = pads or [0] * (2 * rank)
            begin, end = pads[:rank], pads[rank:]
            target = [f + e - p - q for f, e, p, q in zip(full, extra, begin, end, strict=True)]
        each_in, each_out = x.shape[1] // group, w.shape[1]
        wide = np.zeros(
            (x.shape[0], each_out * group, *(max(f, p + t) for f, p, t in zip(full, begin, target, strict=True)))
        )
        for g in range(group):
            block, kernel = x[:, g * each_in : (g + 1) * each_in], w[g * each_in : (g + 1) * each_in]
            for place in np.ndindex(*w.shape[2:]):
                part = np.einsum("nc...,cm->nm...", block, kernel[(slice(None), slice(None), *place)])
                where = tuple(
                    slice(k * d, k * d + (n - 1) * s + 1, s)
                    for k, d, n, s in zip(place, dilations, space, strides, strict=True)
                )
                wide[(slice(None), slice(g * each_out, (g + 1) * each_out), *where)] += part
        y = wide[(slice(None), slice(None), *(slice(p, p + t) for p, t in zip(begin, target, strict=True)))]
        if b is not None:
            y = y + b.reshape(-1, *(1,) * rank)
        return (y.astype(x.dtype),)


def _flattening(name: str, compute: Callable[[Array], Array]) -> type[OpRun]:
    """Before opset 13 the input is seen as a matrix whose columns begin at the axis."""

    def run(self: OpRun, x: Array, axis: int | None = None) -> tuple[Array]:
        given = any(item.name == "axis" for item in self.onnx_node.attribute)
        if _opset(self) >= 13:
            axis = axis if given and axis is not None else -1
            return (np.moveaxis(compute(np.moveaxis(x, axis, -1)), -1, axis).astype(x.dtype),)
        axis = axis if given and axis is not None else 1
        axis += x.ndim * (axis < 0)
        flat = x.reshape(int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
        return (compute(flat).reshape(x.shape).astype(x.dtype),)

    return type(name, (OpRun,), {"op_domain": "", "_run": run})


def _softmax(x: Array) -> Array:
    if not x.size:
        return x
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _log_softmax(x: Array) -> Array:
    if not x.size:
        return x
    low = x - x.max(axis=-1, keepdims=True)
    return low - np.log(np.exp(low).sum(axis=-1, keepdims=True))


def _hardmax(x: Array) -> Array:
    out = np.zeros_like(x)
    if x.size:
        np.put_along_axis(out, x.argmax(axis=-1)[..., None], 1, axis=-1)
    return out


class Squeeze(OpRun):
    """The reference drops axes one by one from the last given, wherever they are."""

    def _run(self, x, axes=None):  # type: ignore[no-untyped-def]
        kept = None if axes is None else tuple(int(axis) for axis in np.asarray(axes).reshape(-1))
        # No axes, as an attribute, are all axes of size one; an empty list is taken as none given.
        return (np.squeeze(x, axis=kept if kept or (kept == () and _opset(self) >= 13) else None),)


class Unsqueeze(OpRun):
    """The reference adds axes one by one in the order given."""

    def _run(self, x, axes=None):  # type: ignore[no-untyped-def]
        return (np.expand_dims(x, tuple(int(axis) for axis in np.asarray(axes).reshape(-1))),)


class GlobalMaxPool(OpRun):
    """The reference reduces the wrong axes in other ranks than 4."""

    def _run(self, x):  # type: ignore[no-untyped-def]
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(OpRun):
    """The reference has none."""

    def _run(self, x, p=None):  # type: ignore[no-untyped-def]
        p = 2 if p is None else p
        return (((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)).astype(x.dtype),)


class LpNormalization(OpRun):
    """The reference forgets the absolute value."""

    def _run(self, x, axis=None, p=None):  # type: ignore[no-untyped-def]
        axis, p = -1 if axis is None else axis, 2 if p is None else p
        norm = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
        return (np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype(x.dtype),)


class Mean(OpRun):
    """The reference adds into its first input."""

    def _run(self, *xs):  # type: ignore[no-untyped-def]
        return (np.asarray(sum(xs[1:], xs[0]) / len(xs)).astype(xs[0].dtype),)


class Pad(OpRun):
    """The reference refuses negative amounts."""

    def _run(self, x, pads=None, value=None, axes=None, mode=None):  # type: ignore[no-untyped-def]
        mode = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode or "constant"]
        named = list(range(x.ndim)) if axes is None else [int(axis) % x.ndim for axis in np.asarray(axes).reshape(-1)]
        amounts = [(0, 0)] * x.ndim
        pads = [int(amount) for amount in np.asarray(pads).reshape(-1)]
        for at, axis in enumerate(named):
            amounts[axis] = (pads[at], pads[at + len(named)])
        cropped = x[tuple(slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(x.shape, amounts, strict=True))]
        grown = [(max(0, a), max(0, b)) for a, b in amounts]
        if mode == "constant":
            filling = 0 if value is None or np.size(value) == 0 else np.asarray(value).reshape(()).astype(x.dtype)
            return (np.pad(cropped, grown, constant_values=filling),)
        return (np.pad(cropped, grown, mode=mode),)


class OneHot(OpRun):
    """The reference refuses a depth of rank 1."""

    def _run(self, indices, depth, values, axis=None):  # type: ignore[no-untyped-def]
        depth = int(np.asarray(depth).reshape(-1)[0])
        axis = -1 if axis is None else axis
        axis += (indices.ndim + 1) * (axis < 0)
        places = np.expand_dims(np.mod(np.where((indices < -depth) | (indices >= depth), np.nan, indices), depth), axis)
        row = np.arange(depth).reshape(tuple(depth if at == axis else 1 for at in range(indices.ndim + 1)))
        return (np.where(places == row, values[1], values[0]).astype(values.dtype),)


def _windows(x: Array, kernel: Sequence[int], settings: dict[str, Any]) -> tuple[Array, Array]:
    """What every window sees, and of every place whether it lies in the image, the padding (2) or nowhere (0)."""
    rank = x.ndim - 2
    strides, dilations = settings.get("strides") or [1] * rank, settings.get("dilations") or [1] * rank
    auto, up = settings.get("auto_pad") or "NOTSET", bool(settings.get("ceil_mode"))
    pads = list(settings.get("pads") or [0] * (2 * rank))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    out = []
    for i, n in enumerate(x.shape[2:]):
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            size = -(-n // strides[i])
            total = max(0, (size - 1) * strides[i] + reach[i] - n)
            pads[i] = total // 2 if auto == "SAME_UPPER" else total - total // 2
            pads[i + rank] = total - pads[i]
        else:
            if auto == "VALID":
                pads[i] = pads[i + rank] = 0
            room = n + pads[i] + pads[i + rank] - reach[i]
            size = (-(-room // strides[i]) if up else room // strides[i]) + 1
            if up and (size - 1) * strides[i] >= n + pads[i]:
                size -= 1
        out.append(size)
    needed = [
        max(0, (o - 1) * s + r - n - p) for o, s, r, n, p in zip(out, strides, reach, x.shape[2:], pads, strict=False)
    ]
    grown = [(0, 0), (0, 0), *((pads[i], needed[i]) for i in range(rank))]
    marks = np.ones((1, 1, *x.shape[2:]))
    around = [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))]
    marks = np.pad(marks, around, constant_values=2)
    marks = np.pad(marks, [(0, max(0, need - a[1])) for need, a in zip([0, 0, *needed], around, strict=True)])
    values, kinds = np.pad(x, grown), marks
    picked, seen = [], []
    for place in itertools.product(*(range(k) for k in kernel)):
        where = tuple(
            slice(k * d, k * d + (o - 1) * s + 1, s) for k, d, o, s in zip(place, dilations, out, strides, strict=True)
        )
        picked.append(values[(slice(None), slice(None), *where)])
        seen.append(kinds[(slice(None), slice(None), *where)])
    return np.stack(picked), np.stack(seen)


def _pool(name: str, compute: Callable[[Array, Array, dict[str, Any]], Array]) -> type[OpRun]:
    def run(self: OpRun, x: Array, kernel_shape: Sequence[int] | None = None, **settings: Any) -> tuple[Array]:
        values, kinds = _windows(x, kernel_shape or (), settings)
        return (compute(values, kinds, settings).astype(x.dtype),)

    return type(name, (OpRun,), {"op_domain": "", "_run": run})


def _average(values: Array, kinds: Array, settings: dict[str, Any]) -> Array:
    counted = kinds > 0 if settings.get("count_include_pad") else kinds == 1
    return (values * (kinds == 1)).sum(axis=0) / counted.sum(axis=0)


def _largest(values: Array, kinds: Array, settings: dict[str, Any]) -> Array:
    return np.where(kinds == 1, values, -np.inf).max(axis=0)


def _norm(values: Array, kinds: Array, settings: dict[str, Any]) -> Array:
    p = settings.get("p") or 2
    return (np.abs(values * (kinds == 1)) ** p).sum(axis=0) ** (1 / p)


OPS: tuple[type[OpRun], ...] = (
    BatchNormalization, ConvTranspose, Squeeze, Unsqueeze, GlobalMaxPool, GlobalLpPool, LpNormalization, Mean, Pad,
    OneHot,
    _flattening("Softmax", _softmax), _flattening("LogSoftmax", _log_softmax), _flattening("Hardmax", _hardmax),
    _pool("AveragePool", _average), _pool("LpPool", _norm),
)  # fmt: skip


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions written out; their attributes' defaults, which onnx's inliner drops, are given."""
    if not model.functions:
        return model
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    defaults = {(function.domain, function.name): function.attribute_proto for function in whole.functions}
    waiting: list[Any] = [whole.graph, *whole.functions]
    while waiting:
        for node in waiting.pop().node:
            given = {item.name for item in node.attribute}
            waiting += [item.g for item in node.attribute if item.HasField("g")]
            missing = [item for item in defaults.get((node.domain, node.op_type), ()) if item.name not in given]
            node.attribute.extend(missing)
    return onnx.inliner.inline_local_functions(whole)


def evaluator(model: Any) -> ReferenceEvaluator:
    """The reference, corrected; functions are written out, for they would be run without the corrections."""
    model = inlined(model)
    single = {node.op_type for node in model.graph.node if node.op_type == "MaxPool" and len(node.output) > 1}
    extra = () if single else (_pool("MaxPool", _largest),)
    return ReferenceEvaluator(model, new_ops=[*OPS, *extra])
