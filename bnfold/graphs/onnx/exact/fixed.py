"""What a model computes from its weights alone, in the types that it declares.

A runtime computes these values before anything else, and rounds them: `Cast(w, to=float16)` is another constant than
`w`. So they are part of the function, and are computed here as a runtime does it, by what evaluates constants for
folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx

from bnfold.graphs.onnx.constants import EVALUATED
from bnfold.graphs.onnx.evaluation import evaluate
from bnfold.graphs.onnx.exact.windows import Array
from bnfold.graphs.onnx.index import graphs_of, is_foreign


class Fixed:
    """The values that these nodes, which stand in topological order, compute from weights alone.

    `stored` gives a weight; `weights` are the names of all.
    """

    def __init__(
        self, nodes: Iterable[onnx.NodeProto], weights: Iterable[str], stored: Callable[[str], Array], opset: int
    ) -> None:
        self._stored, self._opset = stored, opset
        self._makers: dict[str, onnx.NodeProto] = {}
        self._weights = set(weights)
        self._known: dict[str, Array | None] = {}
        for node in nodes:
            is_whole = node.op_type in EVALUATED and not is_foreign(node) and not graphs_of(node)
            if is_whole and all(name in self._weights or name in self._makers for name in node.input if name):
                self._makers.update((name, node) for name in node.output if name)

    def __contains__(self, name: str) -> bool:
        return name in self._makers

    def get(self, name: str) -> Array | None:
        """A value; None where an operator that it takes has no implementation."""
        waiting = [name]
        while waiting:  # no recursion: chains of constants may be longer than Python's stack
            at = waiting[-1]
            node = self._makers.get(at)
            missing = [read for read in node.input if read and read not in self._known] if node is not None else []
            waiting += missing
            if missing:
                continue
            waiting.pop()
            if at not in self._known:
                self._known[at] = self._stored(at) if node is None else self._computed(node, at)
        return self._known[name]

    def makers(self, names: Iterable[str]) -> list[onnx.NodeProto]:
        """The nodes that compute these values, as far as they are of this kind, in topological order."""
        wanted = set(names)
        found = []
        for node in reversed({id(node): node for node in self._makers.values()}.values()):
            if not wanted.isdisjoint(node.output):
                found.append(node)
                wanted.update(node.input)
        return found[::-1]

    def _computed(self, node: onnx.NodeProto, name: str) -> Array | None:
        feeds = [self._known[read] if read else None for read in node.input]
        if any(read and self._known[read] is None for read in node.input):
            return None
        with np.errstate(all="ignore"):
            return evaluate(node, self._opset, feeds, list(node.output).index(name))
