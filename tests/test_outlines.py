"""What operators tell of shapes without inference, which is never anything else than inference says."""

from __future__ import annotations

import math

import onnx
import pytest
from random_graphs import random_model

from bnfold.algebra.axes import Regroup, Shape
from bnfold.algebra.ops import IndexMap
from bnfold.graphs.onnx.document import from_proto
from bnfold.graphs.onnx.graph import OnnxGraph
from bnfold.graphs.onnx.index import Value
from bnfold.graphs.onnx.shapes import Shapes

HEAD = '<ir_version: 10, opset_import: ["" : 21]> g'
WEIGHTS = {"K": (6, 4, 3, 3), "U": (4, 2, 3, 3), "W": (4, 5), "bn6": (6,)}

# An input has no outline, so that every graph begins with an operator that tells one.
TABLE: dict[str, tuple[str, Shape | None]] = {
    "a weight": ("y = Conv(x, K)", (None, 6, None, None)),
    "a weight of groups": ("y = ConvTranspose<group=2>(x, U)", (None, 4, None, None)),
    "a matrix": ("f = Flatten(x) y = Gemm(f, W)", (None, 5)),
    "a matrix behind others": ("c = Conv(x, K) y = MatMul(c, W)", (None, 6, None, 5)),
    "a matrix behind who knows what": ("y = MatMul(x, W)", None),
    "elementwise": ("c = Conv(x, K) b = BatchNormalization(c, bn6, bn6, bn6, bn6) y = Relu(b)", (None, 6, None, None)),
    "a sum": ("a = Conv(x, K) b = Conv(x, K) y = Add(a, b)", (None, 6, None, None)),
    "a sum with a number": ("one = Constant<value_float=1.0>() c = Conv(x, K) y = Add(c, one)", (None, 6, None, None)),
    "a sum with an input": ("c = Conv(x, K) y = Add(c, x)", None),
    "a pool": ("c = Conv(x, K) y = MaxPool<kernel_shape=[2,2]>(c)", (None, 6, None, None)),
    "a join of channels": ("a = Conv(x, K) b = Conv(x, K) y = Concat<axis=1>(a, b)", (None, 12, None, None)),
    "a join of others": ("a = Conv(x, K) b = Conv(x, K) y = Concat<axis=-1>(a, b)", (None, 6, None, None)),
    "a join with an input": ("c = Conv(x, K) y = Concat<axis=1>(c, x)", None),
    "a target": ("t = Constant<value_ints=[0,-1,3]>() y = Reshape(x, t)", (None, None, 3)),
    "a target of parts": (
        "o = Constant<value_ints=[-1]>() p = Constant<value_ints=[7]>() t = Concat<axis=0>(o, p) y = Reshape(x, t)",
        (None, 7),
    ),
    "a target that is computed": ("s = Shape(x) t = Neg(s) y = Reshape(x, t)", None),
    "the shape of an input": ("t = Shape(x) y = Reshape(x, t)", None),
    "the shape of another": ("c = Conv(x, K) t = Shape(c) y = Reshape(x, t)", (None, 6, None, None)),
    "the shape of another without elements": (
        "s = Constant<value_ints=[0,3]>() e = ConstantOfShape(s) t = Shape(e) y = Reshape(x, t)",
        None,
    ),
    "a part of the shape of another": ("c = Conv(x, K) t = Shape<start=1>(c) y = Reshape(x, t)", None),
    "a mean": ("c = Conv(x, K) a = Constant<value_ints=[2,-1]>() y = ReduceMean(c, a)", (None, 6, 1, 1)),
    "a mean without its axes": (
        "c = Conv(x, K) a = Constant<value_ints=[2,-1]>() y = ReduceMean<keepdims=0>(c, a)",
        (None, 6),
    ),
    "a mean over all": ("c = Conv(x, K) y = ReduceMean(c)", None),
    "a mean over an axis that is not there": (
        "c = Conv(x, K) a = Constant<value_ints=[4]>() y = ReduceMean(c, a)",
        None,
    ),
    "axes in another order": ("c = Conv(x, K) y = Transpose<perm=[0,2,3,1]>(c)", (None, None, None, 6)),
    "axes in the opposite order": ("c = Conv(x, K) y = Transpose(c)", (None, None, 6, None)),
    "axes in no order": ("c = Conv(x, K) y = Transpose<perm=[0,0,2,1]>(c)", None),
    "rows": ("c = Conv(x, K) y = Flatten<axis=2>(c)", (None, None)),
    "rows as they are": ("f = Flatten(x) g = Gemm(f, W) y = Flatten(g)", (None, 5)),
    "branches": (
        """c = Conv(x, K) flag = Constant<value=bool {1}>()
        y = If(flag)<then_branch = t () => (float[a,b,c,d] p) { p = Relu(c) },
                     else_branch = e () => (float[a,b,c,d] q) { q = Conv(x, K) }>""",
        (None, 6, None, None),
    ),
}


