"""Pooling, reductions, interpolation and padding: each output is computed from elements along some axes alone."""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.algebra.axes import Shape
from bnfold.algebra.ops import Aggregate, Opaque
from bnfold.graphs.indexed import alone, input_at, no_rank
from bnfold.graphs.onnx.index import Node, Value
from bnfold.graphs.onnx.kinds.facts import Attributes, Facts, Translation, normalised


def _average_pool(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    counted = attributes.get("count_include_pad", 0)
    auto_pad, pads = attributes.get("auto_pad", "NOTSET"), attributes.get("pads", [])
    ceil_mode = attributes.get("ceil_mode", 0)
    for name in ("kernel_shape", "strides", "dilations"):
        attributes.get(name)
    padded = ceil_mode or (any(pads) if auto_pad == "NOTSET" else auto_pad != "VALID")
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    law: ops.Law = "linear" if counted and padded else "mean"
    what = "padded average" if law == "linear" else "average"
    return Aggregate(tuple(range(2, len(shape))), law, what=what)


def _max_pool(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    for name in ("auto_pad", "pads", "ceil_mode", "kernel_shape", "strides", "dilations", "storage_order"):
        attributes.get(name)
    if not alone(node):
        return Opaque("unsupported", "the indices of the maxima are used")
    return _spatial(node, facts, "maximum", "maximum")


def _global_average(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _spatial(node, facts, "mean", "average")


def _global_max(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _spatial(node, facts, "maximum", "maximum")


def _spatial(node: Node, facts: Facts, law: ops.Law, what: str) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    return no_rank(node) if shape is None else _over(tuple(range(2, len(shape))), shape, law, True, what)


def _reduce_mean(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _reduced(node, attributes, facts, "mean", "average")


def _reduce_sum(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _reduced(node, attributes, facts, "linear", "sum")


def _reduce_extreme(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _reduced(node, attributes, facts, "maximum", "maximum or minimum")


def _reduced(node: Node, attributes: Attributes, facts: Facts, law: ops.Law, what: str) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    keepdims, noop = attributes.get("keepdims", 1), attributes.get("noop_with_empty_axes", 0)
    axes = attributes.get("axes")
    given = input_at(node, 1)
    if given is not None:
        axes = facts.integers(given)
        if axes is None:
            return Opaque("dynamic-shape", "the axes that it reduces are known only at run time")
    if not axes:
        axes = [] if noop else range(len(shape))
    return _over(normalised(axes, len(shape)), shape, law, bool(keepdims), what)


def _over(axes: tuple[int, ...], shape: Shape, law: ops.Law, keepdims: bool, what: str) -> ops.Kind:
    """Over no elements, runtimes give what they like, whatever was done to them."""
    if any(shape[axis] == 0 for axis in axes):
        return Opaque("unsupported", f"it takes the {what} of no elements")
    return Aggregate(axes, law, keepdims=keepdims, what=what)


def _resize(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    mode = attributes.get("mode", "nearest")
    coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
    for name in (
        *("antialias", "axes", "cubic_coeff_a", "exclude_outside", "extrapolation_value"),
        *("keep_aspect_ratio_policy", "nearest_mode"),
    ):
        attributes.get(name)
    if coordinates == "tf_crop_and_resize":
        return Opaque("not-equivariant", "a Resize that crops extrapolates with a fixed value")
    scales = input_at(node, 2 if node.opset > 10 else 1)
    return _interpolated(node, facts, mode, scales, attributes.get("axes"))


def _upsample(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    given = attributes.get("scales")
    kind = _interpolated(node, facts, attributes.get("mode", "nearest"), input_at(node, 1), None)
    if given is None or isinstance(kind, Opaque):
        return kind
    return Aggregate(tuple(axis for axis, scale in enumerate(given) if scale != 1), "mean", what="interpolation")


def _interpolated(node: Node, facts: Facts, mode: str, scales: Value | None, axes: list[int] | None) -> ops.Kind:
    """The weights of every interpolation sum to one, at borders too, where the nearest elements stand in.

    An axis is left alone only if its size is known to stay and no factor other than one is given for it.
    """
    x, y = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if mode not in ("nearest", "linear", "cubic"):
        return Opaque("unsupported", f"interpolation '{mode}' is not understood")
    if x is None or y is None:
        return no_rank(node)
    touched = {axis for axis, (old, new) in enumerate(zip(x, y, strict=True)) if old is None or old != new}
    known = facts.floating(scales)
    if known is not None:
        places = range(len(x)) if axes is None else axes
        touched |= {axis % len(x) for axis, scale in zip(places, known.read().ravel(), strict=False) if scale != 1}
    elif scales is not None and facts.shape(scales) != (0,):
        touched |= set(range(len(x))) if axes is None else {axis % len(x) for axis in axes}
    return Aggregate(tuple(sorted(touched)), "mean", what="interpolation")


def _pad(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    mode = attributes.get("mode", "constant")
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    value = attributes.get("value", 0.0)
    pads = attributes.get("pads") if node.opset < 11 else facts.integers(input_at(node, 1))
    filler, chosen = input_at(node, 2), input_at(node, 3)
    axes = range(len(shape)) if chosen is None else facts.integers(chosen)
    if pads is None or axes is None:
        return Opaque("dynamic-shape", "how much it pads is known only at run time")
    if filler is not None:
        known = facts.floating(filler)
        value = float(known.float64().ravel()[0]) if known is not None else float("nan")
    count = len(pads) // 2
    padded = {axis % len(shape) for axis, a, b in zip(axes, pads[:count], pads[count:], strict=True) if a or b}
    if mode in ("reflect", "edge", "wrap"):
        return Aggregate(tuple(sorted(padded)), "mean", what=f"{mode} padding")
    if mode != "constant" or (value != 0 and padded):
        return Opaque("not-equivariant", "padding with a constant other than zero does not commute with an affine map")
    return Aggregate(tuple(sorted(padded)), "linear" if padded else "mean", what="zero padding")


TABLE = {
    "AveragePool": Translation(_average_pool, 22),
    "GlobalAveragePool": Translation(_global_average, 22),
    "GlobalMaxPool": Translation(_global_max, 22),
    "MaxPool": Translation(_max_pool, 22),
    "Pad": Translation(_pad, 25),
    "ReduceMax": Translation(_reduce_extreme, 20),
    "ReduceMean": Translation(_reduce_mean, 18),
    "ReduceMin": Translation(_reduce_extreme, 20),
    "ReduceSum": Translation(_reduce_sum, 13),
    "Resize": Translation(_resize, 19),
    "Upsample": Translation(_upsample, 9),
}
