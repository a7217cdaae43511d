"""The laws of the algebra as properties, over random instances of every kind.

Backward: `a(op(x_0, x_1, ...)) == op'(b_0(x_0), b_1(x_1), ...)`. Forward: `op(.., a(x), ..) == out(op'(.., x, ..))`.
Every alternative that a rule offers must satisfy its law; where a rule could refuse but need not, it must not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import kind_examples as examples
import kind_semantics as sem
import linear_examples as linears
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kind_examples import many
from kind_semantics import Array, Function, Operator, assert_close

from bnfold.algebra import ops
from bnfold.algebra.affine import Affine, Refusal, varying
from bnfold.algebra.axes import Pick, Regroup, Repeat, Shape
from bnfold.algebra.edits import Append, Drop, Step, Supply
from bnfold.algebra.rules import backward, forward

NODE = "node"
RTOL = 1e-9

KINDS: dict[str, st.SearchStrategy[Operator]] = {
    "Conv, ConvTranspose": linears.convolutions(),
    "Gemm": linears.gemms(),
    "MatMul": linears.products(),
    "Einsum": linears.contractions(),
    "LSTM, GRU, RNN": linears.recurrent_layers(),
    "ConstAffine": examples.const_affines(),
    "Pass": examples.passes(),
    "IndexMap": examples.index_maps(),
    "IndexMap of several outputs": examples.splits(),
    "Sum": examples.sums(),
    "Concat": examples.concats(),
    "Gate": examples.gates(),
    "Aggregate": examples.aggregates(),
    "Homogeneous": examples.homogeneous(),
    "Scaled": examples.scaled(),
}
REFUSING = ("LSTM, GRU, RNN",)  # through which nothing passes upward
ENDS = ("Scaled",)  # which absorb from below, and through which nothing passes downward


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
            assert_close(got, want, RTOL)
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
        assert len(found) == len(expected) >= len(step.outs)
        for i, (got, want) in enumerate(zip(found, expected, strict=True)):
            out = step.outs[i] if i < len(step.outs) else Affine.identity(got.ndim)  # nothing more is owed to it
            assert out.rank == got.ndim
            assert_close(out(got), want, RTOL)
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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REFUSING])
def test_backward_rules_obey_their_law(kind: str) -> None:
    answers: list[bool] = []

    @many
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        operator = data.draw(KINDS[kind])
        port, a = drawn_backward(data, operator)
        answers.append(isinstance(backward_law(operator, port, a), list))

    holds()
    assert answers.count(True) >= 10, "the law was hardly put to the test"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ENDS])
def test_forward_rules_obey_their_law(kind: str) -> None:
    answers: list[bool] = []

    @many
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        operator = data.draw(KINDS[kind])
        position, a = drawn_forward(data, operator)
        answers.append(isinstance(forward_law(operator, position, a), list))

    holds()
    assert answers.count(True) >= 10, "the law was hardly put to the test"


def test_a_wrong_rule_is_caught() -> None:
    """The comparison can fail: a demand with another shift breaks the law."""
    operator = Operator(ops.Pass(), sem.elementwise(lambda x: x), (np.ones((2, 3)),))
    a = Affine.along(1, [1.0, 2.0, 3.0], 0.0, 2)
    function, inputs = carried_out(operator, Step(((0, Affine(a.scale, a.shift + 1e-6)),)), operator.inputs)
    with pytest.raises(AssertionError):
        assert_close(function(inputs)[0], a(outputs(operator)[0]), RTOL)


# Completeness: what every rule must let through.


def channel(data: st.DataObject, shape: Sequence[int], axis: int, kind: str = "any") -> Affine:
    """An affine that varies along one axis alone."""
    a = data.draw(examples.affines(tuple(size if i == axis else 1 for i, size in enumerate(shape)), kind))
    assume(set(a.axes) <= {axis})
    return a


@many
@given(st.data())
def test_convolutions_absorb_every_affine_of_their_channels(data: st.DataObject) -> None:
    operator = data.draw(linears.convolutions())
    (y,) = outputs(operator)
    steps = backward_law(operator, 0, channel(data, y.shape, 1))
    assert isinstance(steps, list)
    assert steps[0].absorbs


@many
@given(st.data())
def test_convolutions_take_every_scale_from_above_and_unpadded_every_affine(data: st.DataObject) -> None:
    operator = data.draw(linears.convolutions())
    kind = operator.kind
    assert isinstance(kind, ops.Linear)
    a = channel(data, sem.value_at(operator.inputs, 0).shape, 1, "any" if kind.complete else "scaling")
    steps = forward_law(operator, 0, a)
    assert isinstance(steps, list)
    assert steps[-1].absorbs


@many
@given(st.data())
def test_products_absorb_every_affine_of_their_columns(data: st.DataObject) -> None:
    operator = data.draw(st.one_of(linears.gemms(), linears.products()))
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
    operator = data.draw(st.one_of(linears.gemms(), linears.products()))
    kind = operator.kind
    assert isinstance(kind, ops.Linear)
    a = channel(data, sem.value_at(operator.inputs, kind.data).shape, kind.x.index("k"))
    steps = forward_law(operator, kind.data, a)
    assert isinstance(steps, list)
    assert steps[-1].absorbs


@many
@given(st.data())
def test_linear_operators_pass_on_what_varies_along_axes_that_their_weight_lacks(data: st.DataObject) -> None:
    operator = data.draw(st.one_of(linears.gemms(), linears.products(), linears.contractions(), linears.convolutions()))
    kind = operator.kind
    assert isinstance(kind, ops.Linear)
    beside = [axis for axis, letter in enumerate(kind.x) if letter and letter in kind.y and letter not in kind.sizes]
    shape = sem.value_at(operator.inputs, kind.data).shape
    assume([axis for axis in beside if shape[axis] > 1])
    flavour = "any" if kind.complete else "scaling"
    a = channel(data, shape, data.draw(st.sampled_from(beside)), flavour)
    steps = forward_law(operator, kind.data, a)
    assert isinstance(steps, list)
    if varying(a.scale):
        assert not steps[0].demands
        assert not steps[0].edits


def test_a_shift_that_becomes_too_large_a_bias_is_refused() -> None:
    """5000 rows, and a weight of 2000 columns: 80 MB in float64."""
    kind = ops.Linear(0, 1, None, ("m", "k"), ("k", "n"), ("m", "n"), {"k": 3, "n": 2000})
    steps = forward(kind, NODE, 0, Affine.along(0, 1.0, np.arange(5000.0), 2), lambda _: np.ones((3, 2000)))
    assert isinstance(steps, Refusal)
    assert steps.reason == "too-large"


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
def test_sums_pass_every_shift_downward_and_concatenations_every_affine(data: st.DataObject) -> None:
    operator = data.draw(st.one_of(examples.sums(), examples.concats()))
    position, a = drawn_forward(data, operator)
    a = a.shifting() if isinstance(operator.kind, ops.Sum) else a
    assert isinstance(forward_law(operator, position, a), list)


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
def test_normalisations_absorb_every_affine_along_the_axes_of_their_own(data: st.DataObject) -> None:
    operator = data.draw(examples.scaled())
    kind, x = operator.kind, sem.value_at(operator.inputs, 0)
    assert isinstance(kind, ops.Scaled)
    own = tuple(size if axis in kind.axes else 1 for axis, size in enumerate(x.shape))
    a = data.draw(examples.affines(own, "any" if kind.shift is not None else "scaling"))
    assume(kind.each == 1 or not a.axes)
    steps = backward_law(operator, 0, a)
    assert isinstance(steps, list)
    assert steps[0].absorbs
    refused = forward(kind, NODE, 0, a, lambda at: sem.value_at(operator.inputs, at))
    assert isinstance(refused, Refusal)


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
    assume(not any(isinstance(step, Pick | Repeat) for step in steps))  # which may ask one element for two values
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
