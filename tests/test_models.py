"""The committed models are what `models/README.md` says they are."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

MODELS = Path(__file__).parent.parent / "models"
NAMES = ("bnlenet", "bnlenet_handwritten")
SIZE_LIMIT_BYTES = 5_000_000

LENET = {"Conv": 2, "Gemm": 3, "Sigmoid": 4, "AveragePool": 2}
# Between the pools and the first Gemm the exporter computes the flattened shape from the batch size.
FLATTEN = {"Shape": 1, "Squeeze": 1, "Concat": 1, "Reshape": 2}
NORM = {
    "bnlenet": {"BatchNormalization": 4, "Constant": 2},
    # The eps is one Constant that all four chains read.
    "bnlenet_handwritten": {"Sub": 4, "Add": 8, "Sqrt": 4, "Div": 4, "Mul": 4, "Constant": 3},
}


@pytest.fixture(scope="module")
def held_out() -> dict[str, np.ndarray]:
    with np.load(MODELS / "digits_test.npz") as archive:
        return dict(archive)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(name: str) -> onnx.ModelProto:
    return onnx.load(MODELS / f"{name}.onnx")


def logits_of(name: str, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(MODELS / f"{name}.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"x": x})
    return logits


def test_listed_files_are_there_and_small_together() -> None:
    listed = re.findall(r"^\| `([\w.]+\.\w+)` \|", (MODELS / "README.md").read_text(), flags=re.MULTILINE)
    assert set(listed) >= {f"{name}.{suffix}" for name in NAMES for suffix in ("onnx", "safetensors")}
    assert sum((MODELS / name).stat().st_size for name in listed) < SIZE_LIMIT_BYTES


def test_held_out_set_holds_450_images_of_every_digit(held_out: dict[str, np.ndarray]) -> None:
    x, labels = held_out["x"], held_out["labels"]
    assert (x.shape, x.dtype) == ((450, 1, 28, 28), np.float32)
    assert (labels.shape, labels.dtype) == ((450,), np.int64)
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert np.bincount(labels, minlength=10).min() > 40


def test_model_is_valid_and_self_contained(name: str, model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_operators(name: str, model: onnx.ModelProto) -> None:
    assert Counter(node.op_type for node in model.graph.node) == {**LENET, **FLATTEN, **NORM[name]}


def test_batch_norms_are_in_eval_mode() -> None:
    graph = onnx.load(MODELS / "bnlenet.onnx").graph
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    modes = [attribute.i for node in norms for attribute in node.attribute if attribute.name == "training_mode"]
    assert not any(modes)
    assert [len(node.output) for node in norms] == [1] * 4


def test_handwritten_statistics_have_the_rank_of_their_input() -> None:
    graph = onnx.load(MODELS / "bnlenet_handwritten.onnx").graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for layer, shape in {"norm1": (1, 6, 1, 1), "norm2": (1, 16, 1, 1), "norm3": (1, 120), "norm4": (1, 84)}.items():
        assert {shapes[f"{layer}.{letter}"] for letter in ("gamma", "beta", "mean", "var")} == {shape}


def test_handwritten_eps_is_1e_8() -> None:
    graph = onnx.load(MODELS / "bnlenet_handwritten.onnx").graph
    producers = {output: node for node in graph.node for output in node.output}
    under_roots = [producers[node.input[0]] for node in graph.node if node.op_type == "Sqrt"]
    (eps_name,) = {node.input[1] for node in under_roots}
    eps = onnx.numpy_helper.to_array(producers[eps_name].attribute[0].t)
    assert eps == np.float32(1e-8)


def test_batch_is_symbolic(name: str, model: onnx.ModelProto, held_out: dict[str, np.ndarray]) -> None:
    (x,), (logits,) = model.graph.input, model.graph.output
    assert [x.name, logits.name] == ["x", "logits"]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in (x, logits)} == {"batch"}
    assert [logits_of(name, held_out["x"][:n]).shape for n in (1, 3)] == [(1, 10), (3, 10)]


def test_no_machine_path_is_left_in_the_metadata(name: str, model: onnx.ModelProto) -> None:
    keys = {entry.key for node in model.graph.node for entry in node.metadata_props}
    assert keys
    assert not any("stack_trace" in key for key in keys)


def test_accuracy_is_the_recorded_one(name: str, held_out: dict[str, np.ndarray]) -> None:
    recorded = re.search(rf"^\| `{name}` \| (\d+) of (\d+) ", (MODELS / "README.md").read_text(), flags=re.MULTILINE)
    assert recorded is not None
    correct = int((logits_of(name, held_out["x"]).argmax(axis=1) == held_out["labels"]).sum())
    assert [correct, len(held_out["labels"])] == [int(figure) for figure in recorded.groups()]
    assert correct > 0.97 * len(held_out["labels"])


def test_weights_in_the_pytorch_network_give_the_same_logits(name: str, held_out: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    from models.networks import NETWORKS

    network = NETWORKS[name]().eval()
    network.load_state_dict(load_file(MODELS / f"{name}.safetensors"))
    with torch.inference_mode():
        logits = network(torch.from_numpy(held_out["x"])).numpy()
    np.testing.assert_allclose(logits_of(name, held_out["x"]), logits, rtol=0, atol=1e-4)
