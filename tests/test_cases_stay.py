"""Small graphs that stay: the reason, the operator that blocks, and that nothing is touched."""

from __future__ import annotations

import cases_stay_graph
import cases_stay_values
import pytest
from cases import CONV, Kept
from graphs import assert_equivalent, op_types, parse, reference

import bnfold

CASES = [*cases_stay_graph.CASES, *cases_stay_values.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_stays_for_this_reason(case: Kept) -> None:
    model = case.model()
    before = model.SerializeToString(deterministic=True)
    result = bnfold.fold(model)
    assert [(site.status, site.reason, site.blocker) for site in result.sites] == [("kept", case.reason, case.blocker)]
    assert all(site.detail for site in result.sites)
    assert result.model.SerializeToString(deterministic=True) == before
    assert model.SerializeToString(deterministic=True) == before


NO_SITES = {
    "rotary positions": """(T[N,2,3,4] x) => (T[N,2,3,4] y)
        <T[3,4] cos, T[3,4] sin, int64[2] halves = {2, 2}>
        { a, b = Split<axis=3>(x, halves) n = Neg(b) r = Concat<axis=3>(n, a) p = Mul(x, cos) q = Mul(r, sin)
          y = Add(p, q) }""",
    "a window": "(T[N,8] x) => (T[N,2,4] y) <int64[3] s = {0, 2, 4}, T[2,4] w> { r = Reshape(x, s) y = Mul(r, w) }",
    "a bias": "(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, T[4,1,1] b> { c = Conv(x, W) y = Add(c, b) }",
    "a rescaling": "(T[N,4] x) => (T[N,4] y) <T[1] k, T[4] b> { m = Mul(x, k) a = Sub(m, b) y = Neg(a) }",
}


@pytest.mark.parametrize("graph", NO_SITES.values(), ids=NO_SITES.keys())
def test_what_is_no_normalisation_is_no_site(graph: str) -> None:
    model = parse(graph, "float")
    result = bnfold.fold(model)
    assert result.sites == ()
    assert result.model == model


def test_a_table_over_several_axes_ends_a_chain() -> None:
    model = parse(
        """(T[N,3,4] x) => (T[N,3,4] y) <T[4,4] W, T[4] k, T[4] d, T[3,4] cos>
        { c = MatMul(x, W) m = Mul(c, k) a = Add(m, d) y = Mul(a, cos) }"""
    )
    result = bnfold.fold(model)
    assert [(site.name, site.into) for site in result.sites] == [("m..a", ("c",))]
    assert op_types(result.model) == ["MatMul", "Add", "Mul"]
    assert_equivalent(model, result.model, reference, rtol=1e-9)


def test_a_default_of_an_input_folds_when_it_is_frozen() -> None:
    cases = [case for case in CASES if case.reason == "overridable"]
    assert len(cases) == 3
    for case in cases:
        model = case.model()
        result = bnfold.fold(model, freeze_initializers=True)
        assert op_types(result.model) == ["Conv"]
        assert_equivalent(model, result.model, reference, rtol=1e-6)


def test_a_bn_in_training_mode_folds_when_it_is_taken_as_an_inference_one() -> None:
    for outputs in ("y", "y, new_mean, new_var"):
        text = f"{CONV} {{{{ c = Conv(x, W) {outputs} = BN{{mode}}(c) }}}}"
        result = bnfold.fold(parse(text.format(mode="<training_mode=1>")), assume_eval=True)
        inference = parse(text.format(mode="").replace(", new_mean, new_var", ""))
        assert op_types(result.model) == ["Conv"]
        assert_equivalent(inference, result.model, reference, rtol=1e-9)


def test_the_rest_still_folds() -> None:
    model = parse(
        """(T[N,3,6,6] x) => (T[N,4,2,2] y)
        <T[4,3,3,3] V, T[4,4,4] gamma, T[4,4,4] beta, T[4,4,4] mean, T[4,4,4] var, T[4,4,3,3] W, bn2[4]>
        { c = Conv(x, V) b = BN<spatial=0>(c) r = Relu(b) d = Conv(r, W) y = BN2(d) }""",
        opset=7,
        ir=3,
    )
    result = bnfold.fold(model)
    assert op_types(result.model) == ["Conv", "BatchNormalization", "Relu", "Conv"]
    assert [(site.name, site.reason) for site in result.sites] == [("b", "unsupported"), ("y", None)]
    assert list(result.model.graph.node)[:3] == list(model.graph.node)[:3]


def test_blockers_are_named_as_in_the_model_that_was_given() -> None:
    """The first site folds into a node without a name, which makes another value then; an Add comes behind a MatMul."""
    model = parse(
        """(T[N,3,H,W] x) => (T[N,4,h,w] b, T[N,4,h,w] y) <T[4,3,3,3] W, bn[4], bn2[4]>
        { c = Conv(x, W) b = BN(c) r = Identity(b) y = BN2(r) }"""
    )
    for node in model.graph.node:
        node.name = ""
    assert [(site.status, site.into, site.blocker) for site in bnfold.fold(model).sites] == [
        ("folded", ("c",), None),
        ("kept", (), "c"),
    ]
    model = parse(
        """(T[N,4] x) => (T[N,4] b, T[N,4] y) <T[4,4] W, bn[4], bn2[4]> { c = MatMul(x, W) b = BN(c) y = BN2(b) }"""
    )
    assert [(site.status, site.into, site.blocker) for site in bnfold.fold(model).sites] == [
        ("folded", ("c",), None),
        ("kept", (), "c"),
    ]


def test_sites_left_out_on_request_block_by_their_own_names() -> None:
    model = parse(f"{CONV[:-1]}, bn2[4]> {{ c = Conv(x, W) b = BN(c) y = BN2(b) }}")
    found = bnfold.fold(model, skip=["b"]).sites
    assert [(site.reason, site.blocker) for site in found] == [("not-selected", "b")] * 2
