"""Affine maps and the steps that carry them: composition, alignment, matched groups of axes, back and forth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import kind_examples as examples
import kind_semantics as sem
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kind_examples import many
from kind_semantics import assert_close

from bnfold.algebra.affine import Affine, Refusal, aligned, compact
from bnfold.algebra.axes import Regroup, Repeat, matched_groups

RTOL = 1e-9


# Affine maps.


@st.composite
def composable(draw: examples.Draw) -> tuple[tuple[int, ...], list[Affine]]:
    shape = draw(examples.shapes(0, 4))
    return shape, [draw(examples.affines(shape)) for _ in range(3)]


@many
@given(composable(), examples.SEEDS)
def test_composition_is_application_in_turn_and_associative(given_: Any, seed: int) -> None:
    shape, (a, b, c) = given_
    x = np.random.default_rng(seed).standard_normal(shape)
    assert_close(a.after(b)(x), a(b(x)), RTOL)
    assert_close(a.after(b.after(c))(x), a.after(b).after(c)(x), RTOL)
    assert_close(a.after(Affine.identity(len(shape)))(x), a(x), RTOL)
    assert_close(a.shifting().after(a.scaling())(x), a(x), RTOL)


@many
@given(composable(), examples.SEEDS)
def test_compact_and_aligned_keep_the_meaning(given_: Any, seed: int) -> None:
    shape, (a, b, _) = given_
    x = np.random.default_rng(seed).standard_normal(shape)
    full = Affine(np.broadcast_to(a.scale, shape), np.broadcast_to(a.shift, shape))
    assert_close(Affine(compact(full.scale), compact(full.shift))(x), a(x), RTOL)
    assert all(
        len(set(np.moveaxis(a.scale, axis, 0)[:, ...].ravel())) > 1 for axis in range(x.ndim) if a.scale.shape[axis] > 1
    )
    assert_close(a.aligned(len(shape) + 2)(x[None, None])[0, 0], a(x), RTOL)
    assert_close(a.aligned(len(shape) + 2).aligned(len(shape))(x), a(x), RTOL)
    assert a.is_identity == (a.after(b) is not None and np.array_equal(a(x), x) and np.array_equal(a(x + 1), x + 1))


def test_an_affine_cannot_lose_an_axis_along_which_it_varies() -> None:
    with pytest.raises(ValueError, match="rank 1"):
        aligned(np.ones((2, 3)), 1)


# Axes.


@st.composite
def regroupings(draw: examples.Draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    old = draw(examples.shapes(1, 5))
    return old, examples.reshaped(draw, old)


def is_partition(groups: list[tuple[range, range]], old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Whether the groups cover all axes of both, in order."""
    return [list(itertools.chain(*(group[side] for group in groups))) for side in (0, 1)] == [
        list(range(len(old))),
        list(range(len(new))),
    ]


def prefix_products(sizes: Sequence[int]) -> set[int]:
    return set(itertools.accumulate(sizes, initial=1, func=lambda a, b: a * b))


@many
@given(regroupings())
def test_groups_of_known_sizes_are_the_smallest_that_hold_equally_many(shapes: Any) -> None:
    old, new = shapes
    groups = matched_groups(old, new)
    assert is_partition(groups, old, new)
    products = [(math.prod(old[i] for i in a), math.prod(new[i] for i in b)) for a, b in groups]
    assert all(mine == theirs for mine, theirs in products)
    cuts = prefix_products(old) & prefix_products(new)
    assert sum(mine > 1 for mine, _ in products) == len(cuts) - 1


@many
@given(regroupings(), st.data())
def test_groups_of_unknown_sizes_hold_equally_many_whatever_the_sizes_are(shapes: Any, data: st.DataObject) -> None:
    old, new = shapes
    groups = matched_groups(*examples.masked(data.draw, old, new))
    assert is_partition(groups, old, new)
    assert all(math.prod(old[i] for i in a) == math.prod(new[i] for i in b) for a, b in groups)


@many
@given(regroupings(), st.data())
def test_a_parameter_crosses_a_reshape_as_its_full_array_would(shapes: Any, data: st.DataObject) -> None:
    old, new = shapes
    a = data.draw(examples.affines(old))
    told = Regroup(*examples.masked(data.draw, old, new))
    for parameter in (a.scale, a.shift):
        full = np.broadcast_to(parameter, old)
        for step in (Regroup(old, new), told):
            there = step.forth(parameter)
            if step is not told:
                assert not isinstance(there, Refusal)
            if isinstance(there, Refusal):
                continue
            assert_close(np.broadcast_to(there, new), full.reshape(new), RTOL)
            back = step.back(there, 0.0)
            if isinstance(back, Refusal):
                assert step is told
            else:
                assert_close(np.broadcast_to(back, old), full, RTOL)


@many
@given(st.data())
def test_back_and_forth_of_every_step_agree(data: st.DataObject) -> None:
    """Forth after back is where one started; what came from above is recognised below as itself."""
    shape = data.draw(examples.shapes())
    step, new = examples.one_step(data.draw, shape)
    below, above = data.draw(examples.affines(new)), data.draw(examples.affines(shape))
    for parameter, neutral in ((below.scale, 1.0), (below.shift, 0.0)):
        back = step.back(parameter, neutral)
        if isinstance(back, Refusal):
            continue
        forth = step.forth(back)
        assert not isinstance(forth, Refusal)
        assert_close(np.broadcast_to(forth, new), np.broadcast_to(parameter, new), RTOL)
    for parameter, neutral in ((above.scale, 1.0), (above.shift, 0.0)):
        forth = step.forth(parameter)
        assert not isinstance(forth, Refusal)
        assert_close(np.broadcast_to(forth, new), sem.move(np.broadcast_to(parameter, shape), step), RTOL)
        back = step.back(forth, neutral)
        assert not isinstance(back, Refusal), "the image of a parameter has a preimage"
        again = step.forth(back)
        assert not isinstance(again, Refusal)
        assert_close(np.broadcast_to(again, new), np.broadcast_to(forth, new), RTOL)


@pytest.mark.parametrize(("size", "times"), [(1, 0), (0, 2), (3, 0)])
def test_nothing_is_asked_of_what_is_repeated_into_nothing(size: int, times: int) -> None:
    back = Repeat(0, size, times).back(np.zeros((0, 2)), 1.0)
    assert isinstance(back, np.ndarray)
    np.testing.assert_array_equal(back, np.ones((1, 2)))
