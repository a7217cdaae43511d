"""What the parts of a model are run on: values of the sizes and types that a run of the whole has seen.

Floating-point values are drawn, so that every channel is active, whatever the rest of the network would let through;
those that a part has kinks for are drawn with long tails, too. Everything else is as the run had it, but for integers
that name rows of a table, which are drawn over all of it, and for conditions, which are tried both ways.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.kernels import widened
from bnfold.graphs.onnx.exact.windows import Array

_MOST_ROUNDS = 8
_TAILS = 2.0  # powers of ten, up and down
_MOST_KEPT = 2**24  # elements of a value that is kept as it is
_MOST_BOUNDS = 64  # elements of a constant
_PROBED, _ALIKE = 256, 0.02  # elements; relative to their size

# On these, equality on dense random numbers is equality: they are linear in what is drawn, or of low degree in it.
_SMOOTH = frozenset(
    {
        *("Add", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Concat", "Constant", "Conv"),
        *(
            "ConvTranspose",
            "DepthToSpace",
            "Div",
            "Dropout",
            "Einsum",
            "Expand",
            "Flatten",
            "Gemm",
            "GlobalAveragePool",
            "Identity",
        ),
        *("MatMul", "Mul", "Neg", "Pad", "ReduceMean", "ReduceSum", "Reshape", "Shape", "Slice", "SpaceToDepth"),
        *("Split", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Unsqueeze"),
    }
)


@dataclass(frozen=True, eq=False)
class Float:
    """A floating-point value: its shape, its root mean square, and some of its elements."""

    shape: tuple[int, ...]
    size: float
    probe: Array


@dataclass
class Samples:
    """What a run of a model came by."""

    floats: dict[str, Float] = field(default_factory=dict)
    others: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, feeds: Mapping[str, Any]) -> Samples:
        """Those of the inputs."""
        samples = cls()
        for name, value in feeds.items():
            samples.note(name, widened(value))
        return samples

    def note(self, name: str, array: Array) -> None:
        """Take down a value; to be called by a run."""
        if array.dtype != np.float64:
            if array.size <= _MOST_KEPT:
                self.others[name] = array
            return
        with np.errstate(all="ignore"):
            size = float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0
        probe = array.reshape(-1)[:: max(1, array.size // _PROBED)].copy()
        self.floats[name] = Float(array.shape, size if 0 < size < math.inf else 1.0, probe)

    def __contains__(self, name: str) -> bool:
        return name in self.floats or name in self.others

    def unlike(self, other: Samples) -> set[str]:
        """The names under which a run of another model, on the same inputs, came by something else."""
        names = self.floats.keys() & other.floats.keys()
        found = {name for name in names if not _alike(self.floats[name], other.floats[name])}
        found |= self.floats.keys() & other.others.keys() | self.others.keys() & other.floats.keys()
        both = self.others.keys() & other.others.keys()
        return found | {name for name in both if not np.array_equal(self.others[name], other.others[name])}

    def drawn(
        self, names: Mapping[str, str], nodes: Sequence[onnx.NodeProto], engine: Engine, seed: int
    ) -> Iterator[dict[str, Array]]:
        """Values of these names, each those of another name, for a part of these nodes; one round after the other."""
        rows = {name: count for name in names if (count := _rows(name, nodes, engine))}
        rounds = 1 if all(node.op_type in _SMOOTH for node in nodes) else 2
        if any(name in self.others and self.others[name].dtype == bool for name in names):
            rounds = 2
        for name, count in rows.items():
            rounds = max(rounds, min(_MOST_ROUNDS, -(-count // max(self.others[name].size, 1))))
        for turn in range(rounds):
            yield {name: self._one(own, turn, rows.get(name), seed) for name, own in names.items()}

    def scaled_up(self, names: Mapping[str, str], power: int, seed: int) -> dict[str, Array]:
        """Values of these names, floating-point ones larger by a power of ten."""
        drawn = {name: self._one(own, 0, None, seed + power) for name, own in names.items()}
        return {name: value * 10.0**power if name in self.floats else value for name, value in drawn.items()}

    def near_constants(
        self, names: Mapping[str, str], sides: Iterable[tuple[Engine, Sequence[onnx.NodeProto]]], seed: int
    ) -> dict[str, Array] | None:
        """Values of these names between the constants that the nodes of both sides read, where cases are told apart;
        None where the nodes are smooth, or read none.
        """
        sides = list(sides)
        if all(node.op_type in _SMOOTH for _, nodes in sides for node in nodes):
            return None
        found = [0.0]
        for engine, nodes in sides:
            for name in {name for node in nodes for name in node.input if engine.is_constant(name)}:
                array = engine.constant(name)
                if array is not None and array.dtype.kind in "fiu" and array.size <= _MOST_BOUNDS:
                    found += [float(number) for number in array.reshape(-1) if math.isfinite(number)]
        bounds = np.unique(found)
        if bounds.size < 2:
            return None
        rng = np.random.default_rng((seed, bounds.size))
        drawn = {own: self._between(own, bounds, rng) for own in dict.fromkeys(names.values())}
        return {name: drawn[own] for name, own in names.items()}

    def _between(self, name: str, bounds: Array, rng: np.random.Generator) -> Array:
        shape = self.floats[name].shape if name in self.floats else self.others[name].shape
        low, high = rng.choice(bounds, shape), rng.choice(bounds, shape)
        found = low + (high - low) * rng.random(shape) * rng.integers(0, 2, shape)  # half of them on a bound
        if name in self.floats:
            return np.asarray(found)
        own = self.others[name]
        if own.dtype.kind not in "iu":
            return own
        limits = np.iinfo(own.dtype)
        moved = np.rint(found) + rng.integers(-1, 2, shape)
        return np.asarray(np.clip(moved, max(limits.min, -(2**31)), min(limits.max, 2**31)).astype(own.dtype))

    def _one(self, name: str, turn: int, rows: int | None, seed: int) -> Array:
        rng = np.random.default_rng((seed, turn, zlib.crc32(name.encode())))
        if name in self.floats:
            seen = self.floats[name]
            drawn = seen.size * rng.standard_normal(seen.shape)
            return drawn if turn % 2 == 0 else drawn * 10.0 ** rng.uniform(-_TAILS, _TAILS, seen.shape)
        value = self.others[name]
        if rows is not None:
            first = turn * value.size
            return (np.arange(first, first + value.size) % rows).reshape(value.shape).astype(value.dtype)
        return ~value if value.dtype == bool and turn % 2 else value


def unread_rows(names: Iterable[str], samples: Samples, nodes: Sequence[onnx.NodeProto], engine: Engine) -> str | None:
    """Whether a table has more rows than the rounds of `drawn` read, in words."""
    for name in names:
        count = _rows(name, nodes, engine)
        if count is not None and count > _MOST_ROUNDS * samples.others[name].size:
            return f"'{name}' names {count} rows, more than are tried"
    return None


def _alike(a: Float, b: Float) -> bool:
    if a.shape != b.shape:
        return False
    with np.errstate(all="ignore"):
        gap = np.nan_to_num(np.abs(a.probe - b.probe), posinf=0.0)
    return bool((gap <= _ALIKE * a.size).all())


def _rows(name: str, nodes: Sequence[onnx.NodeProto], engine: Engine) -> int | None:
    """How many rows the table has that a value takes rows of, where a part has that table."""
    found = []
    for node in nodes:
        if node.op_type == "Gather" and node.input[1] == name and engine.is_weight(node.input[0]):
            axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
            found.append(engine.stored(node.input[0]).shape[axis])
    return min(found, default=None)
