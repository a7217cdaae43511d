"""Index maps: operators that move elements and compute nothing, as steps that carry a parameter across them.

For an index map `y[i] = x[m(i)]` the backward image of a parameter `p` on `y` is the parameter `q` on `x` with
`q[m(i)] = p[i]` for all `i`, and the neutral value where no `i` leads. The forward image of `q` is `p[i] = q[m(i)]`.
A step knows both. Sizes are needed only along axes on which the parameter varies; a size may be an int, a symbol
(a name that stands for the same number wherever it occurs) or None for unknown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bnfold.algebra.affine import Array, Refusal

Size = int | str | None
Shape = tuple[Size, ...]


class Step(Protocol):
    """One index map between `x` and `y`."""

    def back(self, parameter: Array, neutral: float) -> Array | Refusal:
        """The parameter on `x` that amounts to `parameter` on `y`."""

    def forth(self, parameter: Array) -> Array | Refusal:
        """The parameter on `y` that amounts to `parameter` on `x`."""


@dataclass(frozen=True)
class Permute:
    """y axis `i` is x axis `perm[i]` (Transpose)."""

    perm: tuple[int, ...]

    def back(self, parameter: Array, neutral: float) -> Array | Refusal:
        return parameter.transpose(np.argsort(self.perm))

    def forth(self, parameter: Array) -> Array | Refusal:
        return parameter.transpose(self.perm)


@dataclass(frozen=True)
class Insert:
    """y is x with axes of size 1 put in at these positions of y (Unsqueeze)."""

    axes: tuple[int, ...]

    def back(self, parameter: Array, neutral: float) -> Array | Refusal:
        return np.squeeze(parameter, self.axes)

    def forth(self, parameter: Array) -> Array | Refusal:
        return np.expand_dims(parameter, self.axes)


@dataclass(frozen=True)
class Remove:
    """y is x without these axes of x, which have size 1 (Squeeze)."""

    axes: tuple[int, ...]

    def back(self, parameter: Array, neutral: float) -> Array | Refusal:
        return np.expand_dims(parameter, self.axes)

    def forth(self, parameter: Array) -> Array | Refusal:
        return np.squeeze(parameter, self.axes)


@dataclass(frozen=True)
class Regroup:
    """y has the elements of x in the same order under another shape (Reshape, Flatten)."""

    x_shape: Shape
    y_shape: Shape

    def back(self, parameter: Array, neutral: float) -> Array | Refusal:
        return _regroup(parameter, self.y_shape, self.x_shape)

    def forth(self, parameter: Array) -> Array | Refusal:
        return _regroup(parameter, self.x_shape, self.y_shape)


@dataclass(frozen=True)
class Pick:
    """y along `axis` is x at these indices (Slice, Gather, Split); `size` is x's extent there.

    `exclusive` says that nobody sees the elements that are not picked, so that they may take any value.
    `indices` is None where they are not known, which hurts only a parameter that varies along the axis.
    """

    axis: int
    indices: tuple[int, ...] | None
    size: Size
    exclusive: bool

    def back(self, parameter: Array, neutral: float) -> Array | Refusal:
        uniform = parameter.shape[self.axis] == 1
        if uniform and (self.exclusive or bool(np.all(parameter == neutral))):
            return parameter
        if self.indices is None or not isinstance(self.size, int):
            return Refusal("dynamic-shape", f"which elements of axis {self.axis} are taken is known only at run time")
        if uniform and len(set(self.indices)) == self.size:
            return parameter
        shape = list(parameter.shape)
        shape[self.axis] = len(self.indices)
        values = np.moveaxis(np.broadcast_to(parameter, shape), self.axis, 0)
        out = np.full((self.size, *values.shape[1:]), neutral)
        out[list(self.indices)] = values
        if not np.array_equal(out[list(self.indices)], values):
            return Refusal("conflict", "one element is taken twice and would need two different values")
        return np.moveaxis(out, 0, self.axis)

    def forth(self, parameter: Array) -> Array | Refusal:
        if parameter.shape[self.axis] == 1:
            return parameter
        if self.indices is None:
            return Refusal("dynamic-shape", f"which elements of axis {self.axis} are taken is known only at run time")
        return parameter.take(self.indices, self.axis)


@dataclass(frozen=True)
class Repeat:
    """y along `axis` is x, of extent `size` there, laid `times` times end to end (Tile; Expand, where `size` is 1)."""

    axis: int
    size: Size
    times: Size

    def back(self, parameter: Array, neutral: float) -> Array | Refusal:
        if parameter.shape[self.axis] == 1:
            return parameter
        if not isinstance(self.size, int):
            return Refusal("dynamic-shape", f"axis {self.axis} is repeated and its size is not known")
        shape = list(parameter.shape)
        if not shape[self.axis]:  # nothing is left of x
            shape[self.axis] = 1
            return np.full(shape, neutral)
        shape[self.axis : self.axis + 1] = [shape[self.axis] // self.size, self.size]
        folded = parameter.reshape(shape)
        first = folded.take([0], self.axis)
        if not bool(np.all(folded == first)):
            return Refusal("conflict", "one element is repeated and would need two different values")
        return np.squeeze(first, self.axis)

    def forth(self, parameter: Array) -> Array | Refusal:
        if parameter.shape[self.axis] == 1:
            return parameter
        if not isinstance(self.times, int):
            return Refusal("dynamic-shape", f"axis {self.axis} is repeated a number of times that is not known")
        repeats = [1] * parameter.ndim
        repeats[self.axis] = self.times
        return np.tile(parameter, repeats)


def _regroup(parameter: Array, old: Shape, new: Shape) -> Array | Refusal:
    """A parameter aligned with shape `old`, carried to shape `new` of the same elements in the same order.

    Axes are matched in the smallest groups that hold equally many elements; a parameter may vary only within groups
    whose sizes are all known.
    """
    full: list[int] = []
    target: list[int] = []
    for old_axes, new_axes in matched_groups(old, new):
        if all(parameter.shape[axis] == 1 for axis in old_axes):
            full += [1] * len(old_axes)
            target += [1] * len(new_axes)
            continue
        old_sizes = [old[axis] for axis in old_axes]
        new_sizes = [new[axis] for axis in new_axes]
        if len(old_sizes) == len(new_sizes) == 1:  # the same axis, whatever its size is called
            full.append(parameter.shape[old_axes[0]])
            target.append(parameter.shape[old_axes[0]])
            continue
        if not all(isinstance(size, int) for size in old_sizes + new_sizes):
            return Refusal(
                "dynamic-shape",
                f"the reshape from {shape_text(old)} to {shape_text(new)} leaves open where the channels go",
            )
        numbers = [size for size in old_sizes if isinstance(size, int)]
        wanted = [size for size in new_sizes if isinstance(size, int)]
        fits = all(parameter.shape[axis] in (1, size) for axis, size in zip(old_axes, numbers, strict=True))
        if not fits or math.prod(numbers) != math.prod(wanted):  # what was said of the sizes is wrong somewhere
            return Refusal("dynamic-shape", f"the sizes {shape_text(old)} and {shape_text(new)} contradict each other")
        full += numbers
        target += wanted
    return np.broadcast_to(parameter, full).reshape(target)


def matched_groups(old: Shape, new: Shape) -> list[tuple[range, range]]:
    """The axes of two shapes of equally many elements, in the smallest groups that provably correspond.

    Equal counts in front imply equal counts behind, so groups are matched from the left as far as that goes, then from
    the right, and what is left in the middle is one group.
    """
    left = _match(old, new)
    done_old, done_new = (left[-1][0].stop, left[-1][1].stop) if left else (0, 0)
    rest_old, rest_new = old[done_old:], new[done_new:]
    right = [
        (range(len(old) - a.stop, len(old) - a.start), range(len(new) - b.stop, len(new) - b.start))
        for a, b in reversed(_match(rest_old[::-1], rest_new[::-1]))
    ]
    middle = (
        range(done_old, right[0][0].start if right else len(old)),
        range(done_new, right[0][1].start if right else len(new)),
    )
    return left + ([middle] if len(middle[0]) + len(middle[1]) else []) + right


def _match(old: Shape, new: Shape) -> list[tuple[range, range]]:
    groups: list[tuple[range, range]] = []
    start_old = start_new = 0
    while start_old < len(old) and start_new < len(new):
        stop_old, stop_new = start_old + 1, start_new + 1
        while True:
            mine, theirs = _extent(old[start_old:stop_old]), _extent(new[start_new:stop_new])
            if mine is None or theirs is None:
                return groups
            if mine == theirs:
                break
            grow_old = bool(theirs[1] - mine[1]) or (not mine[1] - theirs[1] and mine[0] < theirs[0])
            if grow_old and stop_old < len(old):
                stop_old += 1
            elif not grow_old and stop_new < len(new):
                stop_new += 1
            else:
                return groups
        groups.append((range(start_old, stop_old), range(start_new, stop_new)))
        start_old, start_new = stop_old, stop_new
    if all(size == 1 for size in old[start_old:] + new[start_new:]) and (start_old < len(old) or start_new < len(new)):
        groups.append((range(start_old, len(old)), range(start_new, len(new))))
    return groups


def _extent(sizes: Sequence[Size]) -> tuple[int, Counter[str]] | None:
    """The number of elements as (product of the numbers, the symbols); None where one is unknown or zero."""
    if any(size is None or size == 0 for size in sizes):
        return None
    numbers = math.prod(size for size in sizes if isinstance(size, int))
    return numbers, Counter(size for size in sizes if isinstance(size, str))


def shape_text(shape: Shape) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def carry_back(steps: Sequence[Step], parameter: Array, neutral: float) -> Array | Refusal:
    """The parameter pulled back through steps that run from x to y in this order."""
    for step in reversed(steps):
        moved = step.back(parameter, neutral)
        if isinstance(moved, Refusal):
            return moved
        parameter = moved
    return parameter


def carry_forth(steps: Sequence[Step], parameter: Array) -> Array | Refusal:
    """The parameter pushed forward through steps that run from x to y in this order."""
    for step in steps:
        moved = step.forth(parameter)
        if isinstance(moved, Refusal):
            return moved
        parameter = moved
    return parameter
