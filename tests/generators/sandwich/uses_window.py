"""Uses of the operators over windows: pools, Pad, LRN, and the folding of windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from generators.sandwich.use import Draft, Maker, given, index

Setting = dict[str, Any]

PLAIN: tuple[tuple[tuple[int, ...], Setting], ...] = (
    ((2, 3, 4, 5), {"kernel_shape": [2, 2]}),
    ((2, 3, 4, 5), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ((2, 3, 4, 5), {"kernel_shape": [1, 1], "strides": [2, 3]}),
    ((2, 3, 4, 5), {"kernel_shape": [4, 5]}),
    ((2, 3, 5, 5), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ((2, 3, 5, 5), {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1]}),
    ((2, 3, 4, 6), {"kernel_shape": [3, 2], "pads": [0, 1, 1, 0], "strides": [1, 2]}),
    ((3, 3, 3, 3), {"kernel_shape": [2, 2]}),
    ((3, 3, 3, 3), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ((1, 2, 5, 4), {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2]}),
    ((2, 3, 6), {"kernel_shape": [3], "strides": [2]}),
    ((2, 3, 6), {"kernel_shape": [3], "pads": [1, 1]}),
    ((1, 2, 4, 4, 4), {"kernel_shape": [2, 2, 2]}),
    ((1, 2, 4, 4, 4), {"kernel_shape": [2, 3, 2], "pads": [0, 1, 0, 1, 1, 0], "strides": [2, 1, 3]}),
)
AUTO: tuple[tuple[tuple[int, ...], Setting], ...] = (
    ((2, 3, 4, 5), {"kernel_shape": [2, 2]}),
    ((2, 3, 5, 5), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ((2, 3, 5, 4), {"kernel_shape": [2, 4], "strides": [3, 1]}),
    ((1, 3, 6), {"kernel_shape": [2], "strides": [4]}),
)
CEIL: tuple[tuple[tuple[int, ...], Setting], ...] = (
    ((2, 3, 4, 4), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ((2, 3, 2, 2), {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1]}),
    ((2, 3, 5, 6), {"kernel_shape": [2, 2], "strides": [2, 3], "pads": [0, 0, 1, 1]}),
    ((1, 1, 2, 2), {"kernel_shape": [1, 1], "strides": [2, 2]}),
    ((2, 3, 6), {"kernel_shape": [2], "strides": [3], "pads": [1, 1]}),
    ((2, 3, 7), {"kernel_shape": [3], "strides": [4]}),
)
DILATED: tuple[tuple[tuple[int, ...], Setting], ...] = (
    ((2, 3, 5, 5), {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    ((2, 3, 5, 6), {"kernel_shape": [2, 3], "dilations": [3, 2], "strides": [1, 2], "pads": [1, 1, 1, 1]}),
    ((2, 3, 6), {"kernel_shape": [3], "dilations": [2], "pads": [2, 0]}),
)


def pools(m: Maker) -> Iterator[Draft]:
    """AveragePool, MaxPool and LpPool under every attribute."""
    for op in ("AveragePool", "MaxPool", "LpPool"):
        for shape, setting in (*PLAIN, *CEIL, *DILATED):
            yield Draft(op, (m.x(*shape),), setting)
        for shape, setting in (*CEIL, *DILATED, *PLAIN[1:7]):
            yield Draft(op, (m.x(*shape),), {**setting, "ceil_mode": 1})
        for shape, setting in AUTO:
            for auto in ("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"):
                yield Draft(op, (m.x(*shape),), {**setting, "auto_pad": auto})
                if auto != "NOTSET":
                    yield Draft(op, (m.x(*shape),), {**setting, "auto_pad": auto, "ceil_mode": 1})
        dilated = {"kernel_shape": [2, 2], "dilations": [2, 2], "strides": [2, 1]}
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            yield Draft(op, (m.x(1, 2, 5, 6),), {**dilated, "auto_pad": auto})
    for shape, setting in (*PLAIN[4:10], *CEIL, *DILATED, *AUTO):
        for include in (0, 1):
            yield Draft("AveragePool", (m.x(*shape),), {**setting, "count_include_pad": include})
            yield Draft("AveragePool", (m.x(*shape),), {**setting, "count_include_pad": include, "ceil_mode": 1})
    for shape, setting in AUTO:
        for auto in ("SAME_UPPER", "SAME_LOWER"):
            yield Draft("AveragePool", (m.x(*shape),), {**setting, "count_include_pad": 1, "auto_pad": auto})
    for shape, setting in (*PLAIN[1:6], CEIL[0], DILATED[0]):
        for order in (0, 1):
            yield Draft("MaxPool", (m.x(*shape),), {**setting, "storage_order": order}, (True, True))
    for p in (1, 2, 3, 4):
        for shape, setting in (PLAIN[1], PLAIN[5], PLAIN[10]):
            yield Draft("LpPool", (m.x(*shape),), {**setting, "p": p})
    unpool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    where = index([[[[5, 7], [13, 15]]]])
    yield Draft("MaxUnpool", (m.x(1, 1, 2, 2), where), unpool)
    yield Draft("MaxUnpool", (m.x(1, 1, 2, 2), where, index([1, 1, 5, 5])), unpool)
    yield Draft(
        "MaxRoiPool",
        (m.x(1, 2, 6, 6), given([[0, 0, 0, 3, 3], [0, 1, 1, 5, 4]], role="weight")),
        {"pooled_shape": [2, 2]},
    )


def paddings(m: Maker) -> Iterator[Draft]:
    """Pad: every mode, negative amounts, axes, the value absent, zero and not."""
    amounts: tuple[tuple[tuple[int, ...], list[int]], ...] = (
        ((2, 3, 4, 5), [0, 0, 1, 2, 0, 0, 2, 1]),
        ((2, 3, 4, 5), [0, 1, 0, 0, 0, 1, 0, 0]),
        ((2, 3, 4, 5), [0, 0, -1, 0, 0, 0, 0, -2]),
        ((2, 3, 4, 5), [0, 0, 2, -1, 0, 0, -1, 2]),
        ((2, 3, 4, 5), [0, -1, 0, 0, 0, 0, 0, 0]),
        ((2, 3, 4, 5), [0] * 8),
        ((3, 3, 3), [0, 0, 1, 0, 0, 1]),
        ((3, 4), [1, 0, 0, 2]),
        ((4,), [2, 1]),
        ((4,), [-1, -1]),
    )
    for shape, pads in amounts:
        for mode in ("constant", "reflect", "edge", "wrap"):
            yield Draft("Pad", (m.x(*shape), index(pads)), {"mode": mode})
            if mode != "wrap":
                yield Draft("Pad", (m.x(*shape),), {"mode": mode, "pads": pads})
        for value in (0.0, 1.5):
            yield Draft("Pad", (m.x(*shape),), {"pads": pads, "value": value})
            yield Draft("Pad", (m.x(*shape), index(pads), given(value, role="weight")))
    yield Draft("Pad", (m.x(2, 3), index([1, 0, 0, 1]), None, index([0, 1])))
    for axes, pads in (([2], [1, 2]), ([-1], [0, 2]), ([3, 1], [1, 0, 2, 1]), ([1], [-1, 1]), ([-2, -1], [1, 2, 0, 1])):
        for mode in ("constant", "edge", "reflect"):
            yield Draft("Pad", (m.x(2, 3, 4, 5), index(pads), None, index(axes)), {"mode": mode})
        yield Draft("Pad", (m.x(2, 3, 4, 5), index(pads), given(-2.0, role="weight"), index(axes)))
    yield Draft("Pad", (m.x(2, 3), index([4, 5, 4, 7])), {"mode": "wrap"})
    yield Draft("Pad", (m.x(2, 0), index([0, 1, 0, 1])))
    yield Draft("Pad", (index([2, 3]), index([1, 1])))
    for shape, target, setting in (
        ((2, 3, 6, 5), [2, 3, 4, 7], {}),
        ((2, 3, 6, 5), [3, 8], {"axes": [2, 3]}),
        ((2, 3, 6, 5), [3, 8], {"axes": [-1, -2]}),
        ((2, 3, 6, 5), [5], {"axes": [1]}),
        ((3, 3), [2, 2], {}),
        ((3, 3), [4, 4], {}),
    ):
        yield Draft("CenterCropPad", (m.x(*shape), index(target)), setting)


def neighbourhoods(m: Maker) -> Iterator[Draft]:
    """LRN, Col2Im, the windows of the Fourier transforms."""
    for size in (1, 2, 3, 4, 5):
        yield Draft("LRN", (m.x(2, 5, 3, 2),), {"size": size})
        yield Draft("LRN", (m.x(2, 5, 3, 2),), {"size": size, "alpha": 0.5, "beta": 0.5, "bias": 2.0})
    yield Draft("LRN", (m.x(3, 3, 3, 3),), {"size": 3, "alpha": 1.0})
    yield Draft("LRN", (m.x(2, 4, 3),), {"size": 3, "alpha": 1.0})
    for shape, image, block, setting in (
        ((1, 5, 5), [5, 5], [1, 5], {}),
        ((2, 8, 4), [4, 4], [2, 2], {"strides": [2, 2]}),
        ((1, 12, 4), [3, 3], [2, 2], {}),
        ((1, 5, 15), [5, 5], [1, 5], {"pads": [0, 1, 0, 1]}),
        ((1, 4, 5), [6, 6], [2, 2], {"dilations": [1, 5]}),
    ):
        yield Draft("Col2Im", (m.x(*shape), index(image), index(block)), setting)
    for axis in (1, 2):
        for setting in ({}, {"inverse": 1}, {"onesided": 1}):
            last = 2 if setting.get("inverse") else 1
            yield Draft("DFT", (m.x(1, 4, 5, last),), {"axis": axis, **setting}, until=19)
            yield Draft("DFT", (m.x(1, 4, 5, last), None, index(axis)), setting)
    yield Draft("DFT", (m.x(1, 4, 5, 1), index(6), index(-2)))
    yield Draft("STFT", (m.x(1, 16, 1), index(4), m.w(8)))
    yield Draft("STFT", (m.x(1, 16, 1), index(4), None, index(8)), {"onesided": 0})
    for activation in ({}, {"activation": "silu"}, {"activation": "none"}):
        yield Draft("CausalConvWithState", (m.x(2, 4, 5), m.w(4, 1, 3)), activation, (True, True))
        yield Draft("CausalConvWithState", (m.x(2, 4, 5), m.w(4, 1, 3), m.w(4)), activation, (True, True))
        yield Draft("CausalConvWithState", (m.x(2, 3, 3), m.w(3, 1, 3), m.w(3), m.w(2, 3, 2)), activation, (True, True))
