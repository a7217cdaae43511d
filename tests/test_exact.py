"""The float64 engine: every operator against ONNX Runtime, whole models against the tests' own interpreter."""

from __future__ import annotations

import re
import time

import numpy as np
import onnx
import pytest
from graph_builder import DOUBLE
from graphs import parse
from onnx import numpy_helper, parser
from random_graphs import random_model

from bnfold.checks.session import open_session
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.kernels import BORROWED, WRITTEN, CannotRun
from bnfold.graphs.onnx.sources import open_model

RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 4, 6, 5)).astype(np.float32)
SHAPES = {
    "w": (6, 4, 3, 3),
    "grouped": (8, 2, 3, 2),
    "depthwise": (4, 1, 3, 3),
    "transposed": (4, 3, 2, 3),
    "b6": (6,),
    "c4": (4,),
    "d4": (4,),
    "s5": (5,),
    "m": (5, 7),
    "n": (5, 3),
    "row": (3, 7),
    "steps": (3, 2, 5),
    "w16": (1, 16, 5),
    "r16": (1, 16, 4),
    "w12": (1, 12, 5),
    "r12": (1, 12, 4),
    "w4": (1, 4, 5),
    "r4": (1, 4, 4),
}
WEIGHTS = {name: RNG.standard_normal(shape) / 2 for name, shape in SHAPES.items()}

# Per line a body; its last operator is the one that is meant. `x` is (2, 4, 6, 5), `p` positive and of that shape, `q`
# is 2 x; @[1,2] is a constant of integers, @(0.5) one float, @(0.5,1) several. What is no float is cast to one.
UNARY = """Abs Celu Cos Elu Erf Exp Floor HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu Round Selu Sigmoid Sign
    Sin Softplus Softsign Tan Tanh ThresholdedRelu GlobalAveragePool GlobalMaxPool LogSoftmax Flatten Dropout Gelu Size
    Shape"""
BINARY = "Add Sub Mul Div Max Min Mean Sum Less LessOrEqual Equal"
REDUCTIONS = "ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
BODIES = """
    y = ReduceLogSum(p, @[2])
    y = Pow(p, @(1.7))
    y = Mod <fmod = 1> (x, p)
    a = Less(x, p)  y = Not(a)
    a = Less(x, @(0.1))  y = Where(a, x, p)
    y = ArgMax <axis = 2> (x)
    y = ArgMin <axis = 1, keepdims = 0> (x)
    y = Clip(x, @(-0.3), @(0.9))
    y = Concat <axis = 1> (x, p)
    a = Squeeze(@[2])  y = CumSum(x, a)
    y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)
    c = Slice(x, @[0], @[4], @[3])  y = SpaceToDepth <blocksize = 2> (c)
    y = Einsum <equation = "nchw,wk->nhck"> (x, m)
    y = Expand(x, @[3,2,4,6,5])
    y = Gather <axis = 1> (x, @[3,0,-1])
    i = Expand(@[1], @[2,4,6,1])  y = GatherElements <axis = 3> (x, i)
    y = GatherND(x, @[1,3])
    y = LpNormalization <axis = 1> (x)
    a = Squeeze(@[4])  y = OneHot(@[0,2], a, @(0.0,2.5))
    y = Pad <mode = "reflect"> (x, @[0,0,1,2,0,0,0,1])
    y = Pad(x, @[0,0,1,2,0,0,0,1], @(0.5))
    a = Squeeze(@(0.5))  b = Squeeze(@(4.0))  c = Squeeze(@(0.75))  y = Range(a, b, c)
    y = Reshape(x, @[0,-1,3])
    i = Expand(@[2], @[1,1,1,1])  u = Expand(@(7.5), @[1,1,1,1])  y = ScatterElements <axis = 3> (x, i, u)
    i = Reshape(@[1], @[1,1])  u = Expand(@(7.5), @[1,4,6,5])  y = ScatterND(x, i, u)
    y = Slice(x, @[-1,0], @[-99,5], @[2,3], @[-2,2])
    y, z = Split <axis = 3> (x, @[1,4])
    a = Squeeze(@[2])  s = SplitToSequence <axis = 1> (x, a)  b = Squeeze(@[1])  y = SequenceAt(s, b)
    s = SequenceConstruct(x, p)  y = ConcatFromSequence <axis = 2> (s)
    g = GlobalMaxPool(x)  y = Squeeze(g, @[2,3])
    y = Tile(x, @[1,2,1,3])
    y, i = TopK <axis = 2> (x, @[2])
    y = Transpose <perm = [3, 0, 2, 1]> (x)
    y = Trilu <upper = 0> (x)
    y = Unsqueeze(x, @[1,-1])
    y = Softmax <axis = 1> (x)
    v = Abs(c4)  y = BatchNormalization <epsilon = 0.01> (x, c4, d4, d4, v)
    y = InstanceNormalization(x, c4, d4)
    y = LayerNormalization <axis = -1> (x, s5, s5)
    y = GroupNormalization <num_groups = 2> (x, c4, d4)
    y = Gelu <approximate = "tanh"> (x)
    y = Cast <to = 6> (x)
    t = Cast <to = 11> (x)  y = CastLike(t, x)
    y = Constant <value_floats = [2.5, 3.5]> ()
    y = ConstantOfShape(@[4,1,5])
    s = Unsqueeze(c4, @[1,2])  y = PRelu(x, s)
    y = MatMul(x, m)
    y = Gemm <alpha = 0.5, beta = 2.0, transA = 1> (n, m, row)
    y = Conv <pads = [1, 0, 2, 1], strides = [2, 1]> (x, w, b6)
    y = Conv <group = 2, auto_pad = "SAME_LOWER", strides = [2, 1]> (x, grouped)
    y = Conv <group = 2, dilations = [1, 2]> (x, grouped)
    y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, depthwise, c4)
    y = ConvTranspose <group = 2, strides = [2, 2], pads = [0, 1, 1, 0], output_padding = [1, 0]> (x, transposed, b6)
    y = ConvTranspose <group = 2, strides = [2, 3], auto_pad = "SAME_UPPER"> (x, transposed)
    y = AveragePool <kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 1], ceil_mode = 1> (x)
    y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)
    y = MaxPool <kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 0, 1], dilations = [1, 2]> (x)
    y = Resize <mode = "linear"> (x, , @(1.0,1.0,2.0,1.5))
    y = Resize <mode = "cubic", coordinate_transformation_mode = "align_corners"> (x, , , @[2,4,9,4])
    y = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , , @[2,4,3,11])
    y, h, c = LSTM <hidden_size = 4> (steps, w16, r16)
    y, h = GRU <hidden_size = 4, linear_before_reset = 1> (steps, w12, r12)
    y, h = RNN <hidden_size = 4> (steps, w4, r4)
"""
CASES = [
    *(f"y = {op}(x)" for op in UNARY.split()),
    *(f"y = {op}(p)" for op in ["Log", "Reciprocal", "Sqrt"]),
    *(f"y = {op} <keepdims = 0> (x, @[1,3])" for op in REDUCTIONS.split()),
    *(f"y = {op}(x, p)" for op in BINARY.split()),
    *(f"y = {op}(p, x)" for op in ["Greater", "GreaterOrEqual"]),
    *(f"a = Less(x, p)  b = Less(x, @(0.1))  y = {op}(a, b)" for op in ["And", "Or", "Xor"]),
    *(line.strip() for line in BODIES.strip().splitlines()),
]


