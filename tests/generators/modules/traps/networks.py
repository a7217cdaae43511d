"""Traps: small networks of well-known kinds, inputs of every kind, devices and sizes at the edge."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.dice import Arguments
from generators.modules.norm_types import spread
from generators.modules.traps import CHANNELS, Parts, trap
from generators.modules.traps.reading import Pair


class Inputs(nn.Module):
    """Inputs of many kinds, of which some are no tensors."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.norm = parts.pair()

    def forward(self, x: Any, *others: Any, scale: float = 1.0, mask: Any = None, **named: Any) -> Any:
        if isinstance(x, dict):
            x = x["x"] + x["more"][0]
        elif isinstance(x, (list, tuple)):
            x = x[0] - x[1]
        y = self.norm(self.conv(x)) * scale
        for other in others:
            y = y + other
        for name in sorted(named):
            y = y * named[name]
        return y if mask is None else y.masked_fill(mask, 0.0)


@trap
def inputs(parts: Parts) -> tuple[nn.Module, Arguments]:
    dice, x = parts.dice, parts.x()
    model = Inputs(parts)
    options: list[Arguments] = [
        (({"x": x, "more": [x * 2]},), {}),
        (([x, x * 2],), {}),
        ((x, x, x), {}),
        ((x, 2), {"scale": 3.0}),
        ((x,), {"mask": x > 0}),
        ((x,), {"b": x, "a": torch.tensor(2.0, dtype=x.dtype)}),
        ((), {"x": x, "scale": 0.5}),
        ((x, None) if False else (x, torch.tensor(3)), {}),
        (((x, x * 2),), {"mask": None}),
    ]
    args, kwargs = dice.pick(options)
    return parts.done(model, *args, **kwargs)


class ResidualBlock(nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.body = nn.Sequential(*parts.pair(), parts.activation(True), *parts.pair())
        self.shortcut = nn.Sequential(*parts.pair()) if parts.dice.chance(0.5) else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        y += self.shortcut(x)
        return F.relu(y, inplace=True)


@trap
def residual(parts: Parts) -> tuple[nn.Module, Arguments]:
    return parts.done(nn.Sequential(ResidualBlock(parts), ResidualBlock(parts), parts.norm()))


class Rep(nn.Module):
    """Branches with normalisations that are summed, as in RepVGG."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(*parts.pair()), nn.Sequential(*parts.pair())
        self.c = parts.norm()
        self.out = parts.norm()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.a(x) + self.b(x) + self.c(x))


@trap
def rep(parts: Parts) -> tuple[nn.Module, Arguments]:
    return parts.done(Rep(parts))


class Tokens(nn.Module):
    """A transformer layer between normalisations over features and tokens."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        dice = parts.dice
        options: dict[str, Any] = {"batch_first": dice.chance(0.6), "norm_first": dice.chance(0.5)}
        self.embed = nn.Embedding(7, CHANNELS, padding_idx=0)
        self.norm, self.norm2 = nn.BatchNorm1d(CHANNELS), nn.BatchNorm1d(CHANNELS)
        self.layer = nn.TransformerEncoderLayer(CHANNELS, 2, 6, dropout=0.0, **options)
        self.tied = dice.chance(0.5)
        self.head = nn.Linear(CHANNELS, 7, bias=False)
        self.position = nn.Parameter(torch.randn(1, 5, CHANNELS))
        if self.tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embed(tokens).transpose(1, 2)).transpose(1, 2) + self.position
        x = self.norm2(self.layer(x).transpose(1, 2)).transpose(1, 2)
        return self.head(x)


@trap
def tokens(parts: Parts) -> tuple[nn.Module, Arguments]:
    ids = torch.tensor(parts.dice.stream.integers(0, 7, size=(2, 5)))
    return parts.done(Tokens(parts), ids)


