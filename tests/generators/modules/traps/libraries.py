"""Traps: layers and blocks as libraries have them, by themselves or between other layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.dice import Arguments
from generators.modules.library_types import (
    BiasAfter,
    BiasTwice,
    ConvAsLinear,
    ConvCallsSuper,
    ConvWithNorm,
    DynamicWeight,
    FlagBias,
    LinearNoBias,
    LinearOverChannels,
    NormThenConv,
    NormWithConv,
    WeightUsedTwice,
    size,
)
from generators.modules.norm_types import FrozenBatchNorm, spread
from generators.modules.traps import CHANNELS, Parts, family


class Unfused(nn.Module):
    """As in mmcv: names of layers in strings, and flags for what there is."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, norm = nn.Conv2d(**size(parts)), nn.BatchNorm2d(CHANNELS)
        self.norm_name = "bn"
        self.add_module(self.norm_name, norm)
        self.with_bias = self.conv.bias is not None
        self.order = parts.dice.pick([("conv", "norm", "act"), ("norm", "act", "conv"), ("norm", "conv", "act")])

    @property
    def norm(self) -> nn.Module:
        return getattr(self, self.norm_name)

    def forward(self, x: torch.Tensor, activate: bool = True) -> torch.Tensor:
        for layer in self.order:
            if layer == "conv":
                x = self.conv(x)
            elif layer == "norm":
                x = self.norm(x)
            elif activate:
                x = F.relu(x)
        return x


