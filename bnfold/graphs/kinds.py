"""Kinds that are built alike whatever the framework says them in: affine maps, convolutions, products, enlargements.

Shapes and constants come in as plain values; what an adapter read them from is its own matter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, is_finite
from bnfold.algebra.axes import Insert, Repeat, Shape, Size, Step
from bnfold.algebra.ops import Absorber, Bias, ConstAffine, IndexMap, Linear, Opaque, Scaled

# One letter per index: spatial axes of x, taps of the weight, spatial axes of y; batch axes of a product.
_IN, _TAP, _OUT, _BATCH = "abcdef", "pqrstz", "uvwxyh", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

UNEVEN = "outputs of the transposed convolution sum over different taps, so a shift reaches them differently"


def batch_norm(parameters: Mapping[str, Array], eps: float, shape: Shape) -> ops.Kind:
    """A BatchNorm over axis 1 of a value of this shape; `parameters` are gamma, beta, mean and var, of shape (C,).

    Its operator reads gamma at position 1 and beta at position 2.
    """
    gamma, beta, mean, var = (parameters[name] for name in ("gamma", "beta", "mean", "var"))
    sizes = {gamma.size, beta.size, mean.size, var.size}
    if len(shape) < 2 or 0 in sizes or len(sizes - {1}) > 1:
        return Opaque("unsupported", "its parameters or its input have a shape that no BatchNorm has")
    with np.errstate(over="ignore", invalid="ignore"):
        if not is_finite(gamma + beta + mean + var):  # which is so where one of them is not, and hardly ever else
            for name, parameter in parameters.items():
                if not is_finite(parameter):
                    return Opaque("non-finite", f"its {name} holds NaN or infinity")
        if isinstance(shape[1], int) and shape[1] != gamma.size:
            return Opaque("unsupported", f"it has {gamma.size} parameters for {shape[1]} channels")
        smoothed = var + eps
        if not np.minimum.reduce(smoothed) > 0:
            return Opaque("non-finite", "its var + epsilon is not positive in every channel")
        # Ioffe and Szegedy 2015, algorithm 2.
        scale = gamma / np.sqrt(smoothed)
        shift = beta - mean * scale
    return ConstAffine(0, Affine.along(1, scale, shift, len(shape)), Absorber(scale=1, shift=2, axis=1), gamma.size)


def by_constant(op: str, position: int, c: Array, rank: int) -> ConstAffine:
    """Add, Sub, Mul or Div ("add", ...) of two operands of which the one at `position` is the constant c.

    x has this rank and the shape of the result. A constant that is divided by x is no affine map of it.
    """
    data = 1 - position
    if op == "mul":
        return ConstAffine(data, Affine.of(c, 0.0, rank), Absorber(scale=position), c.size)
    if op == "div":
        with np.errstate(all="ignore"):
            return ConstAffine(data, Affine.of(1 / c, 0.0, rank), Absorber(scale=position, inverse=True), c.size)
    if op == "add":
        return ConstAffine(data, Affine.of(1.0, c, rank), Absorber(shift=position))
    if position == 1:  # x - c
        return ConstAffine(data, Affine.of(1.0, -c, rank), Absorber(shift=position, sign=-1.0))
    return ConstAffine(data, Affine.of(-1.0, c, rank), Absorber(shift=position))  # c - x


def fits(constant: tuple[int, ...], x: Shape) -> bool:
    """Whether `x op constant`, broadcasting, has the shape of x for certain."""
    missing = len(x) - len(constant)
    return missing >= 0 and all(size in (1, x[missing + axis]) for axis, size in enumerate(constant))


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of an elementwise result. A size that is not known on either side stays unknown."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    return tuple(p if p == q or q == 1 else q if p == 1 else _larger(p, q) for p, q in zip(a, b, strict=True))


def _larger(p: Size, q: Size) -> Size:
    """Of two different sizes: a number above 1 wins over a size that is not known, which must be 1 or the same."""
    return p if isinstance(p, int) else q if isinstance(q, int) else None


def convolution(
    weight: Sequence[int],
    groups: int,
    *,
    biased: bool,
    transposed: bool = False,
    batched: bool = True,
    incomplete: str = "",
    pointwise: Collection[int] = (),
) -> ops.Kind:
    """A convolution of data (position 0) with a weight (1) of this shape and an optional bias vector (2).

    `incomplete` says why not every output sums over all taps; it is empty where every one does. `pointwise` are the
    spatial axes along which every output is made from the input at its own place, counted from 0.
    """
    spatial = len(weight) - 2
    if not 1 <= spatial <= len(_TAP):
        return Opaque("unsupported", f"a convolution of rank {len(weight)} is not understood")
    if groups < 1 or weight[0] % groups:
        return Opaque("unsupported", f"{weight[0]} channels do not fall into {groups} groups")
    split, other = weight[0] // groups, weight[1]
    taps = dict(zip(_TAP, weight[2:], strict=False))
    batch = ("n",) if batched else ()
    return Linear(
        data=0,
        weight=1,
        bias=Bias(2, biased, axis=len(batch)),
        x=(*batch, "gi", *_IN[:spatial]),
        w=(*(("gi", "o") if transposed else ("go", "i")), *_TAP[:spatial]),
        y=(*batch, "go", *(_IN[axis] if axis in pointwise else _OUT[axis] for axis in range(spatial))),
        sizes={"g": groups, "i": split if transposed else other, "o": other if transposed else split, **taps},
        complete=not incomplete,
        incomplete_why=incomplete,
    )


def pointwise_axes(
    kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], extra: Sequence[int] | None = None
) -> frozenset[int]:
    """The spatial axes along which a convolution, transposed or not, has one tap and moves nothing.

    `pads` are begins, then ends; `extra` is the padding of a transposed one's output.
    """
    count = len(kernel)
    moves = [*zip(pads[:count], pads[count:], extra or [0] * count, strict=True)]
    return frozenset(axis for axis in range(count) if kernel[axis] == strides[axis] == 1 and not any(moves[axis]))


def transposed_border(
    kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int], extra: Sequence[int]
) -> str:
    """Why not every output of a transposed convolution sums over all taps; empty where it does.

    It does where the stride is 1 and the pads (begins, then ends) cut the whole border off.
    """
    border = [(taps - 1) * dilation for taps, dilation in zip(kernel, dilations, strict=True)]
    cut = all(pad >= edge for pad, edge in zip(pads, [*border, *border], strict=True))
    if cut and not any(extra) and all(stride == 1 for stride in strides):
        return ""
    return UNEVEN


def product(x_shape: Shape, w_shape: tuple[int, ...], data: int, weight: int) -> Linear:
    """A matrix product, batched or not, of x and a constant, the factors at these two positions."""
    left = weight < data
    rank = max(len(x_shape), len(w_shape), 2)
    batch = _BATCH[: rank - 2]
    ranks = (len(w_shape), len(x_shape)) if left else (len(x_shape), len(w_shape))
    a, b, y = [*batch, "m", "k"], [*batch, "k", "n"], [*batch, "m", "n"]
    if ranks[0] == 1:
        a, y = ["k"], [letter for letter in y if letter != "m"]
    if ranks[1] == 1:
        b, y = ["k"], [letter for letter in y if letter != "n"]
    w, x = (a, b) if left else (b, a)
    x, w = x[len(x) - len(x_shape) :], w[len(w) - len(w_shape) :]
    # A batch axis of extent 1 is broadcast: its index is one of its own that the result does not have.
    for axis, size in enumerate(w_shape):
        if w[axis] in batch and size == 1:
            w[axis] = w[axis].lower()
    for axis, length in enumerate(x_shape):
        if x[axis] in batch and length == 1:
            x[axis] = ""
    sizes = dict(zip(w, w_shape, strict=True))
    return Linear(data=data, weight=weight, bias=None, x=tuple(x), w=tuple(w), y=tuple(y), sizes=sizes)


def matrices(
    x: tuple[str, str], w: tuple[str, str], shape: Sequence[int], data: int, weight: int, bias: Bias | None, gain: float
) -> Linear:
    """`gain * a @ b + c` of two matrices (Gemm, addmm), of which the one at `weight` is a constant of this shape.

    `x` and `w` are the indices of the two: "k" is summed over, the result has "m" and "n".
    """
    sizes = dict(zip(w, shape, strict=True))
    return Linear(data=data, weight=weight, bias=bias, x=x, w=w, y=("m", "n"), sizes=sizes, gain=gain)


def einsum_terms(equation: str) -> list[str] | None:
    """The indices of two operands and of the result, where the equation writes every index out, once each."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    found = [*terms.split(","), result]
    plain = len(found) == 3 and arrow and "." not in equation and all(len(set(term)) == len(term) for term in found)
    return found if plain else None


