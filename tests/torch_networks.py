"""Small PyTorch modules for tests, with statistics that do something, and how two of them are compared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import bnfold
from models.networks import HandwrittenBatchNorm

IMAGES = (2, 1, 28, 28)


def calibrated(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, with statistics and affine parameters drawn at random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor | None, low: float, high: float) -> None:
        if tensor is not None:
            with torch.no_grad():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            draw(layer.running_mean, -1.0, 1.0)
            draw(layer.running_var, 0.5, 2.0)
            draw(layer.weight, 0.5, 1.5)
            draw(layer.bias, -1.0, 1.0)
            if getattr(layer, "only", "") == "mean":
                torch.nn.init.constant_(layer.running_var, 1.0 - layer.eps)
                torch.nn.init.ones_(layer.weight)
            if getattr(layer, "only", "") == "variance":
                torch.nn.init.zeros_(layer.running_mean)
                torch.nn.init.zeros_(layer.bias)
        if isinstance(layer, HandwrittenBatchNorm):
            draw(layer.mean, -1.0, 1.0)
            draw(layer.var, 0.5, 2.0)
            draw(layer.gamma, 0.5, 1.5)
            draw(layer.beta, -1.0, 1.0)
    return module.eval()


class Code(nn.Module):
    """A module of these layers and parameters, by name, that computes `body(self, x)`."""

    def __init__(self, body: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.body = body
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if type(part) is Tensor else part)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


class Formula(nn.Module):
    """Inference batch normalisation in one formula: gamma / sqrt(var + eps) * x + (beta - gamma * mean / sqrt(...))."""

    def __init__(self, channels: int, rank: int = 4) -> None:
        super().__init__()
        shape = (1, channels, *(1,) * (rank - 2))
        self.gamma, self.beta = nn.Parameter(torch.rand(shape) + 0.5), nn.Parameter(torch.randn(shape))
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.randn(shape))
        self.register_buffer("var", torch.rand(shape) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        deviation = torch.sqrt(self.var + 1e-5)
        return self.gamma / deviation * x + (self.beta - self.gamma * self.mean / deviation)


def lenet(
    *,
    conv_bias: bool = True,
    linear_bias: bool = True,
    lazy: bool = False,
    without: int | None = None,
    norm: Callable[[int, int], nn.Module] | None = None,
) -> nn.Sequential:
    """BNLeNet for 28 x 28 images, without one of its four norms if `without` names one; `norm(channels, rank)`."""

    def of(channels: int, rank: int, at: int) -> nn.Module:
        if at == without:
            return nn.Identity()
        if norm is not None:
            return norm(channels, rank)
        if lazy:
            return nn.LazyBatchNorm2d() if rank == 4 else nn.LazyBatchNorm1d()
        return nn.BatchNorm2d(channels) if rank == 4 else nn.BatchNorm1d(channels)

    def conv(inner: int, outer: int) -> nn.Module:
        return nn.LazyConv2d(outer, 5, bias=conv_bias) if lazy else nn.Conv2d(inner, outer, 5, bias=conv_bias)

    def linear(inner: int, outer: int) -> nn.Module:
        return nn.LazyLinear(outer, bias=linear_bias) if lazy else nn.Linear(inner, outer, bias=linear_bias)

    module = nn.Sequential(
        OrderedDict(
            conv1=conv(1, 6),
            norm1=of(6, 4, 1),
            act1=nn.Sigmoid(),
            pool1=nn.AvgPool2d(2),
            conv2=conv(6, 16),
            norm2=of(16, 4, 2),
            act2=nn.Sigmoid(),
            pool2=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            linear1=linear(256, 120),
            norm3=of(120, 2, 3),
            act3=nn.Sigmoid(),
            linear2=linear(120, 84),
            norm4=of(84, 2, 4),
            act4=nn.Sigmoid(),
            linear3=linear(84, 10),
        )
    )
    if lazy:
        module(torch.zeros(IMAGES))
    return module


def difference(a: Any, b: Any) -> float:
    """The largest difference of two outputs, relative to the largest magnitude of the first."""
    pairs = list(zip(tensors(a), tensors(b), strict=True))
    assert all(x.abs().max() > 0 and x.isfinite().all() for x, _ in pairs)
    return max(float((x.double() - y.double()).abs().max() / x.double().abs().max()) for x, y in pairs)


def tensors(item: Any) -> list[Tensor]:
    """The tensors in an output, in order."""
    if isinstance(item, Tensor):
        return [item.detach()]
    items = item.values() if isinstance(item, dict) else item
    return [tensor for inner in items for tensor in tensors(inner)]


def verdicts(sites: tuple[bnfold.Site, ...]) -> list[str]:
    """Per site "backward", "forward", ... where it folded, and the reason where it stayed."""
    return [str(site.direction if site.folded else site.reason) for site in sites]
