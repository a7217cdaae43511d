"""The laws of the algebra as properties, over random instances of every kind.

Backward: `a(op(x_0, x_1, ...)) == op'(b_0(x_0), b_1(x_1), ...)`. Forward: `op(.., a(x), ..) == out(op'(.., x, ..))`.
Every alternative that a rule offers must satisfy its law; where a rule could refuse but need not, it must not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import kind_examples as examples
import kind_semantics as sem
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kind_semantics import Array, Function, Operator

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Refusal, aligned, compact
from bnfold.algebra.axes import Regroup, Shape, matched_groups
from bnfold.algebra.edits import Append, Drop, Step, Supply
from bnfold.algebra.rules import backward, forward

RTOL = 1e-9
NODE = "node"

many = settings(max_examples=400, deadline=None, derandomize=True)


def assert_same(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=RTOL * scale)


# The laws.


def carried_out(operator: Operator, step: Step, inputs: Sequence[Array | None]) -> tuple[Function, list[Array | None]]:
    """The operator after a step's edits, and its inputs after the step's demands."""
    after = list(inputs)
    for position, demand in step.demands:
        value = sem.value_at(inputs, position)
        after[position] = demand(value)
        if position not in operator.constants:
            assert after[position].shape == value.shape, "a computed value cannot grow"
    function = operator.function
    for edit in step.edits:
        assert edit.node == NODE
        if isinstance(edit, Supply):
            assert after[edit.position] is None
            after[edit.position] = edit.array
        elif isinstance(edit, Append):
            function = _then(function, lambda y, edit=edit: y + edit.array)
        elif isinstance(edit, Drop):
            function = lambda values, data=edit.data: [sem.value_at(values, data)]  # noqa: E731
        else:
            raise TypeError(f"no rule may ask for {edit}")
    return function, after


def _then(function: Function, more: Callable[[Array], Array]) -> Function:
    return lambda inputs: [more(y) for y in function(inputs)]


def backward_law(operator: Operator, port: int, a: Affine) -> list[Step] | Refusal:
    """Hold the backward rule to its law; outputs on which nothing is demanded keep their values."""
    steps = backward(operator.kind, NODE, port, a)
    if isinstance(steps, Refusal):
        return steps
    expected = operator.function(operator.inputs)
    expected[port] = a(expected[port])
    for step in steps:
        function, inputs = carried_out(operator, step, operator.inputs)
        found = function(inputs)
        assert len(found) == len(expected)
        for got, want in zip(found, expected, strict=True):
            assert_same(got, want)
    return list(steps)


def forward_law(operator: Operator, position: int, a: Affine) -> list[Step] | Refusal:
    """Hold the forward rule to its law."""
    steps = forward(operator.kind, NODE, position, a, lambda at: sem.value_at(operator.inputs, at))
    if isinstance(steps, Refusal):
        return steps
    before = list(operator.inputs)
    before[position] = a(sem.value_at(before, position))
    expected = operator.function(before)
    for step in steps:
        function, inputs = carried_out(operator, step, operator.inputs)
        found = function(inputs)
        assert len(found) == len(expected) == len(step.outs)
        for got, out, want in zip(found, step.outs, expected, strict=True):
            assert out.rank == got.ndim
            assert_same(out(got), want)
    return list(steps)


def outputs(operator: Operator) -> list[Array]:
    return operator.function(operator.inputs)


def drawn_backward(data: st.DataObject, operator: Operator, kind: str = "any") -> tuple[int, Affine]:
    made = outputs(operator)
    port = data.draw(st.integers(0, len(made) - 1))
    return port, data.draw(examples.affines(made[port].shape, kind))


def drawn_forward(data: st.DataObject, operator: Operator, kind: str = "any") -> tuple[int, Affine]:
    computed = [i for i, value in enumerate(operator.inputs) if value is not None and i not in operator.constants]
    position = data.draw(st.sampled_from(computed))
    return position, data.draw(examples.affines(sem.value_at(operator.inputs, position).shape, kind))


@pytest.mark.parametrize("kind", examples.KINDS)
def test_backward_rules_obey_their_law(kind: str) -> None:
    answers: list[bool] = []

    @many
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        operator = data.draw(examples.KINDS[kind])
        port, a = drawn_backward(data, operator)
        answers.append(isinstance(backward_law(operator, port, a), list))

    holds()
    assert answers.count(True) > 50, "the law was hardly put to the test"


@pytest.mark.parametrize("kind", examples.KINDS)
def test_forward_rules_obey_their_law(kind: str) -> None:
    answers: list[bool] = []

    @many
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        operator = data.draw(examples.KINDS[kind])
        position, a = drawn_forward(data, operator)
        answers.append(isinstance(forward_law(operator, position, a), list))

    holds()
    assert answers.count(True) > 50, "the law was hardly put to the test"


def test_a_wrong_rule_is_caught() -> None:
    """The comparison can fail: a demand with another shift breaks the law."""
    operator = Operator(ops.Pass(), sem.elementwise(lambda x: x), (np.ones((2, 3)),))
    a = Affine.along(1, [1.0, 2.0, 3.0], 0.0, 2)
    function, inputs = carried_out(operator, Step(((0, Affine(a.scale, a.shift + 1e-6)),)), operator.inputs)
    with pytest.raises(AssertionError):
        assert_same(function(inputs)[0], a(outputs(operator)[0]))


# Completeness: what every rule must let through.


def channel(data: st.DataObject, shape: Sequence[int], axis: int, kind: str = "any") -> Affine:
    """An affine that varies along one axis alone."""
    a = data.draw(examples.affines(tuple(size if i == axis else 1 for i, size in enumerate(shape)), kind))
    assume(set(a.axes) <= {axis})
    return a


@many
@given(st.data())
def test_convolutions_absorb_every_affine_of_their_channels(data: st.DataObject) -> None:
    operator = data.draw(examples.convolutions())
    (y,) = outputs(operator)
    steps = backward_law(operator, 0, channel(data, y.shape, 1))
    assert isinstance(steps, list)
    assert steps[0].absorbs


@many
@given(st.data())
def test_convolutions_take_every_scale_from_above_and_unpadded_every_affine(data: st.DataObject) -> None:
    operator = data.draw(examples.convolutions())
    kind = operator.kind
    assert isinstance(kind, ops.Linear)
    a = channel(data, sem.value_at(operator.inputs, 0).shape, 1, "any" if kind.complete else "scaling")
    steps = forward_law(operator, 0, a)
    assert isinstance(steps, list)
    assert steps[0].absorbs


@many
@given(st.data())
def test_products_absorb_every_affine_of_their_columns(data: st.DataObject) -> None:
    operator = data.draw(st.one_of(examples.gemms(), examples.products()))
    kind = operator.kind
    assert isinstance(kind, ops.Linear)
    free = [axis for axis, letter in enumerate(kind.y) if letter and letter in kind.w]
    assume(free)
    (y,) = outputs(operator)
    steps = backward_law(operator, 0, channel(data, y.shape, data.draw(st.sampled_from(free))))
    assert isinstance(steps, list)
    assert steps[0].absorbs


@many
@given(st.data())
def test_products_take_every_affine_of_what_they_sum_over(data: st.DataObject) -> None:
    operator = data.draw(st.one_of(examples.gemms(), examples.products()))
    kind = operator.kind
    assert isinstance(kind, ops.Linear)
    a = channel(data, sem.value_at(operator.inputs, kind.data).shape, kind.x.index("k"))
    steps = forward_law(operator, kind.data, a)
    assert isinstance(steps, list)
    assert steps[0].absorbs


@many
@given(st.data())
def test_affine_operators_compose_with_every_affine(data: st.DataObject) -> None:
    operator = data.draw(examples.const_affines())
    assert isinstance(backward_law(operator, *drawn_backward(data, operator)), list)
    assert isinstance(forward_law(operator, *drawn_forward(data, operator)), list)


@many
@given(st.data())
def test_joins_of_equal_shapes_pass_every_affine_upward(data: st.DataObject) -> None:
    operator = data.draw(st.one_of(examples.sums(), examples.concats()))
    if isinstance(operator.kind, ops.Sum):
        assume(len({value.shape for value in operator.inputs if value is not None}) == 1)
    steps = backward_law(operator, *drawn_backward(data, operator))
    assert isinstance(steps, list)
    assert all(len(step.demands) == len(operator.inputs) for step in steps)


@many
@given(st.data())
def test_gates_pass_a_scale_on_to_an_operand_as_long_as_the_result(data: st.DataObject) -> None:
    operator = data.draw(examples.gates())
    (y,) = outputs(operator)
    assume(sem.value_at(operator.inputs, 0).shape == y.shape)
    a = data.draw(examples.affines(y.shape, "scaling"))
    assert isinstance(backward_law(operator, 0, a), list)
    assert isinstance(forward_law(operator, 0, a), list)


@many
@given(st.data())
def test_aggregates_pass_what_their_law_names(data: st.DataObject) -> None:
    operator = data.draw(examples.aggregates())
    kind, x = operator.kind, sem.value_at(operator.inputs, 0)
    assert isinstance(kind, ops.Aggregate)
    flavour = {"mean": "any", "linear": "scaling", "maximum": "positive"}[kind.law]
    above = data.draw(examples.affines(tuple(1 if i in kind.axes else size for i, size in enumerate(x.shape)), flavour))
    assert isinstance(forward_law(operator, 0, above), list)
    (y,) = outputs(operator)
    kept = [i for i in range(x.ndim) if kind.keepdims or i not in kind.axes]
    shape = tuple(1 if axis in kind.axes else size for axis, size in zip(kept, y.shape, strict=True))
    below = data.draw(examples.affines(shape, flavour))
    assert isinstance(backward_law(operator, 0, below), list)


@many
@given(st.data())
def test_homogeneous_functions_pass_every_positive_scale(data: st.DataObject) -> None:
    operator = data.draw(examples.homogeneous())
    a = data.draw(examples.affines(sem.value_at(operator.inputs, 0).shape, "positive"))
    assert isinstance(backward_law(operator, 0, a), list)
    assert isinstance(forward_law(operator, 0, a), list)


@many
@given(st.data())
def test_views_of_known_size_pass_every_affine_both_ways(data: st.DataObject) -> None:
    operator = data.draw(examples.index_maps())
    assert isinstance(operator.kind, ops.IndexMap)
    assert isinstance(forward_law(operator, *drawn_forward(data, operator)), list)
    steps = operator.kind.steps[0]
    assume(all(not hasattr(step, "times") and not hasattr(step, "indices") for step in steps))
    assert isinstance(backward_law(operator, *drawn_backward(data, operator)), list)


@many
@given(st.data())
def test_a_reshape_that_keeps_the_channel_axis_passes_whatever_the_other_sizes_are(data: st.DataObject) -> None:
    """(N, C, H, W) <-> (N, C, H * W) and the like: only the channels are known."""
    front, behind = data.draw(st.lists(examples.SIZES, max_size=2)), data.draw(st.lists(examples.SIZES, max_size=3))
    size = data.draw(examples.SIZES.filter(lambda n: n > 1))
    names = iter("abcdefg")
    head: Shape = tuple(next(names) for _ in front)
    x_shape: Shape = (*head, size, *(next(names) for _ in behind))
    y_shape: Shape = (*head, size, None) if behind else (*head, size)
    true_x, true_y = (*front, size, *behind), (*front, size, math.prod(behind))[: len(y_shape)]
    told = ops.IndexMap(((Regroup(x_shape, y_shape),),))
    true = ops.IndexMap(((Regroup(true_x, true_y),),))
    operator = Operator(told, sem.moved(true), (np.random.default_rng(0).standard_normal(true_x),))
    assert isinstance(backward_law(operator, 0, channel(data, true_y, len(front))), list)
    assert isinstance(forward_law(operator, 0, channel(data, true_x, len(front))), list)


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
    assert_same(a.after(b)(x), a(b(x)))
    assert_same(a.after(b.after(c))(x), a.after(b).after(c)(x))
    assert_same(a.after(Affine.identity(len(shape)))(x), a(x))
    assert_same(a.shifting().after(a.scaling())(x), a(x))


@many
@given(composable(), examples.SEEDS)
def test_compact_and_aligned_keep_the_meaning(given_: Any, seed: int) -> None:
    shape, (a, b, _) = given_
    x = np.random.default_rng(seed).standard_normal(shape)
    full = Affine(np.broadcast_to(a.scale, shape), np.broadcast_to(a.shift, shape))
    assert_same(Affine(compact(full.scale), compact(full.shift))(x), a(x))
    assert all(len(set(np.moveaxis(a.scale, axis, 0)[:, ...].ravel())) > 1 for axis in range(x.ndim) if a.scale.shape[axis] > 1)
    assert_same(a.aligned(len(shape) + 2)(x[None, None])[0, 0], a(x))
    assert_same(a.aligned(len(shape) + 2).aligned(len(shape))(x), a(x))
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
            assert_same(np.broadcast_to(there, new), full.reshape(new))
            back = step.back(there, 0.0)
            if isinstance(back, Refusal):
                assert step is told
            else:
                assert_same(np.broadcast_to(back, old), full)


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
        assert_same(np.broadcast_to(forth, new), np.broadcast_to(parameter, new))
    for parameter, neutral in ((above.scale, 1.0), (above.shift, 0.0)):
        forth = step.forth(parameter)
        assert not isinstance(forth, Refusal)
        assert_same(np.broadcast_to(forth, new), sem.move(np.broadcast_to(parameter, shape), step))
        back = step.back(forth, neutral)
        assert not isinstance(back, Refusal), "the image of a parameter has a preimage"
        again = step.forth(back)
        assert not isinstance(again, Refusal)
        assert_same(np.broadcast_to(again, new), np.broadcast_to(forth, new))
