"""Wraps: what torch makes of a network, as a module to fold: graph modules, unflattened programs, parents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from generators.modules.dice import Arguments, Dice, randomise
from generators.modules.norms import PLAIN


class Parent(nn.Module):
    """Keeps a network deep down, and normalises what it returns, where that is one tensor of a fitting rank."""

    def __init__(self, net: nn.Module, norm: nn.Module | None, dice: Dice) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"1x1": nn.Sequential(net)})
        self.norm = norm
        self.twice = dice.chance(0.3)
        self.residual = dice.chance(0.3)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inner = self.net["1x1"][0]
        y = inner(*args, **kwargs)
        if self.twice and isinstance(y, torch.Tensor):
            y = y + inner(*args, **kwargs)
        if self.norm is not None:
            y = self.norm(y) + y if self.residual else self.norm(y)
        return y


class Wrapper(nn.Module):
    """Delegates everything, as wrappers for distributed training and for averages do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.module = net

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def _exported(net: nn.Module, arguments: Arguments) -> Any:
    args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, arguments)
    return torch.export.export(net, args, kwargs or None)


def _parent(net: nn.Module, arguments: Arguments, dice: Dice) -> nn.Module:
    args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, arguments)
    with torch.no_grad():
        y = net(*args, **kwargs)
    norm: nn.Module | None = None
    if isinstance(y, torch.Tensor) and y.dim() in PLAIN and y.is_floating_point():
        norm = randomise(PLAIN[y.dim()](y.shape[1]), dice).to(y.dtype)
    return Parent(net, norm, dice).eval()


WRAPS: dict[str, Callable[[nn.Module, Arguments, Dice], Any]] = {
    "graph module": lambda net, arguments, dice: _exported(net, arguments).module(),
    "functional graph module": lambda net, arguments, dice: _exported(net, arguments).run_decompositions({}).module(),
    "decomposed graph module": lambda net, arguments, dice: _exported(net, arguments).run_decompositions().module(),
    "unflattened": lambda net, arguments, dice: torch.export.unflatten(_exported(net, arguments)),
    "unflattened, functional": lambda net, arguments, dice: torch.export.unflatten(
        _exported(net, arguments).run_decompositions({})
    ),
    "parent": _parent,
    "parent of a parent": lambda net, arguments, dice: Wrapper(_parent(net, arguments, dice)).eval(),
    "average": lambda net, arguments, dice: torch.optim.swa_utils.AveragedModel(net).eval(),
    "sequence": lambda net, arguments, dice: nn.Sequential(net, nn.Identity()).eval(),
}


def wrapped(net: nn.Module, arguments: Arguments, dice: Dice) -> tuple[Any, str]:
    """A network in one of the wraps, and its name."""
    name = dice.pick(sorted(WRAPS))
    return WRAPS[name](net, arguments, dice), name