class Norms2d(nn.Module):
    """A linear layer over the last axis, and a normalisation over another one of the same length."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS, CHANNELS)
        self.norm = nn.BatchNorm1d(CHANNELS)
        self.way = parts.dice.between(0, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == 0:
            return self.norm(self.linear(x))
        if self.way == 1:
            return self.linear(self.norm(x))
        if self.way == 2:
            return self.norm(self.linear(x).transpose(1, 2))
        if self.way == 3:
            return self.norm(self.linear(x).reshape(-1, CHANNELS)).view(x.shape)
        if self.way == 4:
            return self.norm(self.linear.weight @ x)
        return self.norm(x @ self.linear.weight) @ self.linear.weight.t()


@trap
def square(parts: Parts) -> tuple[nn.Module, Arguments]:
    return parts.done(Norms2d(parts), parts.dice.normal((2, CHANNELS, CHANNELS), parts.dtype))


class Fused(nn.Module):
    """One linear layer for queries, keys and values, and a normalisation of each part."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(CHANNELS, 3 * CHANNELS, 1, bias=parts.bias)
        self.q, self.k, self.v = (nn.BatchNorm2d(CHANNELS) for _ in range(3))
        self.way = parts.dice.between(0, 2)
        self.out = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.norm = nn.BatchNorm2d(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        if self.way == 0:
            q, k, v = self.qkv(x).chunk(3, 1)
        elif self.way == 1:
            q, k, v = self.qkv(x).view(b, 3, CHANNELS, h, w).unbind(1)
        else:
            q, k, v = (t.contiguous() for t in torch.split(self.qkv(x), CHANNELS, 1))
        q, k, v = self.q(q).flatten(2), self.k(k).flatten(2), self.v(v).flatten(2)
        y = v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)
        return self.norm(self.out(y.view(b, CHANNELS, h, w)))


@trap
def fused(parts: Parts) -> tuple[nn.Module, Arguments]:
    parts.rank = 2
    return parts.done(Fused(parts))


class Meta(Pair):
    """On the meta device, as a whole or in part."""


@trap
def meta(parts: Parts) -> tuple[nn.Module, Arguments]:
    model, (args, _) = parts.done(Meta(parts))
    if parts.dice.chance(0.6):
        return model.to("meta"), ((args[0].to("meta"),), {})
    model.norm.to("meta")
    return model, (args, {})


@trap
def training(parts: Parts) -> tuple[nn.Module, Arguments]:
    """A normalisation without statistics, or a momentum of None."""
    model = Pair(parts)
    if parts.dice.chance(0.6):
        kind = type(model.norm)
        model.norm = kind(CHANNELS, track_running_stats=False)
    else:
        model.norm.momentum = None
    return parts.done(model)


class Deep(nn.Module):
    """A layer far down in the tree."""

    def __init__(self, parts: Parts, depth: int) -> None:
        super().__init__()
        self.inner = Deep(parts, depth - 1) if depth else nn.Sequential(*parts.pair())
        self.norm = parts.norm() if depth % 3 == 0 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.inner(x))


@trap
def deep(parts: Parts) -> tuple[nn.Module, Arguments]:
    return parts.done(Deep(parts, parts.dice.pick([5, 20, 60])))


class Lazy(nn.Module):
    """Lazy layers, of which some have not seen an input."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.norm = nn.LazyConv2d(CHANNELS, 1), nn.LazyBatchNorm2d()
        self.unused = nn.LazyLinear(3) if parts.dice.chance(0.5) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


@trap
def lazy(parts: Parts) -> tuple[nn.Module, Arguments]:
    parts.rank = 2
    model = Lazy(parts).to(parts.dtype)
    x = parts.x()
    if parts.dice.chance(0.7):
        model.eval()(x)
    return parts.done(model, x)


class Empty(nn.Module):
    """Sizes that are one or zero."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
        self.flat, self.scale = nn.Linear(1, 1), nn.Parameter(torch.randn(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.flat(self.norm(self.conv(x)) * self.scale)


@trap
def small(parts: Parts) -> tuple[nn.Module, Arguments]:
    shape = parts.dice.pick([(1, 1, 1, 1), (2, 1, 3, 1), (1, 1, 2, 1)])
    return parts.done(Empty(parts), parts.dice.normal(shape, parts.dtype))


class PositionalScale(nn.Module):
    """Factors along axes that are no channels, and along two."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        dice = parts.dice
        self.conv, self.norm = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS)
        shapes = [(4,), (3, 1), (4, 3, 1), (4, 1, 1), (1, 4, 1, 1), (2, 1, 1, 1), (), (4, 4, 3), (3, 4), (1,)]
        self.scale, self.shift = (nn.Parameter(torch.randn(dice.pick(shapes))) for _ in range(2))
        self.linear = nn.Linear(CHANNELS, CHANNELS)
        self.way = dice.between(0, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)[..., :3, :]
        y = F.pad(y, (0, 1)) if y.shape[-1] == 3 else y
        y = y * self.scale + self.shift
        if self.way == 1:
            return self.linear(self.norm(y))
        if self.way == 2:
            return self.norm(y) - spread(self.norm.running_mean, y)
        return self.norm(self.linear(y))


@trap
def positions(parts: Parts) -> tuple[nn.Module, Arguments]:
    return parts.done(PositionalScale(parts), parts.dice.normal((2, CHANNELS, 4, 3), parts.dtype))
