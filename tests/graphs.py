"""Graphs for tests, written as text in ONNX's own syntax, and how two of them are compared.

The text is what `onnx.parser` reads, without the header, and with three abbreviations:

    T[N,4,H,W] x     a tensor of the element type that the test asks for
    bn[4], bn2[4]    T[4] gamma, T[4] beta, T[4] mean, T[4] var; the second one gamma2, beta2, mean2, var2
    BN(c), BN2(c)    BatchNormalization(c, gamma, beta, mean, var); the second one of gamma2, ...

A weight that is declared without a value is drawn at random. A node goes by the name of its first output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import ArrayLike, NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

# What the symbols in input shapes stand for: the batch is one, and more than one.
SIZES = ({"N": 1, "H": 6, "W": 5, "L": 4}, {"N": 3, "H": 7, "W": 8, "L": 5})
SEEDS = (0, 1)

Feed = dict[str, NDArray[Any]]
Outputs = list[NDArray[Any]]
Run = Callable[[Feed], Outputs]
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)


def parse(
    text: str,
    dtype: str = "double",
    *,
    opset: int = 17,
    ir: int = 8,
    values: Mapping[str, ArrayLike] | None = None,
) -> onnx.ModelProto:
    """The model that the text spells, its weights given by `values` or drawn at random; IR 3 lists them as inputs."""
    domains = f'"" : {opset}' + (', "local" : 1' if "local." in text else "")
    model = onnx.parser.parse_model(f"<ir_version: {ir}, opset_import: [{domains}]>\ng {_spelled_out(text, dtype)}")
    _fill(model.graph, dict(values or {}), np.random.default_rng(0))
    for function in model.functions:
        for node in function.node:
            node.name = node.output[0]
    if ir < 4:
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
        )
    return model


def _spelled_out(text: str, dtype: str) -> str:
    text = re.sub(r"\bbn(\d*)\[(\d+)\]", r"T[\2] gamma\1, T[\2] beta\1, T[\2] mean\1, T[\2] var\1", text)
    call = r"BatchNormalization\2(\3, gamma\1, beta\1, mean\1, var\1)"
    text = re.sub(r"\bBN(\d*)\s*(<[^>]*>)?\((\w+)\)", call, text)
    return re.sub(r"\bT(?=[\[ ])", dtype, text)


def _fill(graph: onnx.GraphProto, values: dict[str, ArrayLike], rng: np.random.Generator) -> None:
    """Make an initializer of every weight that is declared and not given; parsing leaves those in value_info."""
    made = {name for node in graph.node for name in node.output}
    declared = [info for info in graph.value_info if info.name not in made]
    kept = [info for info in graph.value_info if info.name in made]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for info in declared:
        elem_type = info.type.tensor_type.elem_type
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        array = np.asarray(values[info.name]) if info.name in values else _drawn(info.name, shape, rng)
        array = np.broadcast_to(array, shape).astype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
        graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
    for node in graph.node:
        node.name = node.output[0]
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _fill(body, values, rng)


def _drawn(name: str, shape: list[int], rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(0.5, 2.0, shape) if name.startswith("var") else rng.standard_normal(shape)


def op_types(model: onnx.ModelProto) -> list[str]:
    """The operators in file order: those of a body right behind the node that holds it, functions last."""
    return [op for graph in (model.graph, *model.functions) for op in _op_types(graph)]


def _op_types(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _op_types(body)


def weights(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """The initializers of the main graph by name."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def feeds(model: onnx.ModelProto) -> Iterator[Feed]:
    """Inputs to compare two models on: every size of `SIZES` with every seed of `SEEDS`."""
    given = {tensor.name for tensor in model.graph.initializer}
    for sizes in SIZES:
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            yield {info.name: _fed(info, sizes, rng) for info in model.graph.input if info.name not in given}


