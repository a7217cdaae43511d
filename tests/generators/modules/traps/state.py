"""Traps: modules that keep state from call to call, so that their buffers are no constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.dice import Arguments
from generators.modules.norm_types import spread
from generators.modules.traps import CHANNELS, Parts, family


class State(nn.Module):
    """Buffers that a call changes, so that they are no constants."""

    def __init__(self, parts: Parts, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.conv, self.norm = parts.pair(affine=True)
        self.register_buffer("scale", torch.randn(CHANNELS))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("ema", torch.zeros(CHANNELS))

    def forward(self, x: torch.Tensor) -> Any:
        return STATES[self.mode](self, x)


def _counter(m: State, x: torch.Tensor) -> torch.Tensor:
    m.steps += 1
    return m.norm(m.conv(x))


def _counted_scale(m: State, x: torch.Tensor) -> torch.Tensor:
    m.steps.add_(1)
    return m.norm(m.conv(x)) * m.steps


def _decaying_scale(m: State, x: torch.Tensor) -> torch.Tensor:
    m.scale.mul_(0.5)
    return m.conv(x) * spread(m.scale, x)


def _scale_after(m: State, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x) * spread(m.scale, x)
    m.scale.add_(1.0)
    return m.norm(y)


def _ema_of_output(m: State, x: torch.Tensor) -> torch.Tensor:
    y = m.norm(m.conv(x))
    m.ema.lerp_(y.transpose(0, 1).flatten(1).mean(1), 0.1)
    return y - spread(m.ema, x)


def _ema_of_conv(m: State, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    m.ema.copy_(y.transpose(0, 1).flatten(1).mean(1))
    return m.norm(y)


def _stats_changed(m: State, x: torch.Tensor) -> torch.Tensor:
    m.norm.running_mean.add_(0.5)
    return m.norm(m.conv(x))


def _weight_changed(m: State, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        m.conv.weight.mul_(0.9)
    return m.norm(m.conv(x))


def _gamma_reset(m: State, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        m.norm.weight.fill_(1.5)
    return m.norm(m.conv(x))


def _scale_from_input(m: State, x: torch.Tensor) -> torch.Tensor:
    m.scale.copy_(x.transpose(0, 1).flatten(1).mean(1))
    return m.conv(x) * spread(m.scale, x)


def _two_calls_of_norm_between(m: State, x: torch.Tensor) -> torch.Tensor:
    y = m.norm(m.conv(x))
    m.norm.running_var.mul_(2.0)
    return y + m.norm(m.conv(x))


def _attribute(m: State, x: torch.Tensor) -> torch.Tensor:
    m.last = m.conv(x)
    return m.norm(m.last) + m.last.mean()


def _python_counter(m: State, x: torch.Tensor) -> torch.Tensor:
    m.calls = getattr(m, "calls", 0) + 1
    return m.norm(m.conv(x))


def _weight_of_function(m: State, x: torch.Tensor) -> torch.Tensor:
    weight = F.normalize(m.conv.weight.flatten(1), dim=1)
    return m.norm(m.conv(x)).movedim(1, -1) @ weight[:, :CHANNELS].t()[:CHANNELS] if weight.shape[1] >= 4 else m.norm(x)


STATES: dict[str, Callable[[State, torch.Tensor], Any]] = {
    function.__name__[1:]: function
    for function in (
        *(_counter, _counted_scale, _decaying_scale, _scale_after, _ema_of_output, _ema_of_conv, _stats_changed),
        *(_weight_changed, _gamma_reset, _scale_from_input, _two_calls_of_norm_between, _attribute, _python_counter),
        _weight_of_function,
    )
}


def state(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    return parts.done(State(parts, mode))


family(list(STATES), state, "state")
