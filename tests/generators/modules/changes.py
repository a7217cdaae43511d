"""Changes to a finished network of steps: tied parameters, second names, hooks, memory formats, and the like.

Each change keeps the shapes. So the network runs as before, if perhaps to other values.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from generators.modules.builder import Builder
from generators.modules.hooks import add_hook


def _owners(net: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    return [
        (module, name, p)
        for module in net.modules()
        if not isinstance(module, (nn.RNNBase, parametrize.ParametrizationList))
        for name, p in module.named_parameters(recurse=False)
    ]


def _leaves(net: nn.Module) -> list[nn.Module]:
    kinds = (nn.modules.batchnorm._NormBase, nn.modules.conv._ConvNd, nn.Linear)
    return [module for module in net.modules() if isinstance(module, kinds)]


def tie(b: Builder) -> str:
    """One Parameter in two places."""
    found = b.dice.shuffled(_owners(b.net))
    for owner, name, p in found:
        for other, second, q in found:
            if p is not q and p.shape == q.shape and p.dtype == q.dtype:
                setattr(other, second, p)
                return f"tied {name} of {type(owner).__name__} and {second} of {type(other).__name__}"
    return ""


def tie_storage(b: Builder) -> str:
    """Two Parameters that share memory: one is a view of the other, perhaps transposed."""
    found = b.dice.shuffled(_owners(b.net))
    for _, name, p in found:
        for other, second, q in found:
            if p is q or p.dtype != q.dtype:
                continue
            if p.shape == q.shape:
                setattr(other, second, nn.Parameter(p.detach().view(p.shape)))
                return f"{second} of {type(other).__name__} is a view of {name}"
            if p.dim() == 2 and p.t().shape == q.shape:
                setattr(other, second, nn.Parameter(p.detach().t()))
                return f"{second} of {type(other).__name__} is {name}, transposed"
    return ""


def tie_buffer(b: Builder) -> str:
    """Two BatchNorms with one running mean."""
    norms = [m for m in _leaves(b.net) if isinstance(m, nn.modules.batchnorm._NormBase)]
    for first in norms:
        for second in norms:
            if first is not second and first.num_features == second.num_features:
                second.running_mean = first.running_mean
                return "two running means are one"
    return ""


def second_name(b: Builder) -> str:
    """A module in the tree under two names."""
    leaves = _leaves(b.net)
    if not leaves:
        return ""
    module = b.dice.pick(leaves)
    if b.dice.chance(0.5):
        b.net.add_module("again", module)
    else:
        b.net.parts["again"] = module
    return f"{type(module).__name__} has a second name"


def plain_list(b: Builder) -> str:
    """A list of modules, or of their methods, that the forward goes through beside the tree."""
    lines = [line for line in b.net.steps if line.name == "call"]
    if not lines:
        return ""
    line = b.dice.pick(lines)
    module = b.net.at(line.constants["path"])
    kind = b.dice.pick(["list", "dict", "tuple", "method", "attribute"])
    if kind == "attribute":
        object.__setattr__(b.net, "_beside", module)
        line.constants["path"] = ("_beside",)
        return "called through an attribute beside the tree"
    held: Any = module.forward if kind == "method" else module
    b.net.beside = {"m": held} if kind == "dict" else (held,) if kind == "tuple" else [held]
    line.constants["path"] = ("beside", "m" if kind == "dict" else 0)
    return f"called through a {kind}"


def hooks(b: Builder) -> str:
    modules = [m for m in b.net.modules() if m is not b.net and not isinstance(m, (nn.ModuleDict, nn.ModuleList))]
    names = []
    for _ in range(b.dice.between(1, 2)):
        if modules:
            module = b.dice.pick(modules) if b.dice.chance(0.9) else b.net
            names.append(f"{add_hook(module, b.dice)} on {type(module).__name__}")
    return "hooks: " + ", ".join(names)


def memory(b: Builder) -> str:
    """Weights that are not contiguous: channels last, transposed, strided, or expanded from one row."""
    kind = b.dice.pick(["channels last", "transposed", "strided", "expanded"])
    if kind == "channels last":
        for module in b.net.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.to(memory_format=torch.channels_last)
        return kind
    for owner, name, p in b.dice.some(_owners(b.net), 0.5):
        if p.dim() < 2 or name not in owner._parameters:
            continue
        value = p.detach()
        if kind == "transposed":
            value = value.transpose(0, -1).contiguous().transpose(0, -1)
        elif kind == "strided":
            value = torch.stack([value, value], -1)[..., 0]
        else:
            value = value[:1].expand(value.shape)
        setattr(owner, name, nn.Parameter(value))
    return kind


def gradients(b: Builder) -> str:
    """Frozen parameters among trained ones."""
    for _, _, p in b.dice.some(_owners(b.net), 0.5):
        p.requires_grad_(False)
    return "some parameters are frozen"


def plain_weight(b: Builder) -> str:
    """A weight that is no Parameter but an ordinary tensor."""
    leaves = [m for m in _leaves(b.net) if isinstance(m._parameters.get("weight"), nn.Parameter)]
    if not leaves:
        return ""
    module = b.dice.pick(leaves)
    weight = module.weight.detach()
    del module.weight
    if b.dice.chance(0.5):
        module.weight = weight
    else:
        module.register_buffer("weight", weight, persistent=b.dice.chance(0.5))
    return f"weight of {type(module).__name__} is no Parameter"


def odd_norm(b: Builder) -> str:
    """A BatchNorm with a missing parameter, or with values at the edge."""
    norms = [m for m in _leaves(b.net) if isinstance(m, nn.modules.batchnorm._NormBase) and m.affine]
    if not norms:
        return ""
    norm = b.dice.pick(norms)
    kinds = ["no bias", "no counter", "no momentum", "zero variance", "large", "no scale", "nan", "float eps"]
    kind = b.dice.pick(kinds)
    with torch.no_grad():
        if kind == "no bias":
            norm.bias = None
        elif kind == "no scale":
            norm.weight = None
        elif kind == "no counter":
            norm.num_batches_tracked = None
        elif kind == "no momentum":
            norm.momentum = None
        elif kind == "zero variance" and norm.running_var is not None:
            norm.running_var[:1] = 0
        elif kind == "large" and norm.running_mean is not None:
            norm.running_mean[:1] = 1e5
        elif kind == "nan" and norm.weight is not None:
            norm.weight[:1] = float("nan")
        else:
            norm.eps = 1
    return f"BatchNorm: {kind}"


def own_forward(b: Builder) -> str:
    """A forward that belongs to the instance, and goes on to that of the class."""
    leaves = _leaves(b.net)
    if not leaves:
        return ""
    module = b.dice.pick(leaves)
    module.forward = types.MethodType(_half, module)
    return f"{type(module).__name__} has a forward of its own"


def _half(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return type(self).forward(self, x * 0.5)


def non_persistent(b: Builder) -> str:
    for module in b.net.modules():
        module._non_persistent_buffers_set.update(name for name in module._buffers if b.dice.chance(0.3))
    return "buffers are not persistent"


CHANGES: list[Callable[[Builder], str]] = [
    *[tie, hooks, plain_list] * 2,
    *[tie_storage, tie_buffer, second_name, memory, gradients, plain_weight, odd_norm, own_forward, non_persistent],
]


def changed(b: Builder) -> list[str]:
    """Change a network in one or two random ways; what was changed."""
    count = b.dice.weighted([(5, 0), (4, 1), (1.5, 2)])
    return [note for note in (b.dice.pick(CHANGES)(b) for _ in range(count)) if note]