class Fusable(nn.Module):
    """As in YOLO: looks whether it has been fused, and goes another way then."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(**size(parts)), nn.BatchNorm2d(CHANNELS)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.bn, nn.Identity) or not hasattr(self, "bn"):
            return F.silu(self.conv(x)) * 2
        return F.silu(self.bn(self.conv(x)))


class RepBlock(nn.Module):
    """As in RepVGG: an identity branch that is there where a layer is not None."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.dense, self.point = nn.Sequential(), nn.Sequential()
        for block, k in ((self.dense, 3), (self.point, 1)):
            block.add_module("conv", nn.Conv2d(CHANNELS, CHANNELS, k, padding=k // 2, bias=False))
            block.add_module("bn", nn.BatchNorm2d(CHANNELS))
        self.identity = nn.BatchNorm2d(CHANNELS) if parts.dice.chance(0.6) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        extra = 0 if self.identity is None else self.identity(x)
        return F.relu(self.dense(x) + self.point(x) + extra)

    def equivalent(self) -> torch.Tensor:
        bn = self.dense.bn
        return self.dense.conv.weight * (bn.weight / (bn.running_var + bn.eps).sqrt()).reshape(-1, 1, 1, 1)


class RepEquivalent(RepBlock):
    """Computes the fused kernel on the fly from the parameters of the normalisation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bn = self.dense.bn
        bias = bn.bias - bn.running_mean * bn.weight / (bn.running_var + bn.eps).sqrt()
        return self.point(F.conv2d(x, self.equivalent(), bias, padding=1))


class RepBoth(RepBlock):
    """Uses the layers in one path and the fused kernel in another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x) - F.conv2d(x, self.equivalent(), None, padding=1)


class Adaptive(nn.Module):
    """Statistics of one normalisation in another one (domain adaptation), and a distance to them in the output."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(**size(parts)), nn.BatchNorm2d(CHANNELS)
        self.mix = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: torch.Tensor) -> Any:
        h = self.conv(x)
        mean = self.bn.running_mean * (1 - self.mix) + self.mix * h.mean((0, 2, 3))
        y = (h - mean[:, None, None]) / (self.bn.running_var[:, None, None] + self.bn.eps).sqrt()
        return self.bn(h) + y


class Split(nn.BatchNorm2d):
    """As in timm: auxiliary normalisations for parts of the batch, which evaluation does not use."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(CHANNELS)
        self.aux = nn.ModuleList([nn.BatchNorm2d(CHANNELS)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return torch.cat([super().forward(x[:1]), self.aux[0](x[1:])])
        return super().forward(x)


class NormAct(nn.BatchNorm2d):
    """As in timm: the normalisation owns dropout and activation as modules."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(CHANNELS)
        self.drop = nn.Identity()
        self.act = parts.dice.pick([nn.ReLU(inplace=True), nn.Identity(), nn.SiLU()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
        return self.act(self.drop(x))


class Ghost(nn.Module):
    """As in GhostNet: a cheap map of the first half is concatenated, and the whole is cut."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.primary = nn.Sequential(nn.Conv2d(CHANNELS, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
        self.cheap = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)[:, :CHANNELS]


class Shuffle(nn.Module):
    """As in ShuffleNet."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.BatchNorm2d(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, 1)
        x = torch.cat((a, self.branch(b)), 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class Excite(nn.Module):
    """Squeeze and excitation behind a normalisation, in place."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(**size(parts)), nn.BatchNorm2d(CHANNELS)
        self.down, self.up = nn.Conv2d(CHANNELS, 2, 1), nn.Conv2d(2, CHANNELS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn(self.conv(x))
        y *= torch.sigmoid(self.up(F.relu(self.down(y.mean((2, 3), keepdim=True)))))
        y += x
        return y


class Dense(nn.Module):
    """As in DenseNet: a list of features that grows, and a layer that takes the list."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(CHANNELS * (i + 1)) for i in range(2)])
        self.convs = nn.ModuleList([nn.Conv2d(CHANNELS * (i + 1), CHANNELS, 1) for i in range(2)])
        self.last = nn.BatchNorm2d(CHANNELS * 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)), inplace=True)))
        return self.last(torch.cat(features, 1))


def root(parts: Parts, which: str) -> nn.Module:
    if which == "RootConv":
        return nn.Conv2d(**size(parts))
    if which == "RootNorm":
        return nn.BatchNorm2d(CHANNELS)
    if which == "RootFrozen":
        return FrozenBatchNorm(CHANNELS)
    if which == "RootList":
        return nn.Sequential(nn.BatchNorm2d(CHANNELS))
    return nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS), nn.Identity())


class ScaleOnce(nn.Module):
    """A learned scalar, a temperature and a fixed mean in front and behind, as preprocessing in a model."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(CHANNELS))
        self.register_buffer("std", torch.rand(CHANNELS) + 0.5)
        self.conv, self.bn = nn.Conv2d(**size(parts)), nn.BatchNorm2d(CHANNELS)
        self.temperature = 0.07
        self.logit = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x * 0.5 - spread(self.mean, x)) / spread(self.std, x)
        return self.bn(self.conv(x)) / self.temperature * self.logit.exp()


LAYERS: list[Callable[[Parts], nn.Module]] = [
    *[ConvWithNorm, ConvCallsSuper, NormWithConv, NormThenConv, FlagBias, BiasTwice, BiasAfter, WeightUsedTwice],
    *[LinearNoBias, LinearOverChannels, ConvAsLinear, DynamicWeight, Unfused, Fusable, RepBlock, RepEquivalent],
    *[RepBoth, Adaptive, Split, NormAct, Ghost, Shuffle, Excite, Dense, ScaleOnce],
]
BY_NAME = {cls.__name__: cls for cls in LAYERS}  # type: ignore[attr-defined]
ROOTS = ["RootConv", "RootNorm", "RootFrozen", "RootList", "RootTwo"]


def library(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    """The layer by itself, or between others."""
    parts.rank, dice = 2, parts.dice
    if mode in ROOTS:
        return parts.done(root(parts, mode))
    layer = BY_NAME[mode](parts)
    if dice.chance(0.3) and mode != "Dense":
        return parts.done(layer)
    front: list[nn.Module] = [parts.linear(), parts.norm()] if dice.chance(0.5) else []
    channels = 3 * CHANNELS if mode == "Dense" else CHANNELS
    back: list[nn.Module] = [nn.BatchNorm2d(channels), nn.Conv2d(channels, 2, 1)] if dice.chance(0.7) else []
    return parts.done(nn.Sequential(*front, layer, *back))


family([*BY_NAME, *ROOTS], library, "library")
