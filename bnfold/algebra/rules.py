"""One backward and one forward rule per kind of operator: the whole of the algebra.

Backward: `backward(kind, node, port, a)` gives steps whose demands `b_i` satisfy, for every input,
`a(op(x_0, x_1, ...)) == op'(b_0(x_0), b_1(x_1), ...)` with op' the operator after the step's edits.
Forward: `forward(kind, node, position, a, read)` gives steps with `op(.., a(x), ..) == out(op'(.., x, ..))`.
Several steps are alternatives, the better first. A refusal is a value.

In the equations of this file `a(y) = s y + t`.
"""

from __future__ import annotations

from functools import singledispatch
from itertools import accumulate

import numpy as np

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, Refusal, as_vector, compact
from bnfold.algebra.axes import Insert, Regroup, Repeat, Shape, carry_back, carry_forth, shape_text
from bnfold.algebra.contraction import pull_linear, push_linear, push_recurrent
from bnfold.algebra.edits import Demands, Drop, Node, Read, Step, Steps, Supply


@singledispatch
def backward(kind: ops.Kind, node: Node, port: int, a: Affine) -> Steps:
    """The steps that meet demand `a` on output `port`, or why there are none."""
    raise TypeError(f"no backward rule for {type(kind).__name__}")


@singledispatch
def forward(kind: ops.Kind, node: Node, position: int, a: Affine, read: Read) -> Steps:
    """The steps that let the operator read `x` where it read `a(x)` at `position`, or why there are none."""
    raise TypeError(f"no forward rule for {type(kind).__name__}")


# Opaque: nothing passes.


@backward.register
def _(kind: ops.Opaque, node: Node, port: int, a: Affine) -> Steps:
    return Refusal(kind.reason, kind.detail)


@forward.register
def _(kind: ops.Opaque, node: Node, position: int, a: Affine, read: Read) -> Steps:
    return Refusal(kind.reason, kind.detail)


# Pass: s x + t through y = x.


@backward.register
def _(kind: ops.Pass, node: Node, port: int, a: Affine) -> Steps:
    return [Step(((kind.data, a),))]


@forward.register
def _(kind: ops.Pass, node: Node, position: int, a: Affine, read: Read) -> Steps:
    return [Step(outs=(a,))]


# IndexMap: the inverse map, applied to the parameters.


@backward.register
def _(kind: ops.IndexMap, node: Node, port: int, a: Affine) -> Steps:
    moved = a.mapped(lambda parameter, neutral: carry_back(kind.steps[port], parameter, neutral))
    return moved if isinstance(moved, Refusal) else [Step(((kind.data, moved),))]


@forward.register
def _(kind: ops.IndexMap, node: Node, position: int, a: Affine, read: Read) -> Steps:
    outs = []
    for steps in kind.steps:
        moved = a.mapped(lambda parameter, neutral, steps=steps: carry_forth(steps, parameter))  # type: ignore[misc]
        if isinstance(moved, Refusal):
            return moved
        outs.append(moved)
    return [Step(outs=tuple(outs))]


# ConstAffine: y = c(x). Backward: a(c(x)) = (a c)(x), the operator goes. Or its own constants absorb a.
# Forward: c(a(x)) = (c a)(x), the operator goes.


@backward.register
def _(kind: ops.ConstAffine, node: Node, port: int, a: Affine) -> Steps:
    composed = Step(((kind.data, a.after(kind.affine)),), (Drop(node, kind.data, "output"),))
    absorbed = _absorbed(kind, a)
    return [composed] if absorbed is None else [composed, absorbed]


