"""The rows of the case tables: graphs beside what is expected of their fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from graphs import parse
from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False)
class Case:
    """A graph in which every site folds.

    `left` are the operators that remain, in file order, bodies and functions included.

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


@dataclass(frozen=True, eq=False)
class Kept:
    """A graph with one site, which stays: the reason, and the operator or input that blocks."""

    id: str
    graph: str
    reason: str
    blocker: str
    dtype: str = "float"
    opset: int = 17
    ir: int = 8
    values: Mapping[str, ArrayLike] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        return parse(self.graph, self.dtype, opset=self.opset, ir=self.ir, values=self.values)


POSITIVE = {"gamma": [0.5, 1.5, 0.25, 1.0]}
NO_SHIFT = {"beta": 0.0, "mean": 0.0}

CONV = "(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]>"
INTO_CONV = "(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,4,3,3] W, bn[4]>"
FIXED_CONV = "(T[N,3,6,6] x) => (T[N,4,4,4] y)"
