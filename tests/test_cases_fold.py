"""Small graphs that fold: what is left of them, who absorbed what, and that they are the same function.

Every row of the case tables is folded in float64 and compared with onnx's reference implementation, and folded in
float32 and compared with ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cases_bodies
import cases_constants
import cases_forward
import cases_linear
import cases_merged
import cases_norms
import cases_spelling
import cases_through
import onnx
import pytest
from cases import Case
from graphs import assert_equivalent, op_types, parse, reference, runtime

import bnfold

CASES = [
    *cases_linear.CASES,
    *cases_through.CASES,
    *cases_forward.CASES,
    *cases_spelling.CASES,
    *cases_bodies.CASES,
    *cases_merged.CASES,
    *cases_norms.CASES,
    *cases_constants.CASES,
]


@cache
def folded(case: Case, dtype: str) -> tuple[onnx.ModelProto, bytes, bnfold.FoldResult]:
    """A case's model, its bytes before the fold, and the fold."""
    model = case.model(dtype)
    before = model.SerializeToString(deterministic=True)
    return model, before, bnfold.fold(model)


def account(sites: Sequence[bnfold.Site]) -> str:
    """The sites as the tables spell them."""
    return " ; ".join(" ".join([*site.into, *(["<", *site.through] if site.through else [])]) for site in sites)


@pytest.fixture(params=CASES, ids=lambda case: case.id)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_case_names_are_unique() -> None:
    assert len({case.id for case in CASES}) == len(CASES)


def test_what_is_left(case: Case) -> None:
    _, _, result = folded(case, "double")
    assert {site.reason for site in result.sites} == {None}
    assert op_types(result.model) == case.left.split()
    assert account(result.sites) == case.sites
    assert {site.direction for site in result.sites} == set(case.direction.split())


def test_values_in_float64(case: Case) -> None:
    model, _, result = folded(case, "double")
    assert_equivalent(model, result.model, reference, rtol=1e-9)


def test_values_in_float32(case: Case) -> None:
    model, _, result = folded(case, "float")
    assert_equivalent(model, result.model, runtime, rtol=1e-4)


def test_what_a_fold_may_not_touch(case: Case) -> None:
    model, before, result = folded(case, "double")
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result.model, full_check=True)
    assert result.model.opset_import == model.opset_import
    assert result.model.ir_version == model.ir_version
    assert result.model.graph.output == model.graph.output
    assert real_inputs(result.model) == real_inputs(model)


def test_a_second_fold_finds_nothing(case: Case) -> None:
    _, _, result = folded(case, "double")
    again = bnfold.fold(result.model)
    assert not any(site.folded for site in again.sites)
    assert again.model == result.model


def test_a_group_normalization_with_one_scale_per_group() -> None:
    model, _, result = folded(cases_norms.DEPRECATED, "float")
    assert op_types(result.model) == ["GroupNormalization"]
    assert_equivalent(model, result.model, runtime, rtol=1e-4)


def test_a_chain_goes_down_into_a_bn_that_stays() -> None:
    model = parse(
        """(T[N,4,H,W] x) => (T[N,4,H,W] y) <T[4,1,1] m, T[4,1,1] d, bn[4]>
        { u = Tanh(x) s = Sub(u, m) q = Div(s, d) b = BN(q) y = Sigmoid(b) }"""
    )
    result = bnfold.fold(model)
    assert op_types(result.model) == ["Tanh", "BatchNormalization", "Sigmoid"]
    assert [(site.direction, site.into, site.reason) for site in result.sites] == [
        ("merged", ("b",), None),
        (None, (), "not-equivariant"),
    ]
    assert_equivalent(model, result.model, reference, rtol=1e-9)


def test_a_chain_is_not_made_shorter_by_larger_constants() -> None:
    """A factor per row and one per column would become one for each pair."""
    model = parse(
        """(T[N,8,9] x) => (T[N,8,9] y) <T[8,1] r, T[9] c> { u = Tanh(x) a = Mul(u, r) b = Mul(a, c) y = Sigmoid(b) }"""
    )
    result = bnfold.fold(model)
    assert [site.status for site in result.sites] == ["kept"]
    assert result.model == model


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are not weights; old IR versions list those, too."""
    given = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in given]
