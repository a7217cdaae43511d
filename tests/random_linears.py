"""Random linear operators, BatchNorms and affine chains; each takes a value and gives the new one."""

from __future__ import annotations

from typing import Any

import numpy as np
from graph_builder import BFLOAT, FLOAT, HALF, Array, Builder, RejectedError, Var


def linear(b: Builder, x: Var, *, same_shape: bool = False) -> Var:
    """A linear operator that x may enter."""
    choices: list[Any] = []
    if x.rank >= 3 and x.dims[1] is not None:
        choices += [conv, conv, conv] + ([] if same_shape else [conv_transpose])
    if x.rank == 2 and (x.dims[0] is not None or x.dims[1] is not None) and not same_shape:
        choices += [gemm, gemm]
    if x.rank >= 2 and (x.dims[-1] is not None or x.dims[-2] is not None):
        choices += [matmul, matmul]
    if 2 <= x.rank <= 5 and not same_shape and b.opset >= 12 and x.dims[-1] is not None:
        choices.append(einsum)
    if not choices:
        raise RejectedError("no linear operator fits")
    chosen = b.pick(choices)
    return chosen(b, x, same_shape=same_shape)


def _weights(b: Builder, x: Var, *shape: int, fan: int) -> str:
    return b.constant(b.normal(*shape) / np.sqrt(fan), x, "weight")


def _bias(b: Builder, x: Var, size: int) -> list[str | None]:
    which = b.integer(0, 5)
    if which < 2:
        return []
    if which == 2:
        return [None]
    return [b.constant(np.zeros(size) if which == 3 else b.normal(size), x, "vector")]


