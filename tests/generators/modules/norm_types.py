"""Normalisations that people write: frozen ones, subclasses of nn.BatchNorm with more in forward, and the like."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def spread(value: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A vector over the channels, of the rank of x."""
    return value.view(1, -1, *[1] * (x.dim() - 2))


class FrozenBatchNorm(nn.Module):
    """As in torchvision: four buffers, of which none is trained."""

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.randn(channels))
        self.register_buffer("running_var", torch.rand(channels) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * spread(scale, x) + spread(shift, x)


class FrozenInPlace(FrozenBatchNorm):
    """Writes its result into the input, which others may read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.sub_(spread(self.running_mean, x))
        x.mul_(spread(self.weight * (self.running_var + self.eps).rsqrt(), x))
        return x


class FrozenRelu(FrozenBatchNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(super().forward(x))


class FrozenResidual(FrozenBatchNorm):
    """Adds its input again: affine as a whole, but no BatchNorm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x


class FrozenBroadcast(FrozenBatchNorm):
    """Makes several channels of one where the input has a single channel: no identity can stand for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[:, :1])


class FrozenStack(FrozenBatchNorm):
    """Returns a view of its input beside the result, so that the module has two outputs; takes the first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed, _ = self.both(x)
        return normed

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(x), x


class ScaleShift(nn.Module):
    """An affine layer, whose shift is optional."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(channels))
        self.beta = nn.Parameter(torch.randn(channels))

    def forward(self, x: torch.Tensor, shift: bool = True) -> torch.Tensor:
        x = x * spread(self.gamma, x)
        return x + spread(self.beta, x) if shift else x


class LayerScale(nn.Module):
    """A factor along the last axis, as a 1-element tensor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((1,), 0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class AnyBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A BatchNorm for any rank, which a subclass of the private base class makes possible."""

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002
        """Every rank will do."""


class ActivatedBatchNorm(AnyBatchNorm):
    """As in timm: the activation belongs to the normalisation."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return F.leaky_relu(super().forward(input), 0.1)


class ShiftedGamma(AnyBatchNorm):
    """Stores gamma - 1, as some frameworks do."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        stats = (self.running_mean, self.running_var)
        return F.batch_norm(input, *stats, self.weight + 1, self.bias, False, 0.0, self.eps)


class AbsoluteGamma(AnyBatchNorm):
    """As in InPlaceABN: |gamma| + eps is the factor."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        weight = self.weight.abs() + self.eps
        return F.batch_norm(input, self.running_mean, self.running_var, weight, self.bias, False, 0.0, self.eps)


class ResidualBatchNorm(AnyBatchNorm):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return input + super().forward(input)


class UpcastBatchNorm(AnyBatchNorm):
    """Computes in double and returns the type of its input."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        stats = (self.running_mean.double(), self.running_var.double(), self.weight.double(), self.bias.double())
        return F.batch_norm(input.double(), *stats, False, 0.0, self.eps).to(input.dtype)


class ScaledBatchNorm(AnyBatchNorm):
    """More parameters than a BatchNorm has, and a factor that depends on them."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(input) * self.gain


class TwiceBatchNorm(AnyBatchNorm):
    """Applies itself two times."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(super().forward(input))


class Wrapped(nn.Module):
    """A normalisation within a module that looks into it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = AnyBatchNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) * (self.norm.num_features / 4)


class DomainNorms(nn.ModuleList):
    """One normalisation per domain, of which the first is used."""

    def __init__(self, channels: int = 0) -> None:
        super().__init__([AnyBatchNorm(channels) for _ in range(2)] if channels else [])

    def forward(self, x: torch.Tensor, domain: int = 1) -> torch.Tensor:
        return self[domain](x)


class MixedNorms(nn.Module):
    """Half of the channels by one BatchNorm, half by another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.a, self.b = AnyBatchNorm(max(self.half, 1)), AnyBatchNorm(channels - self.half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.half:
            return self.b(x)
        return torch.cat([self.a(x[:, : self.half]), self.b(x[:, self.half :])], 1)


OWN_NORMS: list[Any] = [
    *[FrozenBatchNorm, AnyBatchNorm, ScaleShift] * 2,
    *[FrozenInPlace, FrozenRelu, FrozenResidual, FrozenBroadcast, FrozenStack, LayerScale, ActivatedBatchNorm],
    *[ShiftedGamma, AbsoluteGamma, ResidualBatchNorm, UpcastBatchNorm, ScaledBatchNorm, TwiceBatchNorm, Wrapped],
    *[DomainNorms, MixedNorms],
]
