"""What is found of the parts in which two models differ, and of the folds that made them so."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnfold.graphs.onnx.exact.cutouts import Cutout
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.slices import Slices


@dataclass
class Part:
    """What is known of one part: `reason` says why it is not proven, or why it is wrong."""

    cutout: Cutout
    error: float = 0.0
    rounding: float = 0.0
    stored_error: float = 0.0
    reason: str | None = None
    ran: bool = False
    is_wrong: bool = False

    @property
    def proven(self) -> bool:
        return self.ran and self.reason is None

    def blame(self, reason: str) -> None:
        """Note that the part is wrong; the first reason is kept."""
        if not self.is_wrong:
            self.is_wrong, self.reason = True, reason


@dataclass
class Finding(Part):
    """What is known of one site's fold: the worst of its parts.

    `operators` are the types of operator in these, `values` what they compute, `together` the other sites in them.
    """

    cutout: Any = None
    operators: list[str] = field(default_factory=list)
    together: set[int] = field(default_factory=set)
    values: list[str] = field(default_factory=list)

    def add(self, part: Part) -> None:
        """Take over what is known of one part."""
        types = [node.op_type for node in part.cutout.before]
        self.operators += [kind for kind in dict.fromkeys(types) if kind not in self.operators]
        self.together.update(part.cutout.sites)
        self.values.append(part.cutout.value)
        self.ran |= part.ran
        self.error, self.rounding = max(self.error, part.error), max(self.rounding, part.rounding)
        self.stored_error = max(self.stored_error, part.stored_error)
        if part.is_wrong:
            self.blame(part.reason or "")
        self.reason = self.reason or part.reason


def relative_error(expected: Any, found: Any) -> float:
    """`max|found - expected|` relative to `max|expected|`, in the slice where that is largest.

    Infinite where shapes, types or NaN differ. Raises CannotRun for what is no array, and where nothing is finite.
    """
    if isinstance(expected, list) or isinstance(found, list):
        raise CannotRun("a sequence is no array")
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return math.inf
    if expected.dtype != np.float64:
        return 0.0 if np.array_equal(expected, found) else math.inf
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        return math.inf
    if not finite.any():
        raise CannotRun("it gives no finite number")
    with np.errstate(invalid="ignore"):
        errors = Slices.largest(np.where(finite, np.abs(found - expected), 0.0))
    sizes = Slices.largest(np.where(finite, np.abs(expected), 0.0))
    return errors.over(sizes.to_judge_by(sizes.shares())).ratio
