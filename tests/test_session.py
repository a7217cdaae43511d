"""The door to ONNX Runtime: types, errors in one line, providers asked for and no others."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from bnfold.checks import bfloat16, session
from bnfold.checks.session import TensorInfo, open_session, resolve_options, resolve_providers
from bnfold.errors import MissingDependency, ModelError, UsageError

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def model(graph: str, opset: int = 17) -> bytes:
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "ai.onnx.ml" : 3]>\n'
    return parser.parse_model(header + graph).SerializeToString()


IDENTITY = "agraph ({0}[2] x) => ({0}[2] y) {{ y = Identity(x) }}"


@pytest.mark.parametrize(
    ("onnx_type", "dtype", "values"),
    [
        ("float", "float32", np.array([1.5, -np.inf], np.float32)),
        ("double", "float64", np.array([1.5, 1e300])),
        ("float16", "float16", np.array([1.5, 65504], np.float16)),
        ("bfloat16", "bfloat16", np.array([1.5, -3e38], np.float32)),
        ("int8", "int8", np.array([-128, 127], np.int8)),
        ("uint8", "uint8", np.array([0, 255], np.uint8)),
        ("int32", "int32", np.array([-1, 2**31 - 1], np.int32)),
        ("int64", "int64", np.array([-1, 2**63 - 1])),
        ("uint64", "uint64", np.array([0, 2**64 - 1], np.uint64)),
        ("bool", "bool", np.array([True, False])),
        ("string", "string", np.array(["a", "bé"], object)),
    ],
)
def test_values_of_every_type_pass_through(onnx_type: str, dtype: str, values: np.ndarray) -> None:
    opened = open_session(model(IDENTITY.format(onnx_type)))
    assert opened.inputs == (TensorInfo("x", dtype, (2,)),)
    assert opened.outputs == (TensorInfo("y", dtype, (2,)),)
    expected = bfloat16.rounded(values) if dtype == "bfloat16" else values
    answer = opened.run({"x": values})["y"]
    assert answer.dtype == expected.dtype
    np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_bfloat16_of_any_shape(shape: tuple[int, ...]) -> None:
    sizes = ",".join(map(str, shape))
    kind = f"bfloat16[{sizes}]" if shape else "bfloat16"
    opened = open_session(model(f"agraph ({kind} x) => ({kind} y) {{ y = Identity(x) }}"))
    values = np.full(shape, 0.5, np.float32)
    np.testing.assert_array_equal(opened.run({"x": values})["y"], values)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (1.0 + 2**-8, 0x3F80),  # a tie goes to even
        (1.0 + 3 * 2**-8, 0x3F82),
        (1.0 + 2**-8 + 2**-20, 0x3F81),
        (-0.0, 0x8000),
        (np.inf, 0x7F80),
        (3.4e38, 0x7F80),  # rounds past the largest number
        (np.nan, 0x7FC0),
        (2.0**-133, 0x0001),
    ],
)
def test_rounding_to_bfloat16(value: float, bits: int) -> None:
    assert bfloat16.to_bits(np.array([value], np.float32)).tolist() == [bits]
    back = bfloat16.from_bits(np.array([bits], np.uint16))
    np.testing.assert_array_equal(bfloat16.to_bits(back), [bits])


def test_symbols_and_overridable_initializers() -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "agraph (float[N, ?, 3] x, float[3] w) => (float[N, ?, 3] y) { y = Add(x, w) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    opened = open_session(proto.SerializeToString())
    assert opened.inputs == (TensorInfo("x", "float32", ("N", None, 3)),)


def test_elements_of_a_sequence_are_outputs_of_their_own() -> None:
    opened = open_session(model("agraph (float[2, 3] x) => (seq(float[1, 3]) y) { y = SplitToSequence(x) }"))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    answers = opened.run({"x": x})
    assert list(answers) == ["y[0]", "y[1]"]
    np.testing.assert_array_equal(answers["y[1]"], x[1:])
    assert not opened.outputs[0].is_tensor


def test_a_map_cannot_be_compared() -> None:
    graph = "agraph (float[2, 2] x) => (seq(map(int64, float)) y) "
    opened = open_session(model(graph + "{ y = ai.onnx.ml.ZipMap <classlabels_int64s: ints = [0, 1]> (x) }"))
    with pytest.raises(ModelError, match=r"output 'y' .* only tensors"):
        opened.run({"x": np.ones((2, 2), np.float32)})


def test_a_model_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(IDENTITY.format("float")))
    opened = open_session(path)
    assert opened.init_ms > 0
    assert opened.provider == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"hello world", "protobuf parsing failed"),
        (b"", "No graph"),
        (Path("/nowhere/m.onnx"), "doesn't exist"),
        (model("agraph (float[2] x) => (float[2] y) { y = NoSuchOperator(x) }"), "NoSuchOperator"),
        (model("agraph (float[2] x) => (float[2] y) { y = Add(x, ghost) }"), "ghost"),
    ],
)
def test_a_model_that_cannot_be_loaded(source: Any, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError) as caught:
        open_session(source, label="the original")
    message = str(caught.value)
    assert message.startswith("ONNX Runtime cannot load the original: ")
    assert reason in message
    assert "\n" not in message
    assert "[ONNXRuntimeError]" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("call", ["run", "runner"])
@pytest.mark.parametrize(("name", "expected"), [("shaper", "node 'shaper' (Reshape): "), ("", "a Reshape node: ")])
def test_an_error_while_running_names_the_node(
    call: str, name: str, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    proto = onnx.load_from_string(
        model("agraph (float[N] x) => (float[K, L] y) { s = Constant <value_ints = [3, 4]> () y = Reshape(x, s) }")
    )
    proto.graph.node[1].name = name
    opened = open_session(proto.SerializeToString(), label="the original")
    feeds = {"x": np.ones(5, np.float32)}
    with pytest.raises(ModelError) as caught:
        opened.run(feeds) if call == "run" else opened.runner(feeds)()
    message = str(caught.value)
    assert message.startswith(f"ONNX Runtime cannot run the original: {expected}")
    assert "reshape_helper.h" not in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("cpu",), ("CPUExecutionProvider",)),
        (("CPU",), ("CPUExecutionProvider",)),
        (("CPUExecutionProvider", "cpu"), ("CPUExecutionProvider",)),
    ],
)
def test_provider_names(names: tuple[str, ...], found: tuple[str, ...]) -> None:
    assert resolve_providers(names) == found


def test_a_provider_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"'quantum' is not available here: .*\bcpu\b"):
        resolve_providers(("cpu", "quantum"))


@pytest.mark.skipif(HAS_CUDA, reason="CUDAExecutionProvider is present")
def test_cuda_is_refused_where_it_is_absent() -> None:
    with pytest.raises(UsageError, match="'cuda' is not available"):
        resolve_providers(("cuda",))


def test_without_onnx_runtime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r'pip install "bnfold\[cpu\]"'):
        open_session(b"")


class FakeRuntime:
    """Stands for an ONNX Runtime whose GPU providers may or may not start."""

    GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_ALL="all", ORT_DISABLE_ALL="none")

    def __init__(self, starts: bool) -> None:
        self.starts = starts
        self.asked: dict[str, Any] = {}

    def SessionOptions(self) -> SimpleNamespace:
        self.options = SimpleNamespace(entries={})
        self.options.add_session_config_entry = self.options.entries.__setitem__
        return self.options

    def InferenceSession(self, source: Any, options: Any, **asked: Any) -> SimpleNamespace:
        self.asked = asked
        first = asked["providers"][0]
        running = first if isinstance(first, str) else first[0]
        return SimpleNamespace(
            get_providers=lambda: [running if self.starts else "CPUExecutionProvider"],
            get_inputs=list,
            get_outputs=list,
        )


def test_a_provider_that_falls_back_to_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime(starts=False)
    monkeypatch.setattr(session, "_onnxruntime", lambda: runtime)
    with pytest.raises(UsageError, match="CUDAExecutionProvider is installed but cannot start"):
        open_session(b"", "CUDAExecutionProvider")
    assert runtime.asked["enable_fallback"] == 0


@pytest.mark.parametrize(("tf32", "flag"), [(False, "0"), (True, "1")])
@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_tf32_on_cuda_is_what_was_asked(provider: str, tf32: bool, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime(starts=True)
    monkeypatch.setattr(session, "_onnxruntime", lambda: runtime)
    open_session(b"", provider, tf32=tf32)
    chain = runtime.asked["providers"]
    assert chain[-1] == "CPUExecutionProvider"
    assert dict(entry for entry in chain if isinstance(entry, tuple))["CUDAExecutionProvider"]["use_tf32"] == flag


CUDA_MEASURED = {"use_tf32": "1", "cudnn_conv_algo_search": "EXHAUSTIVE"}
CUDA_VERIFIED = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


@pytest.mark.parametrize(
    ("provider", "measured", "own", "chain"),
    [
        ("CUDAExecutionProvider", True, {}, [("CUDAExecutionProvider", CUDA_MEASURED)]),
        ("CUDAExecutionProvider", False, {}, [("CUDAExecutionProvider", CUDA_VERIFIED)]),
        (
            "CUDAExecutionProvider",
            True,
            {"use_tf32": "0", "device_id": "1"},
            [("CUDAExecutionProvider", {**CUDA_MEASURED, "use_tf32": "0", "device_id": "1"})],
        ),
        (
            "TensorrtExecutionProvider",
            True,
            {"trt_fp16_enable": "1"},
            [("TensorrtExecutionProvider", {"trt_fp16_enable": "1"}), ("CUDAExecutionProvider", CUDA_MEASURED)],
        ),
        ("DmlExecutionProvider", True, {}, ["DmlExecutionProvider"]),
        ("DmlExecutionProvider", True, {"device_id": "1"}, [("DmlExecutionProvider", {"device_id": "1"})]),
    ],
)
def test_a_provider_is_set_to_what_is_asked_and_says_so(
    provider: str, measured: bool, own: dict[str, str], chain: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = FakeRuntime(starts=True)
    monkeypatch.setattr(session, "_onnxruntime", lambda: runtime)
    opened = open_session(b"", provider, tf32=measured, deterministic=not measured, provider_options=own)
    assert runtime.asked["providers"] == [*chain, "CPUExecutionProvider"]
    assert opened.provider_options == (chain[0][1] if isinstance(chain[0], tuple) else {})


def test_options_are_for_providers_to_run_on() -> None:
    running = ("CPUExecutionProvider", "CUDAExecutionProvider")
    assert resolve_options({"Cuda": {"use_tf32": "0"}}, running) == {"CUDAExecutionProvider": {"use_tf32": "0"}}
    with pytest.raises(UsageError, match="'tensorrt', which is not among the providers"):
        resolve_options({"tensorrt": {"a": "b"}}, running)
    with pytest.raises(UsageError, match="CPU provider has none"):
        resolve_options({"cpu": {"a": "b"}}, running)


@pytest.mark.parametrize(("level", "expected"), [("disable", "none"), ("all", "all")])
def test_session_options(level: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime(starts=True)
    monkeypatch.setattr(session, "_onnxruntime", lambda: runtime)
    open_session(b"", "CPUExecutionProvider", level, intra_op_num_threads=3, spinning=False)
    assert runtime.options.graph_optimization_level == expected
    assert runtime.options.intra_op_num_threads == 3
    assert runtime.options.entries == {"session.intra_op.allow_spinning": "0"}


@pytest.mark.skipif(not HAS_CUDA, reason="CUDAExecutionProvider is not available here")
def test_cuda_gives_the_answers_of_the_cpu() -> None:
    source = model("agraph (float[2, 3] x) => (float[2, 3] y) { y = Mul(x, x) }")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    opened = open_session(source, "CUDAExecutionProvider")
    np.testing.assert_array_equal(opened.run({"x": x})["y"], x * x)
    opened.runner({"x": x})()
