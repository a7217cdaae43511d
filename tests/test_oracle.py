"""The judge of folds: it forgives what rounding does, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from oracle import Case, judge, run_on_reference, run_on_runtime
from shaken import movement

import bnfold


def cancelling(cast_to: int, w_type: type = np.float32) -> Case:
    """A product whose sum nearly cancels, through a BatchNorm above it; then a cast."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 1))
    arrays = {
        **{name: rng.uniform(0.5, 1.5, 4).astype(w_type) for name in ("gamma", "beta", "mean", "var")},
        "w": w.astype(w_type),
    }
    nodes = [
        helper.make_node("BatchNormalization", ["x", "gamma", "beta", "mean", "var"], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=cast_to),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(w_type))
    x = rng.normal(size=(1, 4))
    scale, shift = _affine(arrays)
    y = (scale * x + shift) @ w
    x[0, 0] -= (y.item() * (1 - 1e-4)) / (scale[0] * w[0, 0])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [1, 4])],
        [helper.make_tensor_value_info("y", cast_to, [1, 1])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return Case(model, ({"x": x.astype(w_type)},))


def _affine(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    gamma, beta, mean, var = (arrays[name].astype(np.float64) for name in ("gamma", "beta", "mean", "var"))
    scale = gamma / np.sqrt(var + np.float64(np.float32(1e-5)))
    return scale, beta - mean * scale


CASES = [
    (TensorProto.FLOAT, np.float32),
    (TensorProto.DOUBLE, np.float32),
    (TensorProto.FLOAT, np.float16),
]


@pytest.mark.parametrize(("cast_to", "w_type"), CASES)
def test_rounding_of_a_sum_that_cancels_is_no_failure(cast_to: int, w_type: type) -> None:
    judgement = judge(cancelling(cast_to, w_type))
    assert any(site.folded for site in judgement.sites)
    assert judgement.failures == []


@pytest.mark.parametrize(("cast_to", "w_type"), CASES)
def test_a_weight_that_is_off_by_more_than_rounding_is_one(
    cast_to: int, w_type: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, fold = cancelling(cast_to, w_type), bnfold.fold

    def wrong(model: onnx.ModelProto) -> bnfold.FoldResult:
        result = fold(model)
        for tensor in result.model.graph.initializer:
            if tensor.name.startswith("w"):
                array = numpy_helper.to_array(tensor).copy()
                array[0] *= 1 + 500 * np.finfo(w_type).eps
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return result

    monkeypatch.setattr(bnfold, "fold", wrong)
    assert any("is off by" in message for message in judge(case).failures)


def test_the_type_of_a_cast_is_known_where_the_caller_of_a_function_names_it() -> None:
    inner = helper.make_node("Cast", ["x"], ["y"])
    inner.attribute.append(onnx.AttributeProto(name="to", ref_attr_name="kind", type=onnx.AttributeProto.INT))
    outer = helper.make_node("F", ["x"], ["y"], domain="local")
    outer.attribute.append(onnx.AttributeProto(name="kind", ref_attr_name="narrow", type=onnx.AttributeProto.INT))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function("local", "F", ["x"], ["y"], [inner], opsets, ["kind"]),
        helper.make_function("local", "G", ["x"], ["y"], [outer], opsets, ["narrow"]),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("G", ["x"], ["h"], domain="local", narrow=TensorProto.FLOAT16),
            helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets, functions=functions)
    x = np.linspace(0.9, 1.9, 8, dtype=np.float32) / 3
    assert movement(model, {"x": x}, run_on_reference)["y"] > 2.0**-13


@pytest.mark.parametrize("call", ["F(x)", "F<beta = 0.25>(x)", "F<to = 10>(x)"])
def test_the_reference_knows_attributes_of_functions_by_default_and_by_call(call: str) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 17, "local" : 1]> g (float[2,2] x) => (float16[2,2] y)
        {{ y = local.{call} }} <domain: "local", opset_import: ["" : 17]>
        F <alpha: float = 3.0, beta: float = 0.5, to: int = 10> (x) => (y)
        {{ z = Gemm<alpha: float = @alpha, beta: float = @beta>(x, x, x) y = Cast<to: int = @to>(z) }}"""
    )
    x = np.asarray([[1, 2], [3, 4]], np.float32)
    found, expected = run_on_reference(model, {"x": x}), run_on_runtime(model, {"x": x})
    assert not isinstance(found, str), found
    assert not isinstance(expected, str), expected
    assert found["y"].dtype == np.float64
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-2)
