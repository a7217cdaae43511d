"""Traps: references beside the tree, tied parameters, layers that are called more than once."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.dice import Arguments
from generators.modules.norm_types import spread
from generators.modules.traps import CHANNELS, Parts, family

GLOBAL: dict[str, nn.Module] = {}


class Beside(nn.Module):
    """Reaches its layers by ways beside the tree of submodules."""

    shared: Any = None

    def __init__(self, parts: Parts, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.conv, self.norm = parts.pair()
        self.act = parts.activation()
        self.before = parts.dice.chance(0.4)
        norm = self.norm
        conv = self.conv
        if mode == "list":
            self.kept = [self.conv, self.norm]
        elif mode == "dict":
            self.kept = {"conv": self.conv, "norm": self.norm}
        elif mode == "nested":
            self.kept = {"all": [(self.conv, (self.norm,))]}
        elif mode == "bound":
            self.kept = [self.conv.forward, self.norm.forward]
        elif mode == "bound_call":
            self.kept = [self.conv, self.norm.__call__]
        elif mode == "closure":
            self.kept = lambda x: norm(x)
        elif mode == "closure_both":
            self.kept = lambda x: norm(conv(x))
        elif mode == "closure_weight":
            self.kept = lambda x: x * norm.running_var.sum()
        elif mode == "partial":
            self.kept = functools.partial(apply, self.norm)
        elif mode == "weak":
            self.kept = weakref.ref(self.norm)
        elif mode == "object":
            object.__setattr__(self, "kept", self.norm)
        elif mode == "parent":
            self.child = Child(self)
        elif mode == "global":
            GLOBAL["norm"] = self.norm
        elif mode == "global_only":
            GLOBAL["norm"] = self.norm
            del self.norm
        elif mode == "class":
            type(self).shared = [self.norm]
        elif mode == "two_names":
            self.norm2 = self.norm
        elif mode == "conv_two_names":
            self.conv2 = self.conv
        elif mode == "container":
            self.seq = nn.Sequential(self.conv, self.norm)
        elif mode in ("weights_list", "stats_list"):
            self.kept = []
        elif mode == "instance_forward":
            self.forward = self.other_forward
        elif mode == "lambda_forward":
            self.forward = lambda x: self.act(self.norm(self.conv(x)))
        elif mode == "lambda_norm":
            self.norm.forward = lambda x: F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        elif mode == "lambda_conv":
            conv_forward = self.conv.forward
            self.conv.forward = lambda x: conv_forward(x) * 2

    def first(self, x: torch.Tensor) -> torch.Tensor:
        return self.kept[0](x) if self.mode in ("list", "bound", "bound_call") else self.conv(x)

    def second(self, x: torch.Tensor) -> torch.Tensor:
        mode = self.mode
        ways: dict[str, Callable[[], Any]] = {
            "list": lambda: self.kept[1](x),
            "dict": lambda: self.kept["norm"](x),
            "nested": lambda: self.kept["all"][0][1][0](x),
            "bound": lambda: self.kept[1](x),
            "bound_call": lambda: self.kept[1](x),
            "closure": lambda: self.kept(x),
            "closure_both": lambda: self.kept(x) + self.norm(x),
            "closure_weight": lambda: self.kept(self.norm(x)),
            "partial": lambda: self.kept(x),
            "weak": lambda: self.kept()(x),
            "object": lambda: self.kept(x),
            "parent": lambda: self.child(x),
            "global": lambda: GLOBAL["norm"](x),
            "global_only": lambda: GLOBAL["norm"](x),
            "class": lambda: self.shared[0](x),
            "two_names": lambda: self.norm2(x),
            "conv_two_names": lambda: self.norm(self.conv2(x)),
            "container": lambda: self.seq[1](x),
            "weights_list": lambda: self.norm(x) + self.kept[0].sum(),
            "stats_list": lambda: F.batch_norm(x, *self.kept) + self.norm(x),
            "getattr": lambda: getattr(self, "no" + "rm")(x),
            "modules_dict": lambda: self._modules["norm"](x),
            "named": lambda: dict(self.named_modules())["norm"](x),
            "by_children": lambda: next(m for m in self.children() if isinstance(m, type(self.norm)))(x),
            "get_submodule": lambda: self.get_submodule("norm")(x),
            "unbound": lambda: type(self.norm).forward(self.norm, x),
            "static": lambda: nn.BatchNorm2d.forward(self.norm, x),
            "forward_only": lambda: self.norm.forward(x),
        }
        return ways.get(mode, lambda: self.norm(x))()

    def other_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.first(self.second(x)) if self.before else self.second(self.first(x)))


class Child(nn.Module):
    """Keeps its parent without being a cycle in the tree."""

    def __init__(self, parent: Beside) -> None:
        super().__init__()
        self.parent = [parent]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parent[0].norm(x)


def apply(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(x)


MODES = ["list", "dict", "nested", "bound", "bound_call", "closure", "closure_both", "closure_weight", "partial"]
MODES += ["weak", "object", "parent", "global", "global_only", "class", "two_names", "conv_two_names", "container"]
MODES += ["weights_list", "stats_list", "instance_forward", "lambda_forward", "lambda_norm", "lambda_conv", "getattr"]
MODES += ["modules_dict", "named", "by_children", "get_submodule", "unbound", "static", "forward_only"]


def beside(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    model, arguments = parts.done(Beside(parts, mode))
    if mode == "weights_list":  # after the change of type, which makes new tensors
        model.kept = [model.conv.weight, model.conv.bias]
    elif mode == "stats_list":
        model.kept = [model.norm.running_mean, model.norm.running_var]
    elif mode == "global_only":
        GLOBAL["norm"].to(parts.dtype).eval()
    return model, arguments


class Tied(nn.Module):
    """Parameters that two layers share, by identity or by memory."""

    def __init__(self, parts: Parts, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.a, self.norm = parts.pair(affine=True)
        self.b, self.norm2 = parts.linear(), parts.norm(affine=True)
        self.a.bias = nn.Parameter(torch.zeros(CHANNELS))
        self.b.bias = nn.Parameter(torch.zeros(CHANNELS))
        if self.a.weight.shape != self.b.weight.shape:
            self.b = type(self.a)(**options(self.a))
        self.act = parts.activation()
        self.head = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.flat = nn.Parameter(torch.randn(CHANNELS * CHANNELS + CHANNELS))
        self.register_buffer("copy", self.a.weight.detach() if mode == "buffer" else torch.zeros(1))

    def knot(self) -> Tied:
        """Tie what the mode says, after the parameters have got their values."""
        a, b, mode = self.a, self.b, self.mode
        if mode == "weight":
            b.weight = a.weight
        elif mode == "bias":
            b.bias = a.bias
        elif mode == "both":
            b.weight, b.bias = a.weight, a.bias
        elif mode == "storage":
            b.weight = nn.Parameter(a.weight.detach())
        elif mode == "storage_bias":
            b.bias = nn.Parameter(a.bias.detach())
        elif mode == "flipped":
            if a.weight.shape[0] == a.weight.shape[1]:
                b.weight = nn.Parameter(a.weight.detach().transpose(0, 1))
        elif mode == "gamma":
            self.norm2.weight = self.norm.weight
        elif mode == "gamma_bias":
            a.bias = self.norm.weight
        elif mode == "beta_bias":
            a.bias = self.norm.bias
        elif mode == "beta_gamma":
            self.norm.bias = self.norm.weight
        elif mode == "stats":
            self.norm2.running_mean, self.norm2.running_var = self.norm.running_mean, self.norm.running_var
        elif mode == "mean_beta":
            self.norm.running_mean = self.norm.bias.detach()
        elif mode == "head_flat":
            self.head.weight = nn.Parameter(self.flat.detach()[: CHANNELS**2].view(CHANNELS, CHANNELS))
            a.bias = nn.Parameter(self.flat.detach()[CHANNELS**2 :])
        elif mode == "buffer":
            self.copy = a.weight.detach()
        elif mode == "plain":
            self.plain = a.weight
        elif mode == "second_param":
            self.second = a.weight
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.a(x)))
        if self.mode in ("flat_bias", "head_flat"):
            x = x + spread(self.flat[-CHANNELS:], x)
        if self.mode == "buffer":
            x = x + self.copy.sum()
        if self.mode == "plain":
            x = x * self.plain.mean()
        if self.mode == "second_param":
            x = x + self.second.flatten()[0]
        x = self.norm2(self.b(x))
        return self.head(x.movedim(1, -1))


def options(module: Any) -> dict[str, Any]:
    names = ["in_channels", "out_channels", "kernel_size", "padding", "groups", "padding_mode"]
    return {name: getattr(module, name) for name in names}


TIES = ["weight", "bias", "both", "storage", "storage_bias", "flipped", "gamma", "gamma_bias", "beta_bias"]
TIES += ["beta_gamma", "stats", "mean_beta", "head_flat", "flat_bias", "buffer", "plain", "second_param"]


def tied(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    model, arguments = parts.done(Tied(parts, mode))
    return model.knot(), arguments


class Again(nn.Module):
    """Layers that are called more than once, in patterns of their own."""

    def __init__(self, parts: Parts, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.conv, self.norm = parts.pair()
        self.conv2, self.norm2 = parts.linear(), parts.norm()
        self.act = parts.activation()

    def forward(self, x: torch.Tensor) -> Any:
        conv, norm, act, conv2, norm2 = self.conv, self.norm, self.act, self.conv2, self.norm2
        patterns: dict[str, Callable[[], Any]] = {
            "conv_two_norms": lambda: norm(conv(x)) + norm2(conv(x)),
            "one_conv_two_norms": lambda: (lambda h: norm(h) + norm2(h))(conv(x)),
            "norm_two_convs": lambda: norm(conv(x)) + norm(conv2(x)),
            "norm_then_two_convs": lambda: (lambda h: conv(h) + conv2(h))(norm(x)),
            "norm_twice": lambda: norm(norm(conv(x))),
            "conv_twice": lambda: norm(conv(conv(x))),
            "pair_twice": lambda: norm(conv(act(norm(conv(x))))),
            "loop": lambda: functools.reduce(lambda h, _: act(norm(conv(h))), range(3), x),
            "siamese": lambda: act(norm(conv(x))) - act(norm(conv(-x))),
            "siamese_tuple": lambda: (norm(conv(x)), norm(conv(x * 2))),
            "same_input": lambda: norm(conv(x)) * norm(conv(x)),
            "norm_both_sides": lambda: norm(conv(norm(x))),
            "conv_both_sides": lambda: conv(norm(conv(x))),
            "unused_result": lambda: (norm(x), norm(conv(x)))[1],
            "unused_conv": lambda: (conv(x), norm(conv(x)))[1],
            "one_used_plain": lambda: conv2(norm(conv(x))) + conv(x),
            "list_comprehension": lambda: torch.stack([norm(conv(x * i)) for i in (1, 2)]).sum(0),
            "norm_shared_other_input": lambda: norm(conv(x)) + conv2(norm(x)),
        }
        return patterns[self.mode]()


CALLS = ["conv_two_norms", "one_conv_two_norms", "norm_two_convs", "norm_then_two_convs", "norm_twice", "conv_twice"]
CALLS += ["pair_twice", "loop", "siamese", "siamese_tuple", "same_input", "norm_both_sides", "conv_both_sides"]
CALLS += ["unused_result", "unused_conv", "one_used_plain", "list_comprehension", "norm_shared_other_input"]


def again(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    return parts.done(Again(parts, mode))


family(MODES, beside, "beside")
family(TIES, tied, "tied")
family(CALLS, again, "again")
