"""Whether a folded constant fits its type: what decides quickly never lets pass what does not fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bnfold.graphs.rounding import norm

FLOATS = st.sampled_from((np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)))
ROUNDING = 1.001


@given(FLOATS.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))))
def test_no_magnitude_exceeds_the_norm(array: NDArray[Any]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        found = norm(array)
    largest = float(np.abs(array).max()) if array.size else 0.0
    assert found * ROUNDING >= largest or (math.isnan(found) and not math.isfinite(largest))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 7, 1000, 100_003])
def test_the_norm_is_not_far_away(dtype: type, size: int) -> None:
    array = np.random.default_rng(size).standard_normal(size).astype(dtype)
    assert norm(array) <= ROUNDING * math.sqrt(size) * np.abs(array).max()


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4), ()])
def test_any_order_of_the_elements(shape: tuple[int, ...]) -> None:
    array = np.linspace(-3.0, 2.0, math.prod(shape)).reshape(shape)
    assert norm(array.T) == pytest.approx(norm(array))
    assert norm(array[::-1] if shape else array) == pytest.approx(norm(array))
