"""Folding twice changes nothing the second time, also where the first fold tells sizes that nothing told before."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from fuzzing import canonical
from graphs import assert_close, assert_equivalent, op_types, parse, reference

import bnfold

# With these, the BatchNorm `b` scales all channels alike, so that it goes into a matrix product and a bias per channel.
ALIKE = {"gamma": 0.5, "var": 2.0}
CHANNELS = {"x": (3, 2, 3, 4)}
TOLD = {
    # What is added has two channels now, as has all below; before, only the parameters of the BatchNorm said so.
    "an addition takes in a shift per channel": (
        """(T[N,C,3,4] x) => (T[N,5] y) <T[4,4] w, T[4] d, bn[2], bn2[2], T[24,5] v> {
            m = MatMul(x, w) a = Add(m, d) b = BN(a) s = Sigmoid(b) e = BN2(s) f = Flatten(e) y = MatMul(f, v) }""",
        CHANNELS,
        ["MatMul", "Add", "Sigmoid", "Flatten", "MatMul", "Add"],
    ),
    "a matrix product gains a bias per channel": (
        """(T[N,C,3,4] x) => (T[N,5] y) <T[4,4] w, bn[2], bn2[2], T[24,5] v> {
            m = MatMul(x, w) b = BN(m) s = Sigmoid(b) e = BN2(s) f = Flatten(e) y = MatMul(f, v) }""",
        CHANNELS,
        ["MatMul", "Add", "Sigmoid", "Flatten", "MatMul", "Add"],
    ),
    "a chain is seen to be one": (
        """(T[N,C,3,4] x) => (T[N,5] y) <T[4,4] w, bn[2], T[2,1,1] k, T[2,1,1] l, T[24,5] v> {
            m = MatMul(x, w) b = BN(m) s = Sigmoid(b) e = Mul(s, k) g = Add(e, l) f = Flatten(g) y = MatMul(f, v) }""",
        CHANNELS,
        ["MatMul", "Add", "Sigmoid", "Flatten", "MatMul", "Add"],
    ),
    # The convolution makes the output of the graph now, whose sizes the file tells; `target` is a constant then. For
    # the BatchNorm `u` the Reshape is looked at before `b` folds.
    "a value becomes an output of the graph": (
        """(T[N,3,L] x, T[4,3,5] z) => (T[4,3,5] b, T[N,3,L] y) <T[3,3,1] w, bn[3], bn2[3]> {
            c = Conv(x, w) b = BN(c) target = Shape(c) s = Sigmoid(z) e = BN2(s) r = Reshape(e, target) u = BN2(r)
            y = Sigmoid(u) }""",
        {"x": (4, 3, 5), "z": (4, 3, 5)},
        ["Conv", "Shape", "Sigmoid", "BatchNormalization", "Reshape", "Sigmoid"],
    ),
}


@pytest.mark.parametrize(("text", "shapes", "left"), TOLD.values(), ids=TOLD)
def test_a_fold_uses_the_sizes_that_it_tells(text: str, shapes: dict[str, tuple[int, ...]], left: list[str]) -> None:
    model = parse(text, values=ALIKE)
    onnx.checker.check_model(model)
    folded = bnfold.fold(model).model
    assert op_types(folded) == left
    assert canonical(bnfold.fold(folded).model) == canonical(folded)
    feed = {name: np.random.default_rng(0).standard_normal(shape) for name, shape in shapes.items()}
    assert_close(reference(model)(feed), reference(folded)(feed), rtol=1e-9)


def test_what_the_file_says_of_a_foreign_operator_is_no_better_after_a_fold() -> None:
    """Sizes in a file are believed of such a value alone; one that was not may not take its place."""
    text = """(T[N,3,4] x) => (T[N,5] y) <T[N,c,h] v, T[N,3,4] b, bn[3], bn2[3], T[12,5] w> {
        v = Relu(x) b = BatchNormalization<epsilon=0.0>(v, gamma, beta, mean, var) s = Sigmoid(b) e = BN2(s)
        f = Flatten(e) y = MatMul(f, w) }"""
    model = parse(text, values={"gamma": 1.0, "beta": 0.0, "mean": 0.0, "var": 1.0})
    model.graph.node[0].domain = "foreign"
    model.opset_import.add(domain="foreign", version=1)
    result = bnfold.fold(model)
    assert {site.name: site.status for site in result.sites} == {"b": "folded", "e": "kept"}
    assert canonical(bnfold.fold(result.model).model) == canonical(result.model)


def test_a_batch_norm_that_gains_a_shift_is_tried_anew() -> None:
    """`b` has no shift to push down and a scale that cannot go up, until `d` merges into it, past `c`."""
    text = """(T[N,2,5] x) => (T[N,2,4] y) <T[2,2,1] w, bn[2], bn2[2], bn3[2], T[5,4] v> {
        m = Conv(x, w) a = Abs(m) b = BN(a) c = BN2(b) d = BN3(c) y = MatMul(d, v) }"""
    flips = {"gamma": [-2.0, 1.0], "beta": 0.0, "mean": 0.0, "gamma3": [-1.0, 3.0], "beta3": 0.0, "mean3": 0.0}
    model = parse(text, values={**flips, "gamma2": 1.0})
    folded = bnfold.fold(model).model
    assert op_types(folded) == ["Conv", "Abs", "MatMul", "Add"]
    assert_equivalent(model, folded, reference, rtol=1e-9)


def test_what_the_file_says_of_a_call_is_no_better_than_of_what_the_function_holds() -> None:
    """Written out, the function ends in an operator of the standard, of whose result a file is not believed."""
    model = parse(
        """(T[N,C,L] x) => (T[N,5] y) <T[N,3,4] v, bn[3], T[12,5] w> {
            v = local.f(x) e = BN(v) f = Flatten(e) y = MatMul(f, w) }
        <domain: "local", opset_import: ["" : 17]> f (a) => (b) { b = Sigmoid(a) }"""
    )
    assert [info.name for info in model.graph.value_info] == ["v"]
    (site,) = bnfold.fold(model).sites
    assert "the reshape from (N, C, L)" in (site.detail or "")


def test_the_type_of_a_value_is_that_of_a_weight_that_is_computed() -> None:
    """Behind a foreign operator inference knows none, and a fold turns a computed weight into one with a type."""
    text = """(T[N,3,L] x) => (double[N,2,L] y) <T[4,3,1] w, T[2,4,1] v, bn[4], double[2] g> {
        f = Relu(x) k = Neg(w) c = Conv(f, k) b = BN(c) l = Neg(v) d = Conv(b, l) e = Cast<to=11>(d)
        n = BatchNormalization(e, g, g, g, g) y = Sigmoid(n) }"""
    model = parse(text, "float", values={"g": [0.5, 1.5]})
    model.graph.node[0].domain = "foreign"
    model.opset_import.add(domain="foreign", version=1)
    assert op_types(bnfold.fold(model).model) == ["Relu", "Conv", "Conv", "Cast", "Sigmoid"]


def test_two_ways_into_one_constant_end_in_biases_above_it() -> None:
    """The shift of `f` may go into `c` on either way, but not on both."""
    text = """(T[N,2,3] x) => (T[N,2,4] y) <T[3] k, T[3] l, T[3,4] v, T[3,4] w, T[2,1] c, T[2,1] d, T[2,1] e> {
        s = Sigmoid(x) a = Add(s, l) b = Mul(a, k) f = Add(b, l) p = MatMul(f, v) q = MatMul(f, w) t = Add(p, q)
        g = Sub(t, c) h = Mul(g, d) i = Sub(h, e) y = Sigmoid(i) }"""
    model = parse(text)
    result = bnfold.fold(model)
    assert op_types(result.model) == ["Sigmoid", "MatMul", "Add", "MatMul", "Add", "Add", "Mul", "Sub", "Sigmoid"]
    assert [site.direction for site in result.sites] == ["forward", "shortened"]
    assert canonical(bnfold.fold(result.model).model) == canonical(result.model)
    assert_equivalent(model, result.model, reference, rtol=1e-9)


def test_functions_are_written_out_where_that_lets_no_site_stay() -> None:
    """With them as they are, `n` stays; written out, `e` once did, for its two ways into `c`."""
    text = """(T[N,3] x) => (T[N,2] y) <bn2[3], T[3,4] w, bn[4], T[2] c> {
            s = Sigmoid(x) e = BN2(s) m = MatMul(e, w) p = local.f(m, gamma, beta, mean, var)
            q = local.f(m, gamma, beta, mean, var) t = Add(p, q) y = Add(t, c) }
        <domain: "local", opset_import: ["" : 17]> f (a, g, h, i, j) => (r) {
            v = Constant<value = double[4,2] {1, 2, 3, 4, 5, 6, 7, 8}>() n = BatchNormalization(a, g, h, i, j)
            r = MatMul(n, v) }"""
    model = parse(text)
    folded = bnfold.fold(model).model
    assert op_types(folded) == ["Sigmoid", "MatMul", "Add", "MatMul", "MatMul", "Add", "Add"]
    assert canonical(bnfold.fold(folded).model) == canonical(folded)
    assert_equivalent(model, folded, reference, rtol=1e-9)


def test_what_is_left_of_a_chain_folds_where_its_addend_has_become_a_bias() -> None:
    """Without the `a` in front, `b` belongs to the product, and `c` alone has no shift to refuse."""
    text = """(T[N,3,4] x) => (T[N,2,5] y, T[N,3,5] z) <T[4,5] w, T[3,1] l, T[3,1] k, T[2,3,3] v> {
        m = MatMul(x, w) a = Neg(m) b = Add(a, l) c = Mul(b, k) y = Conv<pads = [1, 1]>(c, v) z = Sigmoid(m) }"""
    model = parse(text)
    folded = bnfold.fold(model).model
    assert op_types(folded) == ["MatMul", "Add", "Conv", "Sigmoid"]
    assert canonical(bnfold.fold(folded).model) == canonical(folded)
    assert_equivalent(model, folded, reference, rtol=1e-9)


def test_a_batch_norm_merges_into_another_one_though_a_table_above_that_could_take_both() -> None:
    """`d` and `b` could go into the table `t` together, which is no site; `d` goes into `b` instead."""
    text = """(T[N,2,3,4] x) => (T[N,2,3,5] y) <T[2,3,4] t, bn[2], bn2[2], T[4,5] w> {
        k = Mul(x, t) b = BN(k) m = MatMul(b, w) d = BN2(m) y = Sigmoid(d) }"""
    model = parse(text, values={"beta": 0.0, "mean": 0.0})
    result = bnfold.fold(model)
    assert {site.name: (site.status, site.into) for site in result.sites} == {
        "b": ("kept", ()),
        "d": ("folded", ("b",)),
    }
    feed = {"x": np.random.default_rng(0).standard_normal((2, 2, 3, 4))}
    assert_close(reference(model)(feed), reference(result.model)(feed), rtol=1e-9)
    assert canonical(bnfold.fold(result.model).model) == canonical(result.model)


# 49 * (1 / 49) is 1 - 2^-53, and 1 - 1 / 49 * 49 is 2^-53. As near to 1/3 as float32 comes, three times it is 1 + 3e-8.
PRIMES = {"c": [49.0, 3.0, 7.0], "d": 1.0, "i": [1 / 49, 1 / 3, 1 / 7]}
STORED = {
    "a factor and its quotient": ("a = Mul(s, c) z = Div(a, c)", "float", []),
    "a quotient and its factor": ("a = Div(s, c) z = Mul(c, a)", "float", []),
    "around an operator that passes factors": ("a = Mul(s, c) r = Relu(a) z = Div(r, c)", "float", ["Relu"]),
    "next to an addend": ("a = Mul(s, c) b = Div(a, c) z = Add(b, d)", "float", ["Add"]),
    "next to a sign": ("a = Mul(s, c) b = Div(a, c) z = Neg(b)", "float", ["Mul"]),
    "a normalisation and its inverse, where 2^-53 is 0": (
        "a = Sub(s, d) b = Div(a, c) e = Mul(b, c) z = Add(e, d)",
        "float16",
        [],
    ),
    "a normalisation and its inverse, where it is not": (
        "a = Sub(s, d) b = Div(a, c) e = Mul(b, c) z = Add(e, d)",
        "float",
        ["Sub"],
    ),
    "a table that is subtracted twice": (
        """a = Sub(s, d) h = Div(a, c) b = Sub(t, h) e = Sub(t, b) r = ReduceMean<axes = [0]>(e) p = MatMul(r, m)
        z = Add(s, p)""",
        "float",
        ["ReduceMean", "MatMul", "Add", "Add"],
    ),
    "in float64 the factor is as it is": ("a = Mul(s, c) z = Div(a, c)", "double", ["Mul", "Div"]),
    "a product that float32 takes for 1": ("a = Mul(s, c) z = Mul(a, i)", "float", ["Mul", "Mul"]),
    "the same, around an operator": ("a = Mul(s, c) r = Relu(a) z = Mul(r, i)", "float", ["Mul", "Relu", "Mul"]),
}


@pytest.mark.parametrize(("text", "dtype", "left"), STORED.values(), ids=STORED)
def test_a_chain_is_what_it_is_once_it_is_stored(text: str, dtype: str, left: list[str]) -> None:
    model = parse(
        f"""(T[4,3] x) => (T[4,3] y) <T[3] c, T[3] d, T[3] i, T[4,3] t, T[3,3] m>
        {{ s = Sigmoid(x) {text} y = Sigmoid(z) }}""",
        dtype,
        values=PRIMES,
    )
    result = bnfold.fold(model)
    assert op_types(result.model) == ["Sigmoid", *left, "Sigmoid"]
    assert canonical(bnfold.fold(result.model).model) == canonical(result.model)
    assert_equivalent(model, result.model, reference, rtol=1e-2 if dtype == "float16" else 1e-6)


def test_in_pytorch_too_a_chain_is_what_it_is_once_it_is_stored() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.i = (torch.nn.Parameter(torch.tensor(PRIMES[name])) for name in "ci")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            whole = x.sigmoid() * self.c / self.c
            return (whole.sin() * self.c * self.i).sigmoid()

    x = torch.rand(2, 3)
    program = torch.export.export(Network(), (x,))
    first = bnfold.fold(program).model
    again = bnfold.fold(first)
    called = [[node.name for node in one.graph.nodes if node.op == "call_function"] for one in (first, again.model)]
    assert called == [["sigmoid", "sin", "mul_1", "mul_2", "sigmoid_1"]] * 2
    assert [site.status for site in again.sites] == ["kept"]
    torch.testing.assert_close(first.module()(x), program.module()(x))
