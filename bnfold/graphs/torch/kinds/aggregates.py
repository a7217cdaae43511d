"""Pooling, reductions, interpolation and padding: each output is computed from elements along some axes alone."""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.algebra.ops import Aggregate, Opaque
from bnfold.graphs.indexed import alone, no_rank
from bnfold.graphs.torch.index import Node
from bnfold.graphs.torch.kinds.facts import Arguments, Facts, normalised


def _average_pool(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("kernel_size", "stride", "ceil_mode")
    padding, counted = arguments.get("padding", 0), arguments.get("count_include_pad", True)
    padded = any(padding) if isinstance(padding, list) else bool(padding)
    if (counted and padded) or arguments.get("divisor_override") is not None:
        return _windowed(node, facts, "linear", "padded average")
    return _windowed(node, facts, "mean", "average")


def _adaptive_average(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("output_size")
    return _windowed(node, facts, "mean", "average")


def _max_pool(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("kernel_size", "stride", "padding", "dilation", "ceil_mode", "output_size")
    if not alone(node):
        return Opaque("unsupported", "the indices of the maxima are used")
    return _windowed(node, facts, "maximum", "maximum")


def _interpolation(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    """The weights of every interpolation sum to one, at borders too, where the nearest elements stand in."""
    arguments.skip("output_size", "align_corners", "scale_factors", "scales", "scales_d", "scales_h", "scales_w")
    return _windowed(node, facts, "mean", "interpolation")


def _windowed(node: Node, facts: Facts, law: ops.Law, what: str) -> ops.Kind:
    """An operator over the last axes, as many as its name says."""
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    spatial = next(int(digit) for digit in "123" if f"{digit}d" in node.op)
    return Aggregate(tuple(range(len(shape) - spatial, len(shape))), law, what=what)


def _mean(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    return _reduced(node, arguments, facts, "mean", "average")


def _sum(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    return _reduced(node, arguments, facts, "linear", "sum")


def _extreme(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    if not alone(node):
        return Opaque("unsupported", "the indices of the maxima are used")
    if len(node.inputs) > 1:
        return Opaque("not-equivariant", f"{node.op} of two values does not commute with an affine map")
    return _reduced(node, arguments, facts, "maximum", "maximum or minimum")


def _reduced(node: Node, arguments: Arguments, facts: Facts, law: ops.Law, what: str) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    if arguments.get("dtype") is not None:
        return Opaque("unsupported", f"{node.op} to another type is not understood")
    given, keepdims = arguments.get("dim"), bool(arguments.get("keepdim", False))
    axes = range(len(shape)) if given is None or given == [] else given
    return Aggregate(normalised(axes, len(shape)), law, keepdims=keepdims, what=what)


def _pad(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    """`pad` counts from the last axis forward: (begin, end) of the last axis, of the one before it, and so on."""
    shape, pads = facts.shape(node.inputs[0]), arguments.get("pad", arguments.get("padding"))
    mode = arguments.get("mode", "constant") if node.op == "pad" else node.op
    filler = arguments.get("value")
    if shape is None:
        return no_rank(node)
    pairs = zip(pads[::2], pads[1::2], strict=True)
    padded = tuple(sorted(len(shape) - 1 - at for at, (begin, end) in enumerate(pairs) if begin != 0 or end != 0))
    if mode not in ("constant", "constant_pad_nd"):
        return Aggregate(padded, "mean", what="padding by its own elements")
    if padded and filler:
        return Opaque("not-equivariant", "padding with a constant other than zero does not commute with an affine map")
    return Aggregate(padded, "linear" if padded else "mean", what="zero padding")


_SPATIAL = ("1d", "2d", "3d")

TABLE = {
    **{f"avg_pool{rank}": _average_pool for rank in _SPATIAL},
    **{f"adaptive_avg_pool{rank}": _adaptive_average for rank in _SPATIAL},
    **{f"_adaptive_avg_pool{rank}": _adaptive_average for rank in _SPATIAL},
    **{f"max_pool{rank}": _max_pool for rank in _SPATIAL},
    **{f"max_pool{rank}_with_indices": _max_pool for rank in _SPATIAL},
    **{f"adaptive_max_pool{rank}": _max_pool for rank in _SPATIAL},
    **{f"upsample_nearest{rank}": _interpolation for rank in _SPATIAL},
    **{f"_upsample_nearest_exact{rank}": _interpolation for rank in _SPATIAL},
    "upsample_linear1d": _interpolation,
    "upsample_bilinear2d": _interpolation,
    "_upsample_bilinear2d_aa": _interpolation,
    "upsample_bicubic2d": _interpolation,
    "_upsample_bicubic2d_aa": _interpolation,
    "upsample_trilinear3d": _interpolation,
    "mean": _mean,
    "sum": _sum,
    **dict.fromkeys(("amax", "amin", "max", "min"), _extreme),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **{f"{kind}_pad{rank}": _pad for kind in ("reflection", "replication") for rank in _SPATIAL},
}
