"""Every fold judged by itself, in float64: apart from other folds, and apart from rounding.

Per cut-out (see `cutouts`), on normally distributed inputs of the sizes that a run of the original gives them, which
also runs the branches that are not taken and loops that make no trip:

- `error`: both sides with the folded constants as they were before rounding; algebra alone decides, and what is past
  `ALGEBRA` is no rounding of float64.
- `rounding`: the constants in the file against those: what is past a step of their type is no rounding of theirs.
- `stored_error`: both sides with the constants in the file: what the fold does to the model.

A site has the worst of its cut-outs. The file is read, not the model in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from bnfold.graphs.onnx.document import Ledger
from bnfold.graphs.onnx.exact.cutouts import Cutout, cutouts, settled_values
from bnfold.graphs.onnx.exact.engine import Engine, bodies, needs
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.graphs.onnx.exact.steps import RELATIVE_STEP
from bnfold.graphs.onnx.exact.windows import Array
from bnfold.graphs.onnx.index import graphs_of

ALGEBRA = 1e-10
_MOST_KEPT = 2**27  # elements of the original's values, to follow an error through the graph


@dataclass
class Finding:
    """What is known of one site's fold: `reason` says why nothing is, or why it is wrong.

    `values` are those that its cut-outs compute, `together` the other sites in them.
    """

    error: float = 0.0
    rounding: float = 0.0
    stored_error: float = 0.0
    operators: list[str] = field(default_factory=list)
    together: set[int] = field(default_factory=set)
    values: list[str] = field(default_factory=list)
    reason: str | None = None
    ran: bool = False
    is_wrong: bool = False

    @property
    def proven(self) -> bool:
        return self.ran and self.reason is None

    def blame(self, reason: str) -> None:
        """Note that the fold is wrong; the first reason is kept."""
        if not self.is_wrong:
            self.is_wrong, self.reason = True, reason


class Certifier:
    """The original and the folded model, and what the folds between them noted.

    Raises CannotRun where a model cannot be run in float64.
    """

    def __init__(self, original: Engine, folded: Engine, ledger: Ledger) -> None:
        self._original = original
        self._folded = folded
        self._ledger = ledger

    def findings(self, feeds: Mapping[str, Array], deadline: float, seed: int = 0) -> dict[int, Finding]:
        """By its place in the account, what is found of every site that folded."""
        found = {place: Finding() for place in sorted({*self._ledger.sites.values(), *self._ledger.in_functions})}
        pieces = list(cutouts(self._original.document, self._folded.document, self._ledger))
        samples = self._samples(pieces, feeds, deadline, np.random.default_rng(seed))
        for piece in pieces:
            here = [found[place] for place in piece.sites]
            for finding in here:
                finding.operators += [node.op_type for node in piece.before if node.op_type not in finding.operators]
                finding.together.update(piece.sites)
                finding.values.append(piece.value)
            try:
                self._examine(piece, samples, here, deadline)
            except CannotRun as error:
                for finding in here:
                    finding.reason = finding.reason or str(error)
        for place, finding in found.items():
            finding.together.discard(place)
            if place in self._ledger.in_functions:
                finding.ran, finding.reason = False, "it lies inside a function, whose calls are written out to be run"
            elif not finding.ran and finding.reason is None:
                finding.reason = "nothing of the model depends on it"
        return found

    def _samples(
        self, pieces: list[Cutout], feeds: Mapping[str, Array], deadline: float, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Inputs of all cut-outs: random numbers in place of floating-point values, everything else as it comes."""
        wanted = {name for piece in pieces for name in piece.inputs}
        out: dict[str, Any] = {}

        def watch(name: str, array: Array) -> None:
            if name not in wanted:
                return
            if array.dtype != np.float64:
                out[name] = array
                return
            with np.errstate(over="ignore", invalid="ignore"):
                size = float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0
            # Made anew where it is used: the values of a whole network may not fit into memory.
            out[name] = (array.shape, size if 0 < size < math.inf else 1.0, int(rng.integers(2**31)))

        for name, array in feeds.items():
            watch(name, np.asarray(array, np.float64) if np.asarray(array).dtype.kind == "f" else np.asarray(array))
        self._original.run(feeds, deadline=deadline, watch=watch, inside=True)
        return out

    def _examine(self, piece: Cutout, samples: Mapping[str, Any], here: list[Finding], deadline: float) -> None:
        missing = [name for name in piece.inputs if name not in samples]
        if missing:
            raise CannotRun(f"'{missing[0]}' is no array, or no run comes by it")
        holders = [{node.output[0] for node in side if graphs_of(node)} for side in (piece.before, piece.after)]
        if holders[0] != holders[1]:
            raise CannotRun("a node with a body makes another value than before")
        feeds = {name: _drawn(samples[name]) for name in piece.inputs}
        for name in piece.constants:
            known = self._ledger.known(name)
            if known is None:
                raise CannotRun(f"the constant '{name}' is not known")
            feeds[name] = known
        read = {name for node in piece.after for name in needs(node)}
        read |= {tensor.name for body in bodies(piece.after) for tensor in body.initializer}
        read &= self._ledger.exact.keys()
        exact = {name: self._ledger.exact[name]() for name in read}
        expected = self._original.part(piece.before, [piece.value], feeds, deadline=deadline)[piece.value]
        unrounded = self._folded.part(piece.after, [piece.value], feeds, deadline=deadline, weights=exact)[piece.value]
        stored = self._folded.part(piece.after, [piece.value], feeds, deadline=deadline)[piece.value]
        error, stored_error = relative_error(expected, unrounded), relative_error(expected, stored)
        for finding in here:
            finding.ran = True
            finding.error = max(finding.error, error)
            finding.stored_error = max(finding.stored_error, stored_error)
            if error > ALGEBRA:
                finding.blame(f"'{piece.value}' is off by {error:.2g} of its size in float64")
        for name, value in exact.items():
            step, is_rounded = self._rounding(name, value)
            for finding in here:
                finding.rounding = max(finding.rounding, step)
                if not is_rounded:
                    finding.blame(f"the constant '{name}' in the file is not the rounded one")

    def _rounding(self, name: str, exact: Array) -> tuple[float, bool]:
        """The largest relative difference between a constant in the file and in float64; whether it is rounding."""
        tensor = self._folded.stored(name)
        kind = self._folded.elem_type(name)
        stored = np.asarray(tensor, np.float64)
        if stored.shape != exact.shape:
            return math.inf, False
        gap, size = np.abs(stored - exact), np.abs(exact)
        step, smallest = RELATIVE_STEP[kind], _SMALLEST.get(kind, 2.0**-126)
        is_rounded = bool(np.all(gap <= step * np.maximum(size, smallest)))
        normal = size >= smallest
        return float((gap[normal] / size[normal]).max(initial=0.0)), is_rounded

    def growth(self, feeds: Mapping[str, Array], deadline: float) -> list[tuple[str, float]]:
        """Every settled value with its relative error in the folded model, in the order of its nodes.

        Empty where the original's values are too many to be kept.
        """
        names = set(settled_values(self._original.document, self._folded.document, self._ledger))
        kept: dict[str, Array] = {}
        total = 0

        def keep(name: str, array: Array) -> None:
            nonlocal total
            if name in names and array.dtype == np.float64:
                total += array.size
                if total <= _MOST_KEPT:
                    kept[name] = array

        out: list[tuple[str, float]] = []

        def hold(name: str, array: Array) -> None:
            if name in kept:
                out.append((name, relative_error(kept.pop(name), array)))

        self._original.run(feeds, deadline=deadline, watch=keep)
        if total > _MOST_KEPT:
            return []
        self._folded.run(feeds, deadline=deadline, watch=hold)
        return out


# Of normal numbers; float32 and bfloat16 have the same.
_SMALLEST: dict[int, float] = {onnx.TensorProto.FLOAT16: 2.0**-14, onnx.TensorProto.DOUBLE: 2.0**-1022}


def relative_error(expected: Any, found: Any) -> float:
    """`max|found - expected|` relative to `max|expected|`; infinite where shapes, types or NaN differ."""
    if isinstance(expected, list) or isinstance(found, list):
        raise CannotRun("a sequence is no array")
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return math.inf
    if expected.dtype != np.float64:
        return 0.0 if np.array_equal(expected, found) else math.inf
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        return math.inf
    error = float(np.abs(found[finite] - expected[finite]).max(initial=0.0))
    size = float(np.abs(expected[finite]).max(initial=0.0))
    return error / size if size else (math.inf if error else 0.0)


def _drawn(sample: Any) -> Any:
    if isinstance(sample, np.ndarray):
        return sample
    shape, size, seed = sample
    return size * np.random.default_rng(seed).standard_normal(shape)
