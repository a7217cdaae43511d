"""What each kind of the algebra computes, in plain NumPy and float64: the meaning against which the rules are held.

Nothing here shares code with the rules. A function takes the inputs of a node by position and gives its outputs; what a
kind does not hold, such as the stride of a convolution or the weights of a mean, is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnfold.algebra import ops
from bnfold.algebra.axes import Insert, Permute, Pick, Regroup, Remove, Repeat, Step

Array = NDArray[np.float64]
Inputs = Sequence["Array | None"]
Function = Callable[[Inputs], list[Array]]


@dataclass(frozen=True, eq=False)
class Operator:
    """A kind with its function and the values that it reads; those at `constants` are known, so that they may grow."""

    kind: ops.Kind
    function: Function
    inputs: tuple[Array | None, ...]
    constants: frozenset[int] = frozenset()


def value_at(inputs: Inputs, position: int) -> Array:
    value = inputs[position]
    if value is None:
        raise ValueError(f"nothing is given at input {position}")
    return value


def contraction(kind: ops.Linear) -> Function:
    """`y = gain * sum(x * w) + bias`, for axes that keep their meaning (no spatial ones)."""
    letters = sorted(set("".join([*kind.x, *kind.w, *kind.y])))
    number = {letter: chr(ord("a") + i) for i, letter in enumerate(letters)}

    def run(inputs: Inputs) -> list[Array]:
        x, w = value_at(inputs, kind.data), value_at(inputs, kind.weight)
        sizes = dict(kind.sizes)
        for axis, size in zip(kind.x, x.shape, strict=True):
            if len(axis) == 1:
                sizes[axis] = size

        def split(array: Array, axes: ops.Axes) -> Array:
            return array.reshape([sizes[letter] for axis in axes for letter in axis])

        def term(axes: ops.Axes) -> str:
            return "".join(number[letter] for axis in axes for letter in axis)

        equation = f"{term(kind.x)},{term(kind.w)}->{term(kind.y)}"
        y = kind.gain * np.einsum(equation, split(x, kind.x), split(w, kind.w))
        return [_biased(kind, y.reshape([_product(sizes, axis) for axis in kind.y]), inputs)]

    return run


def _product(sizes: dict[str, int], letters: str) -> int:
    size = 1
    for letter in letters:
        size *= sizes[letter]
    return size


def convolution(
    kind: ops.Linear, group: int, stride: Sequence[int], dilation: Sequence[int], pads: Sequence[tuple[int, int]]
) -> Function:
    """Of x (N, C_in, *S) and w (C_out, C_in / group, *K): a sum over groups, channels and taps of views of x."""

    def run(inputs: Inputs) -> list[Array]:
        x, w = value_at(inputs, kind.data), value_at(inputs, kind.weight)
        kernel = w.shape[2:]
        x = np.pad(x, [(0, 0), (0, 0), *pads])
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        extent = [(s - r) // step + 1 for s, r, step in zip(x.shape[2:], reach, stride, strict=True)]
        in_group, out_group = x.shape[1] // group, w.shape[0] // group
        y = np.zeros((x.shape[0], w.shape[0], *extent))
        for g in range(group):
            inside, outside = slice(g * in_group, (g + 1) * in_group), slice(g * out_group, (g + 1) * out_group)
            for tap in np.ndindex(*kernel):
                view = tuple(
                    slice(t * d, t * d + (n - 1) * step + 1, step)
                    for t, d, n, step in zip(tap, dilation, extent, stride, strict=True)
                )
                y[:, outside] += np.einsum("ni...,oi->no...", x[:, inside][(..., *view)], w[outside][(..., *tap)])
        return [_biased(kind, y, inputs)]

    return run


def transposed_convolution(
    kind: ops.Linear, group: int, stride: Sequence[int], dilation: Sequence[int], pads: Sequence[tuple[int, int]]
) -> Function:
    """Of x (N, C_in, *S) and w (C_in, C_out / group, *K): every element of x adds a scaled kernel to y; pads cut y."""

    def run(inputs: Inputs) -> list[Array]:
        x, w = value_at(inputs, kind.data), value_at(inputs, kind.weight)
        kernel, sizes = w.shape[2:], x.shape[2:]
        extent = [
            (s - 1) * step + (k - 1) * d + 1 for s, step, k, d in zip(sizes, stride, kernel, dilation, strict=True)
        ]
        in_group, out_group = x.shape[1] // group, w.shape[1]
        y = np.zeros((x.shape[0], out_group * group, *extent))
        for g in range(group):
            inside, outside = slice(g * in_group, (g + 1) * in_group), slice(g * out_group, (g + 1) * out_group)
            for tap in np.ndindex(*kernel):
                view = tuple(
                    slice(t * d, t * d + (s - 1) * step + 1, step)
                    for t, d, s, step in zip(tap, dilation, sizes, stride, strict=True)
                )
                y[:, outside][(..., *view)] += np.einsum("ni...,io->no...", x[:, inside], w[inside][(..., *tap)])
        cut = tuple(slice(a, y.shape[2 + i] - b) for i, (a, b) in enumerate(pads))
        return [_biased(kind, y[(..., *cut)], inputs)]

    return run


def _biased(kind: ops.Linear, y: Array, inputs: Inputs) -> Array:
    if kind.bias is None or inputs[kind.bias.position] is None:
        return y
    bias = value_at(inputs, kind.bias.position)
    if kind.bias.axis is not None:
        bias = bias.reshape([-1 if axis == kind.bias.axis else 1 for axis in range(y.ndim)])
    return y + kind.bias.gain * bias


def batch_norm(eps: float) -> Function:
    """(x, gamma, beta, mean, var), channels on axis 1."""

    def run(inputs: Inputs) -> list[Array]:
        x = value_at(inputs, 0)
        gamma, beta, mean, var = (
            value_at(inputs, i).reshape([-1 if axis == 1 else 1 for axis in range(x.ndim)]) for i in range(1, 5)
        )
        return [gamma * (x - mean) / np.sqrt(var + eps) + beta]

    return run


def elementwise(function: Callable[..., Array]) -> Function:
    """A function of all the inputs, broadcasting."""
    return lambda inputs: [function(*inputs)]


def moved(kind: ops.IndexMap) -> Function:
    """The steps carried out on an array; all their sizes must be numbers."""

    def run(inputs: Inputs) -> list[Array]:
        return [_walk(value_at(inputs, kind.data), steps) for steps in kind.steps]

    return run


def _walk(x: Array, steps: Sequence[Step]) -> Array:
    for step in steps:
        x = move(x, step)
    return x


def move(x: Array, step: Step) -> Array:
    if isinstance(step, Permute):
        return np.transpose(x, step.perm)
    if isinstance(step, Insert):
        return np.expand_dims(x, step.axes)
    if isinstance(step, Remove):
        return np.squeeze(x, step.axes)
    if isinstance(step, Pick) and step.indices is not None:
        return np.take(x, step.indices, step.axis)
    if isinstance(step, Repeat) and isinstance(step.times, int):
        return np.concatenate([x] * step.times, step.axis)
    if isinstance(step, Regroup):
        return x.reshape([size for size in step.y_shape if isinstance(size, int)])
    raise TypeError(f"no meaning is written for {step}")


def total(kind: ops.Sum) -> Function:
    def run(inputs: Inputs) -> list[Array]:
        return [np.asarray(sum(sign * value_at(inputs, i) for i, sign in enumerate(kind.signs)))]

    return run


def laid(kind: ops.Concat) -> Function:
    return lambda inputs: [np.concatenate([value_at(inputs, i) for i in range(len(kind.sizes))], kind.axis)]


def aggregated(kind: ops.Aggregate, mix: Sequence[Array]) -> Function:
    """Along each axis of the kind, a matrix of weights (out, in), or the largest of each row's chosen elements."""

    def run(inputs: Inputs) -> list[Array]:
        y = value_at(inputs, 0)
        for axis, weights in zip(kind.axes, mix, strict=True):
            columns = np.moveaxis(y, axis, -1)
            if kind.law == "maximum":
                columns = np.stack([columns[..., row > 0].max(-1) for row in weights], -1)
            else:
                columns = columns @ weights.T
            y = np.moveaxis(columns, -1, axis)
        return [y if kind.keepdims else np.squeeze(y, kind.axes)]

    return run


