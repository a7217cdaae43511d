"""Rare steps of networks: operators by their aten names, custom ones, slices of parameters, numbers from tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.builder import Builder
from generators.modules.net import Net, step

Tensors = list[torch.Tensor]
Constants = dict[str, Any]


@torch.library.custom_op("generators::twist", mutates_args=())
def twist(x: torch.Tensor, amount: float) -> torch.Tensor:
    """An operator whose meaning no one but its author knows."""
    return x.flip(-1) * amount


@twist.register_fake
def _(x: torch.Tensor, amount: float) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("generators::spoil", mutates_args=("x",))
def spoil(x: torch.Tensor) -> None:
    """Writes into its input."""
    x.mul_(0.5)


@spoil.register_fake
def _(x: torch.Tensor) -> None:
    return None


class Reverse(torch.autograd.Function):
    """The identity, with a derivative of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return -0.5 * grad


def _spoiled(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    spoil(y)
    return y + x


def _straight(x: torch.Tensor) -> torch.Tensor:
    return x + (x.sign() - x).detach()


RARE: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "twist": lambda x, w: twist(x, 0.5),
    "spoil": lambda x, w: _spoiled(x),
    "spoil_input": lambda x, w: (spoil(x), x)[1],
    "reverse": lambda x, w: Reverse.apply(x),
    "straight": lambda x, w: _straight(x),
    "item": lambda x, w: x * w.flatten()[0].item(),
    "float": lambda x, w: x + float(w.flatten()[-1]),
    "tolist": lambda x, w: x * w.flatten().tolist()[0],
    "sqrt_size": lambda x, w: x / math.sqrt(x.size(-1)),
    "by_batch": lambda x, w: x / x.shape[0] + x.shape[0],
    "size_tensor": lambda x, w: x * torch.tensor(x.shape[1], dtype=x.dtype),
    "sdpa": lambda x, w: F.scaled_dot_product_attention(x, x, x),
    "fft": lambda x, w: torch.fft.rfft(x).abs(),
    "fft_back": lambda x, w: torch.fft.irfft(torch.fft.rfft(x), n=x.shape[-1]),
    "addbmm": lambda x, w: torch.addbmm(x[0, :1, :1], x, x.transpose(1, 2)),
    "aten_add": lambda x, w: torch.ops.aten.add.Tensor(x, w.flatten()[0], alpha=2),
    "aten_mul_scalar": lambda x, w: torch.ops.aten.mul.Scalar(x, 0.5),
    "aten_rsub": lambda x, w: torch.ops.aten.rsub.Scalar(x, 2.0, 0.5),
    "aten_rsub_tensor": lambda x, w: torch.ops.aten.rsub.Tensor(x, w.flatten()[:1], alpha=2),
    "aten_div_mode": lambda x, w: torch.div(x, 0.3, rounding_mode="floor"),
    "aten_addcdiv": lambda x, w: torch.addcdiv(x, x, torch.full_like(x, 2.0), value=0.5),
    "remainder": lambda x, w: torch.remainder(x, 1.5),
    "float_power": lambda x, w: torch.float_power(x.abs(), 2).to(x.dtype),
    "heaviside": lambda x, w: x * (x > 0),
    "ldexp": lambda x, w: torch.ldexp(x, torch.tensor(1)),
    "hypot": lambda x, w: torch.hypot(x, x),
    "logit": lambda x, w: torch.logit(x.sigmoid(), eps=1e-3),
    "xlogy": lambda x, w: torch.special.xlogy(x, w.flatten()[0].abs() + 0.5),
    "einsum_diag": lambda x, w: torch.einsum("bii->bi", x),
    "einsum_trace": lambda x, w: torch.einsum("bij,bij->b", x, x),
    "einsum_scale": lambda x, w: torch.einsum("bc...,c->bc...", x, w),
    "einsum_sum": lambda x, w: torch.einsum("bc...,c->b...", x, w),
    "einsum_outer": lambda x, w: torch.einsum("bc...,k->bkc...", x, w),
    "conv_flip": lambda x, w: F.conv1d(x, w.view(1, -1, 1).flip(1)),
    "where_param": lambda x, w: torch.where(x > 0, x, w.view(-1, *[1] * (x.dim() - 2))),
    "maximum_param": lambda x, w: torch.maximum(x, w.view(-1, *[1] * (x.dim() - 2))),
    "prelu_param": lambda x, w: F.prelu(x, w),
    "linear_diag": lambda x, w: F.linear(x.movedim(1, -1), torch.diag(w)).movedim(-1, 1),
    "layer_norm_param": lambda x, w: F.layer_norm(x.movedim(1, -1), w.shape, w, w * 2).movedim(-1, 1),
    "group_norm_param": lambda x, w: F.group_norm(x, 1, w, None),
    "instance_stats": lambda x, w: F.instance_norm(x, w, w.abs() + 0.5, w, None, use_input_stats=False),
    "batch_stats": lambda x, w: F.batch_norm(x, None, None, w, None, training=True),
    "native": lambda x, w: torch.native_batch_norm(x, w, None, w * 0.1, w.abs() + 0.5, False, 0.1, 1e-5)[0],
    "aten_norm": lambda x, w: torch.ops.aten.batch_norm.default(x, w, w, w, w.abs() + 0.5, False, 0.1, 1e-5, True),
    "legit": lambda x, w: torch.ops.aten._native_batch_norm_legit_no_training.default(
        x, w, w, w, w.abs() + 0.5, 0.1, 1e-3
    )[0],
    "computed_norm": lambda x, w: F.batch_norm(x, torch.zeros_like(w), torch.ones_like(w), torch.exp(w), -w),
    "dynamic_norm": lambda x, w: F.batch_norm(x, x.transpose(0, 1).flatten(1).mean(1), w.abs() + 0.5, w, w),
    "stats_of_batch": lambda x, w: (x - x.mean(0)) / (x.var(0, unbiased=False) + 0.1).sqrt(),
    "expand_scale": lambda x, w: x[:, :1] * w.view(-1, *[1] * (x.dim() - 2)),
    "rank_up": lambda x, w: x * w.view(-1, *[1] * x.dim()),
    "sliced_param": lambda x, w: x[:, :2] * w[:2].view(-1, *[1] * (x.dim() - 2)),
    "gathered_param": lambda x, w: x * w[torch.arange(w.shape[0] - 1, -1, -1)].view(-1, *[1] * (x.dim() - 2)),
    "softmax_param": lambda x, w: x * w.softmax(0).view(-1, *[1] * (x.dim() - 2)),
    "repeated_param": lambda x, w: torch.cat([x, x], 1) * w.repeat(2).view(-1, *[1] * (x.dim() - 2)),
    "cumsum_param": lambda x, w: x + w.cumsum(0).view(-1, *[1] * (x.dim() - 2)),
    "outer_param": lambda x, w: x.movedim(1, -1) @ torch.outer(w, w),
    "rounded_param": lambda x, w: x * (w * 4).round().div(4).view(-1, *[1] * (x.dim() - 2)),
    "half_param": lambda x, w: x * w.half().to(x.dtype).view(-1, *[1] * (x.dim() - 2)),
    "int_tensor": lambda x, w: x * torch.arange(1, w.shape[0] + 1).view(-1, *[1] * (x.dim() - 2)),
    "conv_own_kernel": lambda x, w: F.conv1d(x, x[:1]),
    "scan": lambda x, w: torch.cumprod(x.clamp(-1, 1), -1),
    "unfold_matmul": lambda x, w: w @ F.unfold(x, 1),
    "sum_scaled": lambda x, w: (x * w.view(-1, *[1] * (x.dim() - 2))).sum(1),
    "mean_scaled": lambda x, w: (x + w.view(-1, *[1] * (x.dim() - 2))).mean(1, keepdim=True),
    "flat_scale": lambda x, w: x.flatten(1) * w.repeat_interleave(x[0, 0].numel()),
    "flat_linear": lambda x, w: F.linear(x.flatten(1), w.repeat_interleave(x[0, 0].numel())[None]),
    "to_ints": lambda x, w: (x * 4).int().to(x.dtype),
    "triangular": lambda x, w: x @ torch.tril(torch.ones(x.shape[-1], x.shape[-1], dtype=x.dtype)),
}


