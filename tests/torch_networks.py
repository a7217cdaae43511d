"""Small PyTorch modules for tests, their statistics drawn, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def calibrated(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, with BatchNorms that do something: statistics and parameters drawn at random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor | None, low: float, high: float) -> None:
        if tensor is not None:
            with torch.no_grad():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            draw(layer.running_mean, -1.0, 1.0)
            draw(layer.running_var, 0.5, 2.0)
            draw(layer.weight, -1.5, 1.5)
            draw(layer.bias, -1.0, 1.0)
    return module.eval()


class Calls(nn.Module):
    """A module of these layers, by name, that computes `body(self, x)`."""

    def __init__(self, body: Callable[[Any, Tensor], Any], **layers: Any) -> None:
        super().__init__()
        self.body = body
        for name, layer in layers.items():
            setattr(self, name, nn.Parameter(layer) if type(layer) is Tensor else layer)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def difference(a: Any, b: Any) -> float:
    """The largest difference of two outputs, relative to the largest magnitude of the first."""
    pairs = zip(tensors(a), tensors(b), strict=True)
    return max(float((x.double() - y.double()).abs().max() / x.double().abs().max()) for x, y in pairs)


def tensors(item: Any) -> list[Tensor]:
    """The tensors in an output, in order."""
    if isinstance(item, Tensor):
        return [item]
    items = item.values() if isinstance(item, dict) else item
    return [tensor for inner in items for tensor in tensors(inner)]
