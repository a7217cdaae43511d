"""Steps that write: into their input, into a part of it, into a view of it, or into something given as out=."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.builder import Builder
from generators.modules.net import Net, step

Tensors = list[torch.Tensor]
Constants = dict[str, Any]


def _slices(x: torch.Tensor) -> torch.Tensor:
    x[:, 0] = 0.5
    return x


def _slice_scale(x: torch.Tensor, c: Any) -> torch.Tensor:
    x[..., 1:] *= c
    return x


def _plus(x: torch.Tensor, c: Any) -> torch.Tensor:
    x += c
    return x


def _ellipsis(x: torch.Tensor) -> torch.Tensor:
    x[...] = x.flip(-1)
    return x


def _assign_own(x: torch.Tensor) -> torch.Tensor:
    x[:, -1] = x[:, 0] + 1
    return x


def _view_write(x: torch.Tensor, c: Any) -> torch.Tensor:
    """Writes into a view and returns what the view looks at."""
    view = x.view(x.shape[0], -1)
    view.mul_(0.5)
    return x


def _chunk_write(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, 1)
    first.add_(second)
    return x


def _transposed_write(x: torch.Tensor) -> torch.Tensor:
    x.transpose(0, 1).mul_(-2.0)
    return x


def _out(x: torch.Tensor, c: Any) -> torch.Tensor:
    result = torch.empty_like(x)
    torch.mul(x, c, out=result)
    return result


def _out_self(x: torch.Tensor) -> torch.Tensor:
    torch.relu_(x)
    torch.add(x, 1.0, out=x)
    return x


def _buffer_fill(x: torch.Tensor) -> torch.Tensor:
    result = torch.zeros(x.shape[0], x.shape[1] + 1, *x.shape[2:], dtype=x.dtype)
    result[:, :-1] = x
    return result


def _old_and_new(x: torch.Tensor, c: Any) -> torch.Tensor:
    """Reads a view after its base has been written: the view has the new values."""
    view = x[:, :1]
    x.mul_(c)
    return x + view


def _copy_first(x: torch.Tensor, c: Any) -> torch.Tensor:
    """Reads a copy after the original has been written: the copy has the old values."""
    old = x.clone()
    x.mul_(c)
    return x + old


WRITES: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "relu_": lambda x, c: x.relu_(),
    "f_relu": lambda x, c: F.relu(x, inplace=True),
    "leaky_": lambda x, c: F.leaky_relu_(x, 0.3),
    "add_": lambda x, c: x.add_(c),
    "mul_": lambda x, c: x.mul_(c),
    "sub_": lambda x, c: x.sub_(c),
    "div_": lambda x, c: x.div_(1.5),
    "neg_": lambda x, c: x.neg_(),
    "plus": _plus,
    "addcmul_": lambda x, c: x.addcmul_(x, torch.ones_like(x), value=0.5),
    "clamp_": lambda x, c: x.clamp_(-1, 1),
    "sigmoid_": lambda x, c: x.sigmoid_(),
    "tanh_": lambda x, c: torch.tanh_(x),
    "silu_": lambda x, c: F.silu(x, inplace=True),
    "dropout_": lambda x, c: F.dropout(x, 0.5, training=False, inplace=True),
    "slices": lambda x, c: _slices(x),
    "slice_scale": _slice_scale,
    "ellipsis": lambda x, c: _ellipsis(x),
    "assign_own": lambda x, c: _assign_own(x),
    "view_write": _view_write,
    "chunk_write": lambda x, c: _chunk_write(x),
    "transposed_write": lambda x, c: _transposed_write(x),
    "out": _out,
    "out_self": lambda x, c: _out_self(x),
    "buffer_fill": lambda x, c: _buffer_fill(x),
    "old_and_new": _old_and_new,
    "copy_first": _copy_first,
    "unsqueeze_": lambda x, c: x.unsqueeze_(1),
    "squeeze_": lambda x, c: x.squeeze_(),
    "transpose_": lambda x, c: x.transpose_(-1, -2),
    "zero_": lambda x, c: x[:, :1].zero_(),
    "copy_": lambda x, c: x.copy_(x.flip(1)),
    "fill_": lambda x, c: x[:, -1:].fill_(0.5),
    "masked_fill_": lambda x, c: x.masked_fill_(x < 0, 0.0),
    "index_add_": lambda x, c: x.index_add_(1, torch.tensor([0]), torch.ones_like(x[:, :1])),
    "index_copy_": lambda x, c: x.index_copy_(1, torch.tensor([0]), torch.ones_like(x[:, :1])),
    "scatter_": lambda x, c: x.scatter_(1, torch.zeros_like(x[:, :1], dtype=torch.long), 1.0),
    "lerp_": lambda x, c: x.lerp_(torch.ones_like(x), 0.25),
    "data": lambda x, c: x.data.mul_(2.0),
    "swap": lambda x, c: x.set_(x.clone()),
    "foreach_": lambda x, c: _foreach(x),
    "ipow": lambda x, c: x.abs_().add_(0.1).pow_(1.0),
    "resize": lambda x, c: x.mul_(c).view(-1, x.shape[-1]).add_(1.0),
}


def _foreach(x: torch.Tensor) -> torch.Tensor:
    torch._foreach_mul_([x], 0.5)
    return x


INPLACE_LAYERS: list[Any] = [
    *[lambda: nn.ReLU(inplace=True)] * 3,
    *[lambda: nn.LeakyReLU(0.2, inplace=True), lambda: nn.Hardswish(inplace=True), lambda: nn.SiLU(inplace=True)],
    *[lambda: nn.Dropout(0.5, inplace=True), lambda: nn.ELU(inplace=True), lambda: nn.Hardtanh(inplace=True)],
]


@step
def write(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    c = net.at(k["path"]) if k.get("path") else k["number"]
    return WRITES[k["how"]](xs[0], c)


@step
def write_other(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    """One register into another, and the other comes back."""
    x, y = xs
    if k["how"] == "add":
        x += y
    elif k["how"] == "alpha":
        x.add_(y, alpha=0.5)
    elif k["how"] == "mul":
        x.mul_(torch.sigmoid(y))
    elif k["how"] == "copy":
        x.copy_(y)
    elif k["how"] == "part":
        x[:, :1] = y[:, -1:]
    else:
        torch.sub(x, y, out=x)
    return x


def add_write(b: Builder) -> None:
    """A step that writes into a register, which views of it and other readers see."""
    dice = b.dice
    r = dice.pick(b.floats()) if dice.chance(0.3) else b.register()
    if r is None:
        return
    x = b.values[r]
    kind = dice.weighted([(6, "write"), (2, "layer"), (2, "other")])
    if kind == "layer":
        b.call(dice.pick(INPLACE_LAYERS)(), r)
        return
    if kind == "other":
        same = [i for i in b.floats() if b.values[i].shape == x.shape]
        b.add("write_other", r, dice.pick(same), how=dice.pick(["add", "add", "alpha", "mul", "copy", "part", "out"]))
        return
    constants: Constants = {"number": dice.number()}
    if dice.chance(0.4) and x.dim() > 1:
        constants["path"] = b.tensor(dice.gamma((x.shape[1], *[1] * (x.dim() - 2)), b.dtype))
    b.add("write", r, how=dice.pick(list(WRITES)), **constants)
