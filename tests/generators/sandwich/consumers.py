"""Where a computed constant can go: a factor, a weight, a bias, a parameter of a BatchNorm, a shape, an index."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from onnx import helper

from generators.sandwich.build import Build, Value
from generators.sandwich.partners import AFFINE, LINEAR, above, fits_above
from generators.sandwich.use import Array

LARGEST = 400


def trunk(build: Build, shape: tuple[int, ...]) -> Value:
    """A value of this shape that runs: out of a linear operator, an affine, both, or nothing."""
    linear = [kind for kind in LINEAR if fits_above(kind, shape)]
    affine = [kind for kind in AFFINE if fits_above(kind, shape)]
    styles: list[list[str]] = [[], [build.pick(affine)]]
    if linear:
        one = build.pick(linear)
        styles += [[one], [one], [one], [one, build.pick(affine)], [build.pick(affine), one]]
    fitting = [
        style for style in styles if not (style[:1] and style[0] == "bn" and len(style) == 2 and style[1] == "matmul")
    ]
    return above(build, build.pick(fitting), shape)


def cast(build: Build, value: Value, dtype: Any = None) -> Value:
    """The value in another type."""
    dtype = np.dtype(dtype or build.dtype)
    to = helper.np_dtype_to_tensor_dtype(dtype)
    return build.add("Cast", [value], value.shape, dtype, to=to)


def consume(build: Build, constant: Value, array: Array) -> Value:
    """A value that runs and that the constant went into. `array` is what the constant holds."""
    if array.dtype.kind in "iu" and (placed := _steered(build, constant, array)) is not None:
        return placed
    if array.dtype.kind == "b":
        if build.opset >= 9 and build.chance(0.6) and array.size <= LARGEST:
            return _chosen(build, constant)
        constant = cast(build, constant)
    elif array.dtype != build.dtype:
        constant = cast(build, constant)
    array = array.astype(build.dtype)
    makers = [_operand, _operand, _operand]
    if array.size and array.size <= 64:
        makers += [_norm_parameter, _bias]
    if 0 not in array.shape and 3 <= array.ndim <= 5 and array.size <= LARGEST:
        makers += [_conv_weight, _conv_weight]
    if 0 not in array.shape and array.ndim >= 2:
        makers += [_product_weight, _product_weight]
    return build.pick(makers)(build, constant, array)


def _around(build: Build, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that the given one broadcasts to."""
    out = [build.between(1, 3) if size == 1 and build.chance(0.7) else size for size in shape]
    longest = max(len(out), build.pick((2, 3, 4, 4)))
    while len(out) < longest and int(np.prod(out)) <= LARGEST:
        out.insert(0, build.between(1, 3))
    return tuple(out)


def _operand(build: Build, constant: Value, array: Array) -> Value:
    shape = constant.shape
    if build.chance(0.35) and len(shape) == 1 and shape[0] > 0:
        # One number per channel, spelled out for the axes behind.
        behind = build.between(1, 2)
        spelled = (shape[0], *(1,) * behind)
        constant = reshaped(build, constant, spelled)
        shape = spelled
    goal = _around(build, shape)
    if int(np.prod(goal)) > 4 * LARGEST:
        goal = tuple(np.broadcast_shapes(shape, (1, 1)))
    x = trunk(build, goal)
    ops = ["Mul", "Mul", "Add", "Sub"] + (["Div"] if array.size and float(np.abs(array).min()) > 0.05 else [])
    op = build.pick(ops)
    pair = [x, constant]
    if op != "Div" and build.chance(0.35):
        pair.reverse()
    return build.add(op, pair, goal)


def reshaped(build: Build, value: Value, shape: tuple[int, ...]) -> Value:
    """The value in another shape of the same size."""
    return build.add("Reshape", [value, build.const(np.array(shape, np.int64))], shape, value.dtype)


def _flat(build: Build, constant: Value) -> Value:
    size = int(np.prod(constant.shape))
    if constant.rank == 1:
        return constant
    target = build.const(np.array([build.pick((-1, size))], np.int64))
    return build.add("Reshape", [constant, target], (size,), constant.dtype)


def _norm_parameter(build: Build, constant: Value, array: Array) -> Value:
    flat = _flat(build, constant)
    c = flat.shape[0]
    rank = build.between(2, 4)
    x = trunk(build, (build.between(1, 2), c, *(build.between(1, 3) for _ in range(rank - 2))))
    places = [0, 1, 2] + ([3] if np.isfinite(array).all() and float(array.min()) > 0.05 else [])
    place = build.pick(places)
    tables = [build.weight(c), build.weight(c), build.weight(c), np.abs(build.weight(c))]
    names = [flat if at == place else build.const(table) for at, table in enumerate(tables)]
    return build.add("BatchNormalization", [x, *names], x.shape)


def _bias(build: Build, constant: Value, array: Array) -> Value:
    flat = _flat(build, constant)
    c = flat.shape[0]
    if build.chance(0.5):
        shape = (build.between(1, 2), c, build.between(1, 3))
        x = trunk(build, (shape[0], 2, shape[2]))
        return build.add("Conv", [x, build.const(build.weight(c, 2, 1)), flat], shape)
    x = trunk(build, (build.between(1, 3), 2))
    return build.add("Gemm", [x, build.const(build.weight(2, c)), flat], (x.shape[0], c))


