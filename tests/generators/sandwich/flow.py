"""The use in the middle: with data that runs through it, or with inputs that are all constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
import oracle
from onnx import TensorProto

from generators.sandwich import nodes
from generators.sandwich.alone import alone
from generators.sandwich.bridges import bridged, joined
from generators.sandwich.build import Build, Value
from generators.sandwich.consumers import cast, consume
from generators.sandwich.partners import AFFINE, LINEAR, above, below, fits_above, fits_below
from generators.sandwich.use import Array, Operand, Use, element

FLOATS = ("float32", "float64", "float16", "bfloat16")
# How many of these come out depends on the data, so no shape is known above which a partner could stand.
BY_DATA = frozenset(("NonZero", "Unique", "NonMaxSuppression"))
# Data that these round cannot be compared closely.
ROUNDING = frozenset(("Cast", "CastLike"))
# These say by an attribute of what type their output is.
TELLING = frozenset(("to", "dtype", "value", "output_datatype"))
LARGEST = 20000

Middle = tuple[Value, onnx.NodeProto]
Answers = tuple[Array | None, ...]


@cache
def all_uses() -> tuple[Use, ...]:
    """The uses, once for a process."""
    return tuple(nodes.uses())


@cache
def _by_shape() -> dict[tuple[object, ...], list[Use]]:
    """The uses that data runs through first, by the shape of that data."""
    out: dict[tuple[object, ...], list[Use]] = defaultdict(list)
    for use in all_uses():
        if use.inputs and flows(use, use.inputs[0]):
            array = use.inputs[0].array  # type: ignore[union-attr]
            out[array.shape, array.dtype.name].append(use)
    return out


def flows(use: Use, operand: Operand | None) -> bool:
    """Whether data can run through the use by this input."""
    if operand is None or use.op in BY_DATA or operand.role != "data":
        return False
    if use.op in ROUNDING and use.attributes.get("to") not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return False
    return operand.array.dtype.name in FLOATS[:3]


@cache
def answered(use: Use) -> Answers:
    """What the outputs of a use are, by whichever engine runs it."""
    model, feeds = alone(use)
    answers = oracle.run_on_runtime(model, feeds)
    if isinstance(answers, str):
        for info in model.graph.output:
            info.type.tensor_type.elem_type = element(np.zeros(0, np.float32))
        answers = oracle.run_on_reference(model, feeds)
        doubles = any(o is not None and o.array.dtype == np.float64 for o in use.inputs)
        if not isinstance(answers, str) and not doubles and not set(use.attributes) & TELLING:
            # The reference ran in float64 because it was made to.
            answers = {key: a.astype(np.float32) if a.dtype == np.float64 else a for key, a in answers.items()}
    if isinstance(answers, str):
        return (None,) * len(use.outputs)
    return tuple(answers.get(f"out{place}") for place in range(len(use.outputs)))


def flowed(build: Build, use: Use, flowing: Sequence[int]) -> Middle:
    """Data runs through the use, from one partner to another."""
    main = flowing[0] if build.chance(0.8) else build.pick(flowing)
    array = use.inputs[main].array  # type: ignore[union-attr]
    front, back = _sides(build, array.shape)
    x = above(build, front, array.shape)
    build.part = "use"
    if array.dtype != x.dtype:
        x = cast(build, x, array.dtype)
    value, node = _passed(build, use, x, main, flowing)
    if value is not None and build.chance(0.3):
        value = _again(build, value)
    if build.chance(0.12):
        build.outputs.append(x.name)
    if build.chance(0.08):
        build.outputs.append(build.add("Neg", [x], x.shape, x.dtype).name)
    build.part = "back"
    if value is None:
        return x, node
    if build.chance(0.1):
        build.outputs.append(value.name)
    if value.dtype != build.dtype:
        value = cast(build, value)
    if build.chance(0.2):
        value = bridged(build, value)
    if build.chance(0.12):
        value = joined(build, value, x)
    return followed(build, value, back), node


def followed(build: Build, value: Value, kinds: Sequence[str]) -> Value:
    """The value after partners of these kinds, or of the same sort where the shape asks for that."""
    for kind in kinds:
        sort = AFFINE if kind in AFFINE else LINEAR
        options = [other for other in ((kind,) if kind in AFFINE else sort) if fits_below(other, value.shape)]
        options = options or [other for other in sort if fits_below(other, value.shape)]
        if options and int(np.prod(value.shape)) < LARGEST:
            build.free = True
            value = below(build, build.pick(options), value)
            build.free = False
    return value


def _passed(build: Build, use: Use, x: Value, main: int, flowing: Sequence[int]) -> tuple[Value | None, onnx.NodeProto]:
    """The use with `x` as its main input."""
    inputs = []
    for place, operand in enumerate(use.inputs):
        if place == main:
            inputs.append(x.name)
        elif operand is None:
            inputs.append("")
        else:
            inputs.append(_other(build, operand, x, place in flowing))
    return _placed(build, use, inputs)


def _again(build: Build, value: Value) -> Value:
    """A second use behind the first, of any operator that takes what the first one gives."""
    found = [use for use in _by_shape()[value.shape, value.dtype.name] if use.opset <= build.opset <= use.last]
    if not found:
        return value
    use = build.pick(found)
    second, _ = _passed(build, use, value, 0, [0])
    if second is None:
        del build.outputs[-1]  # its shape is not known, so nothing reads it
        return value
    return second


def _sides(build: Build, shape: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """The kinds of the partners above and below."""
    linear = [kind for kind in LINEAR if fits_above(kind, shape)] or ["chain"]
    affine = [kind for kind in AFFINE if fits_above(kind, shape)]
    often = ("l a", "l a", "l a", "a l", "a l", "a l", "la l", "la a", "al a")
    front, back = build.pick((*often, "a a", "a ", " a", " al", "la ", "l al", "a al", "l la")).split(" ")
    ahead = [build.pick(linear if sort == "l" else affine) for sort in front]
    return ahead, [build.pick(AFFINE if sort == "a" else LINEAR) for sort in back]


def _other(build: Build, operand: Operand, x: Value, flowing: bool) -> str:
    """Another input of the use than the one that the data comes in by."""
    array = operand.array
    if flowing and array.shape == x.shape and array.dtype == x.dtype and build.chance(0.3):
        return x.name
    if flowing and build.chance(0.6):
        if array.dtype != build.dtype:
            return build.input(array).name
        kinds = [kind for kind in (*AFFINE, *LINEAR) if fits_above(kind, array.shape)]
        part, build.part = build.part, "front"
        found = above(build, [build.pick(kinds)] if build.chance(0.7) else [], array.shape)
        build.part = part
        return found.name
    if operand.role == "index":
        return steering(build, array, x)
    draw = build.rng.random()
    if draw < 0.06:
        return build.input(array).name
    constant = build.const(array)
    if draw < 0.11:
        build.optional.add(constant.name)
    return constant.name


def steering(build: Build, array: Array, x: Value | None = None) -> str:
    """A shape, axes or indices: usually a constant, sometimes computed from a shape, sometimes an input."""
    draw = build.rng.random()
    if array.dtype == np.int64 and array.ndim == 1 and 0 < array.size <= 5:
        if x is not None and draw < 0.1 and x.rank:
            return _of_shape(build, array, x)
        if draw < 0.2 and array.min() >= 0 and np.prod(array) < 3000:
            held = build.input(build.data(*(int(size) for size in array)), "s")
            return build.add("Shape", [held], array.shape, np.int64).name
    if draw > 0.95:
        return build.input(array, "i").name
    constant = build.const(array)
    if draw > 0.91:
        build.optional.add(constant.name)
    return constant.name


def _of_shape(build: Build, array: Array, x: Value) -> str:
    """The numbers with the sizes of `x` in the place of those that are equal."""
    sizes = build.add("Shape", [x], (x.rank,), np.int64)
    parts: list[Value] = []
    for number in array.tolist():
        equal = [axis for axis, size in enumerate(x.shape) if size == number]
        if equal and build.chance(0.8):
            axis = build.const(np.array([build.pick(equal)]), plain=True)
            parts.append(build.add("Gather", [sizes, axis], (1,), np.int64))
        else:
            parts.append(build.const(np.array([number]), plain=True))
    return build.add("Concat", parts, array.shape, np.int64, axis=0).name


def _placed(build: Build, use: Use, inputs: list[str]) -> tuple[Value | None, onnx.NodeProto]:
    """The use among these inputs, and one of its outputs to go on with."""
    outputs = [build.fresh("u") if there else "" for there in use.outputs]
    node = use.node(inputs, outputs, build.node_name(use.op) or "")
    build.nodes.append((build.part, node))
    known = [
        build.know(name, answer.shape, answer.dtype)
        for name, answer in zip(outputs, answered(use), strict=True)
        if name and answer is not None
    ]
    if not known:
        build.outputs.append(next(name for name in outputs if name))
        build.know(build.outputs[-1], ())
        return None, node
    floats = [value for value in known if np.dtype(value.dtype).name in FLOATS]
    return (floats[0] if floats and build.chance(0.6) else build.pick(known)), node


def constant(build: Build, use: Use) -> Middle:
    """All inputs are constants; the use computes what goes into a value that runs."""
    build.part = "use"
    inputs = []
    for operand in use.inputs:
        if operand is None:
            inputs.append("")
        elif operand.role == "index" and build.chance(0.3):
            inputs.append(steering(build, operand.array))
        else:
            inputs.append(build.const(operand.array).name)
    value, node = _placed(build, use, inputs)
    build.part = "back"
    if value is None:
        return build.values[build.outputs[-1]], node
    array = answered(use)[list(node.output).index(value.name)]
    if array is None or array.size > LARGEST // 8:
        build.outputs.append(value.name)
        return value, node
    end = consume(build, value, array)
    if build.chance(0.12):
        end = bridged(build, end)
    if build.chance(0.08):
        end = joined(build, end, None)
    sorts = build.pick(("a", "a", "al", "l", "la", ""))
    return followed(build, end, [build.pick(AFFINE if sort == "a" else LINEAR) for sort in sorts]), node