@forward.register
def _(kind: ops.ConstAffine, node: Node, position: int, a: Affine, read: Read) -> Steps:
    composed = Step(edits=(Drop(node, kind.data, "input"),), outs=(kind.affine.after(a),))
    to, c = kind.absorber, kind.affine
    done = (Affine.identity(a.rank),)
    if to.scale is not None and to.shift is not None:
        if any(axis != to.axis for axis in a.axes):
            return [composed]
        # y = gamma x^ + beta = k x + d: k (s x + t) + d is gamma' = s gamma, beta' = s beta + k t + d (1 - s).
        beta = Affine(a.scale, c.scale * a.shift + c.shift * (1 - a.scale))
        demands = ((to.scale, as_vector(a.scaling(), to.axis)), (to.shift, as_vector(beta, to.axis)))
        return [composed, Step(demands, outs=done, absorbs=True)]
    if a.has_scale or to.shift is None:
        return [composed]
    # y = k x + d with a bias d of its own: k (x + t) + d = k x + (d + k t).
    moved = Affine(np.ones((1,) * a.rank), to.sign * c.scale * a.shift)
    return [Step(((to.shift, moved),), outs=done, absorbs=True), composed]


def _absorbed(kind: ops.ConstAffine, a: Affine) -> Step | None:
    """`a` taken into the operator's own constants.

    y = gamma x^ + beta: gamma' = s gamma, beta' = s beta + t. y = x c: c' = s c. y = x / c: c' = c / s.
    y = x + c: c' = s c + t and x' = s x. y = x - c: c' = s c - t. y = c - x: c' = s c + t.
    """
    to = kind.absorber
    if to.scale is None and to.shift is None:
        return None
    if to.shift is None and a.has_shift:
        return None
    if to.inverse and not bool(np.all(a.scale)):
        return None
    if to.axis is not None and any(axis != to.axis for axis in a.axes):
        return None
    demands: list[tuple[int, Affine]] = []
    if to.scale is None:
        demands.append((kind.data, a.scaling()))
    else:
        scale = Affine(1 / a.scale, 0 * a.scale) if to.inverse else a.scaling()
        demands.append((to.scale, as_vector(scale, to.axis)))
    if to.shift is not None:
        demands.append((to.shift, as_vector(Affine(a.scale, to.sign * a.shift), to.axis)))
    return Step(tuple(demands), absorbs=True)


# Sum: s (x + y) + t = (s x + t) + s y: every operand gets the scale, one gets the shift.


@backward.register
def _(kind: ops.Sum, node: Node, port: int, a: Affine) -> Steps:
    scales = [_onto_operand(a.scaling(), shape, kind.y_shape) for shape in kind.shapes]
    for demand in scales:
        if isinstance(demand, Refusal):
            return demand
    if not a.has_shift:
        return [Step(tuple((i, d) for i, d in enumerate(scales) if isinstance(d, Affine)))]
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for payer, (sign, shape) in enumerate(zip(kind.signs, kind.shapes, strict=True)):
        whole = _onto_operand(Affine(a.scale, sign * a.shift), shape, kind.y_shape)
        if isinstance(whole, Refusal):
            refusals.append(whole)
            continue
        demands = [whole if i == payer else d for i, d in enumerate(scales)]
        steps.append(Step(tuple((i, d) for i, d in enumerate(demands) if isinstance(d, Affine))))
    return steps or refusals[0]


@forward.register
def _(kind: ops.Sum, node: Node, position: int, a: Affine, read: Read) -> Steps:
    if a.has_scale:
        return Refusal("not-equivariant", "the other operand of the addition is not scaled along")
    return [Step(outs=(Affine(a.scale, kind.signs[position] * a.shift).aligned(len(kind.y_shape)),))]


def _onto_operand(a: Affine, shape: Shape, y_shape: Shape) -> Affine | Refusal:
    """The demand on a broadcast operand: `a` may vary only along axes on which the operand is as long as y."""
    missing = len(y_shape) - len(shape)
    for axis in a.axes:
        size = shape[axis - missing] if axis >= missing else 1
        if size == a.size(axis):
            continue
        if size is None or isinstance(size, str):
            return Refusal("dynamic-shape", f"the size of axis {axis} of an operand {shape_text(shape)} is not known")
        return Refusal("off-channel", f"an operand of shape {shape_text(shape)} is broadcast along axis {axis}")
    return a.aligned(len(shape))