def _conv_weight(build: Build, constant: Value, array: Array) -> Value:
    if build.chance(0.25):
        entering, each, *kernel = constant.shape
        x = trunk(build, (build.between(1, 2), entering, *(build.between(1, 2) for _ in kernel)))
        space = [size - 1 + k for size, k in zip(x.shape[2:], kernel, strict=True)]
        return build.add("ConvTranspose", [x, constant], (x.shape[0], each, *space))
    features, each, *kernel = constant.shape
    group = build.pick([g for g in (1, 1, 2, 3) if features % g == 0])
    space = [k + build.between(0, 2) for k in kernel]
    x = trunk(build, (build.between(1, 2), each * group, *space))
    out = [size - k + 1 for size, k in zip(space, kernel, strict=True)]
    return build.add("Conv", [x, constant], (x.shape[0], features, *out), group=group)


def _product_weight(build: Build, constant: Value, array: Array) -> Value:
    *lead, rows, columns = constant.shape
    if not lead and build.chance(0.4):
        turned = int(build.chance(0.5))
        inner, features = (columns, rows) if turned else (rows, columns)
        x = trunk(build, (build.between(1, 3), inner))
        # Before opset 11 the summand is no option.
        tail = [build.const(build.weight(features))] if build.opset < 11 or build.chance(0.3) else []
        return build.add("Gemm", [x, constant, *tail], (x.shape[0], features), transB=turned)
    other = build.between(1, 3)
    if build.chance(0.3):
        x = trunk(build, (*lead, columns, other))
        return build.add("MatMul", [constant, x], (*lead, rows, other))
    x = trunk(build, (*lead, other, rows))
    return build.add("MatMul", [x, constant], (*lead, other, columns))


def _chosen(build: Build, constant: Value) -> Value:
    goal = _around(build, constant.shape)
    pair = [trunk(build, goal), build.const(build.weight())]
    return build.add("Where", [constant, *(pair if build.chance(0.5) else pair[::-1])], goal)


def _steered(build: Build, constant: Value, array: Array) -> Value | None:
    """The constant as a shape, repeats, indices or axes, where its numbers allow it."""
    if array.dtype != np.int64 or array.size > 6 or build.chance(0.2):
        return None
    if array.ndim != 1:
        if array.ndim == 0 and 0 <= int(array) <= 4 and build.chance(0.6):
            shape = (build.between(1, 2), int(array) + 1, build.between(1, 3))
            return build.add("Gather", [trunk(build, shape), constant], (shape[0], shape[2]), axis=1)
        if array.ndim > 2 or array.size == 0 or np.abs(array).max() > 4:
            return None
        shape = (2, int(np.abs(array).max()) + 1, 3)
        return build.add("Gather", [trunk(build, shape), constant], (2, *array.shape, 3), axis=1)
    numbers = [int(number) for number in array]
    choices: list[str] = []
    if numbers and min(numbers) >= 1 and np.prod(numbers) <= LARGEST:
        choices += ["Reshape", "Reshape", "Expand"] + (["Tile"] if max(numbers) <= 3 else [])
    if numbers and min(numbers) >= 0 and max(numbers) <= 5:
        choices += ["Gather", "Gather"]
    if len(numbers) == 1 and -3 <= numbers[0] <= 2 and build.opset >= 13:
        choices += ["ReduceSum", "Unsqueeze"]
    if len(numbers) == 1 and 1 <= numbers[0] <= 6 and build.opset >= 10:
        choices.append("Slice")
    if not choices:
        return None
    op = build.pick(choices)
    if op == "Reshape":
        x = trunk(build, _other_shape(build, numbers))
        return build.add("Reshape", [x, constant], numbers)
    if op == "Expand" and build.opset >= 8:
        shape = tuple(1 if build.chance(0.5) else size for size in numbers)
        return build.add("Expand", [trunk(build, shape), constant], numbers)
    if op == "Tile":
        shape = tuple(build.between(1, 3) for _ in numbers)
        x = trunk(build, shape)
        return build.add("Tile", [x, constant], [a * b for a, b in zip(shape, numbers, strict=True)])
    if op in ("ReduceSum", "Unsqueeze"):
        shape = (2, 3, 2)
        axis = numbers[0] % 3
        if op == "ReduceSum":
            return build.add(op, [trunk(build, shape), constant], (*shape[:axis], 1, *shape[axis + 1 :]))
        axis = numbers[0] % 4
        return build.add(op, [trunk(build, shape), constant], (*shape[:axis], 1, *shape[axis:]))
    if op == "Slice":
        shape = (2, 6, 2)
        start, axis = build.const(np.array([0])), build.const(np.array([1]))
        return build.add("Slice", [trunk(build, shape), start, constant, axis], (2, numbers[0], 2))
    axis = build.between(0, 1)
    shape = (3, max([*numbers, 0]) + 1, 2) if axis else (max([*numbers, 0]) + 1, 3, 2)
    out = (3, len(numbers), 2) if axis else (len(numbers), 3, 2)
    return build.add("Gather", [trunk(build, shape), constant], out, axis=axis)


def _other_shape(build: Build, numbers: list[int]) -> tuple[int, ...]:
    """Another shape of the same size: the same primes, dealt out anew, or the same numbers in another order."""
    if build.chance(0.3):
        return tuple(build.pick(list(itertools.permutations(numbers))))
    primes = [p for number in numbers for p in _primes(number)]
    out = [1] * build.between(2, 4)
    for prime in primes:
        out[build.between(0, len(out) - 1)] *= prime
    return tuple(out)


def _primes(number: int) -> list[int]:
    out, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            out.append(divisor)
            number //= divisor
        divisor += 1
    return out
