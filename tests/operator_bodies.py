"""One small model per operator that the float64 engine knows, its last operator the one that is meant."""

from __future__ import annotations

import re

import numpy as np
import onnx
from onnx import numpy_helper, parser

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
