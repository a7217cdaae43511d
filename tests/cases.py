"""A row of the case tables: a graph that folds, beside what is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from graphs import parse
from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False)
class Case:
    """`left` are the operators that remain, in file order, bodies and functions included.

    `sites` is the account: per site, separated by semicolons, the nodes that absorbed it and, behind "<", the operators
    that it went through, from the site on.
    """

    id: str
    graph: str
    left: str
    sites: str
    direction: str = "backward"
    opset: int = 17
    ir: int = 8
    values: Mapping[str, ArrayLike] = field(default_factory=dict)

    def model(self, dtype: str) -> onnx.ModelProto:
        return parse(self.graph, dtype, opset=self.opset, ir=self.ir, values=self.values)


POSITIVE = {"gamma": [0.5, 1.5, 0.25, 1.0]}
NO_SHIFT = {"beta": 0.0, "mean": 0.0}