def scaled(kind: ops.Scaled) -> Function:
    """A normalisation over the axes of the kind, with its own scale and shift behind it."""

    def laid(x: Array, constant: Array | None) -> Array | float:
        if constant is None:
            return 0.0
        spread = np.repeat(constant, kind.each, axis=0) if kind.each > 1 else constant
        return spread.reshape([size if axis in kind.axes else 1 for axis, size in enumerate(x.shape)])

    def run(inputs: Inputs) -> list[Array]:
        x = value_at(inputs, 0)
        centred = x - x.mean(kind.axes, keepdims=True)
        f = centred / np.sqrt((centred**2).mean(kind.axes, keepdims=True) + 1e-5)
        return [np.asarray(f * laid(x, inputs[1]) + laid(x, inputs[2]))]

    return run


def recurrence(kind: ops.Recurrent, recurrent: Array, bidirectional: bool) -> Function:
    """A plain recurrent layer, h = tanh(x w^T + b_w + h r^T + b_r), its states and last states for every direction."""

    def run(inputs: Inputs) -> list[Array]:
        x, w = value_at(inputs, kind.data), value_at(inputs, kind.weight)
        bias = inputs[kind.bias]
        bias = np.zeros((kind.directions, 2 * kind.rows)) if bias is None else bias
        states = np.empty((x.shape[0], kind.directions, x.shape[1], kind.rows))
        last = np.zeros((kind.directions, x.shape[1], kind.rows))
        for d in range(kind.directions):
            order = range(x.shape[0])
            for step in reversed(order) if bidirectional and d == 1 else order:
                inner = x[step] @ w[d].T + bias[d, : kind.rows] + bias[d, kind.rows :]
                last[d] = states[step, d] = np.tanh(inner + last[d] @ recurrent[d].T)
        return [states, last]

    return run


def assert_close(found: Array, expected: Array, rtol: float) -> None:
    """Equal shapes, and values equal to `rtol` times the largest (or times one, if all are smaller)."""
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * scale)
