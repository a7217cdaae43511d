"""Affine operators with nowhere to go: merged with others, so that fewer are left."""

from __future__ import annotations

from cases import Case

BETWEEN = "(T[N,4,H,W] x) => (T[N,4,H,W] y) <T[4,1,1] m, T[4,1,1] d, T[4,1,1] g, T[4,1,1] b"


def chain(name: str, nodes: str, left: str, into: str) -> Case:
    """A chain between two operators that let nothing through; `u` is its first value, `v` its last."""
    graph = f"{BETWEEN}> {{ u = Tanh(x) {nodes} y = Sigmoid(v) }}"
    values = {"d": [[[2.0]], [[0.5]], [[-1.0]], [[3.0]]], "g": [[[1.5]], [[0.0]], [[-1.0]], [[2.0]]]}
    return Case(name, graph, f"Tanh {left} Sigmoid", into, "shortened", values=values)


CASES = [
    chain("Sub, Div, Mul, Add", "s = Sub(u, m) q = Div(s, d) p = Mul(q, g) v = Add(p, b)", "Mul Add", "p v"),
    chain("Sub, Div, Mul", "s = Sub(u, m) q = Div(s, d) v = Mul(q, g)", "Sub Mul", "s v"),
    chain("Add, Mul, Sub", "a = Add(u, m) p = Mul(a, d) v = Sub(p, b)", "Mul Sub", "p v"),
    chain("constant minus it, Neg, Mul, Div", "s = Sub(m, u) n = Neg(s) p = Mul(n, g) v = Div(p, d)", "Sub Mul", "s p"),
    chain("Mul, Neg, Add, Mul", "p = Mul(g, u) n = Neg(p) a = Add(n, b) v = Mul(a, d)", "Mul Add", "p a"),
    chain("Mul, Div", "p = Mul(u, g) v = Div(p, d)", "Mul", "p"),
    chain("Div, Neg", "q = Div(u, d) v = Neg(q)", "Div", "q"),
    Case(
        "Mul, Sub, BN, Mul by a number: what is left when the BN has gone is one chain",
        """(T[N,4,H,W] x) => (T[N,4,H,W] y) <T[4,1,1] g, T[4,1,1] b, T[1] k, bn[4]>
        { u = Tanh(x) p = Mul(u, g) s = Sub(p, b) n = BN(s) v = Mul(n, k) y = Sigmoid(v) }""",
        "Tanh Mul Sub Sigmoid",
        "p s ; s p",
        "merged shortened",
    ),
]
