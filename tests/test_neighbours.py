"""The part of a graph that an account shows with each site, as `name:op:role(reads)`, and its bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from graphs import parse

import bnfold
from bnfold.algebra import neighbours
from bnfold.results import Operator, Site

CASES = {
    "a fold upward": (
        "(T[N,4,5,5] x) => (T[N,3,5,5] y) <T[3,4,1,1] w, bn[3]> { c = Conv(x, w) b = BN(c) y = Relu(b) }",
        "b",
        "c:Conv:absorbs() b:BatchNormalization:site(0)",
    ),
    "a fold upward through another operator, with a new bias": (
        "(T[N,L,4] x) => (T[N,3,L] y) <T[4,3] w, bn[3]> { c = MatMul(x, w) t = Transpose<perm=[0,2,1]>(c) y = BN(t) }",
        "y",
        "c:MatMul:absorbs()+bias t:Transpose:crossed(0) y:BatchNormalization:site(1)",
    ),
    "a fold downward, into two readers": (
        """(T[N,4,5,5] x) => (T[N,3,5,5] y, T[N,2,5,5] z) <T[3,4,1,1] w, T[2,4,1,1] v, bn[4]>
           { b = BN(x) y = Conv(b, w) z = Conv(b, v) }""",
        "b",
        "b:BatchNormalization:site() y:Conv:absorbs(0) z:Conv:absorbs(0)",
    ),
    "a value that has other readers": (
        """(T[N,4,5,5] x) => (T[N,3,5,5] y, T[N,3,5,5] z) <T[3,4,1,1] w, bn[3]>
           { c = Conv(x, w) i = Identity(c) b = BN(i) y = Relu(b) z = Sigmoid(c) }""",
        "b",
        "c:Conv:blocks() i:Identity:beside(0) b:BatchNormalization:site(1) z:Sigmoid:beside(0)",
    ),
    "an operator below that does not let it pass": (
        "(T[N,4,5,5] x) => (T[N,4,5,5] y) <bn[4]> { b = BN(x) i = Identity(b) y = Relu(i) }",
        "b",
        "b:BatchNormalization:site() i:Identity:beside(0) y:Relu:blocks(1)",
    ),
    "nothing but the graph's own input and output": (
        "(T[N,4,5,5] x) => (T[N,4,5,5] y) <bn[4]> { y = BN(x) }",
        "y",
        "y:BatchNormalization:site()",
    ),
}


def only(text: str, name: str) -> Site:
    (found,) = [site for site in bnfold.inspect(parse(text, "float")).sites if site.name == name]
    return found


def spelled(operators: tuple[Operator, ...]) -> str:
    return " ".join(
        f"{item.name}:{item.op}:{item.role}({','.join(map(str, item.reads))}){'+bias' * item.gains_bias}"
        for item in operators
    )


@pytest.mark.parametrize(("text", "name", "expected"), CASES.values(), ids=CASES)
def test_a_site_comes_with_its_part_of_the_graph(text: str, name: str, expected: str) -> None:
    assert spelled(only(text, name).operators) == expected


def test_what_leads_out_of_the_part_is_counted() -> None:
    text = """(T[N,3,5,5] x, T[N,3,5,5] u) => (T[N,3,5,5] y) <bn[3]>
        { s = Add(x, u) b = BN(s) y = Relu(b) p = Relu(s) q = Abs(s) r = Neg(s) t = Exp(s) }"""
    operators = {item.name: item for item in only(text, "b").operators}
    assert set(operators) == {"s", "b", "p", "q", "r"}
    # Both inputs of the graph; the one reader too many; the Relu; nobody.
    assert (operators["s"].reads_outside, operators["s"].readers_outside) == (2, 1)
    assert (operators["b"].reads_outside, operators["b"].readers_outside) == (0, 1)
    assert operators["p"].readers_outside == 0


def test_what_is_too_large_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text, name, _ = CASES["a fold upward through another operator, with a new bias"]
    monkeypatch.setattr(neighbours, "MOST_OPERATORS", 2)
    site = only(text, name)
    assert site.folded
    assert site.operators == ()


def test_every_reason_given_is_explained_and_no_other() -> None:
    text, _, _ = CASES["a value that has other readers"]
    report = bnfold.inspect(parse(text, "float"))
    assert [item.reason for item in report.reasons] == ["shared-value"]
    assert report.reasons[0].meaning.startswith("A value that would have to change")
    text, _, _ = CASES["a fold upward"]
    assert bnfold.inspect(parse(text, "float")).reasons == ()


def test_nothing_is_drawn_where_drawings_are_declined() -> None:
    text, _, _ = CASES["a value that has other readers"]
    (drawn,) = bnfold.inspect(parse(text, "float")).sites
    (plain,) = bnfold.inspect(parse(text, "float"), drawings=False).sites
    assert drawn.operators
    assert plain == replace(drawn, operators=())
