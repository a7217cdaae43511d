"""Operators that move elements and compute nothing: views, cuts, repetitions, and those that leave all as it is."""

from __future__ import annotations

import math

from bnfold.algebra import ops
from bnfold.algebra.axes import Insert, Permute, Pick, Regroup, Remove, Repeat, Shape, Size, Step
from bnfold.algebra.ops import Concat, IndexMap, Opaque, Pass
from bnfold.graphs import kinds
from bnfold.graphs.indexed import alone, input_at, no_rank
from bnfold.graphs.onnx.corrected import picked
from bnfold.graphs.onnx.index import Node
from bnfold.graphs.onnx.kinds.facts import Attributes, Facts, Translation, normalised
from bnfold.graphs.onnx.known import FLOATING


def _identity(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    return Pass()


def _dropout(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    attributes.get("ratio"), attributes.get("seed")
    training = input_at(node, 2)
    if training is not None:
        known = facts.known(training)
        if known is None or bool(known.read().any()):
            return Opaque("training-mode", "the dropout is, or may be, in training mode")
    if not alone(node):
        return Opaque("unsupported", "the mask of the dropout is used")
    return Pass()


def _cast(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    attributes.get("saturate"), attributes.get("round_mode")  # both concern 8-bit floats alone
    source = node.inputs[0]
    if source is None or facts.shapes.elem_type(source) not in FLOATING or attributes.get("to") not in FLOATING:
        return Opaque("not-equivariant", "the cast is not between floating point types")
    return Pass()


def _transpose(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    perm = attributes.get("perm")
    if perm is None:
        shape = facts.shape(node.inputs[0])
        if shape is None:
            return no_rank(node)
        perm = range(len(shape))[::-1]
    shape = facts.shape(node.inputs[0])
    if shape is not None and sorted(perm) != list(range(len(shape))):
        raise ValueError(f"perm {list(perm)} for a value of rank {len(shape)}")
    return _map(Permute(tuple(perm)))


def _reshape(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    allow_zero = attributes.get("allowzero", 0)
    target = facts.integers(input_at(node, 1))
    if target is not None and not (allow_zero and 0 in target):
        counted = _counted(facts.outline(node.inputs[0]), target)
        if counted:
            return _map(Regroup(*counted))
    x = facts.named_shape(node.inputs[0])
    y = facts.shape(node.outputs[0])
    if x is None or (y is None and target is None):
        return no_rank(node)
    if target is not None and not allow_zero:
        said = _aimed(x, target)
        y = tuple(b if a is None else a for a, b in zip(said, y or said, strict=True))
    return _map(Regroup(x, y or ()))


def _aimed(x: Shape, target: list[int]) -> Shape:
    """The shape that a Reshape of a value of shape x aims at: 0 takes a size over, a negative one is left open."""
    return tuple(x[axis] if size == 0 else None if size < 0 else size for axis, size in enumerate(target))


def _counted(x: Shape | None, target: list[int]) -> tuple[Shape, Shape] | None:
    """The shapes of what a Reshape reads and makes, where the number of elements tells the one size that is not known.

    It mostly is that of the batch, which other sizes do not depend on: if both have one, and they agree on all others
    taken together, it is the same.
    """
    if x is None or any(size == 0 and axis >= len(x) for axis, size in enumerate(target)):
        return None
    y = _aimed(x, target)
    inside, outside = (math.prod(size for size in sizes if isinstance(size, int)) for sizes in (x, y))
    unknown: Size = "?"
    if not inside or x.count(None) != 1 or y.count(None) > 1 or (None in y and inside != outside):
        return None
    if None not in y:
        unknown, rest = divmod(outside, inside)
        if rest:
            return None
    full = [tuple(unknown if size is None else size for size in sizes) for sizes in (x, y)]
    return full[0], full[1]


def _flatten(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    x = facts.named_shape(node.inputs[0])
    if x is None:
        return no_rank(node)
    axis = attributes.get("axis", 1)
    axis += len(x) if axis < 0 else 0
    return _map(Regroup(x, (_product(x[:axis]), _product(x[axis:]))))


def _product(sizes: Shape) -> Size:
    numbers = [size for size in sizes if isinstance(size, int)]
    symbols = [size for size in sizes if not isinstance(size, int)]
    if not symbols:
        return math.prod(numbers)
    return symbols[0] if len(symbols) == 1 and math.prod(numbers) == 1 else None


def _squeeze(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    given = input_at(node, 1)
    axes = attributes.get("axes") if given is None else facts.integers(given)
    if axes is None and given is None and all(isinstance(size, int) for size in shape):
        axes = [axis for axis, size in enumerate(shape) if size == 1]
    elif not axes:  # runtimes differ in what an empty list means
        return Opaque("dynamic-shape", "which axes it removes is known only at run time")
    return _map(Remove(normalised(axes, len(shape))))


def _unsqueeze(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    axes = attributes.get("axes") or facts.integers(input_at(node, 1))
    if shape is None or axes is None:
        return no_rank(node)
    return _map(Insert(normalised(axes, len(shape) + len(axes))))


def _slice(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    if node.opset < 10:
        starts, ends = attributes.get("starts"), attributes.get("ends")
        axes, strides = attributes.get("axes"), None
        known = True
    else:
        starts, ends = facts.integers(input_at(node, 1)), facts.integers(input_at(node, 2))
        axes, strides = facts.integers(input_at(node, 3)), facts.integers(input_at(node, 4))
        known = all(input_at(node, at) is None or facts.known(input_at(node, at)) for at in (3, 4))
    if starts is None or ends is None or not known:
        return Opaque("dynamic-shape", "what it cuts out is known only at run time")
    axes = range(len(starts)) if axes is None else axes
    strides = [1] * len(starts) if strides is None else strides
    steps: list[Step] = []
    for axis, start, end, stride in zip(axes, starts, ends, strides, strict=True):
        axis = axis % len(shape)
        size = shape[axis]
        indices = picked(size, start, end, stride) if isinstance(size, int) else None
        if indices is None and isinstance(size, int):
            return Opaque("unsupported", "it steps back from an end that runtimes read in two ways")
        steps.append(Pick(axis, None if indices is None else tuple(indices), size, exclusive=True))
    return _map(*steps)


def _split(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return no_rank(node)
    axis = attributes.get("axis", 0) % len(shape)
    attributes.get("num_outputs")
    sizes = attributes.get("split") or facts.integers(input_at(node, 1))
    if sizes is None:
        shapes = [facts.shape(value) for value in node.outputs]
        sizes = [part[axis] if part else None for part in shapes]
    total = shape[axis]
    lists: list[tuple[Step, ...]] = []
    start: int | None = 0
    for size in sizes:
        stop = start + size if isinstance(size, int) and start is not None else None
        indices = tuple(range(start, stop)) if start is not None and stop is not None else None
        lists.append((Pick(axis, indices, total, exclusive=len(node.outputs) == 1),))
        start = stop
    return IndexMap(tuple(lists))


def _gather(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    shape = facts.shape(node.inputs[0])
    chosen = facts.shape(input_at(node, 1))
    if shape is None or chosen is None:
        return no_rank(node)
    axis = attributes.get("axis", 0) % len(shape)
    if len(chosen) > 1:
        return Opaque("unsupported", "a Gather by a table of indices is not understood")
    size = shape[axis]
    indices = facts.integers(input_at(node, 1))
    picked = None
    if indices is not None and isinstance(size, int):
        picked = tuple(index % size for index in indices)
    pick = Pick(axis, picked, size, exclusive=True)
    return _map(pick) if chosen else _map(pick, Remove((axis,)))


def _expand(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    x, y = facts.named_shape(node.inputs[0]), facts.shape(node.outputs[0])
    if x is None or y is None:
        return no_rank(node)
    return kinds.expansion(x, y)


def _tile(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    shape, repeats = facts.shape(node.inputs[0]), facts.integers(input_at(node, 1))
    if shape is None or repeats is None:
        return Opaque("dynamic-shape", "how often it repeats is known only at run time")
    return _map(
        *(
            Repeat(axis, size, times)
            for axis, (size, times) in enumerate(zip(shape, repeats, strict=True))
            if times != 1
        )
    )


def _depth_to_space(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    block, mode = attributes.get("blocksize"), attributes.get("mode", "DCR")
    x = facts.named_shape(node.inputs[0])
    if x is None or len(x) != 4 or not isinstance(x[1], int):
        return no_rank(node)
    n, c, h, w = x
    depth = c // block**2
    if mode == "DCR":
        inner: Shape = (n, block, block, depth, h, w)
        perm = (0, 3, 4, 1, 5, 2)
    else:
        inner, perm = (n, depth, block, block, h, w), (0, 1, 4, 2, 5, 3)
    middle: Shape = (n, depth, h, block, w, block)
    return _map(Regroup(x, inner), Permute(perm), Regroup(middle, (n, depth, _times(h, block), _times(w, block))))


def _space_to_depth(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    block, mode = attributes.get("blocksize"), attributes.get("mode", "DCR")
    x = facts.named_shape(node.inputs[0])
    if x is None or len(x) != 4 or not isinstance(x[1], int):
        return no_rank(node)
    n, c, h, w = x
    if any(isinstance(size, int) and size % block for size in (h, w)):
        return Opaque("unsupported", f"an image of {h} x {w} does not fall into blocks of {block} x {block}")
    rows, columns = kinds.parts(h, block), kinds.parts(w, block)
    inner: Shape = (n, c, rows, block, columns, block)
    perm = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    middle: Shape = tuple(inner[axis] for axis in perm)
    return _map(Regroup(x, inner), Permute(perm), Regroup(middle, (n, c * block**2, rows, columns)))


def _times(size: Size, factor: int) -> Size:
    return size * factor if isinstance(size, int) else None


def _concat(node: Node, attributes: Attributes, facts: Facts) -> ops.Kind:
    axis = attributes.get("axis")
    return (
        _joined(axis, [facts.outline(value) for value in node.inputs])
        or _joined(axis, [facts.shape(value) for value in node.inputs], exact=True)
        or no_rank(node)
    )


def _joined(axis: int, shapes: list[Shape | None], *, exact: bool = False) -> Concat | None:
    """A Concat of values of these shapes; None where no rank is known or, if not `exact`, not every size."""
    rank = next((len(shape) for shape in shapes if shape is not None), None)
    if rank is None:
        return None
    axis %= rank
    sizes: list[int | None] = []
    for shape in shapes:
        size = shape[axis] if shape is not None else None
        sizes.append(size if isinstance(size, int) else None)
    return Concat(axis, tuple(sizes)) if exact or None not in sizes else None


def _map(*steps: Step) -> IndexMap:
    return IndexMap((tuple(steps),))


TABLE = {
    "Identity": Translation(_identity, 25),
    "Dropout": Translation(_dropout, 22),
    "Cast": Translation(_cast, 28),
    "Transpose": Translation(_transpose, 25),
    "Reshape": Translation(_reshape, 25),
    "Flatten": Translation(_flatten, 25),
    "Squeeze": Translation(_squeeze, 25),
    "Unsqueeze": Translation(_unsqueeze, 25),
    "Slice": Translation(_slice, 13),
    "Split": Translation(_split, 18),
    "Gather": Translation(_gather, 13),
    "Expand": Translation(_expand, 13),
    "Tile": Translation(_tile, 13),
    "DepthToSpace": Translation(_depth_to_space, 28),
    "SpaceToDepth": Translation(_space_to_depth, 28),
    "Concat": Translation(_concat, 13),
}
