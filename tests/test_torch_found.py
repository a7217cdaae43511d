"""Modules whose folds went wrong once, as a search through random modules found: folded, they are what they were."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_networks import Code, calibrated, difference

import bnfold
from bnfold.errors import ModelError, UsageError

MAPS = (2, 3, 4, 4)


class Pair(nn.Module):
    """A convolution, a BatchNorm that can be folded into it, and at times a reference to one of them elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.conv(x))


class Listed(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.kept = {"deep": [(self.norm,)]}

    def forward(self, x: Tensor) -> Any:
        return self.kept["deep"][0][0](self.conv(x))


class Partial(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.call = functools.partial(lambda layer, t: layer(t), self.norm)

    def forward(self, x: Tensor) -> Any:
        return self.call(self.conv(x))


class Hidden(Pair):
    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "_norm", self.norm)

    def forward(self, x: Tensor) -> Any:
        return self._norm(self.conv(x))


class Outside(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.kept = [nn.Sequential(self.norm, nn.Identity())]

    def forward(self, x: Tensor) -> Any:
        return self.kept[0](self.conv(x))


class BoundMethod(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.call = self.norm.forward

    def forward(self, x: Tensor) -> Any:
        return self.call(self.conv(x))


class Biases(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.kept = {"b": self.conv.bias}

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.conv(x)), self.kept["b"]


class NoBias(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.conv.bias = None

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.conv(x)), torch.ones(3) if self.conv.bias is None else self.conv.bias


class Parameters(Pair):
    def forward(self, x: Tensor) -> Any:
        return self.norm(self.conv(x)), list(self.parameters())


class CallNorm(nn.BatchNorm2d):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) + 1


class Overridden(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.norm = CallNorm(3)


KEPT = [Listed, Partial, Hidden, Outside, BoundMethod, Biases, NoBias, Parameters, Overridden]


@pytest.mark.parametrize("make", KEPT)
@pytest.mark.parametrize("inplace", [False, True])
def test_a_layer_that_code_reaches_another_way_stays(make: Callable[[], nn.Module], inplace: bool) -> None:
    net, x = calibrated(make()), torch.randn(MAPS)
    expected = copy.deepcopy(net)(x)
    result = bnfold.fold(net, example_inputs=x, inplace=inplace)
    assert difference(expected, result.model(x)) < 1e-5
    assert [(site.name, site.status) for site in result.sites] == [("norm", "kept")]


def preallocated(net: Any, x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 4, *x.shape[2:])
    y[:, :3] = x
    return net.norm4(y)


def into_out(net: Any, x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    torch.mul(x, 3.0, out=y)
    return net.norm(net.conv(y))


def cond(net: Any, x: Tensor) -> Tensor:
    return net.norm(torch.cond(x.sum() > 0, net.conv, lambda t: net.conv(t) * 2, (x,)))


# What the code is, and which sites the module then has.
CODE: dict[str, tuple[Callable[[Any, Tensor], Any], list[tuple[str, str]]]] = {
    "out=": (into_out, [("norm", "folded")]),
    "vmap": (lambda net, x: torch.vmap(net.conv)(torch.stack([x, x]))[0], []),
    "vmap of a BatchNorm": (lambda net, x: torch.vmap(net.norm)(torch.stack([x, x]))[0], [("norm", "kept")]),
    "grad": (lambda net, x: torch.func.grad(lambda t: net.norm(t).sum())(x), [("norm", "kept")]),
    "a slice that is written to": (preallocated, [("norm4", "kept")]),
    "cond": (cond, [("norm", "kept")]),
    "a BatchNorm in a branch": (
        lambda net, x: torch.cond(x.sum() > 0, net.norm, lambda t: t * 2, (x,)),
        [("cond.batch_norm", "kept")],
    ),
}


@pytest.mark.parametrize("name", CODE)
def test_code_that_is_left_alone_is_no_error(name: str) -> None:
    body, sites = CODE[name]
    net = calibrated(Code(body, conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3), norm4=nn.BatchNorm2d(4)))
    x = torch.randn(MAPS)
    result = bnfold.fold(net, example_inputs=x)
    assert difference(net(x), result.model(x)) < 1e-5
    assert [(site.name, site.status) for site in result.sites] == sites


def test_weights_that_pytorch_only_stores_stay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    net[0].weight.data = net[0].weight.data.to(torch.float8_e4m3fn)
    (site,) = bnfold.fold(net, example_inputs=torch.randn(MAPS)).sites
    assert (site.status, site.reason) == ("kept", "unsupported")


class Keeps(Pair):
    """Sets attributes in forward for the first time, which no BatchNorm is any less foldable for."""

    def forward(self, x: Tensor) -> Any:
        self.last = self.conv(x)
        self.count = getattr(self, "count", 0) + 1
        return self.norm(self.last)


@pytest.mark.parametrize("inplace", [False, True])
def test_attributes_that_a_trace_sets_are_gone(inplace: bool) -> None:
    net, x = calibrated(Keeps()), torch.randn(MAPS)
    expected = copy.deepcopy(net)(x)
    result = bnfold.fold(net, example_inputs=x, inplace=inplace)
    assert not hasattr(result.model, "last")
    assert not hasattr(net, "last")
    assert difference(expected, copy.deepcopy(result.model)(x)) < 1e-5
    assert result.sites[0].folded


class Sealed(nn.Conv2d):
    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("sealed"):
            raise AttributeError(f"{name} is sealed\nfor good")
        super().__setattr__(name, value)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_layer_that_refuses_to_be_changed_is_one_line_and_nothing_changes(inplace: bool) -> None:
    net, x = calibrated(nn.Sequential(Sealed(3, 3, 1, bias=False), nn.BatchNorm2d(3))), torch.randn(MAPS)
    net[0].__dict__["sealed"] = True
    expected = copy.deepcopy(net)(x)
    with pytest.raises(ModelError, match=r"^'0.bias' cannot be set \(AttributeError: bias is sealed\)[^\n]*$"):
        bnfold.fold(net, example_inputs=x, inplace=inplace)
    assert difference(expected, net(x)) == 0


@pytest.mark.parametrize("option", ["only", "skip"])
@pytest.mark.parametrize("given", [[3], 3, "norm"])
def test_what_is_no_list_of_patterns_is_one_line(option: str, given: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{option}=[^\n]*, as in {option}=\['"):
        bnfold.fold(calibrated(Pair()), example_inputs=torch.randn(MAPS), **{option: given})


class Sandwich(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.linear, self.b = nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2)
        nn.init.normal_(self.a.bias)

    def forward(self, x: Tensor) -> Any:
        return self.b(self.linear(self.a(torch.sigmoid(x))))


def shared_parameter() -> nn.Module:
    conv, norm = functools.partial(nn.Conv2d, 3, 3, 1), functools.partial(nn.BatchNorm2d, 3)
    net = nn.Sequential(conv(), norm(), nn.Sigmoid(), conv(), norm())
    net[4].weight = net[1].weight
    return net


@pytest.mark.parametrize(("make", "shape"), [(shared_parameter, MAPS), (Sandwich, (2, 3))])
def test_a_fold_that_makes_room_for_another_is_not_left_to_a_second_fold(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    net, x = make().eval(), torch.randn(shape)
    result = bnfold.fold(net, example_inputs=x)
    assert difference(net(x), result.model(x)) < 1e-5
    assert all(site.folded for site in result.sites)
    assert bnfold.fold(result.model, example_inputs=x).sites == ()


def test_two_sites_of_a_layer_have_names_of_their_own() -> None:
    def reads(net: Any, x: Tensor) -> Tensor:
        y, norm = net.norm(net.conv(x)), net.norm
        return y + F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    net, x = calibrated(Code(reads, conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3))), torch.randn(MAPS)
    program = torch.export.export(net, (x,))
    for sites in (bnfold.fold(program).sites, bnfold.fold(net, example_inputs=x).sites):
        names = [site.name for site in sites]
        assert len(names) == len(set(names)) == 2
    first = bnfold.fold(program, skip=["norm"]).sites[0]
    assert (first.name, first.status) == ("norm", "kept")


class SharedConv(nn.Conv2d):
    def __deepcopy__(self, memo: Any) -> SharedConv:
        return self


def test_a_layer_that_is_its_own_copy_is_not_changed() -> None:
    net, x = calibrated(nn.Sequential(SharedConv(3, 3, 1), nn.BatchNorm2d(3))), torch.randn(MAPS)
    expected = net(x)
    with pytest.raises(ModelError, match=r"^the Sequential cannot be copied: a copy of '0' is the SharedConv it"):
        bnfold.fold(net, example_inputs=x)
    assert difference(expected, net(x)) == 0
    assert difference(expected, bnfold.fold(net, example_inputs=x, inplace=True).model(x)) < 1e-5


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_graph_module_of_a_program_is_in_the_mode_of_its_operators(training: bool, inplace: bool) -> None:
    net, x = calibrated(Pair()).train(training), torch.randn(MAPS)
    module = torch.export.export(net, (x,)).module()
    assert module.training
    (site,) = bnfold.fold(module, example_inputs=x, inplace=inplace).sites
    assert (site.status, site.reason) == ("kept", "training-mode" if training else "structure")


def test_the_graph_module_of_a_program_converts(tmp_path: Path) -> None:
    net, x = calibrated(Pair()), torch.randn(MAPS)
    module = torch.export.export(net, (x,)).module()
    assert bnfold.convert(module, tmp_path / "out.onnx", example_inputs=x, bench=False).sites[0].folded
