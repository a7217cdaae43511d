"""Layers as libraries have them, which are a convolution or a normalisation and more at the same time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.norm_types import AnyBatchNorm, FrozenBatchNorm
from generators.modules.traps import CHANNELS, Parts


def size(parts: Parts) -> dict[str, Any]:
    k = parts.dice.pick([1, 3])
    return {"in_channels": CHANNELS, "out_channels": CHANNELS, "kernel_size": k, "padding": k // 2, "bias": parts.bias}


class ConvWithNorm(nn.Conv2d):
    """As in detectron2: the convolution owns its normalisation and its activation."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(**size(parts))
        self.norm = parts.dice.pick([nn.BatchNorm2d, AnyBatchNorm, FrozenBatchNorm])(CHANNELS)
        self.activation = F.relu if parts.dice.chance(0.5) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class ConvCallsSuper(nn.Conv2d):
    """The same by way of the class above, without a bias of its own."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(**size(parts))
        self.bn = nn.BatchNorm2d(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(super().forward(x))


class NormWithConv(nn.BatchNorm2d):
    """A normalisation that owns the convolution above it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(CHANNELS)
        self.conv = nn.Conv2d(**size(parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.conv(x))


class NormThenConv(nn.BatchNorm2d):
    def __init__(self, parts: Parts) -> None:
        super().__init__(CHANNELS)
        self.conv = nn.Conv2d(**size(parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(super().forward(x))


class FlagBias(nn.Conv2d):
    """A flag says whether the bias is used, whatever the bias is."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(**size(parts))
        self.use_bias = parts.dice.chance(0.5) and self.bias is not None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight, self.bias if self.use_bias else None)


class BiasTwice(nn.Conv2d):
    """Adds its bias once more behind the convolution."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(**size(parts) | {"bias": True})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 2 * self.bias[:, None, None]


class BiasAfter(nn.Conv2d):
    """Adds its bias by itself, where there is one."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(**size(parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._conv_forward(x, self.weight, None)
        return x if self.bias is None else F.relu(x) + self.bias[:, None, None]


class WeightUsedTwice(nn.Conv2d):
    def __init__(self, parts: Parts) -> None:
        super().__init__(**size(parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + F.conv2d(x, self.weight.abs(), None, padding=self.padding)


class LinearNoBias(nn.Linear):
    def __init__(self, parts: Parts) -> None:
        super().__init__(CHANNELS, CHANNELS, bias=parts.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.movedim(1, -1), self.weight).movedim(-1, 1)


class LinearOverChannels(nn.Linear):
    """A Linear that is run as a convolution."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(CHANNELS, CHANNELS, bias=parts.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


class ConvAsLinear(nn.Conv2d):
    """A 1x1 convolution that is run as a Linear."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(CHANNELS, CHANNELS, 1, bias=parts.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class DynamicWeight(nn.Conv2d):
    """The kernel is scaled by the input, so that it is no constant."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(**size(parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight * torch.sigmoid(x.mean()), self.bias)
