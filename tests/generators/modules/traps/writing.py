"""Traps: operations that write, and values that share memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from generators.modules.dice import Arguments
from generators.modules.norm_types import spread
from generators.modules.traps import CHANNELS, Parts, family


class Writes(nn.Module):
    """A layer and a normalisation, with writes that a wrong order or a missing copy would show."""

    def __init__(self, parts: Parts, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.conv, self.norm = parts.pair()
        self.conv2, self.norm2 = parts.linear(), parts.norm()
        self.relu = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.randn(CHANNELS))
        self.drop = nn.Dropout(0.5, inplace=True)

    def forward(self, x: torch.Tensor) -> Any:
        return WRITING[self.mode](self, x)


def _norm_write_residual(m: Writes, x: torch.Tensor) -> torch.Tensor:
    """The norm makes a copy, which is written; the identity that stands for it does not."""
    h = m.norm(x)
    h.mul_(2)
    return m.conv(h) + x


def _norm_relu_residual(m: Writes, x: torch.Tensor) -> torch.Tensor:
    h = m.relu(m.norm(x))
    return m.conv(h) + x


def _conv_norm_write(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    b = m.norm(a)
    b += 1
    return a + b


def _conv_norm_relu_other(m: Writes, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a = m.conv(x)
    return m.relu(m.norm(a)), m.norm2(a)


def _view_then_write(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    view = a[:, :2]
    b = m.norm(a)
    view.mul_(3)
    return b + a


def _write_before_norm(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    a[:, 0] = 1.0
    return m.norm(a)


def _write_view_before(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    a.flatten(1)[:, 0] = 1.0
    return m.norm(a)


def _write_view_after(m: Writes, x: torch.Tensor) -> torch.Tensor:
    b = m.norm(m.conv(x))
    b.transpose(0, 1)[0].add_(1.0)
    return m.conv2(b)


def _write_input(m: Writes, x: torch.Tensor) -> torch.Tensor:
    x.add_(1)
    return m.norm(m.conv(x))


def _write_input_after(m: Writes, x: torch.Tensor) -> torch.Tensor:
    h = m.norm(x)
    x.zero_()
    return m.conv(h)


def _returned_and_written(m: Writes, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a = m.conv(x)
    b = m.norm(a)
    a.relu_()
    return a, b


def _norm_of_slice_written(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    a[:1] = m.norm(a[:1])
    return m.conv2(a)


def _accumulate(m: Writes, x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros_like(x)
    for layer in (m.conv, m.conv2):
        total += m.norm(layer(x))
    return total


def _accumulate_then_norm(m: Writes, x: torch.Tensor) -> torch.Tensor:
    total = m.conv(x)
    total += m.conv2(x)
    return m.norm(total)


def _out_argument(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    torch.mul(a, spread(m.scale, x), out=a)
    return m.norm(a)


def _preallocated(m: Writes, x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(x.shape[0], 2 * CHANNELS, *x.shape[2:])
    out[:, :CHANNELS] = m.norm(m.conv(x))
    out[:, CHANNELS:] = m.norm2(m.conv2(x))
    return out


def _copy_into(m: Writes, x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    out.copy_(m.conv(x))
    return m.norm(out)


def _detached_write(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    a.detach().mul_(2)
    return m.norm(a)


def _data_write(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.norm(m.conv(x))
    a.data.add_(1)
    return m.conv2(a)


def _relu_on_conv_read_twice(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    b = m.norm(a)
    m.relu(a)
    return b - a


def _identity_output(m: Writes, x: torch.Tensor) -> torch.Tensor:
    return m.norm(x)


def _norm_returned_and_used(m: Writes, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = m.norm(x)
    return h, m.conv(h)


def _dropout_write(m: Writes, x: torch.Tensor) -> torch.Tensor:
    h = m.drop(m.norm(x))
    h += x
    return m.conv(h)


def _swap_views(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    first, second = a.chunk(2, 1)
    first += second
    return m.norm(a)


def _norm_views(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.norm(m.conv(x))
    first, second = a.chunk(2, 1)
    second.sub_(first)
    first.relu_()
    return m.conv2(a)


def _in_place_affine(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x)
    b = a.mul_(spread(m.scale, x)).add_(0.5)
    return a + m.norm(b)


def _expand_write(m: Writes, x: torch.Tensor) -> torch.Tensor:
    a = m.conv(x).mean(0, keepdim=True)
    wide = a.expand(2, *a.shape[1:])
    a.add_(1)
    return m.norm(wide)


def _write_under_view_of_norm(m: Writes, x: torch.Tensor) -> torch.Tensor:
    h = m.norm(x).view(x.shape)
    h.clamp_(min=0)
    return m.conv(h) * x


WRITING: dict[str, Callable[[Writes, torch.Tensor], Any]] = {
    function.__name__[1:]: function
    for function in (
        *(_norm_write_residual, _norm_relu_residual, _conv_norm_write, _conv_norm_relu_other, _view_then_write),
        *(_write_before_norm, _write_view_before, _write_view_after, _write_input, _write_input_after),
        *(_returned_and_written, _norm_of_slice_written, _accumulate, _accumulate_then_norm, _out_argument),
        *(_preallocated, _copy_into, _detached_write, _data_write, _relu_on_conv_read_twice, _identity_output),
        *(_norm_returned_and_used, _dropout_write, _swap_views, _norm_views, _in_place_affine, _expand_write),
        _write_under_view_of_norm,
    )
}


def writes(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    return parts.done(Writes(parts, mode))


family(list(WRITING), writes, "writes")
