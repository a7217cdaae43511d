"""Linear layers that people write: subclasses of nn.Conv2d with more in forward, recurrent layers, attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.dice import Dice


class StandardisedConv2d(nn.Conv2d):
    """Weight standardisation: a factor on the weight has no effect at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        return self._conv_forward(x, w, self.bias)


class GainConv2d(nn.Conv2d):
    """A factor per channel behind the convolution and its bias."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.gain


class ActiveConv2d(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(super().forward(x))


class PaddedConv2d(nn.Conv2d):
    """Pads with ones before it convolves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, (1, 0, 1, 0), value=1.0))


class ScaledWeightConv2d(nn.Conv2d):
    """Equalised learning rate: the weight is used times a constant, the bias is not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight * 0.3, self.bias)


class MaskedConv2d(nn.Conv2d):
    """As in PixelCNN: a mask in a buffer, and the weight is overwritten with the masked one before every use."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("mask", torch.ones_like(self.weight))
        self.mask[..., -1] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class NoBiasConv2d(nn.Conv2d):
    """Has a bias and leaves it out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight, None)


class BiasFirstConv2d(nn.Conv2d):
    """Adds a bias to the input, if there is a bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bias is not None:
            x = x + self.bias.mean()
        return super().forward(x)


class ReparamConv2d(nn.Conv2d):
    """Sums its kernel with a 1x1 kernel, as RepVGG does when it is deployed at run time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.point = nn.Parameter(torch.randn(*self.weight.shape[:2], 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight + self.point, self.bias)


class CausalConv1d(nn.Conv1d):
    """Pads on the left with zeros and cuts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, (2, 0)))[:, :, 1:]


class PlainConv3d(nn.Conv3d):
    """Nothing but another name."""


OWN_CONVS: dict[int, list[Any]] = {
    3: [CausalConv1d],
    4: [
        *[StandardisedConv2d, GainConv2d, ActiveConv2d, PaddedConv2d, ScaledWeightConv2d, MaskedConv2d, NoBiasConv2d],
        *[BiasFirstConv2d, ReparamConv2d],
    ],
    5: [PlainConv3d],
}


class Recurrent(nn.Module):
    """A recurrent layer without its state."""

    def __init__(self, kind: str, size: int, dice: Dice) -> None:
        super().__init__()
        options: dict[str, Any] = {"batch_first": dice.chance(0.7), "bidirectional": dice.chance(0.3)}
        options |= {"num_layers": dice.between(1, 2), "bias": dice.chance(0.8)}
        if kind == "LSTM" and dice.chance(0.2):
            options["proj_size"] = 2
        self.layer = getattr(nn, kind)(size, 3, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


class Attention(nn.Module):
    """Attention of a tensor to itself, or to its first half."""

    def __init__(self, size: int, dice: Dice) -> None:
        super().__init__()
        heads = dice.pick([h for h in range(1, size + 1) if size % h == 0])
        keys = size if dice.chance(0.7) else size + 1
        self.bias = nn.Parameter(torch.randn(keys - size)) if keys > size else None
        options: dict[str, Any] = {"batch_first": dice.chance(0.7), "add_zero_attn": dice.chance(0.2)}
        options["add_bias_kv"] = dice.chance(0.2)
        self.attention = nn.MultiheadAttention(size, heads, kdim=keys, vdim=keys, **options)
        self.need_weights = dice.chance(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other = x if self.bias is None else torch.cat([x, self.bias.expand(*x.shape[:-1], -1)], -1)
        return self.attention(x, other, other, need_weights=self.need_weights)[0]