def _fed(info: onnx.ValueInfoProto, sizes: Mapping[str, int], rng: np.random.Generator) -> NDArray[Any]:
    tensor = info.type.tensor_type
    shape = [sizes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if tensor.elem_type in _FLOATS:
        return rng.standard_normal(shape).astype(dtype)
    return np.asarray(rng.integers(0, 3, shape)).astype(dtype)


def reference(model: onnx.ModelProto) -> Run:
    """The reference implementation of onnx on the model, everything in it widened to float64."""
    evaluator = ReferenceEvaluator(_widened(model), new_ops=[BatchNormalization, Conv, ConvTranspose])
    names = {info.name for info in model.graph.input if info.type.tensor_type.elem_type in _FLOATS}

    def run(feed: Feed) -> Outputs:
        wide = {name: x.astype(np.float64) if name in names else x for name, x in feed.items()}
        return [np.asarray(output) for output in evaluator.run(None, wide)]

    return run


def runtime(model: onnx.ModelProto) -> Run:
    """ONNX Runtime on the CPU without any optimisation, which crashes on a BatchNormalization with empty outputs."""
    model = _copy(model)
    for node in model.graph.node:
        while not node.output[-1]:
            del node.output[-1]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feed: [np.asarray(output) for output in session.run(None, feed)]


def assert_equivalent(
    a: onnx.ModelProto, b: onnx.ModelProto, prepare: Callable[[onnx.ModelProto], Run], *, rtol: float
) -> None:
    """The same outputs on all of `feeds`, within `rtol` times the largest magnitude that `a` gives."""
    run_a, run_b = prepare(a), prepare(b)
    for feed in feeds(a):
        assert_close(run_a(feed), run_b(feed), rtol=rtol)


def assert_close(expected: Outputs, found: Outputs, *, rtol: float) -> None:
    """Every output within `rtol` times the largest magnitude of the expected one, and not trivially so."""
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        size = np.abs(a.astype(np.float64)).max()
        assert size > 0
        error = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
        assert error <= rtol * size, f"the outputs differ by {error / size:.2g}"


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 in place of every floating type, in weights, attributes and declarations."""
    wide = _copy(model)
    for graph in _graphs(wide):
        if isinstance(graph, onnx.GraphProto):
            for info in [*graph.input, *graph.output, *graph.value_info]:
                if info.type.tensor_type.elem_type in _FLOATS:
                    info.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
            for tensor in graph.initializer:
                _widen(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    _widen(attribute.t)
                if attribute.name in ("to", "dtype") and attribute.i in _FLOATS:
                    attribute.i = onnx.TensorProto.DOUBLE
    return wide


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _FLOATS:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting.extend([attribute.g] if attribute.HasField("g") else attribute.graphs)


class BatchNormalization(OpRun):
    """Inference as the paper has it; onnx's own of opset 9 normalises by the batch, and that of opset 7 fails."""

    op_domain = ""

    def _run(self, x, gamma, beta, mean, var, epsilon=None, momentum=None, spatial=None, training_mode=None):
        if training_mode or spatial == 0:
            raise NotImplementedError("only inference with one statistic per channel is implemented")
        gamma, beta, mean, var = (p.reshape(-1, *[1] * (x.ndim - 2)) for p in (gamma, beta, mean, var))
        return ((x - mean) / np.sqrt(var + epsilon) * gamma + beta,)


class Conv(OpRun):
    """Convolution tap by tap: exact in float64, and quicker on small graphs than onnx's own."""

    op_domain = ""

    def _run(self, x, w, b=None, **attributes):
        rank, group = w.ndim - 2, attributes.get("group") or 1
        strides, dilations, pads = _geometry(attributes, rank)
        extents = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
        auto_pad = attributes.get("auto_pad") or "NOTSET"
        if auto_pad.startswith("SAME"):
            total = [
                max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(x.shape[2:], strides, extents, strict=True)
            ]
            ceil, floor = [-(-t // 2) for t in total], [t // 2 for t in total]
            pads = floor + ceil if auto_pad == "SAME_UPPER" else ceil + floor
        x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
        sizes = [(n - e) // s + 1 for n, s, e in zip(x.shape[2:], strides, extents, strict=True)]
        x = x.reshape(x.shape[0], group, -1, *x.shape[2:])
        w = w.reshape(group, -1, *w.shape[1:])
        y = np.zeros((x.shape[0], group, w.shape[1], *sizes), x.dtype)
        for tap in np.ndindex(*w.shape[3:]):
            at = [
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, s, n in zip(tap, dilations, strides, sizes, strict=True)
            ]
            y += np.einsum("ngi...,goi->ngo...", x[(..., *at)], w[(..., *tap)])
        y = y.reshape(y.shape[0], -1, *sizes)
        return (y if b is None else y + b.reshape(-1, *[1] * rank),)


class ConvTranspose(OpRun):
    """Transposed convolution tap by tap; onnx's own takes the wrong weights where there are groups."""

    op_domain = ""

    def _run(self, x, w, b=None, **attributes):
        rank, group = w.ndim - 2, attributes.get("group") or 1
        strides, dilations, pads = _geometry(attributes, rank)
        extra = attributes.get("output_padding") or [0] * rank
        inner = list(x.shape[2:])
        full = [
            (n - 1) * s + (k - 1) * d + 1 + p
            for n, s, k, d, p in zip(inner, strides, w.shape[2:], dilations, extra, strict=True)
        ]
        x = x.reshape(x.shape[0], group, -1, *inner)
        w = w.reshape(group, -1, *w.shape[1:])
        y = np.zeros((x.shape[0], group, w.shape[2], *full), x.dtype)
        for tap in np.ndindex(*w.shape[3:]):
            at = [
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, s, n in zip(tap, dilations, strides, inner, strict=True)
            ]
            y[(..., *at)] += np.einsum("ngi...,gio->ngo...", x, w[(..., *tap)])
        y = y.reshape(y.shape[0], -1, *full)
        cut = [slice(a, n - z) for a, z, n in zip(pads[:rank], pads[rank:], full, strict=True)]
        y = y[(..., *cut)]
        return (y if b is None else y + b.reshape(-1, *[1] * rank),)


def _geometry(attributes: Mapping[str, Any], rank: int) -> tuple[list[int], list[int], list[int]]:
    return (
        list(attributes.get("strides") or [1] * rank),
        list(attributes.get("dilations") or [1] * rank),
        list(attributes.get("pads") or [0] * 2 * rank),
    )
