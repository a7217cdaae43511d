"""Random valid ONNX models, each from one integer, in which many BatchNorms can be folded.

A model is grown by motifs that invite a fold (a linear operator, something between, a BatchNorm, or the other way
round; branches that join), over values that are now and then read again. `expected` is what its graph gives in each
of two worlds, which differ in every symbolic size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from graph_builder import BFLOAT, DOUBLE, HALF, Builder, Options, RejectedError, Shared
from onnx import helper
from random_extras import add_extras
from random_motifs import MOTIFS, source

Array = np.ndarray[Any, Any]

NEWEST = onnx.defs.onnx_opset_version()


@dataclass(frozen=True)
class RandomModel:
    """A model, the feeds and the outputs of each world, and its coarsest floating point type.

    `overrides` says that the last world feeds something else than the default to what callers may override.
    """

    seed: int
    model: onnx.ModelProto
    feeds: tuple[Mapping[str, Array], ...]
    expected: tuple[Mapping[str, Array], ...]
    elem_type: int
    overrides: bool = False


def random_model(seed: int, elem_type: int = DOUBLE, newest_opset: int = NEWEST, *, extras: bool = True) -> RandomModel:
    """The model of a seed, with or without what exporters leave beside the operators."""
    rng = np.random.default_rng([seed, elem_type])
    oldest = {HALF: 9, BFLOAT: 13}.get(elem_type, 7 if rng.random() < 0.1 else 9)
    opset = int(rng.integers(oldest, newest_opset + 1))
    ir_version = 3 if rng.random() < 0.15 else int(rng.integers(4, onnx.IR_VERSION + 1))
    options = Options(
        opset=opset,
        ir_version=ir_version,
        elem_type=elem_type,
        overridable=0.3 if rng.random() < 0.1 else 0.0,
        disguise=float(rng.choice([0.0, 0.2, 0.6])),
        share=float(rng.choice([0.0, 0.2, 0.5])),
        overriding=ir_version >= 4 and bool(rng.random() < 0.7),
    )
    b = Builder(Shared(rng, options))
    symbols = _inputs(b)
    for _ in range(b.integer(2, 7)):
        _grow(b)
    return _finished(seed, b, symbols, extras)


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


def _grow(b: Builder) -> None:
    """One motif more, if it fits."""
    motifs, weights = zip(*MOTIFS, strict=True)
    try:
        with b.attempt():
            b.pick(motifs, weights)(b, source(b))
    except RejectedError:
        return


def _finished(
    seed: int, b: Builder, symbols: dict[str, tuple[str | int | None, ...]], with_extras: bool
) -> RandomModel:
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
    extras = add_extras(model, b, np.random.default_rng([seed, b.options.elem_type, 1])) if with_extras else {}
    if b.chance(0.2):
        model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    feeds = [{var.name: var.worlds[world] for var in b.inputs} for world in (0, 1)]
    overridden = b.listed if b.options.overriding else []
    feeds[1].update({name: b.values[name][1] for name in overridden})
    made_there = {**{var.name: var.worlds for var in outputs}, **extras}
    expected = [{name: worlds[world] for name, worlds in made_there.items()} for world in (0, 1)]
    return RandomModel(seed, model, tuple(feeds), tuple(expected), b.options.elem_type, bool(overridden))


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
