"""Shapes and constants, each as far as the other tells.

Constants are computed by operators that shape inference does not follow, and what is constant depends on shapes: where
inference alone does not know a size that is asked for, the two are asked in turn while one has something new to tell
the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from bnfold.graphs.onnx.constants import Constants, may_be_known
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.index import Scope, Value
from bnfold.graphs.onnx.inference import INTEGERS, Told
from bnfold.graphs.onnx.known import Known
from bnfold.graphs.onnx.shapes import Shapes

MOST_ROUNDS = 5
_MOST_INTEGERS = 64  # in a shape, a list of axes or of bounds


def settled(document: Document, scopes: list[Scope], freeze_initializers: bool) -> tuple[Shapes, Constants]:
    """What is known about the values of a model."""
    shapes = Shapes(document.model, scopes)
    constants = Constants(document, shapes, freeze_initializers)
    shapes.consult = lambda: _settle(shapes, constants, scopes[0])
    return shapes, constants


def settle_again(shapes: Shapes, constants: Constants, main: Scope, found: Mapping[Value, Told]) -> None:
    """Take in more about the values of a model, from which more may follow."""
    shapes.learn(found)
    constants.reconsider()
    shapes.consult = lambda: _settle(shapes, constants, main)


def _settle(shapes: Shapes, constants: Constants, main: Scope) -> None:
    """Tell inference about constants until there is nothing new to tell."""
    told: set[Value] = set()
    for _ in range(MOST_ROUNDS):
        found: dict[Value, Told] = {}
        for value in _worth_telling(shapes, main):
            known = constants.known(value) if value not in told else None
            if known is not None:
                found[value] = _told(known)
        if not found:
            break
        shapes.learn(found)
        told |= found.keys()
        constants.reconsider()


def _worth_telling(shapes: Shapes, main: Scope) -> Iterator[Value]:
    """Values that may be made of constants alone: of unknown size, or integers on which such a size depends."""
    for scope in main.walk():
        for node in scope.nodes:
            if not may_be_known(node):
                continue
            for value in node.outputs:
                if value is None or value.producer is not node:  # a fold may have taken the node away
                    continue
                if not shapes.is_static(value) or (shapes.elem_type(value) in INTEGERS and _decides(shapes, value)):
                    yield value


def _decides(shapes: Shapes, value: Value) -> bool:
    """Whether an operator that reads a value makes one with a size that is not known."""
    readers = (reader for reader, _ in [*value.readers, *value.lookers])
    return any(made is not None and not shapes.is_settled(made) for reader in readers for made in reader.outputs)


def _told(known: Known) -> Told:
    is_short = not known.is_floating and math.prod(known.shape) <= _MOST_INTEGERS
    return Told(known.elem_type, known.folded_shape, known.read() if is_short else None)
