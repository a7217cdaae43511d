"""Shapes that follow only from what constants compute, and from operators that inference has no rule for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold

HEAD = '<ir_version: 10, opset_import: ["" : 21]> g'
SIZES = {"W": (4, 5), "G": (4, 3), "bn4": (4,), "bn5": (5,)}

# An output has a shape of its own in the file, so that a Sigmoid stands between it and the value of unknown rank.
GRAPHS = {
    "axes of a mean, computed by Reshape": """(float[N,6,4] x) => (float[N,5] y) {
        m = MatMul(x, W) one = Constant<value_ints=[1]>() flat = Constant<value_ints=[-1]>() axes = Reshape(one, flat)
        r = ReduceMean<keepdims=0>(m, axes) b = BatchNormalization(r, bn5, bn5, bn5, bn5) y = Sigmoid(b) }""",
    "target of a Reshape, joined from the size of an input": """(float[N,4,h,w] x) => (float[N,3] y) {
        s = Shape<start=0,end=1>(x) n = Squeeze(s) flat = Constant<value_ints=[-1]>() rows = Reshape(n, flat)
        four = Constant<value_ints=[4]>() target = Concat<axis=0>(rows, four, flat) two = Constant<value_ints=[2]>()
        r = Relu(x) b = BatchNormalization(r, bn4, bn4, bn4, bn4) f = Reshape(b, target)
        p = ReduceMean<keepdims=0>(f, two) y = Gemm(p, G) }""",
    "a GroupNormalization above": """(float[N,4,6] x) => (float[N,5,6] y) {
        g = GroupNormalization<num_groups=2>(x, bn4, bn4) t = Transpose<perm=[0,2,1]>(g) m = MatMul(t, W)
        u = Transpose<perm=[0,2,1]>(m) b = BatchNormalization(u, bn5, bn5, bn5, bn5) y = Sigmoid(b) }""",
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_a_batch_norm_behind_a_computed_shape_folds(graph: str) -> None:
    model = onnx.parser.parse_model(f"{HEAD} {graph}")
    rng = np.random.default_rng(8)
    read = {name for node in model.graph.node for name in node.input}
    for name in sorted(read & SIZES.keys()):
        array = rng.uniform(0.5, 1.5, SIZES[name]).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    result = bnfold.fold(model)
    assert [site.status for site in result.sites] == ["folded"]
    assert "BatchNormalization" not in [node.op_type for node in result.model.graph.node]
    assert bnfold.verify(model, result.model).passed


def test_a_pool_that_rounds_up_is_not_given_one_row_too_many_where_its_input_is_computed() -> None:
    """Below opset 22 inference counts a window that begins outside: 5 for these 8 rows, where it is 4."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,k] x) => (float[N,2] y) {
        given = Constant<value_ints=[-1,4,8,8]>() one = Constant<value_ints=[1]>() target = Pow(given, one)
        r = Reshape(x, target) b = BatchNormalization(r, bn4, bn4, bn4, bn4)
        p = MaxPool<kernel_shape=[1,1], strides=[2,2], ceil_mode=1>(b) f = Flatten(p) y = MatMul(f, W) }"""
    model = onnx.parser.parse_model(text)
    for name, array in {"bn4": np.arange(1, 5), "W": np.ones((64, 2))}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    (site,) = bnfold.inspect(model).sites
    assert site.reason == "dynamic-shape"
    assert "contradict" not in (site.detail or "")
