"""Random operators that an affine may or may not cross; each takes a value and gives the new one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from graph_builder import BOOL, DOUBLE, FLOAT, Builder, RejectedError, Var

Passer = Callable[[Builder, Var], Var]


def identity(b: Builder, x: Var) -> Var:
    return b.one("Identity", [x])


def dropout(b: Builder, x: Var) -> Var:
    if b.chance(0.15):  # with its mask, which nobody reads
        y, _ = b.add("Dropout", [x], 2)
        b.vars.append(y)
        return y
    if b.opset >= 12:
        inputs: list[Any] = [x]
        if b.chance(0.4):
            inputs += [b.constant(0.5, FLOAT), b.initializer(np.asarray(False), BOOL)]
        return b.one("Dropout", inputs)
    return b.one("Dropout", [x], ratio=b.pick([None, 0.3]))


def cast(b: Builder, x: Var) -> Var:
    """To the other of float and double, where the comparison allows for the rounding of floats."""
    if b.options.elem_type == DOUBLE:
        return b.one("Cast", [x], to=DOUBLE)
    to = b.pick([DOUBLE, x.elem_type, b.options.elem_type])
    y = b.one("Cast", [x], to=to)
    y.elem_type = to
    return y


def transpose(b: Builder, x: Var) -> Var:
    perm = [int(axis) for axis in b.rng.permutation(x.rank)]
    if b.chance(0.5) and x.rank >= 2:  # to and from channels last
        perm = b.pick([[0, *range(2, x.rank), 1], [0, x.rank - 1, *range(1, x.rank - 1)]])
    return b.one("Transpose", [x], perm=None if b.chance(0.1) else perm)


def reshape(b: Builder, x: Var) -> Var:
    """Neighbouring axes merged, or one split; sizes told as numbers, 0, -1, or computed."""
    groups: list[list[int]] = [[axis] for axis in range(x.rank)]
    for _ in range(b.integer(1, 2)):
        at = b.integer(0, len(groups) - 1) if groups else 0
        if at + 1 < len(groups) and b.chance(0.6):
            groups[at : at + 2] = [groups[at] + groups[at + 1]]
    parts: list[list[int | None]] = []  # the new sizes of each group; None where they are symbolic
    for group in groups:
        sizes = [x.dims[axis] for axis in group]
        product = None if None in sizes else math.prod(size for size in sizes if size is not None)
        parts.append(_factors(b, product) if product and b.chance(0.6) else [product])
    if b.chance(0.05) and x.is_static:
        total = math.prod(size or 1 for size in x.dims)
        parts, groups = [_factors(b, total)], [list(range(x.rank))]
    target: list[int | None] = [size for part in parts for size in part]
    sources = [
        group[0] if len(group) == 1 and len(part) == 1 else None
        for group, part in zip(groups, parts, strict=True)
        for _ in part
    ]
    return _reshaped(b, x, target, sources)


def _factors(b: Builder, number: int) -> list[int | None]:
    """Sizes with this product, in two or three axes."""
    first = b.pick([d for d in range(1, number + 1) if number % d == 0])
    rest = number // first
    if rest > 1 and b.chance(0.3):
        second = b.pick([d for d in range(1, rest + 1) if rest % d == 0])
        return [first, second, rest // second]
    return [first, rest]


def _reshaped(b: Builder, x: Var, target: list[int | None], sources: list[int | None]) -> Var:
    said: list[int | None] = list(target)
    for i, source in enumerate(sources):
        if source == i and (target[i] is None or b.chance(0.2)):
            said[i] = 0
    unknown = [i for i, size in enumerate(said) if size is None]
    if len(unknown) == 1 or (not unknown and b.chance(0.3)):
        known = [i for i, size in enumerate(said) if size != 0] or unknown
        at = unknown[0] if unknown else b.pick(known) if known else 0
        if said and said[at] != 0:
            said[at] = -1
        unknown = []
    if unknown or (b.chance(0.1) and None not in said and -1 not in said):
        return _computed_reshape(b, x, said, sources)
    allowzero = 1 if b.opset >= 14 and 0 not in said and b.chance(0.1) else None
    return b.one("Reshape", [x, b.integers(*(size for size in said if size is not None))], allowzero=allowzero)


def _computed_reshape(b: Builder, x: Var, said: list[int | None], sources: list[int | None]) -> Var:
    """The shape as exporters compute it: Shape, Gather, Concat."""
    shape = b.made("Shape", [x.name])
    x.reads += 1
    parts = []
    free = 1
    for size, source in zip(said, sources, strict=True):
        if size is None and source is None:
            free -= 1
        if source is not None and (size is None or size == 0):
            parts.append(b.made("Gather", [shape, b.integers(source)], axis=0))
        else:
            parts.append(b.integers(-1 if size is None else size))
    if free < 0 or not parts:
        raise RejectedError("two sizes are open")
    return b.one("Reshape", [x, b.made("Concat", parts, axis=0)])


def flatten(b: Builder, x: Var) -> Var:
    axes = [axis for axis in (1, 1, 0, 2, -1, x.rank) if -x.rank <= axis <= x.rank]
    return b.one("Flatten", [x], axis=b.pick([None, *axes] if x.rank else axes))


def squeeze(b: Builder, x: Var) -> Var:
    ones = [axis for axis, size in enumerate(x.dims) if size == 1]
    if not ones:
        raise RejectedError("no axis of size 1")
    axes = [axis - x.rank if b.chance(0.3) else axis for axis in ones if b.chance(0.7)] or [ones[0]]
    if b.chance(0.1) and x.is_static:
        return b.one("Squeeze", [x])
    if b.opset >= 13:
        return b.one("Squeeze", [x, b.integers(*axes)])
    return b.one("Squeeze", [x], axes=[axis % x.rank for axis in axes])


def unsqueeze(b: Builder, x: Var) -> Var:
    axes = sorted({b.integer(0, x.rank) for _ in range(b.pick([1, 1, 2]))})
    if b.opset >= 13:
        return b.one("Unsqueeze", [x, b.integers(*axes)])
    return b.one("Unsqueeze", [x], axes=axes)


def slice_(b: Builder, x: Var) -> Var:
    axis = b.integer(0, x.rank - 1)
    size = min(world.shape[axis] for world in x.worlds)
    start = b.integer(0, size - 1)
    end = b.pick([2**31 - 1, b.integer(start + 1, size), -1])
    step = b.pick([1, 1, 2, -1, -2])
    if step < 0:
        start, end = b.pick([(-1, -(2**31)), (size - 1, -(2**31)), (size + 3, 0), (-1, -size - 1)])
    elif b.chance(0.2):
        start, end = -size - b.integer(0, 2), size + b.integer(-1, 2)
    told = axis - x.rank if b.chance(0.3) else axis
    if b.opset >= 10:
        more = [b.integers(told), b.integers(step)] if step != 1 or b.chance(0.5) else [b.integers(told)]
        return b.one("Slice", [x, b.integers(start), b.integers(end), *more])
    if step != 1:
        raise RejectedError("Slice of opset 9 has no steps")
    return b.one("Slice", [x], starts=[start], ends=[end], axes=[axis])


def split(b: Builder, x: Var) -> Var:
    axis = b.pick([axis for axis, size in enumerate(x.dims) if size is not None and size > 1] or [None])
    if axis is None:
        raise RejectedError("nothing to split")
    size = x.dims[axis] or 1
    count = b.pick([n for n in (2, 2, 3) if n <= size])
    told = axis - x.rank if b.chance(0.2) and b.opset >= 11 else axis
    if (size % count == 0 or b.opset >= 18) and b.chance(0.4):
        more = {"num_outputs": count} if b.opset >= 18 else {}
        parts = b.add("Split", [x], count, axis=told, **more)
    else:
        cuts = sorted(b.rng.choice(np.arange(1, size), count - 1, replace=False))
        sizes = [int(n) for n in np.diff([0, *cuts, size])]
        if b.opset >= 13:
            parts = b.add("Split", [x, b.integers(*sizes)], count, axis=told)
        else:
            parts = b.add("Split", [x], count, axis=told, split=sizes)
    b.vars += parts
    return b.pick(parts)


def gather(b: Builder, x: Var) -> Var:
    axis = b.integer(0, x.rank - 1)
    size = min(world.shape[axis] for world in x.worlds)
    indices = [b.integer(0, size - 1) for _ in range(b.integer(1, size))]
    if b.chance(0.4):
        indices = [int(i) for i in b.rng.permutation(size)]
    if b.chance(0.2):
        indices = [i - size if x.dims[axis] is not None else i for i in indices]
    array = np.asarray(indices if b.chance(0.8) else indices[0], np.int64)
    return b.one("Gather", [x, b.initializer(array, 7)], axis=b.pick([axis, axis - x.rank]))


def expand(b: Builder, x: Var) -> Var:
    target = [b.integer(2, 3) if size == 1 and b.chance(0.7) else 1 for size in x.dims]
    if b.chance(0.2):
        target = [b.integer(1, 2), *target]
    if b.chance(0.3):
        target = [size if size and at == 1 else at for at, size in zip(target[-x.rank :], x.dims, strict=True)]
    return b.one("Expand", [x, b.integers(*target)])


def tile(b: Builder, x: Var) -> Var:
    return b.one("Tile", [x, b.integers(*(b.pick([1, 1, 2, 3]) for _ in range(x.rank)))])


def depth_to_space(b: Builder, x: Var) -> Var:
    if x.rank != 4 or x.dims[1] is None or x.dims[1] % 4:
        raise RejectedError("no image of four channels")
    return b.one("DepthToSpace", [x], blocksize=2, mode=b.pick([None, "DCR", "CRD"]) if b.opset >= 11 else None)


def space_to_depth(b: Builder, x: Var) -> Var:
    if x.rank != 4 or any(world.shape[axis] % 2 for world in x.worlds for axis in (2, 3)):
        raise RejectedError("no image of even size")
    return b.one("SpaceToDepth", [x], blocksize=2)


def shuffle(b: Builder, x: Var) -> Var:
    """Reshape, Transpose, Reshape: the channel shuffle."""
    channels = x.dims[1] if x.rank >= 3 else None
    groups = [g for g in (2, 3) if channels and channels % g == 0]
    if not groups or None in x.dims[2:] or channels is None:
        raise RejectedError("nothing to shuffle")
    group, rest = b.pick(groups), [size or 1 for size in x.dims[2:]]
    y = b.one("Reshape", [x, b.integers(b.pick([0, -1]), group, channels // group, *rest)])
    y = b.one("Transpose", [y], perm=[0, 2, 1, *range(3, y.rank)])
    return b.one("Reshape", [y, b.integers(b.pick([0, -1]), channels, *rest)])


def pool(b: Builder, x: Var) -> Var:
    if x.rank < 3:
        raise RejectedError("nothing to pool")
    average = b.chance(0.6)
    if not average and b.chance(0.1):  # with its indices, which nobody reads
        y, _ = b.add("MaxPool", [x], 2, kernel_shape=[1] * (x.rank - 2))
        b.vars.append(y)
        return y
    kernel = [b.integer(1, 3) for _ in range(x.rank - 2)]
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    if b.chance(0.5):
        attributes["strides"] = [b.integer(1, 2) for _ in kernel]
    if b.opset >= (19 if average else 10) and b.chance(0.1):
        attributes["dilations"] = [b.integer(1, 2) for _ in kernel]
    if b.opset >= 10 and b.chance(0.25):
        attributes["ceil_mode"] = 1
    which = b.pick(["none", "pads", "auto"], [5, 3, 1])
    if which == "pads":
        attributes["pads"] = [b.integer(0, k - 1) for _ in range(2) for k in kernel]
    elif which == "auto":
        attributes["auto_pad"] = b.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])
        attributes.pop("dilations", None)
        attributes.pop("ceil_mode", None)
    if average and b.chance(0.4):
        attributes["count_include_pad"] = b.pick([0, 1])
    return b.one("AveragePool" if average else "MaxPool", [x], **attributes)


def global_pool(b: Builder, x: Var) -> Var:
    if x.rank < 3:
        raise RejectedError("nothing to pool")
    return b.one(b.pick(["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"]), [x])


def reduce(b: Builder, x: Var) -> Var:
    op = b.pick(["ReduceMean", "ReduceMean", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
    if b.chance(0.05):  # no axes: all, or none
        noop = 1 if b.opset >= (13 if op == "ReduceSum" else 18) and b.chance(0.7) else None
        return b.one(op, [x], noop_with_empty_axes=noop)
    axes = [b.integer(0, x.rank - 1)] if b.chance(0.5) else list(range(2, x.rank)) or [x.rank - 1]
    axes = [axis - x.rank if b.opset >= 11 and b.chance(0.2) else axis for axis in axes]
    keepdims = b.pick([None, 0, 1])
    if b.opset >= (13 if op == "ReduceSum" else 18):
        return b.one(op, [x, b.integers(*axes)], keepdims=keepdims)
    return b.one(op, [x], axes=axes, keepdims=keepdims)


def pad(b: Builder, x: Var) -> Var:
    mode = b.pick(["reflect", "edge", "constant", "constant", None])
    smallest = [min(world.shape[axis] for world in x.worlds) for axis in range(x.rank)]
    axes = [axis for axis in range(x.rank) if b.chance(0.4)] or [x.rank - 1]
    widths = {axis: [b.integer(0, min(2, smallest[axis] - 1)) for _ in range(2)] for axis in axes}
    if mode in ("constant", None) and b.chance(0.15):  # which cuts
        axis = b.pick(axes)
        widths[axis][b.integer(0, 1)] = -b.integer(0, smallest[axis] - 1)
    if b.opset >= 18 and b.chance(0.4):
        flat = [widths[axis][side] for side in (0, 1) for axis in axes]
        return b.one("Pad", [x, b.integers(*flat), None, b.integers(*axes)], mode=mode)
    flat = [widths.get(axis, [0, 0])[side] for side in (0, 1) for axis in range(x.rank)]
    if b.opset < 11:
        return b.one("Pad", [x], pads=flat, mode=mode, value=b.pick([None, 0.0, 1.5]))
    value = [b.constant(b.pick([0.0, 1.5]), x)] if b.chance(0.4) else []
    return b.one("Pad", [x, b.integers(*flat), *value], mode=mode)


def resize(b: Builder, x: Var) -> Var:
    if x.rank not in (3, 4):
        raise RejectedError("no image")
    mode = b.pick(["nearest", "linear", "cubic"] if x.rank == 4 else ["nearest", "linear"])
    factors = [1.0, 1.0, *(b.pick([2.0, 1.0, 1.5, 0.5]) for _ in range(x.rank - 2))]
    if b.chance(0.1):
        factors[1] = 2.0
    scales = b.initializer(np.asarray(factors, np.float32), FLOAT)
    if b.opset < 9:
        return b.one("Upsample", [x], scales=factors, mode=b.pick(["nearest", "linear"]))
    if b.opset < 10:
        return b.one("Upsample", [x, scales], mode=b.pick(["nearest", "linear"]))
    if b.opset < 11:
        return b.one("Resize", [x, scales], mode=b.pick(["nearest", "linear"]))
    coordinates = b.pick([None, "half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = b.pick([None, "floor", "ceil", "round_prefer_ceil"])
    elif mode == "cubic":
        attributes["cubic_coeff_a"] = b.pick([None, -0.5])
        attributes["exclude_outside"] = b.pick([None, 1])
    if b.opset >= 13 and b.chance(0.3) and x.is_static:
        sizes = [math.floor((size or 1) * factor) for size, factor in zip(x.dims, factors, strict=True)]
        return b.one("Resize", [x, None, None, b.integers(*sizes)], **attributes)
    if b.opset >= 18 and b.chance(0.2):
        some = b.initializer(np.asarray(factors[2:], np.float32), FLOAT)
        return b.one("Resize", [x, None, some], axes=b.pick([[2, 3], [-2, -1]]) if x.rank == 4 else [2], **attributes)
    roi = None if b.opset >= 13 else b.initializer(np.zeros(0, np.float32), FLOAT)
    return b.one("Resize", [x, roi, scales], **attributes)


def homogeneous(b: Builder, x: Var) -> Var:
    op = b.pick(["Relu", "Relu", "LeakyRelu", "PRelu", "Abs"])
    if op == "LeakyRelu":
        return b.one(op, [x], alpha=b.pick([None, 0.2, -0.5, 2.0]))
    if op != "PRelu":
        return b.one(op, [x])
    shape = [size if size and axis == 1 and b.chance(0.7) else 1 for axis, size in enumerate(x.dims)]
    slope = b.normal(*shape)
    while slope.ndim and slope.shape[0] == 1 and b.chance(0.8):
        slope = slope[0]
    return b.one(op, [x, b.constant(slope, x, "slope")])


def opaque(b: Builder, x: Var) -> Var:
    op = b.pick(["Sigmoid", "Tanh", "Clip", "Softmax"])
    if op == "Clip":
        if b.opset < 11:
            return b.one(op, [x], min=-0.5, max=0.9)
        return b.one(op, [x, b.constant(-0.5, x), b.constant(0.9, x)])
    return b.one(op, [x], axis=b.pick([None, x.rank - 1])) if op == "Softmax" else b.one(op, [x])


def normalisation(b: Builder, x: Var) -> Var:
    """With an epsilon that is large enough not to magnify the rounding of equal elements."""
    op = b.pick(["InstanceNormalization", "LayerNormalization", "GroupNormalization"])
    first, last = (1, 2) if op != "LayerNormalization" else (-b.integer(1, max(x.rank - 1, 1)), None)
    sizes = x.dims[first:last]
    newest = {"LayerNormalization": 17, "GroupNormalization": 21}.get(op, 7)
    if b.opset < newest or x.rank < 3 or any(size is None for size in sizes):
        raise RejectedError("no such normalisation here")
    scale, bias = (b.constant(b.normal(*(size or 1 for size in sizes)), x, role) for role in ("factor", "vector"))
    attributes: dict[str, Any] = {"epsilon": 0.5}
    if op == "LayerNormalization":
        attributes["axis"] = first
    if op == "GroupNormalization":
        attributes["num_groups"] = b.pick([size for size in (1, 2, 3) if (sizes[0] or 1) % size == 0])
    return b.one(op, [x, scale, *([bias] if op != "LayerNormalization" or b.chance(0.7) else [])], **attributes)


def enlarging(b: Builder, x: Var) -> Var:
    """A constant that gives the value another shape, or a Sum with one, or a constant divided by the value."""
    which = b.pick(["more axes", "longer", "sum", "reciprocal"])
    if which == "reciprocal":
        return b.one("Div", [b.constant(b.normal(), x), b.one("Sigmoid", [x])], like=1)
    if which == "sum":
        return b.one("Sum", [x, b.constant(b.normal(), x), *([x] if b.chance(0.2) else [])])
    op = b.pick(["Add", "Mul", "Sub"])
    if which == "more axes":
        return b.one(op, [x, b.constant(b.normal(1, *[1] * x.rank), x)])
    return b.one(op, [x, b.constant(b.normal(*(b.integer(2, 3) if size == 1 else 1 for size in x.dims)), x)])


def constant_bias(b: Builder, x: Var) -> Var:
    """A scalar or vector added, or a number multiplied: no normalisation."""
    op = b.pick(["Add", "Mul", "Sub"])
    size = x.dims[-1] if x.rank and op == "Add" and b.chance(0.5) else None
    return b.one(op, [x, b.constant(b.normal(size) if size else b.normal(), x, "bias")])


PASSERS: list[tuple[Passer, float]] = [
    (identity, 1),
    (dropout, 1),
    (cast, 0.7),
    (transpose, 2.5),
    (reshape, 2.5),
    (flatten, 1),
    (squeeze, 1),
    (unsqueeze, 1),
    (slice_, 1.5),
    (split, 1),
    (gather, 1),
    (expand, 0.7),
    (tile, 0.6),
    (depth_to_space, 1),
    (space_to_depth, 1),
    (shuffle, 0.8),
    (pool, 2),
    (global_pool, 0.7),
    (reduce, 1),
    (pad, 1),
    (resize, 1),
    (homogeneous, 1.5),
    (opaque, 0.5),
    (normalisation, 0.8),
    (constant_bias, 0.7),
    (enlarging, 0.3),
]
