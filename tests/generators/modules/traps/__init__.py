"""The traps that are written by hand, by name: each makes a module and the arguments to trace it on.

A trap is a small network with one thing that a fold can get wrong. What is folded into what is left to chance: the
rank, the order of the linear layer and the normalisation, and their parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from generators.modules.dice import Arguments, Dice, randomise

Trap = Callable[["Parts"], tuple[nn.Module, Arguments]]
TRAPS: dict[str, Trap] = {}
CHANNELS = 4


class Parts:
    """Layers that fit each other: all map four channels to four, and keep the size."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.rank = dice.pick([0, 1, 2, 2, 2, 3])
        self.dtype = dice.pick([torch.float64, torch.float64, torch.float64, torch.float32])
        self.bias = dice.chance(0.5)
        self.padding_mode = dice.pick(["zeros", "zeros", "zeros", "circular"])

    def linear(self, bias: bool | None = None) -> nn.Module:
        dice, bias = self.dice, self.bias if bias is None else bias
        if not self.rank:
            return nn.Linear(CHANNELS, CHANNELS, bias=bias)
        size = dice.pick([1, 1, 3])
        kind = [nn.Conv1d, nn.Conv2d, nn.Conv3d][self.rank - 1]
        groups = dice.pick([1, 1, 2, 4])
        mode = self.padding_mode if size == 3 else "zeros"
        return kind(CHANNELS, CHANNELS, size, padding=size // 2, bias=bias, groups=groups, padding_mode=mode)

    def norm(self, affine: bool | None = None) -> nn.Module:
        affine = self.dice.chance(0.85) if affine is None else affine
        return [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][self.rank](CHANNELS, affine=affine)

    def activation(self, inplace: bool | None = None) -> nn.Module:
        inplace = self.dice.chance(0.5) if inplace is None else inplace
        return self.dice.pick([nn.ReLU(inplace), nn.Identity(), nn.LeakyReLU(0.2, inplace), nn.Dropout(0.5, inplace)])

    def pair(self, affine: bool | None = None) -> tuple[nn.Module, nn.Module]:
        return self.linear(), self.norm(affine)

    def x(self, batch: int = 2) -> torch.Tensor:
        return self.dice.normal((batch, CHANNELS, *[4, 3, 3][: self.rank]), self.dtype)

    def done(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[nn.Module, Arguments]:
        """The module with random parameters in the type of the trap, and its arguments, or one tensor by default."""
        randomise(module, self.dice)
        return module.to(self.dtype), (args or (() if kwargs else (self.x(),)), kwargs)


def trap(function: Trap) -> Trap:
    """Enter a trap into the table, by the name of its function."""
    TRAPS[function.__name__] = function
    return function


def family(names: list[str], make: Callable[[Parts, str], tuple[nn.Module, Arguments]], title: str) -> None:
    """Enter several traps that differ by a mode."""
    for name in names:
        TRAPS[f"{title}_{name}"] = lambda parts, mode=name: make(parts, mode)
