"""Traps: wrappers of torch around a network, weights that are functions of parameters, types that differ."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from generators.modules.dice import Arguments
from generators.modules.norm_types import FrozenBatchNorm, spread
from generators.modules.traps import CHANNELS, Parts, family, trap
from generators.modules.traps.reading import Pair


@trap
def wrapped(parts: Parts) -> tuple[nn.Module, Arguments]:
    """A module that one of torch's tools has made of another one."""
    dice = parts.dice
    model: Any = nn.Sequential(*parts.pair(), parts.activation(), parts.norm(), parts.linear())
    if dice.chance(0.5):
        model = Pair(parts)
    model, (args, _) = parts.done(model)
    kinds = ["fx", "program", "unflattened", "script", "jit trace", "compile", "parallel", "average", "sequence"]
    kind = dice.pick(kinds)
    if kind == "fx":
        model = torch.fx.symbolic_trace(model)
    elif kind == "program":
        model = torch.export.export(model, args).module()
    elif kind == "unflattened":
        model = torch.export.unflatten(torch.export.export(model, args))
    elif kind == "script":
        first = model[0] if isinstance(model, nn.Sequential) else model.conv
        model = nn.Sequential(torch.jit.script(first), parts.norm())
        model.to(parts.dtype)
    elif kind == "jit trace":
        model = torch.jit.trace(model, args)
    elif kind == "compile":
        model = torch.compile(model, backend="eager")
    elif kind == "parallel":
        model = nn.DataParallel(model)
    elif kind == "average":
        model = torch.optim.swa_utils.AveragedModel(model)
    else:
        norm = parts.norm().to(parts.dtype)
        model = nn.Sequential(OrderedDict([("a b", model), ("norm", norm), ("1", nn.Identity())]))
    if kind != "program":
        model.eval()
    return model, (args, {})


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def right_inverse(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


class Sym(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)


class Positive(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.softplus(x)


@trap
def parametrized(parts: Parts) -> tuple[nn.Module, Arguments]:
    """Weights, factors and statistics that are functions of other parameters."""
    dice = parts.dice
    parts.padding_mode = "zeros"
    model, arguments = parts.done(Pair(parts))
    conv, norm = model.conv, model.norm
    for _ in range(dice.between(1, 2)):
        kind = dice.pick(["double", "sym", "bias", "gamma", "var", "weight_norm", "spectral", "prune", "prune bias"])
        try:
            if kind == "double":
                parametrize.register_parametrization(conv, "weight", Double())
            elif kind == "sym" and not parts.rank:
                parametrize.register_parametrization(conv, "weight", Sym())
            elif kind == "bias" and conv.bias is not None:
                parametrize.register_parametrization(conv, "bias", Double())
            elif kind == "gamma" and norm.weight is not None:
                parametrize.register_parametrization(norm, "weight", Positive())
            elif kind == "var":
                parametrize.register_parametrization(norm, "running_var", Positive())
            elif kind == "weight_norm":
                parametrizations.weight_norm(conv)
            elif kind == "spectral":
                parametrizations.spectral_norm(conv)
            elif kind == "prune":
                prune.l1_unstructured(conv, "weight", 0.4)
            elif kind == "prune bias" and norm.bias is not None:
                prune.random_unstructured(norm, "bias", 0.5)
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError):
            continue  # two tools on one parameter need not fit
    return model.eval(), arguments


class Mixed(nn.Module):
    """Types that differ between the layers."""

    def __init__(self, parts: Parts, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.conv, self.norm = parts.pair(affine=True)
        self.conv2 = parts.linear()
        self.scale = nn.Parameter(torch.randn(CHANNELS, dtype=torch.float64))
        self.frozen = FrozenBatchNorm(CHANNELS)
        self.ints = torch.tensor([2, 3, -1, 4])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv, norm = self.conv, self.norm
        ways: dict[str, Callable[[], Any]] = {
            "half_conv": lambda: norm(conv(x.half()).float()),
            "bf16_conv": lambda: self.conv2(norm(conv(x.bfloat16()).float())),
            "double_scale": lambda: conv(x) * spread(self.scale, x),
            "double_scale_then_linear": lambda: self.conv2((conv(x) * spread(self.scale, x)).float()),
            "double_norm": lambda: norm(conv(x).double()).float(),
            "zero_dim_double": lambda: conv(x) * self.scale[0],
            "integers": lambda: conv(x) * spread(self.ints, x),
            "integer_chain": lambda: self.conv2((conv(x).int() * 3 + 1).float()),
            "integer_norm": lambda: norm(conv(x).round().float()),
            "bool": lambda: norm(conv((x > 0).float())),
            "frozen_double": lambda: self.frozen(conv(x)),
            "complex": lambda: torch.view_as_real(torch.complex(conv(x), x) * complex(2, 1)).sum(-1),
            "half_norm_input": lambda: norm(conv(x).half().float()),
            "int_division": lambda: self.conv2((conv(x).int() // 2).float()),
            "quantised": lambda: norm(torch.fake_quantize_per_tensor_affine(conv(x), 0.1, 0, -128, 127)),
            "round": lambda: self.conv2(norm(conv(x)).round()),
        }
        return ways[self.mode]()


MIXES = ["half_conv", "bf16_conv", "double_scale", "double_scale_then_linear", "double_norm", "zero_dim_double"]
MIXES += ["integers", "integer_chain", "integer_norm", "bool", "frozen_double", "complex", "half_norm_input"]
MIXES += ["int_division", "quantised", "round"]


def mixed(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    parts.dtype = torch.float32
    model, arguments = parts.done(Mixed(parts, mode))
    model.scale.data = model.scale.data.double()
    if mode == "half_conv":
        model.conv.half()
    if mode == "bf16_conv":
        model.conv.bfloat16()
    if mode == "double_norm":
        model.norm.double()
    if mode == "frozen_double":
        model.frozen.double()
    return model, arguments


family(MIXES, mixed, "mixed")
