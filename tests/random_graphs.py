"""Random valid ONNX models, each from one integer, in which many BatchNorms can be folded.

A model is grown by motifs that invite a fold (a linear operator, something between, a BatchNorm, or the other way
round; branches that join), over values that are now and then read again. `expected` is what its graph gives in each
of two worlds, which differ in every symbolic size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from graph_builder import BFLOAT, DOUBLE, FLOAT, HALF, Builder, Options, RejectedError, Shared, Var, same_shape
from onnx import helper
from random_bodies import body
from random_linears import batch_norm, linear, norm, recurrent
from random_passers import PASSERS, homogeneous

Array = np.ndarray[Any, Any]

NEWEST = onnx.defs.onnx_opset_version()
NAMES = {FLOAT: "float32", DOUBLE: "float64", HALF: "float16", BFLOAT: "bfloat16"}


@dataclass(frozen=True)
class RandomModel:
    """A model, the feeds and the outputs of each world, and its coarsest floating point type."""

    seed: int
    model: onnx.ModelProto
    feeds: tuple[Mapping[str, Array], ...]
    expected: tuple[Mapping[str, Array], ...]
    elem_type: int


def random_model(seed: int, elem_type: int = DOUBLE, newest_opset: int = NEWEST) -> RandomModel:
    """The model of a seed."""
    rng = np.random.default_rng([seed, elem_type])
    oldest = {HALF: 9, BFLOAT: 13}.get(elem_type, 7 if rng.random() < 0.1 else 9)
    options = Options(
        opset=int(rng.integers(oldest, newest_opset + 1)),
        ir_version=3 if rng.random() < 0.15 else int(rng.integers(4, onnx.IR_VERSION + 1)),
        elem_type=elem_type,
        overridable=0.3 if rng.random() < 0.1 else 0.0,
        disguise=float(rng.choice([0.0, 0.2, 0.6])),
        share=float(rng.choice([0.0, 0.2, 0.5])),
    )
    b = Builder(Shared(rng, options))
    symbols = _inputs(b)
    for _ in range(b.integer(2, 7)):
        _grow(b)
    return _finished(seed, b, symbols)


def _inputs(b: Builder) -> dict[str, tuple[str | int | None, ...]]:
    """One to three inputs; every symbol has another number in each world."""
    sizes = [2, 3, 4, 4, 6]
    square = b.pick([3, 4, 4, 6])
    symbols = {"N": b.pick([(2, 3), (2, 3), (1, 3), (4, 1)]), "H": (square, square + 2), "W": (square, square + 1)}
    hidden = b.chance(0.15)  # sizes that do not change are not told either, or by a name that equal ones share
    batch = b.pick(["N", "N", 2, 1])
    shapes: dict[str, tuple[str | int | None, ...]] = {}
    for _ in range(b.pick([1, 1, 1, 2, 3])):
        rank = b.pick([2, 3, 4, 4, 4, 5])
        channels = b.pick(sizes)
        image = [square if b.chance(0.7) else b.pick(sizes) for _ in range(rank - 2)]
        if rank == 5:
            image = [min(size, 4) for size in image]
        spatial: list[str | int] = ["H", "W"] if rank == 4 and b.chance(0.15) else list(image)
        shape: tuple[str | int | None, ...] = (batch, channels, *spatial) if rank > 1 else (batch, channels)
        worlds = [
            b.normal(*(symbols[size][world] if isinstance(size, str) else size for size in shape)) for world in (0, 1)
        ]
        var = b.input("x", worlds, b.options.elem_type)
        if hidden:
            shape = tuple(b.pick([size, f"S{size}", None]) if isinstance(size, int) else size for size in shape)
        shapes[var.name] = shape
    return shapes


def _grow(b: Builder, depth: int = 0) -> None:
    """One motif more, if it fits."""
    motifs: list[Callable[[Builder, Var], Any]] = [
        *[above] * 5,
        *[below] * 4,
        split_way,
        joined,
        joined,
        joined,
        gated,
        single,
        twice_read,
        body,
    ]
    try:
        with b.attempt():
            b.pick(motifs)(b, source(b))
    except RejectedError:
        return


def source(b: Builder) -> Var:
    """Mostly a value that nobody reads yet, now and then any."""
    known = b.vars if b.parent is None else b.visible()
    known = [var for var in known if var.elem_type in NAMES and var.rank >= 1 and var.worlds[0].dtype.kind == "f"]
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


def above(b: Builder, x: Var) -> Var:
    """A linear operator above, a BatchNorm below."""
    y = norm(b, between(b, linear(b, x)))
    return norm(b, y) if b.chance(0.15) else homogeneous(b, y) if b.chance(0.3) else y


def below(b: Builder, x: Var) -> Var:
    """A BatchNorm above, one or two linear operators below."""
    y = between(b, norm(b, between(b, x, 1)))
    for _ in range(b.pick([0, 0, 0, 1, 2])):
        linear(b, y)
    return recurrent(b, y) if y.rank == 3 and b.chance(0.4) else linear(b, y)


def split_way(b: Builder, x: Var) -> Var:
    """Linear, homogeneous, BatchNorm, linear: the scale may go one way and the shift the other."""
    z = linear(b, x)
    other = like(b, z)
    y = batch_norm(b, homogeneous(b, z))
    return linear(b, b.one(b.pick(["Add", "Sub", "Sum"]), [y, other] if b.chance(0.5) else [other, y]))


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


def twice_read(b: Builder, x: Var) -> Var:
    """A value that one operator reads twice."""
    y = norm(b, linear(b, x))
    op = b.pick(["Add", "Mul", "Concat"])
    return b.one(op, [y, y], **({"axis": 1} if op == "Concat" else {}))


def _finished(seed: int, b: Builder, symbols: dict[str, tuple[str | int | None, ...]]) -> RandomModel:
    """Choose the outputs, and put everything into a model."""
    made = [var for var in b.vars if var not in b.inputs and any(var.name in node.output for node in b.nodes)]
    outputs = [var for var in made if (not var.reads and b.chance(0.95)) or (var.reads and b.chance(0.05))]
    if not outputs:
        outputs = made[-1:] or [b.one("Identity", [b.inputs[0]])]
    infos = []
    for var in outputs:
        known = b.chance(0.7)
        shape = [size if known else None for size in var.dims]
        infos.append(helper.make_tensor_value_info(var.name, var.elem_type, shape))
    inputs = [helper.make_tensor_value_info(var.name, var.elem_type, symbols.get(var.name, [])) for var in b.inputs]
    graph = b.graph("random", infos, inputs)
    opsets = [helper.make_opsetid(b.pick(["", "", "ai.onnx"]), b.opset)]
    functions = b.shared.functions
    opsets += [helper.make_opsetid(domain, 1) for domain in {function.domain for function in functions}]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=b.options.ir_version, functions=functions)
    if b.chance(0.2):
        model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return RandomModel(
        seed,
        model,
        tuple({var.name: var.worlds[world] for var in b.inputs} for world in (0, 1)),
        tuple({var.name: var.worlds[world] for var in outputs} for world in (0, 1)),
        b.options.elem_type,
    )


def reordered(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same model with the nodes of its main graph in another valid order."""
    rng = np.random.default_rng(seed)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    waiting = list(model.graph.node)
    made = {name for node in waiting for name in node.output if name}
    needs = [{name for name in reads(node) if name in made} for node in waiting]
    order: list[onnx.NodeProto] = []
    done: set[str] = set()
    left = list(range(len(waiting)))
    while left:
        ready = [i for i in left if needs[i] <= done]
        chosen = int(rng.choice(ready))
        left.remove(chosen)
        order.append(waiting[chosen])
        done |= set(waiting[chosen].output)
    del out.graph.node[:]
    out.graph.node.extend(order)
    return out


def reads(node: onnx.NodeProto) -> set[str]:
    """What a node reads, through its bodies too."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for inner in graph.node:
                names |= reads(inner)
    return names
