"""Steps whose own Python reads the layers of the network: their attributes, their types, their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from generators.modules.builder import Builder
from generators.modules.net import Net, step

Tensors = list[torch.Tensor]
Constants = dict[str, Any]


def _count(net: nn.Module, kind: type) -> int:
    return sum(isinstance(module, kind) for module in net.modules())


# Of the network, a layer and a tensor: another tensor. Numbers are kept small, so that outputs stay bounded.
READS: dict[str, Callable[[Net, Any, torch.Tensor], Any]] = {
    "num_features": lambda net, m, x: x * (m.num_features / 4),
    "eps": lambda net, m, x: x * (m.eps * 1e4),
    "eps_default": lambda net, m, x: x * (1 + getattr(m, "eps", 0.5)),
    "features_default": lambda net, m, x: x + getattr(m, "num_features", -1),
    "is_norm": lambda net, m, x: x * (2.0 if isinstance(m, _NormBase) else 0.5),
    "is_identity": lambda net, m, x: x * (2.0 if isinstance(m, nn.Identity) else 0.5),
    "class_name": lambda net, m, x: x + len(type(m).__name__) * 0.1,
    "bias_is_none": lambda net, m, x: x + (1.0 if m.bias is None else 0.0),
    "bias_default": lambda net, m, x: x + (1.0 if getattr(m, "bias", None) is None else 0.0),
    "bias_sum": lambda net, m, x: x + (0.0 if m.bias is None else m.bias.sum()),
    "weight_shape": lambda net, m, x: x * (m.weight.shape[0] / 4),
    "weight_numel": lambda net, m, x: x + m.weight.numel() * 0.01,
    "weight_sum": lambda net, m, x: x + m.weight.sum(),
    "weight_norm": lambda net, m, x: x * m.weight.norm(),
    "weight_mul": lambda net, m, x: x * m.weight.flatten()[0],
    "weight_dtype": lambda net, m, x: x.to(m.weight.dtype),
    "weight_stride": lambda net, m, x: x + m.weight.stride(0) * 0.01,
    "weight_detached": lambda net, m, x: x + m.weight.detach().mean(),
    "weight_data": lambda net, m, x: x + m.weight.data.flatten()[0],
    "weight_grad": lambda net, m, x: x + (1.0 if m.weight.requires_grad else 2.0),
    "mean_sum": lambda net, m, x: x + m.running_mean.sum(),
    "var_sum": lambda net, m, x: x * m.running_var.mean().sqrt(),
    "affine": lambda net, m, x: x * (2.0 if m.affine else 3.0),
    "momentum": lambda net, m, x: x + m.momentum,
    "training": lambda net, m, x: x + (1.0 if m.training else 2.0),
    "parameters": lambda net, m, x: x + len(list(net.parameters())) * 0.1,
    "buffers": lambda net, m, x: x + len(list(net.buffers())) * 0.1,
    "state_dict": lambda net, m, x: x + len(net.state_dict()) * 0.1,
    "numel": lambda net, m, x: x + sum(p.numel() for p in net.parameters()) * 0.001,
    "modules": lambda net, m, x: x + len(list(net.modules())) * 0.1,
    "norms": lambda net, m, x: x * (1 + 0.1 * _count(net, _NormBase)),
    "regularised": lambda net, m, x: x + sum(p.square().sum() for p in net.parameters()) * 0.01,
    "decay": lambda net, m, x: x + sum(p.sum() for name, p in net.named_parameters() if name.endswith("bias")),
    "buffer_sum": lambda net, m, x: x + sum(b.sum() for b in net.buffers() if b.is_floating_point()) * 0.1,
    "out_channels": lambda net, m, x: x * (m.out_channels / 4),
    "in_features": lambda net, m, x: x * (m.in_features / 4),
    "dict_bias": lambda net, m, x: x + (1.0 if m._parameters["bias"] is None else 0.0),
    "vars": lambda net, m, x: x + len(vars(m)) * 0.1,
    "own_parameters": lambda net, m, x: x + len(list(m.parameters())) * 0.1,
    "own_children": lambda net, m, x: x + len(list(m.children())) * 0.1,
    "repr": lambda net, m, x: x + len(repr(m)) * 0.01,
    "hasattr": lambda net, m, x: x * (2.0 if hasattr(m, "running_mean") else 0.5),
    "callable": lambda net, m, x: m(x) if hasattr(m, "running_mean") else x,
    "again": lambda net, m, x: m(x),
    "forward": lambda net, m, x: m.forward(x),
    "weight_as_filter": lambda net, m, x: x @ m.weight.flatten(1).t(),
    "weight_gram": lambda net, m, x: x + (m.weight.flatten(1) @ m.weight.flatten(1).t()).mean(),
    "is_same": lambda net, m, x: x + sum(m is other for other in net.modules()),
    "same_weight": lambda net, m, x: x + sum(m.weight is p for p in net.parameters()),
    "find": lambda net, m, x: next(module for module in net.modules() if isinstance(module, nn.Conv2d))(x),
    "find_norm": lambda net, m, x: next(module for module in net.modules() if isinstance(module, _NormBase))(x),
    "all_norms": lambda net, m, x: _each(net, x),
    "weight_scale": lambda net, m, x: x / (1 + m.weight.abs().max()),
    "weight_item": lambda net, m, x: x * m.weight.shape.numel(),
    "bias_size": lambda net, m, x: x + m.bias.shape[0] * 0.1,
    "add_bias": lambda net, m, x: x + m.bias.view(-1, *[1] * (x.dim() - 2)),
    "norm_by_hand": lambda net, m, x: nn.functional.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias),
    "norm_half_by_hand": lambda net, m, x: nn.functional.batch_norm(x, m.running_mean, m.running_var),
}


def _each(net: Net, x: torch.Tensor) -> torch.Tensor:
    for module in net.modules():
        if isinstance(module, _NormBase) and module.num_features == x.shape[1]:
            x = module(x)
    return x


@step
def read(net: Net, xs: Tensors, k: Constants) -> Any:
    return READS[k["what"]](net, net.at(k["path"]), xs[0])


@step
def parameter(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    """A parameter, or a function of one, as a value: an output of the network, perhaps."""
    found = net.at(k["path"])
    value = getattr(found, k["name"]) if isinstance(found, nn.Module) else found
    if k["how"] == "sum":
        return value.square().sum()
    if k["how"] == "scaled":
        return value * 2
    if k["how"] == "flat":
        return value.flatten()
    return value


def add_reading(b: Builder) -> None:
    """A step that looks at a layer of the network beside its input."""
    r = b.register()
    if r is None or not b.paths:
        return
    dice = b.dice
    path = dice.pick(b.paths[-4:])
    if dice.chance(0.2):
        name = dice.pick(["weight", "weight", "bias", "running_mean", "running_var"])
        b.add("parameter", path=path, name=name, how=dice.pick(["plain", "sum", "scaled", "flat"]))
        return
    for _ in range(3):  # most readings fit few kinds of layers
        if b.add("read", r, path=path, what=dice.pick(list(READS))) is not None:
            return
