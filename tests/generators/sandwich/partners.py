"""The neighbours of a use: BatchNorms, chains and linear operators, above a given shape or below one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from generators.sandwich.affines import chain, norm
from generators.sandwich.build import Build, Value

AFFINE = ("bn", "chain")
LINEAR = ("conv", "convt", "gemm", "matmul")


def above(build: Build, kinds: Sequence[str], shape: tuple[int, ...], source: Value | None = None) -> Value:
    """A value of this shape that comes out of these partners, the last of them nearest."""
    if not kinds:
        return build.input(build.data(*shape)) if source is None else source
    *rest, kind = kinds
    if kind in AFFINE or source is not None:
        return below(build, kind if kind in AFFINE else "chain", above(build, rest, shape, source))
    maker = {"conv": _conv_above, "convt": _transposed_above, "gemm": _gemm_above, "matmul": _matmul_above}[kind]
    return maker(build, rest, shape)


def fits_above(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether the partner can give this shape."""
    if kind == "chain":
        return True
    if kind == "bn":
        return len(shape) >= 1
    if 0 in shape:
        return False
    return {
        "conv": 3 <= len(shape) <= 5,
        "convt": 3 <= len(shape) <= 5,
        "gemm": len(shape) == 2,
        "matmul": len(shape) >= 1,
    }[kind]


