"""Every part in which two models differ, judged by itself, in float64: apart from the rest, and apart from rounding.

Per cut-out (see `cutouts`), on the values of `samples`:

- `error`: both sides with the folded constants as they were before rounding; algebra alone decides, and what is past
  `ALGEBRA` is no rounding of float64.
- `rounding`: the constants in the file against those: what is past a step of their type is no rounding of theirs.
- `stored_error`, of a part that is wrong: both sides with the constants in the file, what the fold does to the model.

Errors are relative, slice by slice (`bnfold.slices`). A site has the worst of its parts. The files are read, not the
models in memory.

What was done between two models may be unknown: because nobody noted it, or because it was done inside functions, which
are written out to be run. Then the constants in the files are all there is. A part is proven where the rounding of its
weights explains the error, wrong where that is past the tolerance, and open between. A name may stand for another
value in each model: a run of both tells. Where there is none, what is off may be such a name, and the parts around it
are tried as one, a few times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from bnfold.graphs.onnx.document import Ledger
from bnfold.graphs.onnx.exact.activity import Activity
from bnfold.graphs.onnx.exact.alone import alone
from bnfold.graphs.onnx.exact.cutouts import Cutout, GraphDiff, settled_values
from bnfold.graphs.onnx.exact.engine import Engine, bodies, needs
from bnfold.graphs.onnx.exact.findings import Finding, Part, relative_error
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.graphs.onnx.exact.matching import Graph, matched
from bnfold.graphs.onnx.exact.samples import Samples, unread_rows
from bnfold.graphs.onnx.exact.steps import RELATIVE_STEP, coarsest, only_float
from bnfold.graphs.onnx.exact.windows import Array

Agrees = Callable[[bytes, Mapping[str, Array], Array], bool]
"""Whether a runtime's only output of a model on these inputs is this one in float64, up to rounding."""

ALGEBRA = 1e-10
_ROUNDS = 5
_GROWTHS = 3
_LARGER = (1, 2, 4)  # powers of ten
_MOVEMENTS = 16.0  # whoever made these weights may have rounded several times on the way
_STEPS = 16  # of the type of the weights: what their rounding has been seen to do to a part, and twice that
_MOST_KEPT = 2**27  # elements of the original's values, to follow an error through the graph


