"""Constants that several operators share are copied where they change, and nothing else changes with them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import assert_equivalent, op_types, parse, reference, weights

import bnfold


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (found,) = (node for node in model.graph.node if node.name == name)
    return found


def folded(text: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A model before and after the fold, proven to be the same function."""
    model = parse(text)
    result = bnfold.fold(model).model
    onnx.checker.check_model(result, full_check=True)
    assert_equivalent(model, result, reference, rtol=1e-9)
    return model, result


def test_weight_shared_by_two_convs_with_a_bn_each() -> None:
    _, result = folded(
        """(T[N,3,H,W] x) => (T[N,4,h,w] y, T[N,4,h,w] z) <T[4,3,3,3] W, bn[4], bn2[4]>
        { c = Conv(x, W) y = BN(c) d = Conv(x, W) z = BN2(d) }"""
    )
    assert op_types(result) == ["Conv", "Conv"]
    assert node(result, "c").input[1] != node(result, "d").input[1]
    assert "W" not in weights(result)
    assert len(weights(result)) == 4


def test_weight_shared_with_a_conv_without_bn() -> None:
    model, result = folded(
        """(T[N,3,H,W] x) => (T[N,4,h,w] y, T[N,4,h,w] z) <T[4,3,3,3] W, T[4] B, bn[4]>
        { c = Conv(x, W, B) y = BN(c) z = Conv(x, W, B) }"""
    )
    assert op_types(result) == ["Conv", "Conv"]
    assert node(result, "z") == node(model, "z")
    for name in ("W", "B"):
        np.testing.assert_array_equal(weights(result)[name], weights(model)[name])
    assert set(weights(result)) == {"W", "B", *node(result, "c").input[1:]}


def test_bn_parameters_shared_by_two_bn() -> None:
    _, result = folded(
        """(T[N,3,H,W] x) => (T[N,4,h,w] y, T[N,4,h,w] z) <T[4,3,3,3] V, T[4,3,3,3] W, bn[4]>
        { c = Conv(x, V) y = BN(c) d = Conv(x, W) z = BN(d) }"""
    )
    assert op_types(result) == ["Conv", "Conv"]
    assert not {"gamma", "beta", "mean", "var"} & set(weights(result))


def test_bn_parameters_shared_with_a_bn_that_stays() -> None:
    model, result = folded(
        """(T[N,3,H,W] x, T[N,4,H,W] u) => (T[N,4,h,w] y, T[N,4,H,W] z) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) y = BN(c) z = BN(u) }"""
    )
    assert op_types(result) == ["Conv", "BatchNormalization"]
    assert node(result, "z") == node(model, "z")
    for name in ("gamma", "beta", "mean", "var"):
        np.testing.assert_array_equal(weights(result)[name], weights(model)[name])


def test_conv_bias_is_the_beta_of_its_bn() -> None:
    _, result = folded("""(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4]> { c = Conv(x, W, beta) y = BN(c) }""")
    assert op_types(result) == ["Conv"]
    assert not {"gamma", "beta", "mean", "var"} & set(weights(result))


