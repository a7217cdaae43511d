"""A program in, a program out: every fold that the graph allows, and nothing else changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch_networks import IMAGES, Code, calibrated, difference, lenet, verdicts

from bnfold.errors import ModelError, OutputError
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.exported import fold_exported, load_program, save_program

ALL, EVAL = FoldOptions(), FoldOptions(assume_eval=True)
MAPS = (2, 3, 9, 8)
BACK = ["backward"]


def exported(module: nn.Module, *shape: int, **options: Any) -> ExportedProgram:
    return torch.export.export(module, (torch.randn(shape, dtype=torch.float64),), **options)


def made(body: Callable[[Code, Tensor], Any], **parts: Any) -> nn.Module:
    torch.manual_seed(0)
    return calibrated(Code(body, **parts)).double()


def operators(program: ExportedProgram) -> list[str]:
    return [str(node.target).split(".")[1] for node in program.graph.nodes if node.op == "call_function"]


def test_dynamic_shapes_stay() -> None:
    module = made(lambda m, x: m.b(m.c(x)).relu(), c=nn.Conv2d(3, 4, 3), b=nn.BatchNorm2d(4))
    sizes = {0: Dim("n"), 2: Dim("h", min=4, max=64), 3: Dim("w", min=4)}
    program = exported(module, *MAPS, dynamic_shapes={"x": sizes})
    folded = fold_exported(program, ALL).model
    assert operators(folded) == ["conv2d", "relu"]
    assert folded.range_constraints == program.range_constraints
    for shape in ((1, 3, 4, 60), (5, 3, 64, 4)):
        x = torch.randn(shape, dtype=torch.float64)
        assert difference(module(x), folded.module()(x)) < 1e-9
    with pytest.raises(AssertionError, match="Guard failed"):
        folded.module()(torch.randn((2, 3, 65, 9), dtype=torch.float64))


def test_the_program_that_is_given_is_not_changed() -> None:
    program = exported(calibrated(lenet()).double(), *IMAGES)
    text, before = str(program), copy.deepcopy(program.state_dict)
    folded = fold_exported(program, ALL).model
    assert str(program) == text
    assert all(torch.equal(program.state_dict[name], before[name]) for name in before)
    assert folded.state_dict["linear3.weight"] is program.state_dict["linear3.weight"]
    assert folded.state_dict["conv1.weight"] is not program.state_dict["conv1.weight"]


def test_what_is_left_keeps_its_name_and_its_kind() -> None:
    program = exported(calibrated(lenet(conv_bias=False)).double(), *IMAGES)
    folded = fold_exported(program, ALL).model
    layers = ("conv1", "conv2", "linear1", "linear2", "linear3")
    names = [f"{layer}.{name}" for layer in layers for name in ("weight", "bias")]
    assert sorted(folded.state_dict) == sorted(names)
    assert sorted(folded.graph_signature.parameters) == sorted(names)
    assert folded.graph_signature.user_inputs == program.graph_signature.user_inputs
    assert all(isinstance(tensor, nn.Parameter) for tensor in folded.state_dict.values())
    assert {spec.kind for spec in folded.graph_signature.output_specs} == {
        spec.kind for spec in program.graph_signature.output_specs
    }


def test_a_program_without_norms_is_handed_back() -> None:
    program = exported(nn.Conv2d(3, 4, 3).double(), *MAPS)
    assert fold_exported(program, ALL).model is program


def test_nothing_chosen_folds_nothing() -> None:
    program = exported(calibrated(lenet()).double(), *IMAGES)
    folded = fold_exported(program, FoldOptions(skip=("norm*",)))
    assert folded.model is program
    assert verdicts(folded.sites) == ["not-selected"] * 4


ROW = {"w": torch.rand(8, 4), "b": nn.BatchNorm1d(4)}
BIASED = {**ROW, "v": torch.rand(4)}


@pytest.mark.parametrize(
    ("module", "left"),
    [
        (made(lambda m, x: m.b(x @ m.w), **ROW), ["matmul", "add"]),
        (made(lambda m, x: m.b(x @ m.w + m.v), **BIASED), ["matmul", "add"]),
        (made(lambda m, x: m.b(F.linear(x, m.w)), **{**ROW, "w": torch.rand(4, 8)}), ["linear"]),
        (made(lambda m, x: m.b(torch.addmm(m.v, x, m.w)), **BIASED), ["addmm"]),
        (made(lambda m, x: m.b(torch.einsum("nk,kc->nc", x, m.w)), **ROW), ["einsum", "add"]),
        (made(lambda m, x: m.b(x * 2.0), b=nn.BatchNorm1d(8)), ["mul", "batch_norm"]),
        (made(lambda m, x: m.l(m.b(m.a(x))), a=nn.BatchNorm1d(8), b=nn.BatchNorm1d(8), l=nn.Linear(8, 4)), ["linear"]),
    ],
)
def test_products(module: nn.Module, left: list[str]) -> None:
    program, x = exported(module, 5, 8), torch.randn((5, 8), dtype=torch.float64)
    folded = fold_exported(program, ALL).model
    assert operators(folded) == left
    assert difference(module(x), folded.module()(x)) < 1e-9


def test_a_norm_merges_into_a_norm_without_parameters() -> None:
    parts = {"a": nn.BatchNorm2d(3, affine=False), "b": nn.BatchNorm2d(3)}
    module = made(lambda m, x: m.b(m.a(torch.sigmoid(x))), **parts)
    folded = fold_exported(exported(module, *MAPS), ALL)
    assert verdicts(folded.sites) == ["not-equivariant", "merged"]
    assert set(folded.model.state_dict) == {"a.running_mean", "a.running_var", "a.num_batches_tracked"}
    x = torch.randn(MAPS, dtype=torch.float64)
    assert difference(module(x), folded.model.module()(x)) < 1e-9


def test_operators_in_place_are_made_functional() -> None:
    body = lambda m, x: m.b(m.c(x)).relu_().mul_(2.0)  # noqa: E731
    module = made(body, c=nn.Conv2d(3, 4, 3), b=nn.BatchNorm2d(4))
    folded = fold_exported(exported(module, *MAPS), ALL)
    assert operators(folded.model) == ["conv2d", "relu", "mul"]
    x = torch.randn(MAPS, dtype=torch.float64)
    assert difference(module(x), folded.model.module()(x)) < 1e-9


class Counting(nn.Module):
    """A module that counts its calls, and one whose weight changes with every call."""

    def __init__(self, *, drifting: bool) -> None:
        super().__init__()
        self.norm, self.drifting = nn.BatchNorm2d(4), drifting
        self.calls: Tensor
        self.weight: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("weight", torch.rand(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        if self.drifting:
            self.weight.mul_(0.5)
        return self.norm(F.conv2d(x, self.weight))


@pytest.mark.parametrize(("drifting", "verdict"), [(False, "backward"), (True, "computed-weight")])
def test_buffers_that_change(drifting: bool, verdict: str) -> None:
    module = calibrated(Counting(drifting=drifting)).double()
    folded = fold_exported(exported(copy.deepcopy(module), *MAPS), ALL)
    assert verdicts(folded.sites) == [verdict]
    runnable, x = folded.model.module(), torch.randn(MAPS, dtype=torch.float64)
    for calls in (1, 2):
        assert difference(module(x), runnable(x)) < 1e-9
        assert runnable.calls == calls


def test_several_outputs_and_the_intermediate_value_as_one() -> None:
    def body(m: Code, x: Tensor) -> dict[str, Any]:
        y = m.d(x)
        return {"a": m.b(m.c(x)), "b": (y, m.e(y))}

    parts = {"c": nn.Conv2d(3, 4, 3), "b": nn.BatchNorm2d(4), "d": nn.Conv2d(3, 4, 1), "e": nn.BatchNorm2d(4)}
    module = made(body, **parts)
    folded = fold_exported(exported(module, *MAPS), ALL)
    assert verdicts(folded.sites) == ["backward", "graph-output"]
    x = torch.randn(MAPS, dtype=torch.float64)
    assert list(folded.model.module()(x)) == ["a", "b"]
    assert difference(module(x), folded.model.module()(x)) < 1e-9


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:Attempted to insert a get_attr:UserWarning")
def test_preserved_signatures_of_submodules() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block(x).relu())

    module = calibrated(Outer()).double()
    program = exported(module, *MAPS, preserve_module_call_signature=("block", "head"))
    folded = fold_exported(program, ALL)
    assert verdicts(folded.sites) == BACK
    x = torch.randn(MAPS, dtype=torch.float64)
    assert difference(module(x), torch.export.unflatten(folded.model)(x)) < 1e-9


def test_fake_quantization_is_not_crossed() -> None:
    body = lambda m, x: m.b(torch.fake_quantize_per_tensor_affine(m.c(x), 0.1, 0, -128, 127))  # noqa: E731
    module = made(body, c=nn.Conv2d(3, 4, 3), b=nn.BatchNorm2d(4)).float()
    program = torch.export.export(module, (torch.randn(MAPS),))
    assert verdicts(fold_exported(program, ALL).sites) == ["quantized"]


def test_a_norm_in_training_mode() -> None:
    program = exported(calibrated(lenet()).double().train(), *IMAGES)
    refused = fold_exported(program, ALL)
    assert verdicts(refused.sites) == ["training-mode"] * 4
    assert refused.model is program
    folded = fold_exported(program, EVAL)
    assert verdicts(folded.sites) == BACK * 4
    assert not any("num_batches_tracked" in name for name in folded.model.state_dict)
    x = torch.randn(IMAGES, dtype=torch.float64)
    module = calibrated(lenet()).double()
    module.load_state_dict(program.state_dict)
    assert difference(module(x), folded.model.module()(x)) < 1e-9


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_decomposed_norm_in_training_mode() -> None:
    program = exported(calibrated(lenet()).double().train(), *IMAGES).run_decompositions({})
    for options in (ALL, EVAL):
        folded = fold_exported(program, options)
        assert verdicts(folded.sites) == ["training-mode"] * 4


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_core_program() -> None:
    module = calibrated(nn.Sequential(lenet(), nn.Unflatten(1, (2, 5)), nn.BatchNorm1d(2))).double()
    program = exported(module, *IMAGES).run_decompositions()
    folded = fold_exported(program, ALL)
    assert verdicts(folded.sites) == [*BACK * 5]
    x = torch.randn(IMAGES, dtype=torch.float64)
    assert difference(module(x), folded.model.module()(x)) < 1e-9


def test_the_result_is_a_program_like_any_other(tmp_path: Path) -> None:
    module = calibrated(lenet(conv_bias=False)).double()
    folded = fold_exported(exported(module, *IMAGES, dynamic_shapes=({0: Dim.DYNAMIC},)), ALL).model
    x = torch.randn((3, *IMAGES[1:]), dtype=torch.float64)
    save_program(folded, tmp_path / "folded.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["folded.pt2"]
    loaded = load_program(tmp_path / "folded.pt2", trusted=False)
    again = torch.export.export(loaded.module(), (x,))
    for program in (loaded, again, fold_exported(loaded, ALL).model):
        assert difference(module(x), program.module()(x)) < 1e-9


def test_a_loaded_program_folds(tmp_path: Path) -> None:
    module = calibrated(nn.Sequential(lenet(conv_bias=False), nn.ReLU(inplace=True))).double()
    save_program(exported(module, *IMAGES, dynamic_shapes=({0: Dim.DYNAMIC},)), tmp_path / "model.pt2")
    folded = fold_exported(load_program(tmp_path / "model.pt2", trusted=False), ALL)
    assert verdicts(folded.sites) == BACK * 4
    assert [site.name for site in folded.sites] == [f"0.norm{n}" for n in (1, 2, 3, 4)]
    x = torch.randn((5, *IMAGES[1:]), dtype=torch.float64)
    assert difference(module(x), folded.model.module()(x)) < 1e-9


def test_files_that_are_no_programs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such file"):
        load_program(tmp_path / "missing.pt2", trusted=False)
    (tmp_path / "text.pt2").write_text("text")
    with pytest.raises(ModelError, match=r"text\.pt2: this is no program that PyTorch .* reads") as caught:
        load_program(tmp_path / "text.pt2", trusted=False)
    assert "\n" not in str(caught.value)


def test_a_program_that_cannot_be_written(tmp_path: Path) -> None:
    program = exported(nn.Conv2d(3, 4, 3).double(), *MAPS)
    with pytest.raises(OutputError, match="cannot be written"):
        save_program(program, tmp_path / "missing" / "model.pt2")
