"""A module in, a module of the same class out: the same function, without the BatchNorms that could go."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import config
from torch_literature import BACK, MAPS, NETWORKS, ROWS, norm
from torch_networks import IMAGES, calibrated, difference, lenet, verdicts

from bnfold.algebra.affine import Affine
from bnfold.errors import ModelError
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.constants import Known
from bnfold.graphs.torch.module import fold_module

ALL = FoldOptions()


@pytest.fixture(params=NETWORKS, scope="module")
def row(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, list[str]]:
    make, shape, expected = NETWORKS[request.param]
    torch.manual_seed(0)
    return calibrated(make()).double(), torch.randn(shape, dtype=torch.float64), expected


def test_networks(row: tuple[nn.Module, Tensor, list[str]]) -> None:
    module, x, expected = row
    before = copy.deepcopy(module.state_dict())
    folded = fold_module(module, x, ALL)
    assert verdicts(folded.sites) == expected
    assert type(folded.model) is type(module)
    for batch in (x, torch.cat([x, -x])):
        assert difference(module(batch), folded.model(batch)) < 1e-9
    assert folded.before.batch_norms - folded.after.batch_norms == sum(
        site.op == "BatchNormalization" for site in folded.sites
    )
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_second_fold_changes_nothing(row: tuple[nn.Module, Tensor, list[str]]) -> None:
    module, x, _ = row
    once = fold_module(module, x, ALL)
    twice = fold_module(once.model, x, ALL)
    assert not any(site.folded for site in twice.sites)
    before, after = once.model.state_dict(), twice.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_float32(row: tuple[nn.Module, Tensor, list[str]]) -> None:
    module, x, expected = row
    single = copy.deepcopy(module).float()
    folded = fold_module(single, x.float(), ALL)
    assert verdicts(folded.sites) == expected
    assert difference(module(x), folded.model(x.float())) < 1e-5


def test_a_module_deeper_than_python_recurses() -> None:
    layers = [layer for _ in range(120) for layer in (nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2), nn.Tanh())]
    folded = fold_module(calibrated(nn.Sequential(*layers)), torch.randn(1, 2, 3), ALL)
    assert verdicts(folded.sites) == ["backward"] * 120


def test_what_is_left_is_in_its_place() -> None:
    module = calibrated(lenet(conv_bias=False))
    module.register_buffer("extra", torch.ones(2))
    folded = fold_module(module, torch.randn(IMAGES), ALL).model
    norms = [f"norm{n}." for n in (1, 2, 3, 4)]
    kept = [name for name in module.state_dict() if not name.startswith(tuple(norms))]
    assert [name for name in folded.state_dict() if name not in ("conv1.bias", "conv2.bias")] == kept
    assert [name for name, _ in folded.named_children()] == [name for name, _ in module.named_children()]
    assert isinstance(folded.norm1, nn.Identity)
    assert list(folded.conv1.state_dict()) == ["weight", "bias"]
    assert isinstance(folded.conv1.bias, nn.Parameter)
    assert folded.conv1.weight is not module.conv1.weight
    assert torch.equal(folded.linear3.weight, module.linear3.weight)
    assert folded.linear3.weight.data_ptr() != module.linear3.weight.data_ptr()


def test_a_state_dict_loads_into_another_folded_module() -> None:
    x = torch.randn(IMAGES)
    folded, other = (fold_module(calibrated(lenet(conv_bias=False), seed), x, ALL).model for seed in (0, 1))
    assert not torch.equal(other(x), folded(x))
    other.load_state_dict(folded.state_dict())
    assert torch.equal(other(x), folded(x))


def test_a_lent_bias_goes_again() -> None:
    module = calibrated(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 3, bias=False), norm(4)))
    folded = fold_module(module, torch.randn(MAPS), ALL).model
    assert list(folded.state_dict()) == ["0.weight", "1.weight", "1.bias"]
    assert module[1].bias is None


def test_requires_grad_dtype_and_memory_format_stay() -> None:
    module = calibrated(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm(4), nn.Conv2d(4, 4, 3)))
    module.to(memory_format=torch.channels_last)
    module[0].weight.requires_grad_(False)
    x = torch.randn(MAPS).to(memory_format=torch.channels_last)
    folded = fold_module(module, x, ALL).model
    for layer in (folded[0], folded[2]):
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        assert not layer.weight.is_contiguous()
    assert not folded[0].weight.requires_grad
    assert not folded[0].bias.requires_grad
    assert folded[2].weight.requires_grad
    assert difference(module(x), folded(x)) < 1e-5


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision(dtype: torch.dtype, rtol: float) -> None:
    exact = calibrated(
        nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU(), nn.Flatten(), nn.Linear(168, 5), norm(2, 5))
    )
    x = torch.randn(MAPS)
    module = copy.deepcopy(exact).to(dtype)
    folded = fold_module(module, x.to(dtype), ALL)
    assert verdicts(folded.sites) == [BACK, BACK]
    assert {parameter.dtype for parameter in folded.model.parameters()} == {dtype}
    assert difference(exact(x), folded.model(x.to(dtype))) < rtol


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (300, 41), (7,), (2, 3000)])
@pytest.mark.parametrize("alone", [True, False])
def test_a_weight_is_rounded_once(shape: tuple[int, ...], alone: bool) -> None:
    weight = torch.randn(shape).requires_grad_()
    if len(shape) == 4:
        weight = weight.detach().to(memory_format=torch.channels_last).requires_grad_()
    scale = torch.rand(shape[0], *(1,) * (len(shape) - 1), dtype=torch.float64) + 0.5
    expected = (weight.detach().double() * scale).float()
    known = Known("weight", weight.dtype, shape, lambda: weight, weight, Affine.of(scale.numpy(), 0.0, len(shape)))
    out = torch.empty_like(weight.detach()) if alone else weight
    saved = (weight * weight).sum()
    known.fill(out)
    assert torch.equal(out, expected)
    if out is weight:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            saved.backward()


def test_a_weight_that_its_type_cannot_hold_stays() -> None:
    module = calibrated(nn.Sequential(nn.Linear(5, 4), norm(2))).half()
    with torch.no_grad():
        module[0].weight.fill_(6e4)
        module[1].weight.fill_(100.0)
    folded = fold_module(module, torch.randn(ROWS).half(), ALL)
    assert verdicts(folded.sites) == ["range-overflow"]
    assert torch.equal(folded.model[0].weight, module[0].weight)


def test_inplace_folds_the_module_itself() -> None:
    module = calibrated(lenet())
    reference = copy.deepcopy(module)
    x = torch.randn(IMAGES)
    folded = fold_module(module, x, ALL, inplace=True)
    assert folded.model is module
    assert isinstance(module.norm1, nn.Identity)
    assert difference(reference(x), module(x)) < 1e-5


def test_inplace_keeps_the_parameters_that_an_optimiser_holds() -> None:
    module = calibrated(lenet())
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    before = dict(module.named_parameters())
    fold_module(module, torch.randn(IMAGES), ALL, inplace=True)
    assert all(parameter is before[name] for name, parameter in module.named_parameters())
    held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    assert held >= {id(parameter) for parameter in module.parameters()}


def test_inplace_replaces_what_cannot_be_written_to() -> None:
    with torch.inference_mode():
        conv = nn.Conv2d(3, 4, 3).requires_grad_(False)
    module = nn.Sequential(conv, norm(4))
    module[0].bias = nn.Parameter(torch.ones(1).expand(4))
    module, x = calibrated(module), torch.randn(MAPS)
    with torch.no_grad():
        expected = module(x)
        fold_module(module, x, ALL, inplace=True)
        assert difference(expected, module(x)) < 1e-5


class Telling(nn.Module):
    """A network that tells, whenever it is traced, whether the trace keeps the lines of code; it may fail."""

    def __init__(self, tell: Callable[[bool], None], *, fails: bool) -> None:
        super().__init__()
        self.net, self.tell, self.fails = lenet(), tell, fails

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            self.tell(not config.do_not_emit_stack_traces)
        if self.fails:
            raise ValueError("no")
        return self.net(x)


@pytest.mark.skipif(not hasattr(config, "do_not_emit_stack_traces"), reason="this release of torch always keeps them")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_lines_of_code_are_not_kept_while_a_fold_traces(
    monkeypatch: pytest.MonkeyPatch, fails: bool, kept: bool
) -> None:
    monkeypatch.setattr(config, "do_not_emit_stack_traces", not kept)
    told: list[bool] = []
    module = Telling(told.append, fails=fails).eval()
    with pytest.raises(ModelError) if fails else nullcontext():
        fold_module(module, torch.randn(IMAGES), ALL, inplace=True)
    assert told
    assert not any(told)
    assert config.do_not_emit_stack_traces is not kept


def test_only_and_skip() -> None:
    module = calibrated(lenet())
    folded = fold_module(module, torch.randn(IMAGES), FoldOptions(only=("norm[12]",), skip=("*2",)))
    assert verdicts(folded.sites) == [BACK, "not-selected", "not-selected", "not-selected"]
    assert [site.name for site in folded.sites] == ["norm1", "norm2", "norm3", "norm4"]
    assert [site.into for site in folded.sites] == [("conv1",), (), (), ()]


def test_a_norm_with_an_activation_of_its_own_becomes_the_activation() -> None:
    class NormAct(nn.BatchNorm2d):
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
            return self.act(self.drop(x))

    module = calibrated(nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=NormAct(4), head=nn.Conv2d(4, 2, 1))))
    x = torch.randn(MAPS)
    folded = fold_module(module, x, ALL)
    assert verdicts(folded.sites) == [BACK]
    assert type(folded.model.bn) is nn.Sequential
    assert [name for name, _ in folded.model.bn.named_children()] == ["drop", "act"]
    assert difference(module(x), folded.model(x)) < 1e-5


def test_named_inputs_and_dynamic_shapes() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), norm(4)

        def forward(self, x: Tensor, *, gain: Tensor) -> dict[str, Tensor]:
            return {"y": self.norm(self.conv(x)) * gain}

    module, x, gain = calibrated(Named()), torch.randn(MAPS), torch.tensor(2.0)
    shapes = {"x": {0: torch.export.Dim("batch")}, "gain": None}
    folded = fold_module(module, {"x": x, "gain": gain}, ALL, dynamic_shapes=shapes)
    assert verdicts(folded.sites) == [BACK]
    assert difference(module(x, gain=gain), folded.model(x, gain=gain)) < 1e-5


@pytest.fixture(scope="module")
def folded_lenet() -> nn.Module:
    return fold_module(calibrated(lenet(conv_bias=False)), torch.randn(IMAGES), ALL).model


def test_the_result_can_be_trained(folded_lenet: nn.Module) -> None:
    module = copy.deepcopy(folded_lenet).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    x, labels = torch.randn(8, 1, 28, 28), torch.arange(8)
    losses = []
    for _ in range(3):
        loss = F.cross_entropy(module(x), labels)
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in module.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]


def test_the_result_can_be_exported(folded_lenet: nn.Module) -> None:
    x = torch.randn(IMAGES)
    program = torch.export.export(folded_lenet, (x,))
    assert not any("batch_norm" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(x), folded_lenet(x))


def test_the_result_can_be_compiled(folded_lenet: nn.Module) -> None:
    x = torch.randn(IMAGES)
    assert difference(folded_lenet(x), torch.compile(folded_lenet, backend="eager", fullgraph=True)(x)) < 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_result_can_be_scripted(folded_lenet: nn.Module) -> None:
    x = torch.randn(IMAGES)
    assert difference(folded_lenet(x), torch.jit.script(folded_lenet)(x)) < 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_result_can_be_recorded(folded_lenet: nn.Module) -> None:
    x = torch.randn(IMAGES)
    assert difference(folded_lenet(x), torch.jit.trace(folded_lenet, x)(x)) < 1e-6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is at hand")
def test_a_module_on_the_gpu_stays_there() -> None:
    module, x = calibrated(lenet(conv_bias=False)).double().cuda(), torch.randn(IMAGES).double().cuda()
    folded = fold_module(module, x, ALL)
    assert verdicts(folded.sites) == [BACK] * 4
    assert {parameter.device.type for parameter in folded.model.parameters()} == {"cuda"}
    assert difference(module(x), folded.model(x)) < 1e-9