def conv(b: Builder, x: Var, *, same_shape: bool = False) -> Var:
    channels = x.dims[1]
    if channels is None:
        raise RejectedError("symbolic channels")
    group = b.pick([g for g in (1, 1, 1, 2, 3, channels) if channels % g == 0])
    outer = channels if same_shape else group * b.integer(1, max(1, 6 // group))
    spatial = x.rank - 2
    kernel = [b.pick([1, 1, 2, 3, 3]) for _ in range(spatial)]
    attributes: dict[str, Any] = {"group": group if group > 1 or b.chance(0.3) else None}
    if same_shape:
        kernel = [b.pick([1, 3]) for _ in range(spatial)]
        attributes["pads"] = [(k - 1) // 2 for k in kernel] * 2
    else:
        attributes.update(_window(b, kernel))
    attributes["kernel_shape"] = kernel if b.chance(0.6) else None
    weight = _weights(b, x, outer, channels // group, *kernel, fan=channels // group * int(np.prod(kernel)))
    return b.one("Conv", [x, weight, *_bias(b, x, outer)], **attributes)


def _window(b: Builder, kernel: list[int]) -> dict[str, Any]:
    """Strides, dilations and padding at odd values."""
    spatial = len(kernel)
    out: dict[str, Any] = {}
    if b.chance(0.3):
        out["strides"] = [b.integer(1, 3) for _ in kernel]
    if b.chance(0.2):
        out["dilations"] = [b.integer(1, 2) for _ in kernel]
    which = b.pick(["none", "pads", "zeros", "auto"], [5, 3, 1, 1])
    if which == "pads":
        out["pads"] = [b.integer(0, k - 1) for _ in range(2) for k in kernel]
    elif which == "zeros":
        out["pads"] = [0] * 2 * spatial
    elif which == "auto":
        out["auto_pad"] = b.pick(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    return out


def conv_transpose(b: Builder, x: Var, *, same_shape: bool = False) -> Var:
    channels = x.dims[1]
    if channels is None:
        raise RejectedError("symbolic channels")
    group = b.pick([g for g in (1, 1, 2, channels) if channels % g == 0])
    outer = b.integer(1, 3)
    kernel = [b.pick([1, 2, 2, 3]) for _ in range(x.rank - 2)]
    attributes: dict[str, Any] = {"group": group if group > 1 else None}
    if b.chance(0.4):
        attributes["strides"] = [b.integer(1, 2) for _ in kernel]
    if b.chance(0.2):
        attributes["dilations"] = [b.integer(1, 2) for _ in kernel]
    which = b.pick(["none", "pads", "border", "auto", "extra", "shape"], [4, 2, 2, 1, 1, 1])
    if which == "pads":
        attributes["pads"] = [b.integer(0, k - 1) for _ in range(2) for k in kernel]
    elif which == "border":
        dilations = attributes.get("dilations", [1] * len(kernel))
        attributes["pads"] = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)] * 2
    elif which == "auto":
        attributes["auto_pad"] = b.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])
        attributes.pop("dilations", None)
    elif which == "extra":
        attributes["strides"] = [2] * len(kernel)
        attributes["output_padding"] = [b.integer(0, 1) for _ in kernel]
    elif which == "shape" and None not in x.dims:
        attributes["output_shape"] = [size or 1 for size in x.dims[2:]]
    weight = _weights(b, x, channels, outer, *kernel, fan=channels)
    return b.one("ConvTranspose", [x, weight, *_bias(b, x, outer * group)], **attributes)


def gemm(b: Builder, x: Var, *, same_shape: bool = False) -> Var:
    right = b.chance(0.2)  # the value as the second operand
    flipped = b.chance(0.3)
    inner_axis = (1 if flipped else 0) if right else (0 if flipped else 1)
    inner, free = x.dims[inner_axis], x.dims[1 - inner_axis]
    if inner is None:
        raise RejectedError("symbolic inner axis")
    outer = b.integer(1, 5)
    other_flipped = b.chance(0.4)
    shape = [outer, inner] if right != other_flipped else [inner, outer]
    weight = _weights(b, x, *shape, fan=inner)
    m, n = (outer, free) if right else (free, outer)
    forms = (
        [(), (1,), (1, 1)]
        + ([(n,), (n,), (n,), (1, n)] if n else [])
        + ([(m, 1)] if m else [])
        + ([(m, n)] if m and n else [])
    )
    bias: list[str | None] = []
    if b.opset < 11 or b.chance(0.7):  # C became optional in opset 11
        form = b.pick(forms)
        bias = [b.constant(b.normal(*form) if b.chance(0.8) else np.zeros(form), x, "bias")]
    elif b.chance(0.3):
        bias = [None]
    a, w = ("transB", "transA") if right else ("transA", "transB")
    return b.one(
        "Gemm",
        [weight, x, *bias] if right else [x, weight, *bias],
        **{a: 1 if flipped else None, w: 1 if other_flipped else None},
        alpha=b.pick([None, 1.0, 0.5, -2.0]),
        beta=b.pick([None, 1.0, 0.5, -2.0, 0.0], [5, 2, 2, 2, 1]),
    )


def matmul(b: Builder, x: Var, *, same_shape: bool = False) -> Var:
    if x.rank < 2:
        raise RejectedError("no matrix")
    left = x.dims[-1] is None or b.chance(0.15)  # the constant on the left
    inner = x.dims[-2] if left else x.dims[-1]
    if inner is None:
        raise RejectedError("symbolic inner axis")
    outer = inner if same_shape else b.integer(1, 5)
    shape = [outer, inner] if left else [inner, outer]
    if b.chance(0.2) and not same_shape:  # batched weights, as many or fewer axes than x has, or one more
        batch = [size or 1 for size in x.dims[:-2]]
        batch = [1 if b.chance(0.3) else size for size in batch][b.integer(0, len(batch)) :]
        shape = ([b.integer(1, 2)] if b.chance(0.1) else []) + batch + shape
    elif b.chance(0.05) and not same_shape:
        shape = [inner]
    weight = _weights(b, x, *shape, fan=inner)
    y = b.one("MatMul", [weight, x] if left else [x, weight])
    if b.chance(0.4) and y.rank and y.dims[-1] is not None:
        form = b.pick([(y.dims[-1],), (1, y.dims[-1]), (1,), ()])
        bias = b.constant(b.normal(*form), y, "bias")
        y = b.one("Add", [y, bias] if b.chance(0.5) else [bias, y])
    return y


def einsum(b: Builder, x: Var, *, same_shape: bool = False) -> Var:
    """A contraction over one or two axes of x, the weight on either side, the result in any order of axes."""
    letters = "abcdef"[: x.rank]
    static = [i for i, size in enumerate(x.dims) if size is not None]
    summed = sorted({letters[b.pick(static)] for _ in range(b.pick([1, 1, 2]))})
    kept = [letter for letter in letters if letter not in summed]
    along = [letter for letter in kept if x.dims[letters.index(letter)] is not None and b.chance(0.15)]
    outer = b.integer(1, 4)
    w = [*summed, *along, "n"]
    w = [w[i] for i in b.rng.permutation(len(w))]
    y = [*kept, "n"]
    y = y if b.chance(0.6) else [y[i] for i in b.rng.permutation(len(y))]
    shape = [outer if letter == "n" else x.dims[letters.index(letter)] or 1 for letter in w]
    weight = _weights(b, x, *shape, fan=max(shape))
    if b.chance(0.2):
        return b.one("Einsum", [weight, x], equation=f"{''.join(w)},{letters}->{''.join(y)}", like=1)
    return b.one("Einsum", [x, weight], equation=f"{letters},{''.join(w)} -> {''.join(y)}")


def recurrent(b: Builder, x: Var) -> Var:
    """LSTM, GRU or RNN over (steps, batch, features), as it is read by the next operator."""
    if x.rank != 3 or x.dims[2] is None:
        raise RejectedError("no sequence")
    op, gates = b.pick([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    hidden, directions, features = b.integer(1, 3), b.pick([1, 1, 2]), x.dims[2]
    inputs: list[Any] = [
        x,
        _weights(b, x, directions, gates * hidden, features, fan=features),
        _weights(b, x, directions, gates * hidden, hidden, fan=hidden),
    ]
    if b.chance(0.6):
        inputs.append(b.constant(b.normal(directions, 2 * gates * hidden), x))
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else None}
    if op == "GRU":
        attributes["linear_before_reset"] = b.pick([None, 1])
    if directions == 1 and b.chance(0.2):
        attributes["direction"] = "reverse"
    y, *_ = b.add(op, inputs, b.pick([1, 2]), **attributes)
    b.vars.append(y)
    return y


def norm(b: Builder, x: Var) -> Var:
    """A BatchNorm, or here and there an affine chain."""
    can_bn = x.rank >= 2 and x.dims[1] is not None
    if can_bn and b.chance(0.8):
        return batch_norm(b, x)
    return affine_chain(b, x)


def batch_norm(b: Builder, x: Var) -> Var:
    channels = x.dims[1] if x.rank >= 2 else None
    if channels is None:
        raise RejectedError("symbolic channels")
    like: Any = x
    if x.elem_type in (HALF, BFLOAT) and b.opset >= 15 and b.chance(0.5):
        like = FLOAT  # parameters may be of another type than the value
    gamma = b.normal(channels)
    flavour = b.pick(["positive", "any", "zeros", "ones"], [5, 3, 1, 1])
    if flavour == "positive":
        gamma = np.abs(gamma) + 0.1
    elif flavour == "zeros":
        gamma[b.integer(0, channels - 1)] = 0
    elif flavour == "ones":
        gamma = np.ones(channels)
    no_shift = b.chance(0.3)
    beta = np.zeros(channels) if no_shift else b.normal(channels)
    mean = np.zeros(channels) if no_shift else b.normal(channels)
    var = b.rng.uniform(0.2, 2.0, channels)
    roles = ["gamma+" if flavour in ("positive", "ones") else "gamma", "beta0" if no_shift else "vector"]
    roles += ["mean0" if no_shift else "mean", "var"]
    parameters = [b.constant(p, like, role) for p, role in zip((gamma, beta, mean, var), roles, strict=True)]
    attributes: dict[str, Any] = {"epsilon": b.pick([None, 1e-3, 0.5]), "momentum": b.pick([None, 0.8])}
    outputs = 1
    if b.opset < 9:
        attributes["spatial"] = b.pick([None, 1])
    if b.opset >= 14:
        attributes["training_mode"] = b.pick([None, 0])
    if b.chance(0.02):  # not for the fold: a parameter that is computed
        computed = b.add("ReduceMean", [x], axes=[0, *range(2, x.rank)], keepdims=0) if b.opset < 18 else []
        parameters[1] = computed[0].name if computed else parameters[1]
    elif b.opset >= 14 and b.chance(0.02):  # nor is this: statistics of the batch
        attributes["training_mode"] = 1
        outputs = b.pick([1, 3])
    y, *_ = b.add("BatchNormalization", [x, *parameters], outputs, **attributes)
    b.vars.append(y)
    if b.opset < 14 and b.chance(0.1):
        b.nodes[-1].output.extend([""] * 4)
    return y


def affine_chain(b: Builder, x: Var, axis: int | None = None) -> Var:
    """One to four of Mul, Add, Sub, Div, Neg by constants, along one axis, or now and then two."""
    if x.rank < 1:
        raise RejectedError("a scalar")
    along = [axis for axis, size in enumerate(x.dims) if size is not None]
    chosen = {b.pick(along) for _ in range(b.pick([1, 1, 1, 2]))} if along else set()
    if axis is not None:
        chosen = {axis % x.rank} & set(along)
    elif x.rank >= 2 and 1 in along and b.chance(0.6):
        chosen = {1}
    for _ in range(b.integer(1, 4)):
        if b.chance(0.08):
            x = b.one("Neg", [x])
            continue
        op = b.pick(["Mul", "Mul", "Add", "Sub", "Div"])
        c = _along(b, x, set() if b.chance(0.15) else chosen)
        if op == "Div":
            c = np.abs(c) + 0.5
        constant = b.constant(c, x, "positive" if op == "Div" else "factor")
        swapped = op != "Div" and b.chance(0.4)
        x = b.one(op, [constant, x] if swapped else [x, constant], like=1 if swapped else 0)
    return x


def _along(b: Builder, x: Var, axes: set[int]) -> Array:
    """Numbers that vary along these axes, now and then as an array that was broadcast already."""
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.dims)]
    array = b.normal(*[size or 1 for size in shape])
    if b.chance(0.3):
        array = np.abs(array) + 0.2
    if b.chance(0.1):
        array = np.broadcast_to(array, [size or 1 for size in x.dims])
    while array.ndim > 0 and array.shape[0] == 1 and b.chance(0.7):
        array = array[0]
    return array
