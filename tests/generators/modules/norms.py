"""Normalisations and affine maps of networks of steps: as modules, as functions, and written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.builder import Builder
from generators.modules.net import Net, step
from generators.modules.norm_types import OWN_NORMS

PLAIN = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
Tensors = list[torch.Tensor]
Constants = dict[str, Any]


@step
def batch_norm(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    weight = net.at(k["weight"]) if k["weight"] else None
    bias = net.at(k["bias"]) if k["bias"] else None
    return F.batch_norm(xs[0], net.at(k["mean"]), net.at(k["var"]), weight, bias, False, 0.1, k["eps"])


@step
def written(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    """A BatchNorm in one of its spellings, over the axis that the shape of the constants says."""
    shape = k["shape"]
    mean, var, weight, bias = (net.at(k[name]).reshape(shape) for name in ("mean", "var", "weight", "bias"))
    x, eps, spelling = xs[0], k["eps"], k["spelling"]
    if spelling == 0:
        return (x - mean) / (var + eps).sqrt() * weight + bias
    if spelling == 1:
        return (x - mean) * torch.rsqrt(var + eps) * weight + bias
    if spelling == 2:
        scale = weight / torch.sqrt(var + eps)
        return x * scale + (bias - mean * scale)
    if spelling == 3:
        return bias + weight * ((x - mean) / torch.pow(var + eps, 0.5))
    if spelling == 4:
        return torch.addcmul(bias, x - mean, weight * (var + eps).rsqrt())
    if spelling == 5:
        return -((mean - x).div((var + eps).sqrt())) * weight - (-bias)
    if spelling == 6:
        return torch.addcdiv(bias, (x - mean) * weight, (var + eps).sqrt())
    return (x - mean).mul_((var + eps).rsqrt()).mul_(weight).add_(bias)


@step
def link(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    """One affine operation by a constant, which may be a tensor of the network or a number."""
    x, spelling = xs[0], k["spelling"]
    c = net.at(k["path"]) if k.get("path") else k["number"]
    if k.get("shape") is not None and isinstance(c, torch.Tensor):
        c = c.view(k["shape"])
    functions: dict[str, Any] = {
        "mul": lambda: x * c,
        "rmul": lambda: c * x,
        "add": lambda: x + c,
        "radd": lambda: c + x,
        "sub": lambda: x - c,
        "rsub": lambda: c - x,
        "div": lambda: x / (c * c + 0.5),
        "neg": lambda: -x,
        "add_alpha": lambda: torch.add(x, c, alpha=2),
        "sub_alpha": lambda: torch.sub(x, c, alpha=-1.5),
        "radd_alpha": lambda: torch.add(torch.as_tensor(c, dtype=x.dtype), x, alpha=3),
        "rsub_alpha": lambda: torch.rsub(x, c, alpha=0.5),
        "double": lambda: x + x,
        "own": lambda: x + x * c,
        "lerp": lambda: torch.lerp(x, torch.as_tensor(c, dtype=x.dtype).expand_as(x), 0.3),
        "addcmul": lambda: torch.addcmul(x, torch.as_tensor(c, dtype=x.dtype), torch.ones_like(x), value=0.7),
        "square": lambda: x * x,
        "where": lambda: torch.where(torch.ones_like(x, dtype=torch.bool), x * c, x),
        "divided": lambda: c / (x * x + 1),
        "floats": lambda: x.mul(c).sub(c).true_divide(1.5),
        "positive": lambda: torch.positive(x) * c,
        "foreach": lambda: torch._foreach_mul([x], 1.5)[0],
        "sum_of_three": lambda: sum([x, x * 0.5, torch.as_tensor(c, dtype=x.dtype)]),
        "std_mean": lambda: (x - x.mean()) * c,
        "one_minus": lambda: 1 - x,
        "scaled_by_size": lambda: x * x.shape[1] + x.shape[-1],
        "power_one": lambda: x.pow(1) * c,
        "complex": lambda: (x * complex(1, 2)).imag,
        "exact": lambda: x.clone().mul(c).contiguous().add(c),
    }
    return functions[spelling]()


LINKS = [
    *["mul", "rmul", "add", "radd", "sub", "rsub", "div", "neg", "add_alpha", "sub_alpha", "radd_alpha"] * 2,
    *["rsub_alpha", "double", "own", "lerp", "addcmul", "square", "where", "divided", "floats", "positive", "foreach"],
    *["sum_of_three", "std_mean", "one_minus", "scaled_by_size", "power_one", "complex", "exact"],
]


def add_norm(b: Builder) -> None:
    """A normalisation of a register, of any kind."""
    r = b.register((2, 3, 4, 5))
    if r is None:
        return
    x, dice = b.values[r], b.dice
    channels, eps = x.shape[1], dice.pick([1e-5, 1e-5, 1e-3, 1e-8, 0.1])
    kind = dice.weighted(
        [(8, "plain"), (1, "sync"), (4, "own"), (2, "function"), (3, "written"), (1.5, "other"), (0.5, "statistics")]
    )
    if kind == "plain":
        b.call(PLAIN[x.dim()](channels, eps=eps, affine=dice.chance(0.85)), r)
    elif kind == "sync":
        b.call(nn.SyncBatchNorm(channels, eps=eps), r)
    elif kind == "own":
        b.call(dice.pick(OWN_NORMS)(channels), r)
    elif kind == "statistics":
        instance = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}.get(x.dim())
        if instance is not None:
            b.call(instance(channels, affine=dice.chance(0.7), track_running_stats=True), r)
    elif kind == "other":
        add_other_norm(b, r)
    else:
        axis = 1 if kind == "function" or dice.chance(0.7) else dice.between(0, x.dim() - 1)
        n = x.shape[axis]
        weight, bias = dice.gamma((n,), b.dtype), dice.beta((n,), b.dtype)
        paths = {
            "mean": b.tensor(dice.beta((n,), b.dtype), ["buffer", "hidden"]),
            "var": b.tensor(dice.variance((n,), b.dtype), ["buffer", "hidden"]),
            "weight": b.tensor(weight),
            "bias": b.tensor(bias),
        }
        if kind == "function":
            for name in dice.some(["weight", "bias"], 0.1):
                paths[name] = ()
            b.add("batch_norm", r, eps=eps, **paths)
        else:
            shape = tuple(n if i == axis else 1 for i in range(axis * dice.between(0, 1), x.dim()))
            b.add("written", r, shape=shape, eps=eps, spelling=dice.between(0, 7), **paths)


def add_other_norm(b: Builder, r: int) -> None:
    x, dice = b.values[r], b.dice
    channels = x.shape[1]
    options: list[Any] = [
        lambda: nn.LayerNorm(x.shape[-1]),
        lambda: nn.LayerNorm(x.shape[1:]),
        lambda: nn.RMSNorm(x.shape[-1]),
        lambda: nn.GroupNorm(dice.pick([g for g in range(1, channels + 1) if channels % g == 0]), channels),
        lambda: nn.InstanceNorm2d(channels, affine=True),
        lambda: nn.LocalResponseNorm(2),
    ]
    b.call(dice.pick(options)(), r)


def add_link(b: Builder) -> None:
    """One to three affine operations in a row."""
    r = b.register()
    for _ in range(b.dice.between(1, 3)):
        if r is None:
            return
        x, dice = b.values[r], b.dice
        kind = dice.weighted([(5, "axis"), (2, "number"), (1, "scalar"), (0.7, "two axes"), (0.7, "full")])
        constants: Constants = {"number": dice.number()}
        if kind != "number" and x.dim():
            axes = {dice.pick([1, 1, 1, *range(x.dim())]) % x.dim()} if kind == "axis" else set()
            if kind == "two axes":
                axes = {dice.between(0, x.dim() - 1), dice.between(0, x.dim() - 1)}
            if kind == "full":
                axes = set(range(1, x.dim()))
            shape = [x.shape[i] if i in axes else 1 for i in range(x.dim())]
            while kind != "full" and shape and shape[0] == 1 and dice.chance(0.6):
                shape = shape[1:]
            value = dice.gamma(shape, b.dtype)
            constants["path"] = b.tensor(value)
            if dice.chance(0.2):
                constants["shape"] = tuple(shape)
        r = b.add("link", r, spelling=dice.pick(LINKS), **constants)