def test_one_vector_is_all_four_parameters() -> None:
    _, result = folded(
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, T[4] var>
        { c = Conv(x, W) y = BatchNormalization(c, var, var, var, var) }"""
    )
    assert op_types(result) == ["Conv"]


def test_weight_is_also_data() -> None:
    model, result = folded(
        """(T[N,4] x) => (T[N,4] y, T[4,4] z) <T[4,4] W, bn[4]> { c = MatMul(x, W) y = BN(c) z = Relu(W) }"""
    )
    np.testing.assert_array_equal(weights(result)["W"], weights(model)["W"])
    assert node(result, "z") == node(model, "z")


def test_weight_is_a_graph_output() -> None:
    model, result = folded("""(T[N,4] x) => (T[N,4] y, T[4,4] W) <T[4,4] W, bn[4]> { c = Gemm(x, W) y = BN(c) }""")
    assert op_types(result) == ["Gemm"]
    np.testing.assert_array_equal(weights(result)["W"], weights(model)["W"])


def test_weight_is_read_inside_a_branch_too() -> None:
    model, result = folded(
        """(T[N,4] x, bool k) => (T[N,4] y) <T[4,4] W, bn[4]>
        { c = Gemm(x, W) b = BN(c)
          y = If(k) <then_branch = p () => (T[N,4] t) { t = Gemm(b, W) },
                     else_branch = q () => (T[N,4] e) { e = Relu(b) }> }"""
    )
    assert op_types(result) == ["Gemm", "If", "Gemm", "Relu"]
    np.testing.assert_array_equal(weights(result)["W"], weights(model)["W"])
    assert node(result, "y") == node(model, "y")


def test_one_conv_reads_weight_and_bias_from_one_tensor() -> None:
    _, result = folded(
        """(T[N,1,H] x) => (T[N,1,h] y) <T[1,1,1] W, T[1] gamma, T[1] beta, T[1] mean, T[1] var, int64[1] flat = {-1}>
        { B = Reshape(W, flat) c = Conv(x, W, B) y = BN(c) }"""
    )
    assert op_types(result) == ["Conv"]


def test_names_are_new() -> None:
    """Names that a fold would like to give are taken already, one of them inside a branch."""
    _, result = folded(
        """(T[N,4] x, bool k) => (T[N,4] y, T[N,4] z) <T[4,4] W, bn[4], T[4] "W.folded", T[4] "c.bias.folded">
        { c = Gemm(x, W) y = BN(c)
          z = If(k) <then_branch = p () => (T[N,4] t) { "W.folded_1" = Relu(x) t = Add("W.folded_1", "W.folded") },
                     else_branch = q () => (T[N,4] e) { e = Add(x, "c.bias.folded") }> }"""
    )
    assert op_types(result) == ["Gemm", "If", "Relu", "Add", "Add"]


@pytest.mark.parametrize("order", ["c, d", "d, c"])
def test_a_sum_pays_the_shift_once(order: str) -> None:
    _, result = folded(
        f"""(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] V, T[4,3,3,3] W, bn[4]>
        {{ c = Conv(x, V) d = Conv(x, W) s = Add({order}) y = BN(s) }}"""
    )
    assert sorted(len(node.input) for node in result.graph.node) == [2, 2, 3]


NORM = """
    <domain: "local", opset_import: ["" : 17]> norm (a, W, gamma, beta, mean, var) => (b)
    { c = Conv(a, W) b = BN(c) }"""


def test_a_function_whose_weights_come_from_its_caller() -> None:
    _, result = folded(
        """(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,4,3,3] W, bn[4]>
        { y = local.norm(x, W, gamma, beta, mean, var) }"""
        + NORM
    )
    assert "BatchNormalization" not in op_types(result)


def test_a_function_whose_callers_differ() -> None:
    """Each call gets weights of its own: a fold for one caller in the shared body would change the other."""
    _, result = folded(
        """(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,4,3,3] W, bn[4], T[4,4,1,1] V, bn2[4]>
        { z = local.norm(x, W, gamma, beta, mean, var) y = local.norm(z, V, gamma2, beta2, mean2, var2) }"""
        + NORM
    )
    assert "BatchNormalization" not in op_types(result)


def test_a_function_of_which_one_caller_stays() -> None:
    """The second call gets its statistics from an input: its BatchNorm stays, that of the first goes."""
    _, result = folded(
        """(T[N,4,H,W] x, T[4] s) => (T[N,4,h,w] y) <T[4,4,3,3] W, bn[4], T[4,4,1,1] V, T[4] var2>
        { z = local.norm(x, W, gamma, beta, mean, var) q = Mul(s, s) v = Add(q, var2)
          y = local.norm(z, V, gamma, beta, mean, v) }"""
        + NORM
    )
    assert op_types(result).count("BatchNormalization") == 1
