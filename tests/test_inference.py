"""onnx's shape inference as bnfold uses it: what it says wrongly is not believed, and it takes no more than it may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from oracle import run_on_runtime

import bnfold
from bnfold.graphs.onnx import distrust
from bnfold.graphs.onnx.index import index_model
from bnfold.graphs.onnx.shapes import Shapes

# Per row of the table: an operator, opset, attributes, operands: the shapes of inputs, and constants.
ROWS = {
    "ceil_mode": ("MaxPool", 13, {"kernel_shape": [1], "strides": [2], "ceil_mode": 1}, [(1, 1, 4)]),
    "dilated": (
        "MaxPool",
        22,
        {"kernel_shape": [2], "dilations": [2], "strides": [2], "auto_pad": "SAME_UPPER"},
        [(1, 1, 5)],
    ),
    "no window": (
        "MaxPool",
        23,
        {"kernel_shape": [3, 4, 4], "strides": [2, 1, 2], "auto_pad": "VALID", "ceil_mode": 1},
        [(1, 2, 3, 3, 2)],
    ),
    "output_shape": ("ConvTranspose", 17, {"output_shape": [2, 4]}, [(1, 1, 3, 8), np.ones((1, 1, 3, 2), np.float32)]),
    "output_padding": (
        "ConvTranspose",
        22,
        {"strides": [2], "auto_pad": "SAME_UPPER", "output_padding": [1]},
        [(1, 1, 4), np.ones((1, 1, 2), np.float32)],
    ),
    "a step back": (
        "Slice",
        13,
        {},
        [(5,), *(np.asarray([at], np.int64) for at in (4, 2**31 - 1, 0, -2))],
    ),
    "numbers": ("Range", 13, {}, [np.asarray(at, np.float32) for at in (20.0, 1.8, -0.1)]),
    "axes": ("Squeeze", 10, {"axes": [3, 2]}, [(2, 3, 1, 1)]),
    "scales of Upsample": ("Upsample", 9, {}, [(1, 1, 3), np.asarray([1, 1, 1.6666666], np.float32)]),
    "scales of Resize": ("Resize", 13, {}, [(1, 1, 3), None, np.asarray([1, 1, 1.6666666], np.float32)]),
    "aspect ratio": (
        "Resize",
        18,
        {"axes": [-1, -2], "keep_aspect_ratio_policy": "not_larger"},
        [(1, 1, 4, 5), None, None, np.asarray([6, 6], np.int64)],
    ),
    "scalar": ("NonZero", 13, {}, [()]),
    "attention": (
        "Attention",
        23,
        {"q_num_heads": 2, "kv_num_heads": 2},
        [(2, 3, 8), (2, 4, 8), (2, 4, 6)],
    ),
    "frames": ("STFT", 17, {}, [(1, 16, 1), np.asarray(4), np.ones(8, np.float32)]),
}


def model_of(name: str, symbolic: bool = False) -> onnx.ModelProto:
    op, opset, attributes, operands = ROWS[name]
    names = ["" if operand is None else f"i{place}" for place, operand in enumerate(operands)]
    shapes = {f"i{place}": operand for place, operand in enumerate(operands) if isinstance(operand, tuple)}
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "g",
        [
            helper.make_tensor_value_info(
                key, onnx.TensorProto.FLOAT, [f"d{axis}" for axis in range(len(shape))] if symbolic else shape
            )
            for key, shape in shapes.items()
        ],
        [helper.make_empty_tensor_value_info("y")],
        [
            numpy_helper.from_array(operand, f"i{place}")
            for place, operand in enumerate(operands)
            if isinstance(operand, np.ndarray)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_no_size_is_believed_that_onnx_runtime_does_not_make(name: str, symbolic: bool) -> None:
    model = model_of(name, symbolic)
    feeds = {
        f"i{place}": np.ones(shape, np.float32) for place, shape in enumerate(ROWS[name][3]) if isinstance(shape, tuple)
    }
    found = run_on_runtime(model, feeds)
    assert not isinstance(found, str), found
    scopes = index_model(model)
    known = Shapes(model, scopes).shape(scopes[0].values["y"])
    assert known is None or len(known) == found["y"].ndim
    for size, real in zip(known or (), found["y"].shape, strict=False):
        assert not isinstance(size, int) or size == real


@pytest.mark.parametrize("row", distrust.TABLE, ids=lambda row: f"{row.ops[0]} {row.since}: {row.reason}")
def test_every_row_of_the_table_is_needed(row: distrust.Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distrust, "TABLE", tuple(other for other in distrust.TABLE if other is not row))
    wrong = 0
    for name in ROWS:
        for symbolic in (False, True):
            try:
                test_no_size_is_believed_that_onnx_runtime_does_not_make(name, symbolic)
            except AssertionError:
                wrong += 1
    assert wrong


@pytest.mark.parametrize("name", ROWS)
def test_damaged_attributes_and_constants_do_not_end_a_fold(name: str) -> None:
    whole = model_of(name)
    wrong = [helper.make_attribute("a", value) for value in (7, 1.5, "text", [2, 3], [0.5], ["text"])]
    for place in range(len(whole.graph.node[0].attribute)):
        for item in wrong:
            model = model_of(name)
            attribute = model.graph.node[0].attribute[place]
            key = attribute.name
            attribute.CopyFrom(item)
            attribute.name = key
            _all_shapes(model)
    for place in range(len(whole.graph.initializer)):
        for dims, kind in (([99], None), ([-1], None), (None, onnx.TensorProto.STRING), (None, 77)):
            model = model_of(name)
            tensor = model.graph.initializer[place]
            tensor.dims[:] = tensor.dims[:] if dims is None else dims
            tensor.data_type = kind or tensor.data_type
            _all_shapes(model)


def _all_shapes(model: onnx.ModelProto) -> None:
    main, *_ = scopes = index_model(model)
    shapes = Shapes(model, scopes)
    for value in main.values.values():
        shapes.shape(value)


CONV = "w = Constant<value = float[2,2,1,1] {1,2,3,4}>() k = Constant<value = float[2] {1,2}>() c = Conv(x, w) "
CONV += "y = BatchNormalization(c, k, k, k, k) "
MAKERS = {
    "Tile": "one = Constant<value_ints=[1]>() n = Constant<value_ints=[134217728]>() t = Tile(one, n)",
    "Range": "a = Constant<value_int=0>() n = Constant<value_int=134217728>() d = Constant<value_int=1>() "
    "t = Range(a, n, d)",
    "ConstantOfShape": "n = Constant<value_ints=[134217728]>() t = ConstantOfShape<value = int64[1] {1}>(n)",
    "Expand": "one = Constant<value_ints=[1]>() n = Constant<value_ints=[134217728]>() t = Expand(one, n)",
    "Reshape": "e = Constant<value = int64[1] {1}>() n = Constant<value_ints=[8192, 16384]>() u = Expand(e, n) "
    "m = Constant<value_ints=[-1]>() t = Reshape(u, m)",
}
READERS = {
    **{op: f"z = {op}(t, i)" for op in ("Add", "Sub", "Mul", "Gather", "Unsqueeze")},
    "Cast": "z = Cast<to=6>(t)",
    "Concat": "z = Concat<axis=0>(t, i)",
    "Slice": "j = Constant<value_ints=[1]>() z = Slice(t, i, j)",
    "Squeeze": "z = Squeeze(t)",
    "Size": "z = Size(t)",
}
LIMITED = """
import resource, sys
import onnx, bnfold
from bnfold.graphs.onnx.index import index_model
from bnfold.graphs.onnx.shapes import Shapes
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
for text in sys.stdin.read().split(";"):
    model = onnx.parser.parse_model(text)
    main, *_ = scopes = index_model(model)
    shapes = Shapes(model, scopes)
    known = {value.name: shapes.shape(value) for value in main.values.values()}
    assert known["c"] is not None, text
    assert [site.folded for site in bnfold.fold(model).sites] == [True], text
