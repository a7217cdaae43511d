"""The rules of contractions with a constant weight: how a scale goes into the weight and a shift into the bias.

In the equations of this file `a(y) = s y + t`; the letters of an axis are those of `ops.Linear`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Array, Refusal, aligned, as_vector, varying, vector
from bnfold.algebra.edits import MOST_ADDED_BYTES, Append, Edit, Node, Read, Step, Steps, Supply

# Linear: s (sum x w + b) + t = sum x (s w) + (s b + t). Along axes that w does not have but x has, x takes the scale.


def pull_linear(kind: ops.Linear, node: Node, a: Affine) -> Steps:
    """The backward rule of Linear."""
    misfit = _misfit(kind, kind.y, a)
    if misfit:
        return misfit
    letters = set("".join(kind.w))
    onto_x = [axis for axis in varying(a.scale) if not _covers(letters, kind.y[axis])]
    for axis in onto_x:
        if kind.y[axis] not in kind.x or len(kind.y[axis]) != 1:
            return Refusal("off-channel", f"the affine varies along axis {axis}, which the weight does not span")
    if onto_x and len(varying(a.scale)) > len(onto_x):
        return Refusal("off-channel", "the scale varies along an axis of the weight and along one of the input")
    bias = _biased(kind, node, a)
    if isinstance(bias, Refusal):
        return bias
    if onto_x:
        scale = _transfer(a.scale, kind.y, kind.x)
        share = (kind.data, Affine(scale, np.zeros((1,) * scale.ndim)))
        beside = Refusal("off-channel", f"the affine varies along axis {onto_x[0]}, which the weight does not span")
        return [Step((share, *bias.demands), bias.edits, otherwise=beside)]
    scale = _onto_weight(a.scale, kind.y, kind)
    share = (kind.weight, Affine(scale, np.zeros((1,) * scale.ndim)))
    return [Step((share, *bias.demands), bias.edits, absorbs=True)]


# Forward: sum (s x + t) w + b = sum x (s w) + (b + sum t w), where every tap of w meets an element of x. A scale along
# axes that w does not have and y has goes on: sum (s x + t) w + b = s (sum x w + b) + (b - s b + sum t w).


def push_linear(kind: ops.Linear, node: Node, position: int, a: Affine, read: Read) -> Steps:
    """The forward rule of Linear."""
    if position != kind.data:
        return Refusal("computed-weight", "the value is the weight or the bias of a linear operator")
    misfit = _misfit(kind, kind.x, a)
    if misfit:
        return misfit
    letters = set("".join(kind.w))
    beside = [axis for axis in a.axes if not _covers(letters, kind.x[axis])]
    for axis in beside:
        if kind.x[axis] not in kind.y or len(kind.x[axis]) != 1:
            return Refusal("off-channel", f"the affine varies along axis {axis}, which the weight does not span")
    if a.has_shift and not kind.complete:
        return Refusal("padded-shift", kind.incomplete_why)
    total = _contracted(kind, read(kind.weight), a.shift) if a.has_shift else np.zeros((1,) * len(kind.y))
    if isinstance(total, Refusal):
        return total
    going_on = [axis for axis in varying(a.scale) if axis in beside]
    if going_on and len(varying(a.scale)) > len(going_on):
        return Refusal("off-channel", "the scale varies along an axis of the weight and along one of the input")
    if going_on:
        scale = _transfer(a.scale, kind.x, kind.y)
        held = _held_bias(kind, read)
        return [Step(outs=(Affine(scale, total + held - scale * held),))]
    scale = _onto_weight(a.scale, kind.x, kind)
    demand = (kind.weight, Affine(scale, np.zeros((1,) * scale.ndim)))
    done = Affine.identity(len(kind.y))
    if not a.has_shift:
        return [Step((demand,), outs=(done,), absorbs=True)]
    shift = Affine(np.ones((1,) * total.ndim), total)
    below = Step((demand,), outs=(shift,), absorbs=a.has_scale)
    bias = _biased(kind, node, shift)
    if isinstance(bias, Refusal):
        return [below]
    here = Step((demand, *bias.demands), bias.edits, (done,), absorbs=True)
    # Better a bias further down than a new one here.
    return [below, here] if kind.bias is None else [here]


# Recurrent: the product with the input is linear. The bias of its weight is the first half of the layer's.


def push_recurrent(kind: ops.Recurrent, node: Node, position: int, a: Affine, read: Read) -> Steps:
    """The forward rule of Recurrent."""
    if position != kind.data:
        return Refusal("not-equivariant", "the value is a weight or a state of a recurrent layer")
    if any(axis != 2 for axis in a.axes):
        return Refusal("off-channel", "the affine varies along another axis than the features of a recurrent layer")
    demands = [(kind.weight, Affine(a.scale, np.zeros((1, 1, 1))))]
    edits: tuple[Edit, ...] = ()
    if a.has_shift:
        total = np.zeros((kind.directions, 2 * kind.rows))
        total[:, : kind.rows] = (read(kind.weight) * a.shift).sum(axis=2)
        if kind.present:
            demands.append((kind.bias, Affine(np.ones((1, 1)), total)))
        else:
            edits = (Supply(node, kind.bias, total, kind.weight),)
    return [Step(tuple(demands), edits, absorbs=True)]


def _contracted(kind: ops.Linear, weight: Array, shift: Array) -> Array | Refusal:
    """`gain * sum(t w)`, aligned with y; refused where it would have too many elements to be worth it."""
    letters = _letters(kind)
    along = [letter for axis in varying(shift) for letter in kind.x[axis]]
    sizes = dict(kind.sizes)
    for axis in varying(shift):
        if kind.x[axis] not in sizes and len(kind.x[axis]) == 1:
            sizes[kind.x[axis]] = shift.shape[axis]
    kept = [letter for letter in "".join(kind.y) if letter in letters or letter in along]
    nbytes = 8 * math.prod(sizes[letter] for letter in kept)
    if nbytes > MOST_ADDED_BYTES:
        return Refusal("too-large", f"the shift would become {nbytes / 2**20:.0f} MB of biases")
    view: Any = weight.reshape([sizes[letter] for letter in letters])
    summed = tuple(i for i, letter in enumerate(letters) if letter not in along and letter not in kept)
    if summed:  # a sum over no axis would be a copy
        view, letters = view.sum(axis=summed), [letter for i, letter in enumerate(letters) if i not in summed]
    number = {letter: i for i, letter in enumerate(dict.fromkeys([*letters, *along]))}
    values = shift.reshape([sizes[letter] for letter in along])
    terms = ([number[letter] for letter in group] for group in (letters, along, kept))
    of_w, of_x, of_y = terms
    total = kind.gain * np.einsum(view, of_w, values, of_x, of_y, optimize=True)
    return _spread(total, kept, kind.y)


def _held_bias(kind: ops.Linear, read: Read) -> Array:
    """What the operator adds, aligned with y."""
    if kind.bias is None or not kind.bias.present:
        return np.zeros((1,) * len(kind.y))
    held, axis = read(kind.bias.position), kind.bias.axis
    if axis is not None:
        held = held.reshape([-1 if at == axis else 1 for at in range(len(kind.y))])
    return kind.bias.gain * aligned(held, len(kind.y))


def _biased(kind: ops.Linear, node: Node, a: Affine) -> Step | Refusal:
    """The step that gives the bias `s b + t`, or a bias `t` where there was none."""
    bias = kind.bias
    if bias is None:
        return Step(edits=(Append(node, a.shift, kind.weight),)) if a.has_shift else Step()
    if not bias.present and not a.has_shift:
        return Step()
    if bias.axis is not None:
        touched = a.axes if bias.present else varying(a.shift)
        if any(axis != bias.axis for axis in touched):
            return Refusal("off-channel", "the affine varies along an axis that the bias does not span")
        if bias.present:
            return Step(((bias.position, as_vector(a, bias.axis)),))
        size = math.prod(kind.sizes[letter] for letter in kind.y[bias.axis])
        row = vector(a.shift, bias.axis)
        if row.size != size:
            row = np.broadcast_to(row, size)
        return Step(edits=(Supply(node, bias.position, row, kind.weight),))
    if not bias.present:
        row = a.shift / bias.gain
        edit: Edit = Supply(node, bias.position, row[0] if row.shape[0] == 1 else row, kind.weight)
        return Step(edits=(edit,))
    return Step(((bias.position, Affine(a.scale, a.shift / bias.gain)),))


def _misfit(kind: ops.Linear, axes: ops.Axes, a: Affine) -> Refusal | None:
    """The refusal for an affine that has more or fewer channels than the weight."""
    for axis in a.axes:
        if not _covers(set(kind.sizes), axes[axis]):
            continue
        size = math.prod(kind.sizes[letter] for letter in axes[axis])
        if size != a.size(axis):
            detail = f"an affine of {a.size(axis)} channels and a weight of {size} contradict each other"
            return Refusal("unsupported", detail)
    return None


def _covers(letters: set[str], axis: str) -> bool:
    return bool(axis) and set(axis) <= letters


def _letters(kind: ops.Linear) -> list[str]:
    """The indices of the weight, outermost first."""
    return list("".join(kind.w))


def _onto_weight(parameter: Array, axes: ops.Axes, kind: ops.Linear) -> Array:
    """A parameter aligned with x or y, carried to the axes of the weight."""
    along = [axes[axis] for axis in varying(parameter)]
    if len(along) <= 1 and all(axis in kind.w for axis in along):  # the usual case: an axis of the weight as it is
        return parameter.reshape([parameter.size if axis in along else 1 for axis in kind.w])
    letters = _letters(kind)
    shape = dict.fromkeys(letters, 1)
    order: list[str] = []
    for axis in varying(parameter):
        for letter in axes[axis]:
            shape[letter] = kind.sizes[letter]
            order.append(letter)
    values = parameter.reshape([kind.sizes[letter] for letter in order])
    values = values.transpose([order.index(letter) for letter in letters if letter in order])
    view = values.reshape([shape[letter] for letter in letters])
    out = []
    for axis_letters in kind.w:
        varies = any(shape[letter] > 1 for letter in axis_letters)
        out += [kind.sizes[letter] if varies else 1 for letter in axis_letters]
    view = np.broadcast_to(view, out)
    sizes = iter(out)
    return view.reshape([math.prod(next(sizes) for _ in axis_letters) for axis_letters in kind.w])


def _spread(values: Array, letters: list[str], axes: ops.Axes) -> Array:
    """An array over these indices, carried to axes that run over them; axes over other indices get size 1."""
    order = [letter for axis in axes for letter in axis if letter in letters]
    moved = values.transpose([letters.index(letter) for letter in order])
    extent = dict(zip(order, moved.shape, strict=True))
    return moved.reshape([math.prod(extent.get(letter, 1) for letter in axis) for axis in axes])


def _transfer(parameter: Array, old: ops.Axes, new: ops.Axes) -> Array:
    """A parameter carried from axes to other axes that run over the same single indices."""
    where = {old[axis]: axis for axis in varying(parameter)}
    order = [where[axis] for axis in new if axis in where]
    shape = [parameter.shape[where[axis]] if axis in where else 1 for axis in new]
    rest = [axis for axis in range(parameter.ndim) if axis not in order]
    return parameter.transpose([*order, *rest]).reshape(shape)
