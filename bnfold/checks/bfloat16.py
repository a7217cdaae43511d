"""bfloat16 for a NumPy that does not have it: float32 values whose lower 16 bits are zero."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAN = np.uint32(0x7FC0)


def to_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    """The bit patterns of `values` rounded to bfloat16: to nearest, ties to even; NaN stays NaN. Any shape, kept."""
    bits = np.array(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.asarray(np.where(np.isnan(values), _NAN, rounded), np.uint16)


def from_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values that bfloat16 bit patterns stand for. Any shape, kept."""
    return np.asarray(bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def rounded(values: NDArray[Any]) -> NDArray[np.float32]:
    """`values` rounded to what bfloat16 can hold."""
    return from_bits(to_bits(values))