def model_of(body: str) -> onnx.ModelProto:
    constants = {name: value.astype(np.float32) for name, value in WEIGHTS.items()}

    def literal(match: re.Match[str]) -> str:
        kind = np.int64 if match[1] else np.float32
        constants[f"k{len(constants)}"] = np.array((match[1] or match[2]).split(","), kind)
        return f"k{len(constants) - 1}"

    body = re.sub(r"@(?:\[([^\]]*)\]|\(([^)]*)\))", literal, body)
    start = "zero = Abs(x)  half = Constant <value_float = 0.5> ()  p = Add(zero, half)"
    text = f'<ir_version: 9, opset_import: ["" : 22]> g (float[2, 4, 6, 5] x) => (float y_) {{ {start}  {body}  '
    proto = parser.parse_model(text + "y_ = Cast <to = 1> (y) }")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    read = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in constants.items() if name in read)
    return proto


@pytest.mark.parametrize("body", CASES)
def test_operators_agree_with_onnx_runtime(body: str) -> None:
    model = model_of(body)
    expected = open_session(model.SerializeToString()).run({"x": X})["y_"]
    found = Engine(open_model(model).document).run({"x": X})["y_"]
    assert found.dtype == np.float64
    assert found.shape == expected.shape
    assert expected.size > 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


# A Scan over two values, with a state: along which axes and which way, what it is given and what it gives.
SCANS = [
    "num_scan_inputs = 2",
    "num_scan_inputs = 2, scan_input_directions = [0, 1], scan_output_directions = [1, 0]",
    "num_scan_inputs = 2, scan_input_axes = [1, -1], scan_output_axes = [2, -1], scan_output_directions = [0, 1]",
]