class Certifier:
    """The original and the folded model, and what the folds between them noted.

    `ledger` is None where nobody noted what was done between them. `samples` are what a run of the original came by;
    `apart` are names that stand for other values in a run of the folded model, None where that is not known.
    `tolerances` are the largest relative errors by the type of weights, named as NumPy does.
    """

    def __init__(
        self,
        original: Engine,
        folded: Engine,
        ledger: Ledger | None,
        samples: Samples,
        tolerances: Mapping[str, float],
        seed: int = 0,
        apart: Collection[str] | None = None,
        agrees: Agrees | None = None,
    ) -> None:
        self._original = original
        self._folded = folded
        self._ledger = ledger or Ledger({}, frozenset(), frozenset(), {})
        self._is_noted = ledger is not None and not ledger.in_functions
        self._samples = samples
        self._tolerances = tolerances
        self._seed = seed
        self._apart = apart
        self._agrees = agrees
        self._only_float = only_float(original.document.model)
        self._same: Mapping[str, str] = {}

    def parts(self, deadline: float) -> list[Part]:
        """What is found of every part. Raises CannotRun for models whose weights cannot be read."""
        before, after = Graph(self._original), Graph(self._folded)
        apart = {*self._ledger.changed, *(self._apart or ())} - before.handed_out
        first: dict[str, Part] = {}
        for _ in range(_ROUNDS):
            matching = matched(before, after, apart)
            self._same = matching.same
            diff = GraphDiff(before, after, matching, self._ledger.sites, self._samples.floats)
            found = [self._examined_widely(diff, piece, deadline) for piece in diff.cutouts()]
            wrong = {part.cutout.value: part for part in found if part.is_wrong and not part.cutout.sites}
            first = first or wrong
            if self._is_noted or self._apart is not None or not wrong or wrong.keys() <= before.handed_out:
                break
            apart |= wrong.keys() - before.handed_out
        for part in wrong.values():
            made = {name for node in part.cutout.before for name in node.output}
            begin = next((name for name in first if name in made), part.cutout.value)
            if begin != part.cutout.value:
                part.reason = f"{part.reason}, from '{begin}' on"
        return found

    def findings(self, parts: list[Part]) -> dict[int, Finding]:
        """By its place in the account, what is found of every site that folded."""
        inner = self._ledger.in_functions
        found = {place: Finding() for place in sorted({*self._ledger.sites.values(), *inner})}
        for part in parts:
            for place in part.cutout.sites or inner:
                found[place].add(part)
        for place, finding in found.items():
            finding.together.discard(place)
            if not finding.ran and finding.reason is None:
                finding.reason = "nothing of the model depends on it"
        return found

    def _examined_widely(self, diff: GraphDiff, piece: Cutout, deadline: float) -> Part:
        """What is found of a part; of one that is wrong, of what goes on above its borders, where that is proven.

        A value may never be what is drawn for it: behind a ReLU, none is below zero.
        """
        part = self._examined(piece, deadline)
        wider, without = part, set[str]()
        for _ in range(0 if self._is_known(piece) else _GROWTHS):
            without |= {name for name in wider.cutout.inputs.values() if name in diff.before.maker}
            if not wider.is_wrong or not without:
                break
            wider = self._examined(diff.cutout(piece.value, without), deadline)
        return wider if wider.proven else part

    def _examined(self, piece: Cutout, deadline: float) -> Part:
        part = Part(piece)
        try:
            self._examine(part, deadline)
        except CannotRun as error:
            part.reason = part.reason or str(error)
        return part

    def _examine(self, part: Part, deadline: float) -> None:
        piece = part.cutout
        names = list(dict.fromkeys(piece.inputs.values()))
        missing = next((name for name in names if name not in self._samples), None)
        if missing is not None:
            raise CannotRun(f"'{missing}' is no array, or no run comes by it")
        exact = self._exact(piece) if piece.sites else {}
        roundings = {name: self._rounding(name, value) for name, value in exact.items()}
        proven, allowed = self._bounds(piece)
        is_stored_right = all(is_rounded for _, is_rounded in roundings.values())
        activity, doubt, usual = Activity(piece.before), None, dict[str, Array]()
        for values, is_usual in self._inputs(piece, names, activity):
            for name, value in values.items():
                activity.note(name, value)
            feeds = {name: values[own] for name, own in piece.inputs.items()}
            made = self._original.part(piece.before, [piece.value], values, deadline=deadline, watch=activity.note)
            expected = made[piece.value]

            def found_with(weights: Mapping[str, Array], feeds: Any = feeds) -> Array:
                found = self._folded.part(piece.after, [piece.value], feeds, deadline=deadline, weights=weights)
                return np.asarray(found[piece.value])

            error = relative_error(expected, found_with(exact))
            if not is_usual and error > allowed and error <= _MOVEMENTS * self._moved(piece, values):
                continue  # what is large is moved further by the rounding of weights
            if is_usual or error > allowed:
                part.error = max(part.error, error)
            is_first, doubt, usual = doubt is None, doubt or "", usual or values
            if is_first:  # larger ones are beyond what a runtime computes well
                doubt = self._doubt(self._original, piece.before, piece.value, values, expected)
            if error > allowed or not is_stored_right:
                stored = found_with({})
                part.stored_error = max(part.stored_error, relative_error(expected, stored))
                if is_first and not doubt:
                    doubt = self._doubt(self._folded, piece.after, piece.value, feeds, stored)
        part.ran = True
        unread = unread_rows(names, self._samples, piece.before, self._original)
        part.reason = doubt or activity.inactive() or unread
        off = f"'{piece.value}' is off by {part.error:.2g} of its size in float64"
        if part.error > allowed and not doubt:
            part.blame(off if piece.sites or not self._is_noted else f"{off}, and no fold touches it")
        elif part.error > proven and part.error > _MOVEMENTS * self._moved(piece, usual):
            part.reason = part.reason or f"{off}, more than rounding of its weights explains"
        for name, (step, is_rounded) in roundings.items():
            part.rounding = max(part.rounding, step)
            if not is_rounded:
                part.blame(f"the constant '{name}' in the file is not the rounded one")

    def _doubt(
        self, engine: Engine, nodes: Sequence[onnx.NodeProto], value: str, values: Mapping[str, Array], found: Array
    ) -> str:
        """How a runtime contradicts what float64 found, in words; "" where it does not, or cannot be asked."""
        if (
            self._agrees is None
            or self._only_float is None
            or self._agrees(*alone(engine, nodes, value, values, self._only_float), found)
        ):
            return ""
        return f"float64 and ONNX Runtime do not agree on what computes '{value}'"

    def _inputs(self, piece: Cutout, names: list[str], activity: Activity) -> Iterator[tuple[dict[str, Array], bool]]:
        """What a part is run on: larger and larger values while a channel is inactive, or where bounds may differ.

        And whether rounding does to it what it usually does, so that less than a fault can be told.
        """
        drawn, is_known = self._one_for_all(names), self._is_known(piece)
        for values in self._samples.drawn(drawn, piece.before, self._original, self._seed):
            yield values, True
        near = None if is_known else self._samples.near_constants(drawn, self._sides(piece), self._seed)
        if near is not None:
            yield near, False
        for power in _LARGER:
            if activity.inactive() is None and (is_known or near is None):
                return
            yield self._samples.scaled_up(drawn, power, self._seed), is_known

    def _is_known(self, piece: Cutout) -> bool:
        """Whether it was noted what was done to a part: a fold, or nothing."""
        return self._is_noted or bool(piece.sites)

    def _sides(self, piece: Cutout) -> list[tuple[Engine, Sequence[onnx.NodeProto]]]:
        return [(self._original, piece.before), (self._folded, piece.after)]

    def _one_for_all(self, names: list[str]) -> dict[str, str]:
        """For each of these values the one whose elements it has; itself where no run came by that."""
        same = {name: self._same.get(name, name) for name in names}
        return {name: own if own in self._samples else name for name, own in same.items()}

    def _exact(self, piece: Cutout) -> dict[str, Array]:
        """The constants of a part that folds made, as they were before they were rounded."""
        read = {name for node in piece.after for name in needs(node)}
        read |= {tensor.name for body in bodies(piece.after) for tensor in body.initializer}
        return {name: self._ledger.exact[name]() for name in read & self._ledger.exact.keys()}

    def _bounds(self, piece: Cutout) -> tuple[float, float]:
        """Up to which error a part is proven, and past which it is wrong."""
        if self._is_known(piece):
            return ALGEBRA, ALGEBRA
        types = set()
        for engine, nodes in self._sides(piece):
            read = {name for node in nodes for name in needs(node) if engine.is_constant(name)}
            types |= {engine.elem_type(name) for name in read} & RELATIVE_STEP.keys()
        types = types or {onnx.TensorProto.FLOAT}  # of attributes
        allowed = max(self._tolerances.get(_dtype(kind), 0.0) for kind in types)
        return max(ALGEBRA, min(_STEPS * coarsest(types), allowed)), max(ALGEBRA, allowed)

    @cached_property
    def _nudged(self) -> Mapping[str, Array]:
        """The weights of the original, each moved by up to half a step."""
        return self._original.nudged(np.random.default_rng(self._seed))

    def _moved(self, piece: Cutout, values: Mapping[str, Array]) -> float:
        """How far a part of the original moves on these values when its weights do, by half a step."""
        expected, moved = (
            self._original.part(piece.before, [piece.value], values, weights=instead)[piece.value]
            for instead in ({}, self._nudged)
        )
        return relative_error(expected, moved)

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


def _dtype(kind: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind).name)
