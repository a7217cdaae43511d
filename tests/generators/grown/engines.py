"""Evaluates one node on data with two engines, and gives nothing where they disagree."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from reference import evaluator
from widened import widened

from generators.grown.dice import Array

# Beyond these sizes the rounding of a fold would pass for an error.
LARGEST = {"float16": 300.0, "bfloat16": 300.0}
# Where these read or make no elements, ONNX Runtime divides by zero, or onnx's inference aborts: the process ends.
KILLERS = ("Einsum", "Scan", "Slice")
LACKING = ("If", "Loop", "Scan")  # of which the reference has parts alone
TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1, "float64": 1e-7}


@dataclass
class Context:
    """What the evaluation of a node needs besides its inputs. `loose` does without ONNX Runtime."""

    ir_version: int
    opset: int
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    domains: dict[str, int] = field(default_factory=dict)
    loose: bool = False
    trust: bool = False  # whether ONNX Runtime's word is enough
    decades: int = 0  # how much larger than usual a value may be, as a power of ten
    only: str = ""  # the one floating-point type that outputs may have, for a type that NumPy promotes


def type_of(value: Any) -> onnx.TypeProto:
    """The type of an array, of any shape, or of a list of arrays."""
    if isinstance(value, list):
        return helper.make_sequence_type_proto(type_of(value[0]))
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), None)


def small_model(node: onnx.NodeProto, inputs: Mapping[str, Sequence[Any]], context: Context) -> onnx.ModelProto:
    """A model of one node, whose inputs are all inputs of the graph."""
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_value_info(name, type_of(values[0])) for name, values in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    opsets = [helper.make_opsetid("", context.opset)]
    opsets += [helper.make_opsetid(domain, version) for domain, version in context.domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=context.ir_version, functions=context.functions)


def evaluate(node: onnx.NodeProto, inputs: Mapping[str, Sequence[Any]], context: Context) -> list[list[Any]] | None:
    """Per output, its arrays on all feeds; None where the node does not run or the engines disagree.

    ONNX Runtime comes last: invalid nodes, of which random attributes of calls make some, may kill it.
    """
    trusted = context.trust and not context.loose and not node.domain and node.op_type not in KILLERS
    if any(_kills(node, arrays) for arrays in inputs.values()):
        return None
    model = small_model(node, inputs, context)
    count = max((len(values) for values in inputs.values()), default=1)
    feeds = [{name: values[at if len(values) > 1 else 0] for name, values in inputs.items()} for at in range(count)]
    names = [name for name in node.output if name]
    answers: list[list[Any]] = [[] for _ in names]
    for feed in feeds:
        exact = None if trusted else _run_reference(model, feed)
        if not trusted and (_kills(node, exact or []) or (exact is None and node.op_type not in LACKING)):
            return None
        found = _run_reference(model, feed, wide=False) if context.loose else _run_runtime(model, feed)
        exact = found if exact is None else exact
        if exact is None or found is None or len(exact) != len(names) or len(found) != len(names):
            return None
        for at, (got, want) in enumerate(zip(found, exact, strict=True)):
            if not _agree(got, want, context.decades):
                return None
            if context.only and is_float(got) and got.dtype.name != context.only:
                return None
            answers[at].append(got)
    return answers


def _kills(node: onnx.NodeProto, arrays: Sequence[Any]) -> bool:
    return node.op_type in KILLERS and any(isinstance(array, np.ndarray) and not array.size for array in arrays)


def _run_runtime(model: onnx.ModelProto, feed: Mapping[str, Any]) -> list[Any] | None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        values: list[Any] = session.run(None, dict(feed))
    except Exception:  # a node that does not run is left out, whatever the reason
        return None
    return _arrays(values)


def _arrays(values: list[Any]) -> list[Any] | None:
    """Arrays and lists of them; None where there is a tensor of another kind, as a sparse one."""
    out = [value if isinstance(value, list) else np.asarray(value) for value in values]
    return None if any(isinstance(value, np.ndarray) and value.dtype == object for value in out) else out


def _run_reference(model: onnx.ModelProto, feed: Mapping[str, Any], wide: bool = True) -> list[Any] | None:
    if wide:
        feed = {
            name: [_widened(item) for item in value] if isinstance(value, list) else _widened(value)
            for name, value in feed.items()
        }
        model = widened(model)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values: list[Any] = evaluator(model).run(None, dict(feed))
    except Exception:  # as above
        return None
    return _arrays(values)


def is_float(array: Any) -> bool:
    return isinstance(array, np.ndarray) and (array.dtype.kind == "f" or array.dtype.name == "bfloat16")


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if is_float(array) else array


def _agree(got: Any, want: Any, decades: int = 0) -> bool:
    """Whether two answers are the same up to rounding, finite and of a handy size."""
    if isinstance(got, list) or isinstance(want, list):
        return (
            isinstance(got, list)
            and isinstance(want, list)
            and 0 < len(got) == len(want)
            and all(_agree(*pair, decades) for pair in zip(got, want, strict=True))
        )
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape or got.size > 4096:
        return False
    if not is_float(got):
        return got.dtype == want.dtype and bool(np.array_equal(got, want))
    if not is_float(want):
        return False
    close, exact = got.astype(np.float64), want.astype(np.float64)
    if not (np.isfinite(close).all() and np.isfinite(exact).all()):
        return False
    largest = float(np.abs(exact).max(initial=0.0))
    if largest > min(LARGEST.get(got.dtype.name, 3000.0) * 10.0**decades, 3e4 if got.dtype == np.float16 else 1e30):
        return False
    error = float(np.abs(close - exact).max(initial=0.0))
    return error <= TOLERANCE.get(got.dtype.name, 1e-4) * largest + (1e-7 if not decades else 1e-30)
