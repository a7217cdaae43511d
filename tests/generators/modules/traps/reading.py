"""Traps: hooks on layers, code that reads its layers, modules that return their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.dice import Arguments
from generators.modules.hooks import add_hook
from generators.modules.norm_types import spread
from generators.modules.reading import READS
from generators.modules.traps import CHANNELS, Parts, family, trap


class Pair(nn.Module):
    """A linear layer and a normalisation in either order, and an activation."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.norm = parts.pair()
        self.act = parts.activation()
        self.before = parts.dice.chance(0.4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(self.norm(x)) if self.before else self.norm(self.conv(x)))


class Reader(Pair):
    """Python that reads a layer before or after the layer is called."""

    def __init__(self, parts: Parts, mode: str) -> None:
        super().__init__(parts)
        self.mode = mode
        self.target = parts.dice.pick(["conv", "norm"])
        self.early = parts.dice.chance(0.5)

    def modules_read(self, x: torch.Tensor) -> torch.Tensor:
        for name in (self.target, "norm", "conv"):
            try:
                return READS[self.mode](self, getattr(self, name), x)
            except (AttributeError, TypeError, RuntimeError, StopIteration, KeyError, IndexError):
                continue  # the reading does not fit this layer
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.modules_read(x)) if self.early else self.modules_read(super().forward(x))


class Strict(Pair):
    """The same without a net: what fits on the original must fit on the folded module."""

    def __init__(self, parts: Parts, mode: str) -> None:
        super().__init__(parts)
        self.mode = mode
        self.register_buffer("table", torch.eye(CHANNELS))
        self.extra = nn.Parameter(torch.randn(CHANNELS))

    def forward(self, x: torch.Tensor) -> Any:
        return STRICT[self.mode](self, super().forward(x))


def _fused_bias(m: Strict, x: torch.Tensor) -> torch.Tensor:
    return x if m.conv.bias is not None else x + spread(m.extra, x)


def _gamma_gate(m: Strict, x: torch.Tensor) -> torch.Tensor:
    return x * spread(torch.sigmoid(m.norm.weight), x) if m.norm.affine else x


def _denormalise(m: Strict, x: torch.Tensor) -> torch.Tensor:
    return x * spread(torch.sqrt(m.norm.running_var + m.norm.eps), x) + spread(m.norm.running_mean, x)


def _gate_by_type(m: Strict, x: torch.Tensor) -> torch.Tensor:
    for child in m.children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            x = x * 0.5
    return x


def _weights_out(m: Strict, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x, m.conv.weight


def _weights_loss(m: Strict, x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"out": x, "decay": sum((p**2).sum() for p in m.parameters())}  # type: ignore[dict-item]


def _bias_out(m: Strict, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
    return x, m.conv.bias


def _stats_out(m: Strict, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
    return x, [m.norm.running_mean, m.norm.running_var * 2]


def _parameter_list_out(m: Strict, x: torch.Tensor) -> tuple[Any, ...]:
    return (x, *m.parameters())


def _state_out(m: Strict, x: torch.Tensor) -> dict[str, Any]:
    return {"x": x, **{name.replace(".", "_"): p for name, p in m.named_parameters()}}


def _hypernetwork(m: Strict, x: torch.Tensor) -> torch.Tensor:
    made = m.conv.weight.flatten(1)[:, :1] * m.extra
    return x.movedim(1, -1) @ made


def _prototypes(m: Strict, x: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x.movedim(1, -1).flatten(0, -2), F.normalize(m.conv.weight.flatten(1).mean(1, True) * m.table))


def _gram_of_gamma(m: Strict, x: torch.Tensor) -> torch.Tensor:
    gamma = m.norm.weight if m.norm.weight is not None else m.extra
    return x.movedim(1, -1) @ (gamma[:, None] * m.table)


def _every_other(m: Strict, x: torch.Tensor) -> torch.Tensor:
    for module in list(m.modules())[1:]:
        if type(module) is type(m.norm):
            x = module(x)
    return x


def _number_of_weights(m: Strict, x: torch.Tensor) -> torch.Tensor:
    return x / sum(p.numel() for p in m.parameters())


def _device(m: Strict, x: torch.Tensor) -> torch.Tensor:
    return x.to(next(m.norm.parameters(), m.extra).device, next(m.norm.buffers()).dtype)


def _norm_dtype(m: Strict, x: torch.Tensor) -> torch.Tensor:
    return x.to(m.norm.running_mean.dtype) * m.norm.running_mean.numel()


def _as_index(m: Strict, x: torch.Tensor) -> torch.Tensor:
    return x[:, : m.norm.num_features]


def _reshaped(m: Strict, x: torch.Tensor) -> torch.Tensor:
    return x.reshape(x.shape[0], m.norm.num_features, -1)


STRICT: dict[str, Callable[[Strict, torch.Tensor], Any]] = {
    function.__name__[1:]: function
    for function in (
        *(_fused_bias, _gamma_gate, _denormalise, _gate_by_type, _weights_out, _weights_loss, _bias_out, _stats_out),
        *(_parameter_list_out, _state_out, _hypernetwork, _prototypes, _gram_of_gamma, _every_other),
        *(_number_of_weights, _device, _norm_dtype, _as_index, _reshaped),
    )
}


def reader(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    return parts.done(Reader(parts, mode))


def strict(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    return parts.done(Strict(parts, mode))


@trap
def hooked(parts: Parts) -> tuple[nn.Module, Arguments]:
    """One to three hooks on any of the layers."""
    model = Pair(parts)
    for _ in range(parts.dice.between(1, 3)):
        add_hook(parts.dice.pick([model.conv, model.norm, model.norm, model.act, model]), parts.dice)
    return parts.done(model)


@trap
def hooked_in_sequence(parts: Parts) -> tuple[nn.Module, Arguments]:
    """The same in a Sequential, where there is no code but the containers'."""
    layers = [*parts.pair(), parts.activation(), *parts.pair(), parts.linear()]
    model = nn.Sequential(*layers)
    for _ in range(parts.dice.between(1, 2)):
        add_hook(parts.dice.pick(layers), parts.dice)
    return parts.done(model)


family(list(READS), reader, "reader")
family(list(STRICT), strict, "strict")