def einsum(terms: list[str], x_shape: Shape | None, w_shape: tuple[int, ...], data: int, weight: int) -> ops.Kind:
    """A product of x and a constant, the operands at these two positions."""
    equation, result = f"{terms[0]},{terms[1]}->{terms[2]}", terms[2]
    x, w = terms[data], terms[weight]
    if set(x) - set(w) - set(result) or len(w) != len(w_shape):
        return Opaque("unsupported", f"the Einsum '{equation}' sums its input by itself")
    if 1 in w_shape or x_shape is None or len(x_shape) != len(x) or 1 in x_shape:
        return Opaque("unsupported", f"an index of the Einsum '{equation}' may be broadcast")
    sizes = dict(zip(w, w_shape, strict=True))
    return Linear(data=data, weight=weight, bias=None, x=tuple(x), w=tuple(w), y=tuple(result), sizes=sizes)


def expansion(x: Shape, y: Shape) -> ops.Kind:
    """A value of shape x broadcast to the shape y (Expand)."""
    missing = len(y) - len(x)
    steps: list[Step] = [Insert(tuple(range(missing)))] if missing else []
    for axis, (old, new) in enumerate(zip((1,) * missing + x, y, strict=True)):
        if old == 1 and new != 1:
            steps.append(Repeat(axis, 1, new))
        elif old != new and not isinstance(old, int):
            return Opaque("dynamic-shape", f"whether it repeats along axis {axis} is known only at run time")
    return IndexMap((tuple(steps),))


def normalisation(
    what: str,
    x: Shape,
    axes: tuple[int, ...],
    scale: tuple[int, ...],
    shift: tuple[int, ...] | None,
    *,
    each: int = 1,
    biased: bool = True,
) -> ops.Kind:
    """A normalisation of x with a scale (position 1) of this shape over these axes and, if `biased`, a shift (2).

    `each` neighbours of x share an element of them; there is one axis then.
    """
    sizes = tuple(size * each for size in scale)
    told = tuple(x[axis] for axis in axes)
    fit = len(told) == len(sizes) and all(
        size == own if isinstance(size, int) else own > 1 for size, own in zip(told, sizes, strict=True)
    )
    if not fit or shift not in (None, scale):
        return Opaque("unsupported", f"a {what} whose scale is broadcast is not understood")
    return Scaled(1, 2 if biased else None, shift is not None, axes, sizes, each, what)


def parts(size: Size, factor: int) -> Size:
    """A size divided by a number that divides it."""
    return size // factor if isinstance(size, int) else f"{size}/{factor}"
