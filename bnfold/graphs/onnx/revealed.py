"""What folds tell about sizes: the graph that they leave can say more than the graph that they found.

A fold keeps the shape of every value. But two things that it does may tell a size that inference did not know:

- A constant takes in parameters that vary along an axis, so that what it is added to has as many elements there. A
  BatchNorm has told no more than that before: of its parameters, inference draws nothing.
- What a node reads and what it makes become one value. Of one of the two, the file or the node may have told more.

What is found in this way is told to inference on the model as it was: its values had these sizes all along.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bnfold.algebra.axes import Shape, Size
from bnfold.graphs.onnx.index import Value
from bnfold.graphs.onnx.inference import Told
from bnfold.graphs.onnx.shapes import Shapes, made_up


@dataclass
class Revealed:
    """Pairs of values that have become one, and values that a constant spans: its shape counts from their last axis."""

    merged: list[tuple[Value, Value]] = field(default_factory=list)
    spanned: list[tuple[Value, tuple[int, ...]]] = field(default_factory=list)

    def news(self, shapes: Shapes) -> dict[Value, Told]:
        """What inference does not know of all this, as far as it has been asked; each thing is told once."""
        found: dict[Value, Shape] = {}
        for value, constant in self.spanned:
            shape = found.get(value) or shapes.so_far(value)
            if shape is not None:
                told = (None,) * (len(shape) - len(constant)) + tuple(size if size > 1 else None for size in constant)
                _add(found, value, shape, told)
        grows = True
        while grows:  # along runs of nodes that have gone
            grows = False
            for pair in self.merged:
                known = [found.get(value) or shapes.so_far(value) for value in pair]
                grows |= _add(found, pair[0], known[0], known[1]) or _add(found, pair[1], known[1], known[0])
        self.merged.clear()
        self.spanned.clear()
        return {value: Told(shapes.elem_type(value), shape) for value, shape in found.items()}


def _add(found: dict[Value, Shape], value: Value, shape: Shape | None, other: Shape | None) -> bool:
    """Note the shape of a value with what another one of the same rank tells more; whether there is any."""
    if other is None or (shape is not None and len(shape) != len(other)):
        return False
    joined = tuple(max(pair, key=_worth) for pair in zip(shape or other, other, strict=True))
    if joined == shape:
        return False
    found[value] = joined
    return True


def _worth(size: Size) -> int:
    """A number tells more than a name, and a name more than one that inference made up."""
    return 2 if isinstance(size, int) else 0 if size is None or made_up(size) else 1
