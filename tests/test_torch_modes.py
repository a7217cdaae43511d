"""Training mode, layers without statistics, wrappers and modules that cannot be traced: named, with what to do."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from torch import Tensor, nn
from torch_networks import IMAGES, Code, calibrated, difference, lenet, verdicts

from bnfold.errors import ModelError, UsageError
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.module import fold_module
from models.networks import HandwrittenBatchNorm

ALL, EVAL = FoldOptions(), FoldOptions(assume_eval=True)
MAPS = (2, 3, 9, 8)


def small(norm: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm or nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())


def modes(module: nn.Module) -> list[bool]:
    return [layer.training for layer in module.modules()]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.SyncBatchNorm(4), HandwrittenBatchNorm(4, 4)])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_module_in_training_mode(norm: nn.Module, inplace: bool) -> None:
    module = calibrated(small(copy.deepcopy(norm))).train()
    module[2].eval()
    before = copy.deepcopy(module.state_dict())
    folded = fold_module(module, torch.randn(MAPS), ALL, inplace=inplace)
    (site,) = folded.sites
    assert (site.name, site.reason, site.blocker) == ("1", "training-mode", "1")
    assert "eval()" in site.detail
    assert "assume_eval=True" in site.detail
    assert modes(folded.model) == modes(module) == [True, True, True, False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in folded.model.state_dict().items())


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.SyncBatchNorm(4), HandwrittenBatchNorm(4, 4)])
def test_assume_eval_evaluates_a_copy(norm: nn.Module) -> None:
    module, x = calibrated(small(copy.deepcopy(norm))).train(), torch.randn(MAPS)
    folded = fold_module(module, x, EVAL)
    assert verdicts(folded.sites) == ["backward"]
    assert modes(module) == [True] * 5
    assert modes(folded.model) == [False] * 5
    assert difference(module.eval()(x), folded.model(x)) < 1e-5


def test_one_norm_in_training_mode_is_refused_alone() -> None:
    module = calibrated(lenet())
    module.norm2.train()
    folded = fold_module(module, torch.randn(IMAGES), ALL)
    assert verdicts(folded.sites) == ["backward", "training-mode", "backward", "backward"]
    assert "call eval()" in folded.sites[1].detail
    assert folded.model.norm2.training
    assert verdicts(fold_module(module, torch.randn(IMAGES), EVAL).sites) == ["backward"] * 4


@pytest.mark.parametrize("options", [ALL, EVAL])
def test_a_norm_without_statistics(options: FoldOptions) -> None:
    module = calibrated(small(nn.BatchNorm2d(4, track_running_stats=False)))
    (site,) = fold_module(module, torch.randn(MAPS), options).sites
    assert site.reason == "training-mode"
    assert "track_running_stats" in site.detail


def test_lazy_layers_that_were_never_run() -> None:
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()).eval()
    with pytest.raises(ModelError, match=r"'0' \(LazyConv2d\) has no weights yet: call the module once"):
        fold_module(module, torch.randn(MAPS), ALL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("wrap", "what"),
    [
        (nn.DataParallel, "fold model.module, and wrap the result again"),
        (lambda module: torch.compile(module, backend="eager"), "fold model._orig_mod, and give the result to"),
        (torch.jit.script, "fold the module, then script it"),
    ],
)
def test_wrappers(wrap: Any, what: str) -> None:
    with pytest.raises(ModelError, match=what) as caught:
        fold_module(wrap(calibrated(small())), torch.randn(MAPS), ALL)
    assert "\n" not in str(caught.value)


def test_a_compiled_part() -> None:
    module = calibrated(lenet())
    module.conv1 = torch.compile(module.conv1, backend="eager")
    x = torch.randn(IMAGES)
    folded = fold_module(module, x, ALL)
    assert verdicts(folded.sites) == ["backward"] * 4
    assert difference(module(x), folded.model(x)) < 1e-5


def test_no_example_inputs() -> None:
    with pytest.raises(UsageError, match="needs example_inputs="):
        fold_module(calibrated(small()), None, ALL)


class Branching(nn.Module):
    """Code that depends on the values of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


@pytest.mark.parametrize("inplace", [False, True])
def test_a_module_that_cannot_be_traced_is_left_as_it_was(inplace: bool) -> None:
    module = Branching().train()
    with pytest.raises(ModelError, match=r"torch\.export cannot trace the Branching: ") as caught:
        fold_module(module, torch.randn(MAPS), EVAL, inplace=inplace)
    assert "\n" not in str(caught.value)
    assert module.training
    assert module.conv.bias is None
    assert not any(layer._forward_hooks for layer in module.modules())


def test_a_module_that_cannot_be_copied() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.generator = small(), (item for item in "ab")

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    module = calibrated(Held())
    with pytest.raises(ModelError, match=r"the Held cannot be copied \(inplace=True folds it as it is\): "):
        fold_module(module, torch.randn(MAPS), ALL)
    assert verdicts(fold_module(module, torch.randn(MAPS), ALL, inplace=True).sites) == ["backward"]


def test_hooks_stay_and_are_called() -> None:
    seen: list[tuple[int, ...]] = []
    module = calibrated(lenet())
    module.act1.register_forward_hook(lambda layer, args, y: seen.append(tuple(y.shape)))
    x = torch.randn(IMAGES)
    folded = fold_module(module, x, ALL)
    assert verdicts(folded.sites) == ["backward"] * 4
    seen.clear()
    folded.model(x)
    assert seen == [(2, 6, 24, 24)]
    assert len(folded.model.act1._forward_hooks) == 1


def test_weight_norm_by_a_hook() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        conv = torch.nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    module, x = calibrated(Code(lambda m, x: m.norm(m.conv(x)), conv=conv, norm=nn.BatchNorm2d(4))), torch.randn(MAPS)
    expected = module(x)
    folded = fold_module(module, x, ALL)
    assert verdicts(folded.sites) == ["structure"]
    assert "is computed whenever the module runs" in folded.sites[0].detail
    assert difference(expected, folded.model(x)) < 1e-6
