"""BatchNorm, and add, sub, mul, div, neg by constants, as affine maps; sums and gates of computed values."""

from __future__ import annotations

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine
from bnfold.algebra.ops import Absorber, ConstAffine, Gate, Opaque, Sum
from bnfold.graphs import kinds
from bnfold.graphs.indexed import alone, input_at, no_rank
from bnfold.graphs.rounding import settled
from bnfold.graphs.torch.index import Node
from bnfold.graphs.torch.kinds.facts import Arguments, Facts, same_type

_ADDS = {"add": 1.0, "sub": -1.0, "subtract": -1.0, "rsub": -1.0}


def _batch_norm(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    eps = float(arguments.get("eps"))
    arguments.skip("momentum", "cudnn_enabled")
    statistics = input_at(node, 3), input_at(node, 4)
    if None in statistics:
        return Opaque(
            "training-mode",
            "it keeps no running statistics (track_running_stats=False), so it normalises by the batch; "
            "train it with track_running_stats=True",
        )
    if arguments.get("training", False):
        return Opaque(
            "training-mode",
            "it normalises by the statistics of the batch (training mode); call eval() on the module, or take it as an "
            "inference one with assume_eval=True",
        )
    if not alone(node):
        return Opaque("unsupported", "its other outputs are used")
    parameters = facts.parameters(node)
    if isinstance(parameters, Opaque):
        return parameters
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    return kinds.batch_norm(parameters, eps, shape)


def _batch_statistics(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    if input_at(node, 3) is None:
        return Opaque("training-mode", "it keeps no running statistics, as an InstanceNorm does")
    return Opaque(
        "training-mode", "it normalises by the statistics of the batch; export the module in eval mode, after eval()"
    )


def _binary(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    """An affine map where one operand is a constant that fits into the other; else a sum or a gate."""
    op = {"subtract": "sub", "rsub": "sub", "multiply": "mul", "divide": "div", "true_divide": "div"}.get(
        node.op, node.op
    )
    if arguments.get("alpha", 1) != 1:
        return Opaque("unsupported", f"alpha={arguments.get('alpha')} of {node.op} is not understood")
    if len(node.inputs) != 2:
        return Opaque("unsupported", f"an operand of {node.op} is not understood")
    shapes = [facts.shape(value) if value is None or value.number is None else () for value in node.inputs]
    a, b = shapes
    if a is None or b is None:
        return no_rank(node)
    known = [facts.known(value) for value in node.inputs]
    for position in (1, 0):
        constant, x = known[position], shapes[1 - position]
        if constant is None or x is None or not kinds.fits(constant.folded_shape, x):
            continue
        if not same_type(node, 1 - position):
            return Opaque("unsupported", f"{node.op} gives another type than it reads")
        if not constant.is_floating and constant.shape:
            return Opaque("unsupported", f"a constant of integers in {node.op} is not understood")
        # rsub is b - a: the subtrahend stands first.
        place = 1 - position if node.op == "rsub" else position
        if op == "div" and position == 0:
            return Opaque("not-equivariant", "a constant divided by the value is no affine map of it")
        kind = kinds.by_constant(op, place, settled(constant), len(x))
        return kind if place == position else _exchanged(kind)
    y_shape = kinds.broadcast(a, b)
    if op in ("add", "sub"):
        signs = (-1.0, 1.0) if node.op == "rsub" else (1.0, -1.0 if op == "sub" else 1.0)
        return Sum(signs, (a, b), y_shape)
    return Gate((0, 1) if op == "mul" else (0,), (a, b), y_shape)


def _exchanged(kind: ConstAffine) -> ConstAffine:
    """The same map with its two operands in the other order."""
    to = kind.absorber
    shift = None if to.shift is None else 1 - to.shift
    absorber = Absorber(to.scale, shift, to.axis, to.sign, to.inverse)
    return ConstAffine(1 - kind.data, kind.affine, absorber, kind.factors)


def _neg(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    return ConstAffine(0, Affine.of(-1.0, 0.0, len(shape)), Absorber())


TABLE = {
    "batch_norm": _batch_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_batch_norm_no_update": _batch_norm,
    "_native_batch_norm_legit": _batch_statistics,
    "_native_batch_norm_legit_functional": _batch_statistics,
    "_batch_norm_with_update": _batch_statistics,
    "_batch_norm_with_update_functional": _batch_statistics,
    **dict.fromkeys(("add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide"), _binary),
    "neg": _neg,
    "negative": _neg,
}
