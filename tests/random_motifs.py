"""Motifs that invite a fold: a linear operator, something between, a BatchNorm, or the other way round; joins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from graph_builder import FLOATING, Builder, RejectedError, Var, same_shape
from onnx import helper
from random_bodies import body
from random_linears import affine_chain, batch_norm, linear, matmul, norm, recurrent
from random_passers import PASSERS, Passer, homogeneous


def source(b: Builder) -> Var:
    """Mostly a value that nobody reads yet, now and then any."""
    known = b.vars if b.parent is None else b.visible()
    known = [var for var in known if var.elem_type in FLOATING and var.rank >= 1 and var.worlds[0].dtype.kind == "f"]
    fresh = [var for var in known if not var.reads]
    return b.pick(fresh[-3:]) if fresh and b.chance(0.9) else b.pick(known)


def between(b: Builder, x: Var, most: int = 3) -> Var:
    """A few operators that an affine may cross."""
    passers, weights = [passer for passer, _ in PASSERS], [weight for _, weight in PASSERS]
    for _ in range(b.pick(range(most + 1))):
        if x.rank == 0:
            return x
        try:
            with b.attempt():
                x = b.pick(passers, weights)(b, x)
        except RejectedError:
            continue
    return x


def one_between(b: Builder, x: Var) -> Var:
    """One operator that an affine may cross, every kind of it equally often."""
    for _ in range(4):
        try:
            with b.attempt():
                return b.pick(PASSERS)[0](b, x)
        except RejectedError:
            continue
    return x


def above(b: Builder, x: Var) -> Var:
    """A linear operator above, a BatchNorm below."""
    y = linear(b, x)
    y = norm(b, one_between(b, y) if b.chance(0.4) else between(b, y))
    return norm(b, y) if b.chance(0.15) else homogeneous(b, y) if b.chance(0.3) else y


def below(b: Builder, x: Var) -> Var:
    """A BatchNorm above, one or two linear operators below."""
    y = norm(b, between(b, x, 1))
    y = one_between(b, y) if b.chance(0.4) else between(b, y)
    for _ in range(b.pick([0, 0, 0, 1, 2])):
        linear(b, y)
    return recurrent(b, y) if y.rank == 3 and b.chance(0.4) else linear(b, y)


def split_way(b: Builder, x: Var) -> Var:
    """Linear, homogeneous, BatchNorm, linear: the scale may go one way and the shift the other."""
    z = linear(b, x)
    other = like(b, z)
    y = batch_norm(b, homogeneous(b, z))
    return linear(b, b.one(b.pick(["Add", "Sub", "Sum"]), [y, other] if b.chance(0.5) else [other, y]))


def last_axis(b: Builder, x: Var) -> Var:
    """A product over the last axis and a chain along it, either way round."""
    if b.chance(0.5):
        return affine_chain(b, one_between(b, matmul(b, x)), -1)
    return matmul(b, one_between(b, affine_chain(b, x, -1)))


def joined_below(b: Builder, x: Var) -> Var:
    """A BatchNorm of which another value is added to, laid beside, or a factor or a divisor, and a linear operator."""
    y = batch_norm(b, x)
    other = like(b, y)
    if b.chance(0.3):
        factor = np.abs(b.normal(x.dims[1] or 1, *[1] * (x.rank - 2))) + 0.5
        divisor = b.one("Mul", [b.one("Sigmoid", [x]), b.constant(factor, x)])
        return linear(b, b.one("Div", [other, divisor]))
    if b.chance(0.3):
        return linear(b, b.one("Mul", [y, other] if b.chance(0.5) else [other, y]))
    return linear(b, between(b, join(b, [y, other] if b.chance(0.5) else [other, y]), 1))


def uneven(b: Builder, x: Var) -> Var:
    """Branches of which only one lets a shift through."""
    y = linear(b, x)
    branches = [homogeneous(b, like(b, y)), y]
    op = b.pick(["Sub", "Sub", "Add", "Sum"])
    return batch_norm(b, b.one(op, branches if b.chance(0.5) else branches[::-1]))


def joined(b: Builder, x: Var) -> Var:
    """Branches of linear operators that an addition or a concatenation joins, and a BatchNorm behind."""
    branches = [linear(b, x)]
    for _ in range(b.pick([1, 1, 2])):
        branches.append(like(b, branches[0]))
    branches = [between(b, branch, 1) if b.chance(0.15) else branch for branch in branches]
    return norm(b, between(b, join(b, branches), 2))


def like(b: Builder, x: Var) -> Var:
    """Another value of the same shape: what the operators that made it make with other constants, or any there is."""
    if b.chance(0.1):
        others = [var for var in b.visible() if var is not x and same_shape(var, x)]
        if others:
            return b.pick(others)
    return twin(b, x) if b.chance(0.9) else linear(b, x, same_shape=True)


def twin(b: Builder, x: Var) -> Var:
    """The operator that made a value, once more, with new constants of the same shapes; through a bias too."""
    made = {output: node for node in b.nodes for output in node.output}
    computed = {var.name: var for var in b.visible()}
    node = made.get(x.name)
    if node is None or any(attribute.HasField("g") for attribute in node.attribute) or len(node.output) > 1:
        raise RejectedError("nothing to repeat")
    inputs: list[Any] = []
    for name in node.input:
        if name in computed:
            above = computed[name]
            through = node.op_type == "Add" and above.name in made
            inputs.append(twin(b, above) if through and same_shape(above, x) else above)
        elif name:
            values = b.seen()[name][0]
            if values.dtype.kind != "f":
                raise RejectedError("a constant that is not of floating point numbers")
            inputs.append(b.constant(b.normal(*values.shape) * np.abs(values).mean(), x))
        else:
            inputs.append(None)
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    at = next(i for i, item in enumerate(inputs) if isinstance(item, Var))
    return b.one(node.op_type, inputs, like=at, **attributes)


def join(b: Builder, branches: Sequence[Var]) -> Var:
    op = b.pick(["Add", "Add", "Sub", "Sum", "Concat", "Concat", "Concat"])
    if op == "Concat":
        axis = 1 if branches[0].rank > 1 and b.chance(0.6) else b.integer(0, branches[0].rank - 1)
        return b.one(op, [*branches], axis=axis - branches[0].rank if b.opset >= 11 and b.chance(0.2) else axis)
    if op == "Sum":
        return b.one(op, [*branches])
    y = branches[0]
    for branch in branches[1:]:
        y = b.one(op, [y, branch] if b.chance(0.5) else [branch, y])
    return y


def gated(b: Builder, x: Var) -> Var:
    """Squeeze and excitation: a product with a computed value, on either side of a BatchNorm."""
    y = linear(b, x)
    gate = y if b.chance(0.3) else linear(b, y, same_shape=True) if b.chance(0.3) else like(b, y)
    if y.rank >= 3 and b.chance(0.7):
        gate = b.one("GlobalAveragePool", [gate])
    gate = b.one("Sigmoid", [gate])
    op = b.pick(["Mul", "Mul", "Div", "Add", "Sub"])
    y = b.one(op, [gate, y] if op != "Div" and b.chance(0.5) else [y, gate])
    return norm(b, y) if b.chance(0.7) else linear(b, y)


def single(b: Builder, x: Var) -> Var:
    return between(b, x, 2)


def sequence(b: Builder, x: Var) -> Var:
    """A BatchNorm over (batch, channels, steps) before a recurrent layer over (steps, batch, channels)."""
    if x.rank != 3:
        raise RejectedError("no sequence")
    return recurrent(b, b.one("Transpose", [batch_norm(b, x)], perm=[2, 0, 1]))


def twice_read(b: Builder, x: Var) -> Var:
    """A value that one operator reads twice."""
    y = norm(b, linear(b, x))
    op = b.pick(["Add", "Mul", "Concat"])
    return b.one(op, [y, y], **({"axis": 1} if op == "Concat" else {}))


MOTIFS: list[tuple[Passer, float]] = [
    (above, 5),
    (below, 4),
    (split_way, 1),
    (last_axis, 1),
    (joined, 2.5),
    (joined_below, 1.5),
    (uneven, 0.7),
    (gated, 1),
    (single, 1),
    (sequence, 0.7),
    (twice_read, 0.7),
    (body, 1),
]
