"""A constant as the folds see it: read when its elements are needed, and rounded once, when it is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.graphs.rounding import norm, unfit

FLOATING = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
}
_BFLOAT16 = 3.3895313892515355e38, 2.0**-7


@cache
def _limits(elem_type: int) -> tuple[float, float]:
    """The largest number of a type, and its step from 1."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    return (float(np.finfo(dtype).max), float(np.finfo(dtype).eps)) if dtype.kind == "f" else _BFLOAT16


@dataclass(eq=False, slots=True)
class Known:
    """A constant: its element type, shape, a way to read it, and the affine that folds have put on it since.

    `array` has the constant's own element type. `float64` and `rounded` are `affine(array)`, the latter rounded once;
    `plain64` and `stored64` are `array` and `rounded` in float64.
    `plain` is the constant as it was before the first fold.
    """

    elem_type: int
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]
    affine: Affine | None = None
    base_name: str = ""
    plain: Known | None = None
    _extent: float | None = None
    _folded_shape: tuple[int, ...] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return onnx.helper.tensor_dtype_to_np_dtype(self.elem_type)

    @property
    def is_floating(self) -> bool:
        return self.elem_type in FLOATING

    @property
    def folded_shape(self) -> tuple[int, ...]:
        if self.affine is None:
            return self.shape
        if self._folded_shape is None:
            scale, shift = self.affine.scale.shape, self.affine.shift.shape
            kept = _spans(self.shape, scale) and _spans(self.shape, shift)
            self._folded_shape = self.shape if kept else np.broadcast_shapes(self.shape, scale, shift)
        return self._folded_shape

    @property
    def nbytes(self) -> int:
        return math.prod(self.folded_shape) * self.dtype.itemsize

    def plain64(self) -> Array:
        return np.asarray(self.read(), np.float64)

    def float64(self) -> Array:
        return self.plain64() if self.affine is None else self.affine(self.plain64())

    def stored64(self) -> Array:
        return self.rounded().astype(np.float64)

    def rounded(self) -> NDArray[Any]:
        """`affine(array)` in the constant's type: computed in float64, rounded once."""
        array = self.read()
        if self.affine is None:
            return array
        dtype = self.dtype
        if self.affine.has_shift or dtype not in (np.float32, np.float64):
            out = self.affine(array).astype(dtype)
        else:  # float32 weights are most of a model: no float64 copy of them is made
            out = np.empty(self.folded_shape, dtype)
            np.multiply(array, self.affine.scale, out=out, dtype=np.float64, casting="same_kind")
        return np.asarray(out, order="C")  # ascontiguousarray would give a number without axes one

    def then(self, affine: Affine) -> Known:
        """This constant after one more affine, which is composed with earlier ones and not rounded in between."""
        whole = affine if self.affine is None else affine.after(self.affine.aligned(affine.rank))
        return Known(self.elem_type, self.shape, self.read, whole, self.base_name, self.plain or self)

    def refusal(self) -> Refusal | None:
        """Why the folded constant is not a finite number in its own type, where it is not."""
        if self.affine is None:
            return None
        return unfit(
            self.base_name, self.dtype, self.limit, self.affine, lambda: self.extent, self.float64, self._is_finite
        )

    @property
    def limit(self) -> float:
        """The largest number of its type."""
        return _limits(self.elem_type)[0]

    @property
    def step(self) -> float:
        """The distance between 1 and the next larger number of its type."""
        return _limits(self.elem_type)[1]

    def _is_finite(self) -> bool:
        return bool(np.isfinite(self.stored64()).all())

    @property
    def extent(self) -> float:
        """A number that no magnitude in the original constant exceeds, but for rounding; NaN where it holds one."""
        if self.plain is not None:
            return self.plain.extent
        if self._extent is None:
            self._extent = norm(self.read())
        return self._extent


def _spans(shape: tuple[int, ...], parameter: tuple[int, ...]) -> bool:
    """Whether a parameter is of the same rank, and broadcast to this shape without enlarging it."""
    if len(shape) != len(parameter):
        return False
    if parameter.count(1) == len(parameter):
        return True
    return all(size in (1, extent) for size, extent in zip(parameter, shape, strict=True))