class SlimConv(nn.Module):
    """A convolution of which parts are used: one part of the kernel here, another one there."""

    def __init__(self, channels: int, way: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, 4, 1)
        self.norm = nn.BatchNorm1d(4)
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w, b, norm = self.conv.weight, self.conv.bias, self.norm
        if self.way == 0:
            return norm(torch.cat([F.conv1d(x, w[:2], b[:2]), F.conv1d(x, w[2:])], 1))
        if self.way == 1:
            stats = (norm.running_mean[:2], norm.running_var[:2], norm.weight[:2], norm.bias[:2])
            return F.batch_norm(F.conv1d(x, w[:2]), *stats, False, 0.1, norm.eps)
        if self.way == 2:
            return norm(F.conv1d(x, w, b)) + F.conv1d(x, w[:1])
        if self.way == 3:
            return norm(torch.cat([self.conv(x)[:, :2], F.conv1d(x, w.flip(0))[:, :2]], 1))
        if self.way == 4:
            quantised = (w * 8).round() / 8
            return norm(F.conv1d(x, w + (quantised - w).detach(), b))
        zero = torch.zeros(4, dtype=torch.int)
        low = torch.fake_quantize_per_channel_affine(w, torch.full((4,), 0.1), zero, 0, -8, 7)
        return norm(F.conv1d(x, low, b))


@step
def rare(net: Net, xs: Tensors, k: Constants) -> Any:
    return RARE[k["what"]](xs[0], net.at(k["w"]))


def add_rare(b: Builder) -> None:
    """One of the rare steps, or a layer that uses parts of its parameters."""
    r = b.register((2, 3, 4, 5))
    if r is None:
        return
    x, dice = b.values[r], b.dice
    if x.dim() == 3 and dice.chance(0.3):
        b.call(SlimConv(x.shape[1], dice.between(0, 5)), r)
        return
    w = b.tensor(dice.gamma((x.shape[1],), b.dtype))
    for _ in range(4):
        if b.add("rare", r, what=dice.pick(list(RARE)), w=w) is not None:
            return