@pytest.mark.parametrize("settings", SCANS)
def test_scans_agree_with_onnx_runtime(settings: str) -> None:
    text = f"""(T[3,3,3] a, T[3,3,3] b, T[3,3] s) => (T[3,3] last, T[p,q,r] u, T[p,q,r] v)
        {{ last, u, v = Scan<{settings}, body = g (T[3,3] t, T[3,3] e, T[3,3] f) => (T[3,3] m, T[3,3] p, T[3,3] q)
          {{ h = MatMul(t, e) m = Add(h, f) p = Sub(m, e) q = Mul(m, f) }}>(s, a, b) }}"""
    model = parse(text, "float")
    feeds = {name: RNG.standard_normal((3, 3, 3)).astype(np.float32) for name in "ab"} | {"s": X[0, 0, :3, :3]}
    expected = open_session(model.SerializeToString()).run(feeds)
    found = Engine(open_model(model).document).run(feeds)
    assert found.keys() == expected.keys()
    for name, want in expected.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_a_scan_over_sequences_of_two_lengths_is_refused() -> None:
    text = """(T[3,2] a, T[4,2] b) => (T[l,2] u)
        { u = Scan<num_scan_inputs = 2, body = g (T[2] e, T[2] f) => (T[2] p) { p = Add(e, f) }>(a, b) }"""
    with pytest.raises(CannotRun, match=r"^node 'u' \(Scan\): ValueError"):
        Engine(open_model(parse(text, "float")).document).run({"a": X[0, 0, :3, :2], "b": X[0, 0, :4, :2]})


def test_every_operator_is_tried() -> None:
    tried = {node.op_type for body in CASES for node in model_of(body).graph.node}
    assert tried == BORROWED | WRITTEN.keys()


def test_models_agree_with_an_interpreter_of_another_hand() -> None:
    compared, reasons = 0, set()
    for seed in range(4000, 4150):
        case = random_model(seed, DOUBLE)
        for feeds, expected in zip(case.feeds, case.expected, strict=True):
            try:
                found = Engine(open_model(case.model).document).run(feeds)
            except CannotRun as error:
                reasons.add(str(error).partition(": ")[2])
                continue
            for name, want in expected.items():
                assert found[name].shape == want.shape
                np.testing.assert_allclose(found[name], want, rtol=0, atol=1e-9 * np.abs(want).max(initial=0))
                compared += 1
    assert compared > 500
    assert "this operator has no implementation in float64 here" in reasons
    assert len(reasons) < 8


def test_values_go_after_their_last_reader_and_can_be_watched() -> None:
    model = parse("(T[2,4] x) => (T[2,4] y) <T[4] w> { a = Mul(x, w) b = Relu(a) y = Add(a, b) }", "float")
    seen: dict[str, np.ndarray] = {}
    engine = Engine(open_model(model).document)
    x = RNG.standard_normal((2, 4))
    out = engine.run({"x": x}, watch=seen.__setitem__)
    assert set(seen) == {"a", "b", "y"}
    assert set(out) == {"y"}
    np.testing.assert_array_equal(seen["b"], np.maximum(seen["a"], 0))
    doubled = engine.run({"x": x}, weights={"w": 2 * engine.stored("w").astype(float)})
    np.testing.assert_allclose(doubled["y"], 2 * out["y"])


def test_a_part_of_a_graph_runs_from_values_inside_it() -> None:
    model = parse("(T[2,4] x) => (T[2,4] y) <T[4] w> { a = Mul(x, w) b = Relu(a) y = Add(a, b) }", "float")
    engine = Engine(open_model(model).document)
    found = engine.part(model.graph.node[1:], ["y", "b"], {"a": np.array([1.0, -2.0])})
    np.testing.assert_array_equal(found["y"], [2.0, -2.0])
    with pytest.raises(CannotRun, match="the value 'a' is not fed"):
        engine.part(model.graph.node[1:], ["y"], {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(T[2,4] x) => (T[2,4] y) { y = Bernoulli(x) }", r"^node 'y' \(Bernoulli\): this operator has no"),
        ("(T[2,4,3] x) => (T[2,4,3] y) <bn[4]> { y = BN<training_mode=1>(x) }", r"^node 'y' .* statistics"),
        ("(T[2,4] x) => (T[2,4] y) <T[3] w> { y = Mul(x, w) }", r"^node 'y' \(Mul\): TypeError: "),
    ],
)
def test_what_cannot_be_run_says_why(text: str, reason: str) -> None:
    with pytest.raises(CannotRun, match=reason):
        Engine(open_model(parse(text, "float")).document).run({"x": np.ones((2, 4, 3) if "3] x" in text else (2, 4))})


def test_a_run_ends_at_its_deadline() -> None:
    model = parse("(T[2,4] x) => (T[2,4] y) { y = Relu(x) }", "float")
    with pytest.raises(CannotRun, match="the time set for it is over"):
        Engine(open_model(model).document).run({"x": X[0, 0]}, deadline=time.monotonic() - 1)