# Concat: the parameters are cut where the operands meet.


@backward.register
def _(kind: ops.Concat, node: Node, port: int, a: Affine) -> Steps:
    if kind.axis not in a.axes:
        return [Step(tuple((i, a) for i in range(len(kind.sizes))))]
    if None in kind.sizes:
        return Refusal("dynamic-shape", f"the sizes of the concatenated values along axis {kind.axis} are not known")
    bounds = list(accumulate((size for size in kind.sizes if size is not None), initial=0))

    def cut(i: int) -> Affine:
        at = slice(bounds[i], bounds[i + 1])
        return Affine(*(compact(_cut(parameter, kind.axis, at)) for parameter in (a.scale, a.shift)))

    return [Step(Demands(len(kind.sizes), cut))]


@forward.register
def _(kind: ops.Concat, node: Node, position: int, a: Affine, read: Read) -> Steps:
    if None in kind.sizes:
        return Refusal("dynamic-shape", f"the sizes of the concatenated values along axis {kind.axis} are not known")
    sizes = [size for size in kind.sizes if size is not None]

    def laid(parameter: Array, neutral: float) -> Array | Refusal:
        shape = list(parameter.shape)
        shape[kind.axis] = sum(sizes)
        out = np.full(shape, neutral)
        at = [slice(None)] * len(shape)
        at[kind.axis] = slice(sum(sizes[:position]), sum(sizes[: position + 1]))
        out[tuple(at)] = parameter
        return out

    out = a.mapped(laid)
    return out if isinstance(out, Refusal) else [Step(outs=(out,))]


def _cut(parameter: Array, axis: int, at: slice) -> Array:
    if parameter.shape[axis] == 1:
        return parameter
    index = [slice(None)] * parameter.ndim
    index[axis] = at
    return parameter[tuple(index)]


# Gate: s (x g) = (s x) g. A shift does not pass.


@backward.register
def _(kind: ops.Gate, node: Node, port: int, a: Affine) -> Steps:
    if a.has_shift:
        return Refusal("not-equivariant", "a product with a computed value passes a scale, but not a shift")
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for operand in kind.open:
        demand = _onto_operand(a, kind.shapes[operand], kind.y_shape)
        if isinstance(demand, Refusal):
            refusals.append(demand)
        else:
            steps.append(Step(((operand, demand),)))
    return steps or refusals[0]


@forward.register
def _(kind: ops.Gate, node: Node, position: int, a: Affine, read: Read) -> Steps:
    if a.has_shift:
        return Refusal("not-equivariant", "a product with a computed value passes a scale, but not a shift")
    if position not in kind.open:
        return Refusal("not-equivariant", "the value divides another one")
    return [Step(outs=(a.aligned(len(kind.y_shape)),))]


# Aggregate: sum_i w_i (s x_i + t) = s sum_i w_i x_i + t sum_i w_i; max_i (s x_i + t) = s max_i x_i + t for s >= 0.


@backward.register
def _(kind: ops.Aggregate, node: Node, port: int, a: Affine) -> Steps:
    if not kind.keepdims:
        a = Affine(np.expand_dims(a.scale, kind.axes), np.expand_dims(a.shift, kind.axes))
    refusal = _aggregate_refuses(kind, a)
    return refusal or [Step(((0, a),))]


@forward.register
def _(kind: ops.Aggregate, node: Node, position: int, a: Affine, read: Read) -> Steps:
    refusal = _aggregate_refuses(kind, a)
    if refusal:
        return refusal
    if not kind.keepdims:
        a = Affine(np.squeeze(a.scale, kind.axes), np.squeeze(a.shift, kind.axes))
    return [Step(outs=(a,))]


def _aggregate_refuses(kind: ops.Aggregate, a: Affine) -> Refusal | None:
    if any(axis in kind.axes for axis in a.axes):
        return Refusal("off-channel", f"the {kind.what} runs along an axis on which the affine varies")
    if kind.law == "linear" and a.has_shift:
        return Refusal("not-equivariant", f"the {kind.what} counts zeros in, so a shift does not pass")
    if kind.law == "maximum" and bool(np.any(a.scale < 0)):
        return Refusal("not-equivariant", f"the {kind.what} passes a scale only if it is not negative")
    return None