@pytest.mark.parametrize(("body", "expected"), TABLE.values(), ids=TABLE)
def test_outlines_tell_the_rank_and_the_channels(body: str, expected: Shape | None) -> None:
    model = onnx.parser.parse_model(f"{HEAD} (float[N,C,h,w] x) => (float y) {{ {body} }}")
    for name, shape in WEIGHTS.items():
        model.graph.initializer.append(
            onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, shape, [1.0] * math.prod(shape))
        )
    graph = OnnxGraph(from_proto(model), "the model")
    assert graph.facts.outline(graph.scopes[0].values["y"]) == expected


# How a Reshape of (a batch, 24 features) is read where nobody knows the batch.
RESHAPES: dict[str, tuple[str, tuple[Shape, Shape] | None]] = {
    "the batch as it comes out": ("-1,4,2,3", (("?", 24), ("?", 4, 2, 3))),
    "the batch as it is": ("0,4,2,3", (("?", 24), ("?", 4, 2, 3))),
    "a batch that is given": ("2,4,2,3", ((2, 24), (2, 4, 2, 3))),
    "another size that comes out": ("2,-1,6", None),
    "the batch and another": ("0,4,-1", None),
    "rows that are parts": ("-1,12", None),
    "no whole number of rows": ("5,5", None),
    "an axis that is not there": ("-1,24,0", None),
    "nothing": ("0,0,0", None),
}


@pytest.mark.parametrize("allow_zero", [0, 1])
@pytest.mark.parametrize(("target", "expected"), RESHAPES.values(), ids=RESHAPES)
def test_counts_tell_a_size_without_inference(
    target: str, expected: tuple[Shape, Shape] | None, allow_zero: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"""c = Gemm(x, W) t = Constant<value_ints=[{target}]>() y = Reshape<allowzero={allow_zero}>(c, t)"""
    model = onnx.parser.parse_model(f"{HEAD} (float[N,4] x) => (float y) {{ {body} }}")
    model.graph.initializer.append(onnx.helper.make_tensor("W", onnx.TensorProto.FLOAT, (4, 24), [1.0] * 96))
    graph = OnnxGraph(from_proto(model), "the model")
    asked: list[Value] = []
    monkeypatch.setattr(Shapes, "shape", lambda _, value: asked.append(value))
    kind = graph.kind(graph.scopes[0].nodes[-1])
    if expected is None or (allow_zero and "0" in target.split(",")):
        assert asked
    else:
        assert not asked
        assert kind == IndexMap(((Regroup(*expected),),))


@pytest.mark.parametrize("seed", range(150))
def test_outlines_agree_with_inference(seed: int) -> None:
    graph = OnnxGraph(from_proto(random_model(seed).model), "the model")
    values = [value for scope in graph.all_scopes() for value in scope.values.values()]
    outlines = {value: graph.facts.outline(value) for value in values}
    assert not [value for value, outline in outlines.items() if contradicts(outline, graph.shapes.shape(value))]


def contradicts(outline: Shape | None, shape: Shape | None) -> bool:
    if outline is None or shape is None:
        return False
    pairs = zip(outline, shape, strict=False)
    return len(outline) != len(shape) or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)


def test_random_models_have_outlines_to_compare() -> None:
    told = 0
    for seed in range(20):
        graph = OnnxGraph(from_proto(random_model(seed).model), "the model")
        for value in graph.scopes[0].values.values():
            outline = graph.facts.outline(value) if value.producer is not None else None
            told += outline is not None and graph.shapes.shape(value) is not None
    assert told > 40
