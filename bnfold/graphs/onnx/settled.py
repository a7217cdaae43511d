"""Shapes and constants, each as far as the other tells.

Constants are computed by operators that shape inference does not follow, and what is constant depends on shapes: the
two are asked in turn while one has something new to tell the other.
"""

from __future__ import annotations

import math
from itertools import chain

from bnfold.graphs.onnx.constants import Constants, Known
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.index import Scope, Value
from bnfold.graphs.onnx.shapes import Shapes, Told

MOST_ROUNDS = 5
_MOST_INTEGERS = 64  # in a shape, a list of axes or of bounds


def settled(document: Document, scopes: list[Scope], freeze_initializers: bool) -> tuple[Shapes, Constants]:
    """What is known about the values of a model."""
    shapes = Shapes(document.model, scopes)
    constants = Constants(document, shapes, freeze_initializers)
    told: set[Value] = set()
    for _ in range(MOST_ROUNDS):
        found: dict[Value, Told] = {}
        for value in chain(shapes.unknown(), shapes.operands()):
            known = constants.known(value) if value not in told else None
            if known is not None:
                found[value] = _told(known)
        if not found:
            break
        shapes.learn(found)
        told |= found.keys()
        constants = Constants(document, shapes, freeze_initializers)
    return shapes, constants


def _told(known: Known) -> Told:
    is_short = not known.is_floating and math.prod(known.shape) <= _MOST_INTEGERS
    return Told(known.elem_type, known.folded_shape, known.read() if is_short else None)