"""


def fold_in_4_gb(models: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LIMITED],
        input=";".join(models),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=Path(bnfold.__file__).parent.parent,
    )


@pytest.mark.parametrize("maker", MAKERS)
def test_long_vectors_take_no_memory(maker: str) -> None:
    models = []
    for reader in READERS.values():
        nodes = f"{CONV} {MAKERS[maker]} i = Constant<value_ints=[0]>() {reader} v = Shape(c)"
        head = '<ir_version: 8, opset_import: ["" : 17'
        models.append(f"{head}]> g (float[N,2,H,W] x) => (float[N,2,h,w] y) {{ {nodes} }}")
        call = f"{CONV} v = Shape(c) z = local.F(c)"
        function = f"F (c) => (z) {{ {MAKERS[maker]} i = Constant<value_ints=[0]>() {reader} }}"
        models.append(
            f'{head}, "local" : 1]> g (float[N,2,H,W] x) => (float[N,2,h,w] y) {{ {call} }}'
            f' <domain: "local", opset_import: ["" : 17]> {function}'
        )
    done = fold_in_4_gb(models)
    assert done.returncode == 0, done.stderr[-600:]


def test_a_long_input_takes_no_memory_in_a_function_either() -> None:
    body = 'f <domain: "local", opset_import: ["" : 17]> F (t) => (z) { z = Add(t, t) }'
    done = fold_in_4_gb(
        [
            '<ir_version: 8, opset_import: ["" : 17, "local" : 1]> g (float[N,2,H,W] x, int64[134217728] t) => '
            f"(float[N,2,h,w] y) {{ {CONV} v = Shape(c) z = local.F(t) }} {body.removeprefix('f ')}"
        ]
    )
    assert done.returncode == 0, done.stderr[-600:]


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Constant<value_ints=[0]>() e = Constant<value_ints=[1]>() s = Slice(x, a, e, a) "
        + CONV.replace("(x,", "(s,"),
        "g = GatherND(x, i) " + CONV,
    ],
    ids=["Slice", "GatherND"],
)
def test_sizes_below_zero_do_not_end_the_process(nodes: str) -> None:
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[A,2,H,W] x, int64[I,J] i) => (float[N,2,h,w] y)'
    text = f"{head} {{ {nodes} v = Shape(c) r = Relu(v)}}"
    below = "for info in model.graph.input: info.type.tensor_type.shape.dim[-1].dim_value = -1"
    first = "model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1"
    code = LIMITED.replace("    main,", f"    {below}\n    {first}\n    main,")
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr[-600:]


CONTRADICTORY = {
    "Conv": "t = Conv(x, w)",
    "AveragePool": "t = AveragePool<kernel_shape = [6, 6]>(x)",
    "MaxPool": "t = MaxPool<kernel_shape = [6, 6], ceil_mode = 1>(x)",
    "Pad": "p = Constant<value_ints = [0, 0, -4, -4, 0, 0, 0, 0]>() t = Pad(x, p)",
    "ConvTranspose": "t = ConvTranspose<pads = [5, 5, 5, 5]>(x, w)",
    "Resize": "r = Constant<value_floats = [1.0, 1.0, -2.0, -2.0]>() t = Resize(x, , r)",
    "Split": "p = Constant<value_ints = [-3, 6]>() t, u = Split<axis = 2>(x, p)",
    "TopK": "p = Constant<value_ints = [-2]>() t, u = TopK<axis = 2>(x, p)",
}


def test_models_whose_sizes_contradict_themselves_do_not_end_the_process() -> None:
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,1,3,3] x) => (float[a,b,c,d] y)'
    ends = "b = Constant<value_ints = [0]>() e = Constant<value_ints = [1]>() h = Constant<value_ints = [2]>()"
    weight = "w = Constant<value = float[1,1,5,5] {" + ",".join(["1"] * 25) + "}>()"
    texts = [f"{head} {{ {weight} {nodes} {ends} y = Slice(t, b, e, h) }}" for nodes in CONTRADICTORY.values()]
    code = LIMITED[: LIMITED.index("    assert")]
    done = subprocess.run(
        [sys.executable, "-c", code], input=";".join(texts), capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr[-600:]


def test_what_is_taken_back_stays_so_while_vectors_are_hidden() -> None:
    """A pool of which too much is said, in a model with a vector through which no numbers are followed."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,2,4] x, int64[L] v) => (float[N,2,a] y)
        { z = Add(v, v) s = Shape(x) n = Slice(s, o, i) r = Reshape(x, s)
           p = MaxPool<kernel_shape = [1], strides = [2], ceil_mode = 1>(r) q = Relu(p) y = Relu(q) k = Relu(z) }"""
    )
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray([at]), name) for at, name in enumerate("oi"))
    main, *_ = scopes = index_model(model)
    shapes = Shapes(model, scopes)
    for _ in range(2):
        batch, channels, size = shapes.shape(main.values["q"]) or (None, None, None)
        assert (batch, channels) == ("N", 2)
        assert size != 3
        assert shapes.shape(main.values["z"]) == ("L",)
        shapes.learn({})
