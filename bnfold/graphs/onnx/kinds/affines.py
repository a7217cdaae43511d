"""BatchNormalization, and Mul, Add, Sub, Div, Neg by constants, as affine maps; sums and gates of computed values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine
from bnfold.algebra.axes import Shape
from bnfold.algebra.ops import Absorber, ConstAffine, Gate, Opaque, Sum
from bnfold.graphs import kinds
from bnfold.graphs.indexed import alone, no_rank
from bnfold.graphs.onnx.index import Node
from bnfold.graphs.onnx.kinds.facts import Attributes, Facts, Translation
from bnfold.graphs.onnx.known import Known
from bnfold.graphs.rounding import settled


def _batch_norm(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    eps = float(np.float32(attributes.get("epsilon", 1e-5)))  # the default, too, is a float32
    attributes.get("momentum")
    if attributes.get("spatial", 1) != 1:
        return Opaque("unsupported", "spatial=0 normalises every position by itself; export with opset 9 or newer")
    if attributes.get("training_mode", 0):
        return Opaque(
            "training-mode",
            "it normalises by the statistics of the batch (training_mode=1); export in eval mode, or take it as an "
            "inference one with --assume-eval",
        )
    if node.opset < 14 and any(node.outputs[1:]):
        return Opaque("training-mode", "it hands out batch statistics; export in eval mode, or use --assume-eval")
    if not alone(node):
        return Opaque("training-mode", "its statistics outputs are used; export in eval mode")
    parameters = facts.parameters(node)
    if isinstance(parameters, Opaque):
        return parameters
    shape = facts.outline(node.inputs[0])
    if shape is None:
        shape = facts.shape(node.inputs[0]) or facts.shape(node.outputs[0])
    return no_rank(node) if shape is None else kinds.batch_norm(parameters, eps, shape)


def _add(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _binary(node, facts, "Add")


def _sub(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _binary(node, facts, "Sub")


def _mul(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _binary(node, facts, "Mul")


def _div(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return _binary(node, facts, "Div")


def _binary(node: Node, facts: Facts, op: str) -> ops.Kind:
    """An affine map where one operand is a constant that fits into the other; else a sum or a gate."""
    constants = [facts.floating(value) for value in node.inputs]
    a, b = shapes = [facts.outline(value) for value in node.inputs]
    affine = _affine(op, constants, shapes) if any(constants) else None
    if not affine and (a is None or b is None or any(constants)):
        a, b = shapes = [facts.shape(value) for value in node.inputs]
        affine = _affine(op, constants, shapes)
    if affine:
        return affine
    if a is None or b is None:
        return no_rank(node)
    y_shape = kinds.broadcast(a, b)
    if op in ("Add", "Sub"):
        return Sum((1.0, -1.0 if op == "Sub" else 1.0), (a, b), y_shape)
    return Gate((0, 1) if op == "Mul" else (0,), (a, b), y_shape)


def _affine(op: str, constants: Sequence[Known | None], shapes: Sequence[Shape | None]) -> ops.Kind | None:
    """The operator as an affine map, if for certain one operand is a constant that fits into the other."""
    for position in (1, 0):
        constant, x = constants[position], shapes[1 - position]
        if constant is None or x is None or not kinds.fits(constant.folded_shape, x):
            continue
        if op == "Div" and position == 0:
            return Opaque("not-equivariant", "a constant divided by the value is no affine map of it")
        return kinds.by_constant(op.lower(), position, settled(constant), len(x))
    return None


def _neg(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    return ConstAffine(0, Affine.of(-1.0, 0.0, len(shape)), Absorber())


def _sum(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    shapes: list[Shape] = []
    y_shape: Shape = ()
    for value in node.inputs:
        shape = facts.shape(value)
        if shape is None:
            return no_rank(node)
        shapes.append(shape)
        y_shape = kinds.broadcast(y_shape, shape)
    return Sum((1.0,) * len(shapes), tuple(shapes), y_shape)


TABLE = {
    "BatchNormalization": Translation(_batch_norm, 15),
    "Add": Translation(_add, 14),
    "Sub": Translation(_sub, 14),
    "Mul": Translation(_mul, 14),
    "Div": Translation(_div, 14),
    "Neg": Translation(_neg, 13),
    "Sum": Translation(_sum, 13),
}
