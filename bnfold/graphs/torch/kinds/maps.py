"""Operators that move elements and compute nothing: views, cuts, repetitions, and those that leave all as it is."""

from __future__ import annotations

from typing import Any

from bnfold.algebra import ops
from bnfold.algebra.axes import Insert, Permute, Pick, Regroup, Remove, Repeat, Shape, Step
from bnfold.algebra.ops import Concat, IndexMap, Opaque, Pass
from bnfold.graphs import kinds
from bnfold.graphs.indexed import input_at, no_rank
from bnfold.graphs.torch.index import Node
from bnfold.graphs.torch.kinds.facts import Arguments, Facts, normalised


def _identity(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("memory_format")
    return Pass()


def _dropout(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("p")
    if arguments.get("train"):
        return Opaque("training-mode", "the dropout is in training mode")
    return Pass()


def _cast(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("dtype", "layout", "device", "pin_memory", "non_blocking", "copy", "memory_format")
    types = [value.tensor.dtype for value in (node.inputs[0], node.outputs[0]) if value and value.tensor is not None]
    if len(types) < 2 or not all(dtype.is_floating_point for dtype in types):
        return Opaque("not-equivariant", "the cast is not between floating point types")
    return Pass()


def _permute(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    return _map(Permute(tuple(axis % len(shape) for axis in arguments.get("dims"))))


def _transpose(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    rank = len(shape)
    a = arguments.get("dim0", arguments.get("axis0", 0)) % max(rank, 1)
    b = arguments.get("dim1", arguments.get("axis1", 1)) % max(rank, 1)
    perm = list(range(rank))
    if rank > 1:
        perm[a], perm[b] = perm[b], perm[a]
    return _map(Permute(tuple(perm)))


def _reverse(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    return no_rank(node) if shape is None else _map(Permute(tuple(range(len(shape)))[::-1]))


def _matrix_transpose(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    rank = len(shape)
    return _map(Permute((*range(rank - 2), rank - 1, rank - 2)))


def _movedim(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    sources, targets = (
        [axis % len(shape) for axis in (given if isinstance(given, list) else [given])]
        for given in (arguments.get("source"), arguments.get("destination"))
    )
    moved = dict(zip(targets, sources, strict=True))
    rest = iter(axis for axis in range(len(shape)) if axis not in sources)
    return _map(Permute(tuple(moved[axis] if axis in moved else next(rest) for axis in range(len(shape)))))


def _reshape(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("size", "shape", "start_dim", "end_dim", "dim", "sizes")
    x, y = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if x is None or y is None or "dtype" in node.arguments:
        return no_rank(node)
    return _map(Regroup(x, y))


def _squeeze(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    axes = normalised(arguments.get("dim", range(len(shape))), len(shape))
    return _map(Remove(tuple(axis for axis in axes if shape[axis] == 1)))


def _unsqueeze(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    return _map(Insert(normalised(arguments.get("dim"), len(shape) + 1)))


def _slice(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    axis = arguments.get("dim", 0) % len(shape)
    start, end, step = arguments.get("start"), arguments.get("end"), arguments.get("step", 1)
    return _map(_cut(shape, axis, slice(start, end, step)))


def _narrow(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    start, length = arguments.get("start"), arguments.get("length")
    if shape is None or not isinstance(start, int) or not isinstance(length, int):
        return Opaque("dynamic-shape", "what it cuts out is known only at run time")
    axis = arguments.get("dim") % len(shape)
    size = shape[axis]
    first = start + size if start < 0 and isinstance(size, int) else start
    return _map(_cut(shape, axis, slice(first, first + length)))


def _cut(shape: Shape, axis: int, at: slice) -> Step:
    size, known = shape[axis], all(item is None or isinstance(item, int) for item in (at.start, at.stop, at.step))
    indices = tuple(range(size)[at]) if isinstance(size, int) and known else None
    return Pick(axis, indices, size, exclusive=True)


def _select(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape, index = facts.shape(node.inputs[0]), arguments.get("index")
    if shape is None:
        return no_rank(node)
    axis = arguments.get("dim") % len(shape)
    size = shape[axis]
    picked = (index % size,) if isinstance(index, int) and isinstance(size, int) else None
    return _map(Pick(axis, picked, size, exclusive=True), Remove((axis,)))


def _index_select(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape, indices = facts.shape(node.inputs[0]), facts.integers(input_at(node, 1))
    if shape is None:
        return no_rank(node)
    axis = arguments.get("dim") % len(shape)
    size = shape[axis]
    known = indices is not None and isinstance(size, int)
    return _map(Pick(axis, tuple(indices) if known and indices is not None else None, size, exclusive=True))


def _flip(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    return _map(*(_cut(shape, axis, slice(None, None, -1)) for axis in normalised(arguments.get("dims"), len(shape))))


def _split(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("split_size", "split_sizes", "chunks", "sections")
    shape = facts.shape(node.inputs[0])
    if shape is None or "indices" in node.arguments:
        return no_rank(node)
    axis = arguments.get("dim", 0) % len(shape)
    parts = [facts.shape(value) for value in node.outputs]
    return _laid_out(node, shape, axis, [part[axis] if part else None for part in parts])


def _unbind(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    axis = arguments.get("dim", 0) % len(shape)
    return _laid_out(node, shape, axis, [1] * len(node.outputs), Remove((axis,)))


def _laid_out(node: Node, shape: Shape, axis: int, sizes: list[Any], *then: Step) -> IndexMap:
    """One output for each of these stretches of an axis."""
    alone = sum(bool(value and (value.readers or value.is_output)) for value in node.outputs) == 1
    lists: list[tuple[Step, ...]] = []
    start: int | None = 0
    for size in sizes:
        stop = start + size if isinstance(size, int) and start is not None else None
        indices = tuple(range(start, stop)) if start is not None and stop is not None else None
        lists.append((Pick(axis, indices, shape[axis], exclusive=alone), *then))
        start = stop
    return IndexMap(tuple(lists))


def _expand(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    arguments.skip("size", "implicit")
    x, y = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    return no_rank(node) if x is None or y is None else kinds.expansion(x, y)


def _repeat(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    x, repeats = facts.shape(node.inputs[0]), arguments.get("repeats", arguments.get("dims"))
    if x is None:
        return no_rank(node)
    repeats = [1] * (len(x) - len(repeats)) + repeats
    missing = len(repeats) - len(x)
    steps: list[Step] = [Insert(tuple(range(missing)))] if missing else []
    steps += [
        Repeat(axis, size, count)
        for axis, (size, count) in enumerate(zip((1,) * missing + x, repeats, strict=True))
        if count != 1
    ]
    return _map(*steps)


def _pixel_shuffle(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    block, x, y = arguments.get("upscale_factor"), facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if x is None or y is None or len(x) != 4 or not isinstance(x[1], int):
        return no_rank(node)
    n, c, h, w = x
    depth = c // block**2 if isinstance(c, int) else None
    inner, middle = (n, depth, block, block, h, w), (n, depth, h, block, w, block)
    return _map(Regroup(x, inner), Permute((0, 1, 4, 2, 5, 3)), Regroup(middle, y))


def _pixel_unshuffle(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    block, x, y = arguments.get("downscale_factor"), facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if x is None or y is None or len(x) != 4:
        return no_rank(node)
    n, c, h, w = x
    inner: Shape = (n, c, kinds.parts(h, block), block, kinds.parts(w, block), block)
    perm = (0, 1, 3, 5, 2, 4)
    return _map(Regroup(x, inner), Permute(perm), Regroup(tuple(inner[axis] for axis in perm), y))


def _channel_shuffle(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    groups, x = arguments.get("groups"), facts.shape(node.inputs[0])
    if x is None or not isinstance(x[1], int):
        return no_rank(node)
    n, _, *rest = x
    each = x[1] // groups
    inner, middle = (n, groups, each, *rest), (n, each, groups, *rest)
    perm = (0, 2, 1, *range(3, len(inner)))
    return _map(Regroup(x, inner), Permute(perm), Regroup(middle, x))


def _concat(node: Node, arguments: Arguments, facts: Facts) -> ops.Kind:
    shapes = [facts.shape(value) for value in node.inputs]
    ranks = {len(shape) for shape in shapes if shape is not None}
    if len(ranks) != 1:
        return no_rank(node)
    axis = arguments.get("dim", 0) % ranks.pop()
    sizes = [shape[axis] if shape is not None else None for shape in shapes]
    return Concat(axis, tuple(size if isinstance(size, int) else None for size in sizes))


def _map(*steps: Step) -> IndexMap:
    return IndexMap((tuple(steps),))


TABLE = {
    **dict.fromkeys(("alias", "clone", "contiguous", "detach", "lift_fresh_copy"), _identity),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _dropout),
    **dict.fromkeys(("to", "_to_copy", "type_as"), _cast),
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "t"), _transpose),
    "numpy_T": _reverse,
    "mT": _matrix_transpose,
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"), _reshape),
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    "index_select": _index_select,
    "flip": _flip,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk"), _split),
    "unbind": _unbind,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(("repeat", "tile"), _repeat),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    **dict.fromkeys(("cat", "concat", "concatenate"), _concat),
}