def _conv_above(build: Build, rest: Sequence[str], shape: tuple[int, ...]) -> Value:
    batch, features, *space = shape
    group = build.pick([g for g in (1, 1, 1, 2, 3, features) if features % g == 0])
    entering = group * build.between(1, 3 if group < 4 else 1)
    kernel, begin, end, strides, wanted = [], [], [], [], []
    padded = build.chance(0.4)
    for size in space:
        k, s = build.between(1, 3), build.pick((1, 1, 1, 2))
        before, after = (build.between(0, k - 1), build.between(0, k - 1)) if padded else (0, 0)
        needed = (size - 1) * s + k - before - after
        if needed < 1:
            k, s, before, after, needed = 1, 1, 0, 0, size
        kernel.append(k)
        strides.append(s)
        begin.append(before)
        end.append(after)
        wanted.append(needed)
    x = above(build, rest, (batch, entering, *wanted))
    settings: dict[str, Any] = {}
    if any(begin) or any(end) or build.chance(0.3):
        settings["pads"] = begin + end
    if any(s > 1 for s in strides) or build.chance(0.3):
        settings["strides"] = strides
    if group > 1 or build.chance(0.2):
        settings["group"] = group
    if build.chance(0.5):
        settings["kernel_shape"] = kernel
    inputs = [x, build.const(build.weight(features, entering // group, *kernel))]
    if build.chance(0.5):
        inputs.append(build.const(build.weight(features)))
    return build.add("Conv", inputs, shape, **settings)


def _transposed_above(build: Build, rest: Sequence[str], shape: tuple[int, ...]) -> Value:
    batch, features, *space = shape
    group = build.pick([g for g in (1, 1, 1, 2, features) if features % g == 0])
    entering = group * build.between(1, 3 if group < 4 else 1)
    kernel, begin, end, strides, wanted = [], [], [], [], []
    for size in space:
        k, s = build.between(1, 3), build.pick((1, 1, 2))
        before, after = (build.between(0, k - 1), 0) if build.chance(0.3) else (0, 0)
        reach = size - k + before + after
        if reach < 0 or reach % s:
            k, s, before, after, reach = 1, 1, 0, 0, size - 1
        kernel.append(k)
        strides.append(s)
        begin.append(before)
        end.append(after)
        wanted.append(reach // s + 1)
    x = above(build, rest, (batch, entering, *wanted))
    settings: dict[str, Any] = {"strides": strides, "group": group}
    if any(begin) or any(end):
        settings["pads"] = begin + end
    inputs = [x, build.const(build.weight(entering, features // group, *kernel))]
    if build.chance(0.5):
        inputs.append(build.const(build.weight(features)))
    return build.add("ConvTranspose", inputs, shape, **settings)


def _gemm_above(build: Build, rest: Sequence[str], shape: tuple[int, ...]) -> Value:
    rows, columns = shape
    inner = build.between(1, 4)
    trans_a, trans_b = int(build.chance(0.2)), int(build.chance(0.5))
    x = above(build, rest, (inner, rows) if trans_a else (rows, inner))
    return _gemm(build, x, inner, columns, shape, trans_a, trans_b)


def _gemm(
    build: Build, x: Value, inner: int, columns: int, shape: tuple[int, ...], trans_a: int, trans_b: int
) -> Value:
    settings: dict[str, Any] = {"transA": trans_a, "transB": trans_b}
    if build.chance(0.3):
        settings |= {"alpha": 0.5, "beta": -1.5}
    inputs = [x, build.const(build.weight(*((columns, inner) if trans_b else (inner, columns))))]
    bias = build.pick((None, (columns,), (columns,), (1, columns), (shape[0], columns), (shape[0], 1), (1,), ()))
    if bias is None and build.opset < 11:
        bias = (columns,)
    if bias is not None:
        inputs.append(build.const(build.weight(*bias)))
    return build.add("Gemm", inputs, shape, **settings)


def _matmul_above(build: Build, rest: Sequence[str], shape: tuple[int, ...]) -> Value:
    inner = build.between(1, 4)
    if len(shape) >= 2 and build.chance(0.25):
        x = above(build, rest, (*shape[:-2], inner, shape[-1]))
        product = build.add("MatMul", [build.const(build.weight(shape[-2], inner)), x], shape)
    else:
        lead = (1,) * build.between(0, len(shape) - 2) if len(shape) > 2 and build.chance(0.2) else ()
        x = above(build, rest, (*shape[:-1], inner))
        product = build.add("MatMul", [x, build.const(build.weight(*lead, inner, shape[-1]))], shape)
    if build.chance(0.5):
        bias = [product, build.const(build.weight(shape[-1]))]
        return build.add("Add", bias if build.chance(0.7) else bias[::-1], shape)
    return product


def fits_below(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether the partner takes this shape."""
    if kind == "convt" and 3 <= len(shape) <= 5:
        return 0 not in shape
    return fits_above(kind, shape)


def below(build: Build, kind: str, x: Value) -> Value:
    """The value after this partner."""
    if kind == "bn":
        return norm(build, x)
    if kind == "chain":
        return chain(build, x)
    if kind == "gemm":
        columns = build.between(1, 5)
        trans_a = int(build.chance(0.2))
        rows, inner = x.shape[::-1] if trans_a else x.shape
        return _gemm(build, x, inner, columns, (rows, columns), trans_a, int(build.chance(0.5)))
    if kind == "matmul":
        return _matmul_below(build, x)
    return _conv_below(build, x) if kind == "conv" else _transposed_below(build, x)


def _matmul_below(build: Build, x: Value) -> Value:
    if x.rank >= 2 and build.chance(0.25):
        rows = build.between(1, 4)
        shape = (*x.shape[:-2], rows, x.shape[-1])
        return build.add("MatMul", [build.const(build.weight(rows, x.shape[-2])), x], shape)
    columns = build.between(1, 5)
    shape = (*x.shape[:-1], columns)
    product = build.add("MatMul", [x, build.const(build.weight(x.shape[-1], columns))], shape)
    return build.add("Add", [product, build.const(build.weight(columns))], shape) if build.chance(0.4) else product


def _conv_below(build: Build, x: Value) -> Value:
    batch, entering, *space = x.shape
    group = build.pick([g for g in (1, 1, 1, 2, 3, entering) if entering % g == 0])
    features = group * build.between(1, 3 if group < 4 else 1)
    kernel, begin, end, strides, out = [], [], [], [], []
    padded = build.chance(0.4)
    for size in space:
        k, s = build.between(1, min(3, size)), build.pick((1, 1, 2))
        before, after = (build.between(0, k - 1), build.between(0, k - 1)) if padded else (0, 0)
        kernel.append(k)
        strides.append(s)
        begin.append(before)
        end.append(after)
        out.append((size + before + after - k) // s + 1)
    settings: dict[str, Any] = {"strides": strides, "group": group}
    if any(begin) or any(end):
        settings["pads"] = begin + end
    inputs = [x, build.const(build.weight(features, entering // group, *kernel))]
    if build.chance(0.5):
        inputs.append(build.const(build.weight(features)))
    return build.add("Conv", inputs, (batch, features, *out), **settings)


def _transposed_below(build: Build, x: Value) -> Value:
    batch, entering, *space = x.shape
    group = build.pick([g for g in (1, 1, 2, entering) if entering % g == 0])
    each = build.between(1, 3)
    kernel = [build.between(1, 3) for _ in space]
    strides = [build.pick((1, 2)) for _ in space]
    out = [(size - 1) * s + k for size, s, k in zip(space, strides, kernel, strict=True)]
    inputs = [x, build.const(build.weight(entering, each, *kernel))]
    if build.chance(0.5):
        inputs.append(build.const(build.weight(each * group)))
    return build.add("ConvTranspose", inputs, (batch, each * group, *out), strides=strides, group=group)
