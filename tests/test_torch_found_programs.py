"""Exported programs whose folds went wrong once, as a search through random modules found: the results run, unflatten
and account for every BatchNorm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch_networks import Code, calibrated, difference

import bnfold

# PyTorch's own code calls what PyTorch says not to call.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:Attempted to insert:UserWarning")
MAPS = (2, 3, 4, 4)
FACTOR, OTHER = torch.rand(3, 1, 1) + 0.5, torch.rand(3, 1, 1) + 0.5


def exported(module: nn.Module, x: Tensor, **options: Any) -> ExportedProgram:
    return torch.export.export(module, (x.clone(),), **options)


def code(body: Callable[[Any, Tensor], Any], **parts: Any) -> nn.Module:
    return calibrated(Code(body, **parts))


def pair(body: Callable[[Any, Tensor], Any], **parts: Any) -> nn.Module:
    return code(body, conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3), **parts)


# Chains that have nowhere to go but into fewer operators.
CHAINS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "1 - x": lambda net, x: (1 - x * net.a) * net.b,
    "mul.Scalar": lambda net, x: torch.ops.aten.mul.Scalar(x, 0.5) * net.a + net.a,
    "add.Scalar": lambda net, x: torch.ops.aten.add.Scalar(x * net.a, 0.5) * net.b,
    "div.Scalar": lambda net, x: torch.ops.aten.div.Scalar(x + net.a, 0.5) * net.b,
    "numbers": lambda net, x: torch.sigmoid(x) * net.a * 4 + 3,
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_of_numbers_and_tensors_is_shortened(name: str) -> None:
    net, x = code(CHAINS[name], a=FACTOR, b=OTHER), torch.randn(MAPS)
    result = bnfold.fold(exported(net, x))
    assert difference(net(x), result.model.module()(x)) < 1e-5
    assert any(site.folded for site in result.sites)
    assert not any(site.folded for site in bnfold.fold(result.model).sites)


def test_a_layer_whose_name_is_no_word_gets_a_parameter() -> None:
    def body(net: Any, x: Tensor) -> Tensor:
        return torch.cat([net.norm(net.parts["a b"](x)), net.parts["a b"](2 * x)])

    parts = nn.ModuleDict({"a b": nn.Conv2d(3, 3, 1, bias=False)})
    net, x = code(body, parts=parts, norm=nn.BatchNorm2d(3)), torch.randn(MAPS)
    result = bnfold.fold(exported(net, x))
    assert result.sites[0].folded
    assert difference(net(x), result.model.module()(x)) < 1e-5


def siamese(net: Any, x: Tensor) -> Tensor:
    return net.norm6(torch.cat([net.inner(x), net.inner(2 * x)], 1))


def zeroed(net: Any, x: Tensor) -> Tensor:
    y = net.norm(x)
    x.zero_()
    return net.conv(y)


def added_to(net: Any, x: Tensor) -> Tensor:
    y = net.norm(x)
    x.add_(1)
    return net.conv(y) + x


# Programs that torch.export.unflatten makes a tree of modules of, with the submodules whose signature is kept.
TREES: dict[str, tuple[Callable[[Any, Tensor], Tensor], tuple[str, ...]]] = {
    "one of two calls folds": (siamese, ()),
    "an input is overwritten behind": (zeroed, ()),
    "an input is added to behind": (added_to, ()),
    "the signatures of a folded layer": (lambda net, x: net.norm(net.conv(x)).relu(), ("conv", "norm")),
}


@pytest.mark.parametrize("name", TREES)
def test_a_folded_program_can_be_unflattened(name: str) -> None:
    body, kept = TREES[name]
    net, x = pair(body, inner=nn.Sequential(nn.Conv2d(3, 3, 1)), norm6=nn.BatchNorm2d(6)), torch.randn(MAPS)
    program = exported(net, x, preserve_module_call_signature=kept)
    expected = net(x.clone())
    assert difference(expected, torch.export.unflatten(program)(x.clone())) == 0
    result = bnfold.fold(program)
    assert any(site.folded for site in result.sites)
    assert difference(expected, result.model.module()(x.clone())) < 1e-5
    assert difference(expected, torch.export.unflatten(result.model)(x.clone())) < 1e-5


def dead_chain(net: Any, x: Tensor) -> Tensor:
    torch.addcdiv(net.a, (x - net.a) * net.a, net.a)
    return net.norm(net.conv(x))


def unread_under_no_grad(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        net.other(x)
        y = net.conv(x)
    return net.norm(y)


def unread_branch(net: Any, x: Tensor) -> Tensor:
    torch.cond(x.sum() > 0, net.other, lambda t: t * 2, (x,))
    return net.norm(net.conv(x)).relu_()


# Code, and the BatchNorms of its program by how they end.
ACCOUNTS: dict[str, tuple[Callable[[Any, Tensor], Any], list[tuple[str, str]]]] = {
    "unread beside a write": (lambda net, x: (net.norm(x), net.conv(x).relu_())[1], [("norm", "folded")]),
    "in a branch": (
        lambda net, x: torch.cond(x.sum() > 0, net.norm, lambda t: t * 2, (x,)),
        [("cond.batch_norm", "kept")],
    ),
    "unread under no_grad": (unread_under_no_grad, [("other", "folded"), ("norm", "folded")]),
    "unread in an unread branch": (
        unread_branch,
        [("cond._native_batch_norm_legit_no_training", "kept"), ("norm", "folded")],
    ),
    "under vmap": (lambda net, x: torch.vmap(net.conv)(torch.stack([x, x]))[0], []),
    "behind a dead chain": (dead_chain, [("norm", "folded")]),
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_every_batch_norm_is_accounted_for(name: str) -> None:
    body, accounted = ACCOUNTS[name]
    net, x = pair(body, a=FACTOR, other=nn.BatchNorm2d(3)), torch.randn(MAPS)
    result = bnfold.fold(exported(net, x))
    norms = [site for site in result.sites if site.op == "BatchNormalization"]
    assert [(site.name, site.status) for site in norms] == accounted
    assert result.before.batch_norms == len(norms)
    assert result.after.batch_norms == sum(not site.folded for site in norms)
    assert difference(net(x), result.model.module()(x)) < 1e-5
    assert not any(site.folded for site in bnfold.fold(result.model).sites)


def test_a_decomposed_instance_norm_is_one_without_statistics() -> None:
    net, x = calibrated(nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3, affine=True))), torch.randn(MAPS)
    (site,) = bnfold.fold(exported(net, x).run_decompositions()).sites
    assert (site.status, site.reason) == ("kept", "training-mode")
    assert "no running statistics" in (site.detail or "")


def test_a_program_without_values_folds_nothing() -> None:
    with torch.device("meta"):
        net, x = pair(lambda net, x: net.norm(net.conv(x))), torch.randn(MAPS)
    (site,) = bnfold.fold(exported(net, x)).sites
    assert (site.status, site.reason) == ("kept", "unsupported")
