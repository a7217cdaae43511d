"""Modules whose own code depends on the layers that a fold changes: a fold that shows is taken back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from torch import Tensor, nn
from torch_networks import calibrated, difference

import bnfold
from bnfold.errors import ModelError

MAPS = (2, 3, 8, 8)


class Net(nn.Module):
    """A convolution and a BatchNorm whose code also asks; then a plain pair, whose fold is fine."""

    def __init__(self, code: Callable[[Net, Tensor], Any], *, bias: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4)
        self.plain_conv, self.plain_norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.code = code
        self.register_buffer("calls", torch.zeros(()))
        self.number = 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.number += 1
        y = self.code(self, self.norm(self.conv(x)))
        if isinstance(y, tuple):
            return self.plain_norm(self.plain_conv(y[0])), *y[1:]
        return self.plain_norm(self.plain_conv(y))


def by_class(net: Net, y: Tensor) -> Tensor:
    return y * 2 if isinstance(net.norm, nn.BatchNorm2d) else y


def by_bias(net: Net, y: Tensor) -> Tensor:
    return y * 2 if net.conv.bias is None else y


def by_name(net: Net, y: Tensor) -> Tensor:
    return y * 2 if any("BatchNorm" in type(layer).__name__ for layer in (net.norm,)) else y


# What the code does with the layer, and what is said of the fold that is taken back.
CODE: dict[str, tuple[Callable[[Net, Tensor], Any], str]] = {
    "num_features": (lambda net, y: y * net.norm.num_features, "raises AttributeError"),
    "eps": (lambda net, y: y + net.norm.eps, "raises AttributeError"),
    "a parameter": (lambda net, y: y + net.norm.weight.sum().item() * 0, "raises AttributeError"),
    "the class": (by_class, "result then differs"),
    "the class's name": (by_name, "result then differs"),
    "the missing bias": (by_bias, "result then differs"),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", CODE)
def test_a_fold_that_shows_is_taken_back_alone(name: str, inplace: bool) -> None:
    code, said = CODE[name]
    net, x = calibrated(Net(code)), torch.randn(MAPS)
    expected = copy.deepcopy(net)(x)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    parameters = dict(net.named_parameters())
    result = bnfold.fold(net, example_inputs=x, inplace=inplace)
    assert difference(expected, result.model(x)) < 1e-4
    verdicts = {site.name: (site.status, site.reason) for site in result.sites}
    assert verdicts["plain_norm"] == ("folded", None)
    assert verdicts["norm"][0] == "kept"
    (site,) = (site for site in result.sites if site.name == "norm")
    if site.reason == "taken-back":
        assert said in (site.detail or "")
    assert isinstance(result.model.norm, nn.BatchNorm2d)
    kept = [key for key in before if not key.startswith(("plain", "calls"))]
    for key in kept:
        assert torch.equal(result.model.state_dict()[key], before[key]), key
    if inplace:
        assert all(item is parameters[key] for key, item in net.named_parameters() if key in parameters)
    else:
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        assert (net.number, net.calls.item()) == (0, 0)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "code",
    [
        lambda net, y: (y, net.conv.weight),
        lambda net, y: (y, net.conv.weight.flatten()),
        lambda net, y: (y, {"prototypes": [net.conv.weight, net.conv.weight]}),
        lambda net, y: (y, net.conv.weight.square().mean()),
        lambda net, y: y + net.conv.weight.mean(),
    ],
    ids=["a weight", "a view of it", "nested", "a penalty", "in a sum"],
)
def test_a_parameter_that_is_handed_out_is_not_changed(code: Callable[[Net, Tensor], Any], inplace: bool) -> None:
    net, x = calibrated(Net(code, bias=True)), torch.randn(MAPS)
    expected = copy.deepcopy(net)(x)
    result = bnfold.fold(net, example_inputs=x, inplace=inplace)
    leaves = torch.utils._pytree.tree_leaves
    for want, got in zip(leaves(expected), leaves(result.model(x)), strict=True):
        assert difference(want, got) < 1e-4
    assert [(site.name, site.folded) for site in result.sites] == [("norm", False), ("plain_norm", True)]


def test_a_module_that_cannot_be_run_is_folded_by_its_graph() -> None:
    """There is nothing to hold the result to: the example inputs are fake, say."""

    def code(net: Net, y: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            raise RuntimeError("only for export")
        return y

    result = bnfold.fold(calibrated(Net(code)), example_inputs=torch.randn(MAPS))
    assert all(site.folded for site in result.sites)


def test_a_module_with_noise_of_its_own_is_held_to_the_same_noise() -> None:
    net = calibrated(Net(lambda net, y: y + torch.randn_like(y)))
    state = torch.random.get_rng_state()
    result = bnfold.fold(net, example_inputs=torch.randn(MAPS))
    assert all(site.folded for site in result.sites)
    assert torch.equal(torch.random.get_rng_state()[:0], state[:0])


def test_a_module_without_values_is_one_line() -> None:
    with torch.device("meta"):
        net = Net(lambda net, y: y).eval()
    for x in (torch.randn(MAPS), torch.randn(MAPS, device="meta")):
        with pytest.raises(ModelError, match="is on the meta device and has no values: load"):
            bnfold.fold(net, example_inputs=x)


class Positions(nn.Module):
    """A BatchNorm on a parameter."""

    def __init__(self, *, view: bool = False, shared: bool = False) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 4, 6, 6))
        self.norm = nn.BatchNorm2d(4)
        self.view, self.shared = view, shared

    def forward(self, x: Tensor) -> Tensor:
        table = self.table.transpose(2, 3) if self.view else self.table
        y = x + self.norm(table)
        return y * self.table if self.shared else y


@pytest.mark.parametrize(
    ("arguments", "in_module", "in_program"),
    [({}, True, True), ({"view": True}, False, True), ({"shared": True}, False, True)],
    ids=["a parameter", "a view of one", "one that is read again"],
)
def test_a_batch_norm_on_a_constant_is_evaluated_into_it(
    arguments: dict[str, bool], in_module: bool, in_program: bool
) -> None:
    net, x = calibrated(Positions(**arguments)), torch.randn(2, 4, 6, 6)
    (site,) = (result := bnfold.fold(net, example_inputs=x)).sites
    assert site.folded is in_module
    assert difference(net(x), result.model(x)) < 1e-5
    (site,) = (result := bnfold.fold(torch.export.export(net, (x,)))).sites
    assert site.folded is in_program
    assert site.into == ("table",) or arguments
    assert difference(net(x), result.model.module()(x)) < 1e-5
    again = bnfold.fold(result.model)
    assert again.model is result.model


class Named(nn.Module):
    """Layers whose names are no words of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {"a-0": nn.Conv2d(3, 4, 3, bias=False), "b 1": nn.BatchNorm2d(4), "1x1": nn.Conv2d(4, 4, 1, bias=False)}
        )
        self.layers_a_0, self.norm = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        for name in ("a-0", "b 1", "1x1"):
            x = self.layers[name](x)
        return self.norm(self.layers_a_0(x))


def test_a_program_whose_names_are_no_words_can_be_called_and_saved(tmp_path: Any) -> None:
    net, x = calibrated(Named()), torch.randn(MAPS)
    result = bnfold.fold(torch.export.export(net, (x,)))
    assert all(site.folded for site in result.sites)
    torch.export.save(result.model, tmp_path / "m.pt2")
    for program in (result.model, torch.export.load(tmp_path / "m.pt2")):
        assert difference(net(x), program.module()(x)) < 1e-5


def test_a_number_keeps_its_shape_when_it_takes_an_affine() -> None:
    from bnfold.algebra.affine import Affine
    from bnfold.graphs.torch.constants import Known

    number = Known("k", torch.float32, (), lambda: torch.tensor(2.0, dtype=torch.float64), torch.empty(()))
    folded = number.then(Affine.of(2.0, 1.0, 2))
    assert folded.tensor().shape == folded.rounded().shape == ()
    assert folded.tensor() == 5