# Homogeneous: s f(x) = f(s x) for s > 0.


@backward.register
def _(kind: ops.Homogeneous, node: Node, port: int, a: Affine) -> Steps:
    return _homogeneous_refuses(kind, a) or [Step(((0, a),))]


@forward.register
def _(kind: ops.Homogeneous, node: Node, position: int, a: Affine, read: Read) -> Steps:
    if position != 0:
        return Refusal("not-equivariant", f"the value is a parameter of {kind.what}")
    return _homogeneous_refuses(kind, a) or [Step(outs=(a,))]


def _homogeneous_refuses(kind: ops.Homogeneous, a: Affine) -> Refusal | None:
    if a.has_shift:
        return Refusal("not-equivariant", f"{kind.what} does not pass a shift")
    if not bool(np.all(a.scale > 0)):
        return Refusal("not-equivariant", f"{kind.what} passes a scale only if it is positive")
    return None


# Scaled: s (gamma f(x) + beta) + t = (s gamma) f(x) + (s beta + t).


@backward.register
def _(kind: ops.Scaled, node: Node, port: int, a: Affine) -> Steps:
    if port:
        return Refusal("not-equivariant", f"the statistics of {kind.what} have no scale of their own")
    if any(axis not in kind.axes for axis in a.axes):
        return Refusal("off-channel", f"the affine varies along an axis that the scale of {kind.what} does not span")
    if a.has_shift and kind.shift is None:
        return Refusal("not-equivariant", f"{kind.what} has a scale, but no bias")
    for axis, size in zip(kind.axes, kind.sizes, strict=True):
        if a.size(axis) not in (1, size):
            detail = f"an affine of {a.size(axis)} channels and a scale of {size} contradict each other"
            return Refusal("unsupported", detail)
    own = a.mapped(lambda parameter, neutral: _own(kind, parameter))
    if isinstance(own, Refusal):
        return own
    demands = [(kind.scale, own.scaling())]
    if kind.shift is None or (not kind.present and not a.has_shift):
        return [Step(tuple(demands), absorbs=True)]
    if kind.present:
        return [Step((*demands, (kind.shift, own)), absorbs=True)]
    row = np.broadcast_to(own.shift, [size // kind.each for size in kind.sizes])
    return [Step(tuple(demands), (Supply(node, kind.shift, row, kind.scale),), absorbs=True)]


@forward.register
def _(kind: ops.Scaled, node: Node, position: int, a: Affine, read: Read) -> Steps:
    return Refusal("not-equivariant", f"{kind.what} does not commute with an affine map")


def _own(kind: ops.Scaled, parameter: Array) -> Array | Refusal:
    """A parameter on y, as one on the operator's own constants."""
    spread = parameter.reshape([parameter.shape[axis] for axis in kind.axes])
    if kind.each == 1:
        return spread
    count = kind.sizes[0] // kind.each
    steps = (Insert((1,)), Repeat(1, 1, kind.each), Regroup((count, kind.each), kind.sizes))
    return carry_back(steps, spread, 0.0)


# Linear and Recurrent: the scale into the weight, the shift into the bias.


@backward.register
def _(kind: ops.Linear, node: Node, port: int, a: Affine) -> Steps:
    return pull_linear(kind, node, a)


@forward.register
def _(kind: ops.Linear, node: Node, position: int, a: Affine, read: Read) -> Steps:
    return push_linear(kind, node, position, a, read)


@backward.register
def _(kind: ops.Recurrent, node: Node, port: int, a: Affine) -> Steps:
    return Refusal("not-equivariant", "a recurrent layer does not commute with an affine map")


@forward.register
def _(kind: ops.Recurrent, node: Node, position: int, a: Affine, read: Read) -> Steps:
    return push_recurrent(kind, node, position, a, read)
