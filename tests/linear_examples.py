"""Random linear operators with inputs, for the property tests of the laws."""

from __future__ import annotations

import kind_semantics as sem
import numpy as np
from hypothesis import strategies as st
from kind_examples import COIN, SEEDS, SIZES, Draw, normal
from kind_semantics import Array, Operator

from bnfold.algebra import ops


@st.composite
def convolutions(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    spatial, group = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2, 3)))
    transposed, biased = draw(COIN), draw(st.sampled_from(("bias", "no bias", "no input")))
    inner, outer = draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((1, 2, 3)))
    kernel = [draw(st.integers(1, 3)) for _ in range(spatial)]
    stride = [draw(st.integers(1, 2)) for _ in range(spatial)]
    dilation = [draw(st.integers(1, 2)) for _ in range(spatial)]
    pads = [(0, 0)] * spatial
    if draw(COIN):
        pads = [(draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernel]
    sizes = [(k - 1) * d + 1 + draw(st.integers(0, 2)) for k, d in zip(kernel, dilation, strict=True)]
    padded = any(a or b for a, b in pads)
    if transposed:
        w = normal(rng, group * inner, outer, *kernel)
        padded = any(k > 1 for k in kernel) or any(step > 1 for step in stride)
        x = normal(rng, draw(st.integers(1, 3)), group * inner, *[max(size, 3) for size in sizes])
        axes = ("gi", "o")
    else:
        w = normal(rng, group * outer, inner, *kernel)
        x = normal(rng, draw(st.integers(1, 3)), group * inner, *sizes)
        axes = ("go", "i")
    same = [axis for axis in range(spatial) if kernel[axis] == stride[axis] == 1 and pads[axis] == (0, 0)]
    bias = None if biased == "no input" else ops.Bias(2, biased == "bias", axis=1)
    kind = ops.Linear(
        data=0,
        weight=1,
        bias=bias,
        x=("n", "gi", *"abc"[:spatial]),
        w=(*axes, *"pqr"[:spatial]),
        y=("n", "go", *("abc"[axis] if axis in same else "uvw"[axis] for axis in range(spatial))),
        sizes={"g": group, "i": inner, "o": outer, **dict(zip("pqr", kernel, strict=False))},
        complete=not padded,
    )
    function = (sem.transposed_convolution if transposed else sem.convolution)(kind, group, stride, dilation, pads)
    inputs = (x, w, normal(rng, group * outer) if biased == "bias" else None)
    return Operator(kind, function, inputs, frozenset((1, 2)))


@st.composite
def gemms(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    m, k, n = draw(SIZES), draw(SIZES), draw(SIZES)
    a = ("k", "m") if draw(COIN) else ("m", "k")
    b = ("n", "k") if draw(COIN) else ("k", "n")
    size = {"m": m, "k": k, "n": n}
    weight = draw(st.sampled_from((0, 1)))
    c = draw(st.sampled_from(((), (1,), (n,), (1, n), (m, 1), (m, n), None)))
    beta = draw(st.sampled_from((1.0, 0.5, -2.0)))
    inputs = (
        normal(rng, *[size[letter] for letter in a]),
        normal(rng, *[size[letter] for letter in b]),
        None if c is None else normal(rng, *c),
    )
    x, w = (a, b) if weight == 1 else (b, a)
    kind = ops.Linear(
        data=1 - weight,
        weight=weight,
        bias=ops.Bias(2, c is not None, axis=None, gain=beta),
        x=x,
        w=w,
        y=("m", "n"),
        sizes={letter: size[letter] for letter in w},
        gain=draw(st.sampled_from((1.0, 0.5, -1.5))),
    )
    return Operator(kind, sem.contraction(kind), inputs, frozenset((weight, 2)))


@st.composite
def products(draw: Draw) -> Operator:
    """MatMul of rank 1 to 5, with a constant on either side whose batch axes may be fewer, or of extent 1."""
    rng = np.random.default_rng(draw(SEEDS))
    batch = draw(st.lists(SIZES, max_size=3))
    size = {"m": draw(SIZES), "k": draw(SIZES), "n": draw(SIZES), **dict(zip("ABC", batch, strict=False))}
    weight = draw(st.sampled_from((0, 1)))
    axes: list[list[str]] = []
    extents: list[list[int]] = []
    for position, core in enumerate(("mk", "kn")):
        own = list("ABC"[draw(st.integers(0, len(batch))) : len(batch)])
        lengths = [1 if draw(st.integers(0, 3)) == 0 else size[letter] for letter in own]
        if position == weight:  # an axis of extent 1 that is broadcast: an index of its own
            own = [letter.lower() if length == 1 else letter for letter, length in zip(own, lengths, strict=True)]
        else:
            own = ["" if length == 1 else letter for letter, length in zip(own, lengths, strict=True)]
        axes.append([*own, *core])
        extents.append([*lengths, *(size[letter] for letter in core)])
    y = ["A", "B", "C"][: len(batch)]
    for i, letter in enumerate(y):  # a batch axis on which both are broadcast, or which neither has
        if not any(letter in own for own in axes):
            y[i] = ""
    y = y[min(len(batch) - len(own) + 2 for own in axes) :]
    core = "mn"
    for position, letter in ((0, "m"), (1, "n")):
        if len(axes[position]) == 2 and draw(st.integers(0, 4)) == 0:
            axes[position], extents[position] = ["k"], [size["k"]]
            core = core.replace(letter, "")
    data = 1 - weight
    kind = ops.Linear(
        data=data,
        weight=weight,
        bias=None,
        x=tuple(axes[data]),
        w=tuple(axes[weight]),
        y=(*y, *core),
        sizes=dict(zip(axes[weight], extents[weight], strict=True)),
    )
    inputs = [normal(rng, *extent) for extent in extents]
    return Operator(kind, elementwise_matmul, tuple(inputs), frozenset((weight,)))


def elementwise_matmul(inputs: sem.Inputs) -> list[Array]:
    return [np.asarray(np.matmul(sem.value_at(inputs, 0), sem.value_at(inputs, 1)))]


@st.composite
def contractions(draw: Draw) -> Operator:
    """Einstein sums of a value with a weight, axes over several indices included."""
    rng = np.random.default_rng(draw(SEEDS))
    size = {letter: draw(st.sampled_from((1, 2, 2, 3))) for letter in "abcdef"}
    roles = {letter: draw(st.sampled_from(("xy", "xw", "wy", "xwy", "xy", "wy"))) for letter in "abcdef"}

    def axes(role: str) -> tuple[str, ...]:
        out: list[str] = []
        for letter in draw(st.permutations([letter for letter in "abcdef" if role in roles[letter]])):
            together = out and "w" in roles[letter] and all("w" in roles[other] for other in out[-1])
            if together and draw(st.integers(0, 2)) == 0:
                out[-1] += letter
            else:
                out.append(letter)
        return tuple(out)

    x, w, y = axes("x"), axes("w"), axes("y")
    kind = ops.Linear(
        0, 1, None, x, w, y, {letter: size[letter] for letter in "".join(w)}, gain=draw(st.sampled_from((1.0, -0.5)))
    )

    def extent(over: tuple[str, ...]) -> list[int]:
        return [int(np.prod([size[letter] for letter in axis])) for axis in over]

    return Operator(kind, sem.contraction(kind), (normal(rng, *extent(x)), normal(rng, *extent(w))), frozenset((1,)))


@st.composite
def recurrent_layers(draw: Draw) -> Operator:
    rng = np.random.default_rng(draw(SEEDS))
    directions, rows, features = draw(st.sampled_from((1, 1, 2))), draw(SIZES), draw(SIZES)
    kind = ops.Recurrent(0, 1, 2, draw(COIN), directions, rows)
    inputs = (
        normal(rng, draw(SIZES), draw(SIZES), features),
        normal(rng, directions, rows, features),
        normal(rng, directions, 2 * rows) if kind.present else None,
    )
    function = sem.recurrence(kind, normal(rng, directions, rows, rows), directions == 2)
    return Operator(kind, function, inputs, frozenset((1, 2)))
