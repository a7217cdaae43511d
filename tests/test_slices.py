"""Every channel is judged by its own size, and what stands for no size is set apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from graphs import parse
from numpy.typing import ArrayLike

from bnfold.checks.compare import compare
from bnfold.checks.options import CheckOptions
from bnfold.checks.verify import verify
from bnfold.slices import APART, WHOLE, Slices, far_above

# Boxes in pixels beside scores; classes of which some are masked; a doubled score in one place of four.
DETECTOR = "(T[1,30,8] x) => (T[1,30,6] y) <T[8,6] w, T[6] b> { m = MatMul(x, w) y = Add(m, b) }"
MASKED = "(T[5,8] x) => (T[5,6] y) <T[8,6] w, T[6] mask> { m = MatMul(x, w) y = Add(m, mask) }"
RNG = np.random.default_rng(5)
W = RNG.standard_normal((8, 6))
PIXELS = np.array([640.0, 640, 640, 640, 0.3, 0.3])
MASK = np.array([0.0, 0, 0, 0, -1e9, -1e9])


def passes(text: str, values: Mapping[str, ArrayLike], changed: Mapping[str, ArrayLike]) -> bool:
    a, b = (parse(text, "float", values=given).SerializeToString() for given in (values, {**values, **changed}))
    verdict = verify(a, b, CheckOptions(check_n=3))
    assert verify(a, a, CheckOptions(check_n=3)).passed
    return verdict.passed


@pytest.mark.parametrize("size", [1e-3, 0.02, 0.5])
def test_a_score_beside_boxes_is_judged_by_its_own_size(size: float) -> None:
    values = {"w": W * PIXELS, "b": PIXELS / 2}
    wrong = W * PIXELS
    wrong[:, 4] *= 1 + size
    assert not passes(DETECTOR, values, {"w": wrong})
    right = W * PIXELS
    right[:, 4] *= 1 + 1e-6
    assert passes(DETECTOR, values, {"w": right})


@pytest.mark.parametrize("size", [1e-3, 0.02, 1.0])
def test_a_mask_is_no_size(size: float) -> None:
    values = {"w": W, "mask": MASK}
    assert not passes(MASKED, values, {"w": W * (1 + size)})
    assert not passes(MASKED, values, {"mask": np.where(MASK, -2e9, 0.0)})


def test_sizes_are_taken_along_every_short_axis() -> None:
    array = np.array([[1.0, 2.0], [30.0, 4.0], [5.0, 600.0]])
    found = Slices.largest(array)
    assert found.whole == 600.0
    assert {key: list(numbers) for key, numbers in found.numbers.items()} == {
        WHOLE: [600.0],
        0: [2.0, 30.0, 600.0],
        1: [30.0, 600.0],
    }
    place = found.over(Slices.largest(np.ones((3, 2))))
    assert (place.ratio, str(place)) == (600.0, WHOLE)
    assert (
        str(Slices.largest(np.array([[1.0, 1], [1, 1]])).over(Slices({1: np.array([1.0, 0.1])}))) == "place 1 of axis 1"
    )


def test_a_slice_is_judged_by_its_largest_share_but_by_a_thousandth_of_the_whole_at_least() -> None:
    many = np.ones((100, 1))
    seen = Slices.largest(many * [1.0, 0.5, 0.0]).shares()
    now = Slices.largest(many * [10.0, 0.1, 0.0])
    assert list(now.to_judge_by(now.shares().join(seen)).numbers[1]) == [10.0, 5.0, 0.01]


@pytest.mark.parametrize(("entries", "size"), [(1, 1.0), (3, 0.8), (6, 0.08), (12, 0.0253), (100, 0.01)])
def test_few_entries_may_be_small_by_chance(entries: int, size: float) -> None:
    sizes = Slices.largest(np.ones((entries, 1)) * [1.0, 0.01])
    assert sizes.to_judge_by(sizes.shares()).numbers[1][1] == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize(
    ("array", "apart"),
    [
        ([1.0, 2.0, 1e9], [False, False, True]),
        ([1.0, 3e38, 3e38], [False, True, True]),
        ([1.0, 2.0, 900.0], None),  # not large in itself
        ([1.0, 2.0, 3e3], [False, False, True]),
        ([1.0, 20.0, 2e3], None),  # not far above
        ([*np.geomspace(2e4, 9e4, 50), 1.0], None),  # a range of numbers stands for sizes
        ([0.0, 1e9], None),
    ],
)
def test_what_stands_for_no_size(array: list[float], apart: list[bool] | None) -> None:
    found = far_above(np.asarray(array))
    assert (None if found is None else list(found)) == apart


def test_entries_set_apart_are_compared_relative_to_themselves() -> None:
    gap = compare(np.array([[1.0, 1e9], [2.0, 1e9]]), np.array([[1.0, 1.5e9], [2.0, 1e9]]))
    assert gap.errors.numbers[APART] == [0.5]
    assert gap.errors.whole == 0.0
