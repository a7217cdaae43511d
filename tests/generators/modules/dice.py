"""Random numbers for random modules: choices of structure, and values of parameters that provoke errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from generators import dice
from generators.dice import T

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and named ones."""


class Dice(dice.Dice):
    """Choices of structure, and values of parameters."""

    def weighted(self, options: Sequence[tuple[float, T]]) -> T:
        weights = np.array([weight for weight, _ in options])
        return options[int(self.stream.choice(len(options), p=weights / weights.sum()))][1]

    def some(self, options: Sequence[T], probability: float) -> list[T]:
        return [option for option in options if self.chance(probability)]

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float64, scale: float = 1.0) -> torch.Tensor:
        return torch.tensor(self.stream.normal(size=tuple(shape)) * scale).to(dtype)

    def uniform(self, shape: Sequence[int], low: float, high: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(self.stream.uniform(low, high, size=tuple(shape))).to(dtype)

    def number(self) -> float:
        """A scalar that is never zero and has few digits, so that a report stays readable."""
        return self.pick([0.5, -0.5, 2.0, -1.5, 3.0, 1.25, -0.75, 0.1])

    def gamma(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Factors of a normalisation: of any sign, zero, tiny, or all alike."""
        values = self.stream.normal(size=tuple(shape))
        kind = self.weighted([(5, "any"), (2, "positive"), (1, "zeros"), (1, "tiny"), (1, "alike"), (0.5, "ones")])
        if kind == "positive":
            values = np.abs(values) + 0.1
        elif kind == "zeros":
            values = np.where(self.stream.random(values.shape) < 0.4, 0.0, values)
        elif kind == "tiny":
            values = np.where(self.stream.random(values.shape) < 0.4, 1e-7, values)
        elif kind == "alike":
            values = np.full(values.shape, self.number())
        elif kind == "ones":
            values = np.ones(values.shape)
        return torch.tensor(values).to(dtype)

    def beta(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Shifts of a normalisation: often none at all, because more rules hold then."""
        values = self.stream.normal(size=tuple(shape))
        return torch.tensor(values * self.pick([0.0, 0.0, 1.0, 1.0, 1.0, 1e-7])).to(dtype)

    def variance(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        low, high = self.pick([(0.3, 2.0), (0.3, 2.0), (1.0, 1.0), (1e-4, 1e-2), (10.0, 100.0)])
        return self.uniform(shape, low, high, dtype)


def randomise(module: nn.Module, dice: Dice) -> nn.Module:
    """Give every parameter and statistic of a module new values, and put the module in evaluation mode."""
    with torch.no_grad():
        for owner in module.modules():
            norm = isinstance(owner, nn.modules.batchnorm._NormBase)
            for name, value in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
                if is_lazy(value) or not value.dtype.is_floating_point or value.is_meta:
                    continue
                if name == "running_var":
                    value.copy_(dice.variance(value.shape, value.dtype))
                elif name == "running_mean":
                    value.copy_(dice.beta(value.shape, value.dtype))
                elif norm and name == "weight":
                    value.copy_(dice.gamma(value.shape, value.dtype))
                elif norm and name == "bias":
                    value.copy_(dice.beta(value.shape, value.dtype))
                elif isinstance(value, nn.Parameter):
                    value.copy_(dice.normal(value.shape, value.dtype, 0.6))
    return module.eval()
