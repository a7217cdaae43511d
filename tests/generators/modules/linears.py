"""Linear operators of networks of steps, as modules and as functions of parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from generators.modules.builder import Builder
from generators.modules.dice import Dice
from generators.modules.linear_types import OWN_CONVS, Attention, Recurrent
from generators.modules.net import Net, step

Tensors = list[torch.Tensor]
Constants = dict[str, Any]

CONVS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
TRANSPOSED = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}
FUNCTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


@step
def call(net: Net, xs: Tensors, k: Constants) -> Any:
    return net.at(k["path"])(*xs)


@step
def matmul(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    """The last two axes, or the last one, by a matrix."""
    x, w = xs[0], net.at(k["w"])
    spelling = k["spelling"]
    functions: dict[str, Any] = {
        "at": lambda: x @ w,
        "matmul": lambda: torch.matmul(x, w),
        "linear": lambda: F.linear(x, w.t()),
        "linear_of": lambda: F.linear(x, w.transpose(0, 1).contiguous() * 0.5, torch.ones(w.shape[1], dtype=x.dtype)),
        "einsum": lambda: torch.einsum("...i,io->...o", x, w),
        "left": lambda: w.t() @ x.transpose(-1, -2),
        "tensordot": lambda: torch.tensordot(x, w, dims=1),
        "computed": lambda: x @ torch.softmax(w, 0),
        "scaled": lambda: x @ (w / w.norm()),
        "stacked": lambda: x @ torch.cat([w, w * 2], 1),
        "addmm": lambda: torch.addmm(w[0], x.reshape(-1, x.shape[-1]), w, beta=0.5, alpha=2),
        "mm": lambda: x.reshape(-1, x.shape[-1]).mm(w),
        "mv": lambda: x @ w[:, 0],
        "expanded": lambda: torch.bmm(x, w.expand(x.shape[0], *w.shape)),
        "baddbmm": lambda: torch.baddbmm(w[:1].expand(x.shape[0], 1, w.shape[1]), x, w.expand(x.shape[0], *w.shape)),
        "self": lambda: x.transpose(-1, -2) @ x,
        "outer": lambda: torch.einsum("b...i,io->ob...", x, w),
        "mul_sum": lambda: (x.unsqueeze(-1) * w).sum(-2),
        "bilinear": lambda: F.bilinear(x, x, torch.stack([torch.diag(w[:, 0]), torch.diag(w[:, -1])])),
        "chain": lambda: torch.chain_matmul(x, w, w.t()) if x.dim() == 2 else x @ w @ w.t(),
        "vecdot": lambda: torch.linalg.vecdot(x, w[:, 0].expand_as(x)),
        "multi_dot": lambda: torch.linalg.multi_dot([x, w, w.t()]),
        "kron": lambda: torch.kron(x, w[:1, :2]),
        "cdist": lambda: torch.cdist(x, w.t()),
    }
    return functions[spelling]()


MATMULS = [
    *["at", "matmul", "linear", "einsum", "left", "tensordot", "addmm", "expanded", "baddbmm"] * 3,
    *["linear_of", "computed", "scaled", "stacked", "mm", "mv", "self", "outer", "mul_sum", "bilinear", "chain"],
    *["vecdot", "multi_dot", "kron", "cdist"],
]


@step
def channels(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    """The channel axis by a matrix, in ways that are no convolution."""
    x, w = xs[0], net.at(k["w"])
    functions: dict[str, Any] = {
        "einsum": lambda: torch.einsum("bc...,co->bo...", x, w),
        "flat": lambda: (w.t() @ x.flatten(2)).unflatten(2, x.shape[2:]),
        "last": lambda: torch.movedim(torch.movedim(x, 1, -1) @ w, -1, 1),
        "conv": lambda: FUNCTIONS[x.dim()](x, w.t().reshape(w.shape[1], w.shape[0], *[1] * (x.dim() - 2))),
        "transposed": lambda: F.conv_transpose2d(x, w[:, :, None, None].expand(*w.shape, 2, 2), stride=2),
        "tensordot": lambda: torch.tensordot(x, w, dims=([1], [0])).movedim(-1, 1),
        "depthwise": lambda: FUNCTIONS[x.dim()](x, w[:, :1].reshape(-1, *[1] * (x.dim() - 1)), groups=x.shape[1]),
        "kernel": lambda: F.conv2d(x, torch.einsum("io,h,w->oihw", w, w[0][:2], w[0][:2]), padding=1),
        "ones": lambda: F.conv2d(x, torch.ones(1, x.shape[1], 1, 1, dtype=x.dtype)),
        "batched": lambda: torch.bmm(w.t().unsqueeze(0).expand(x.shape[0], -1, -1), x.flatten(2)),
        "flipped": lambda: F.conv2d(x, w.t().flip(0)[:, :, None, None], bias=w[0]),
    }
    return functions[k["spelling"]]()


CHANNELS = ["einsum", "flat", "last", "conv", "transposed", "tensordot", "depthwise", "kernel", "ones", "batched"]


@step
def other_weight(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    """The weight of a layer in a use of its own, or of its transpose."""
    x, w = xs[0], net.at(k["path"])
    w = w.weight if isinstance(w, nn.Module) else w
    flat = w.flatten(1)
    if k["transposed"]:
        flat = flat.t()
    return torch.movedim(torch.movedim(x, k["axis"], -1) @ flat.t(), -1, k["axis"])


def conv(dice: Dice, x: torch.Tensor) -> nn.Module:
    """A convolution that fits x, of any kind."""
    rank, c_in = x.dim() - 2, x.shape[1]
    transposed = dice.chance(0.25)
    groups = dice.pick([g for g in range(1, c_in + 1) if c_in % g == 0]) if dice.chance(0.4) else 1
    c_out = groups * dice.between(1, max(1, 6 // groups))
    if dice.chance(0.15):
        c_out = c_in
    bias = dice.chance(0.6)
    kernel = tuple(dice.between(1, 3) for _ in range(rank))
    if transposed:
        stride = dice.between(1, 2)
        return TRANSPOSED[x.dim()](
            *(c_in, c_out, kernel, stride),
            padding=dice.between(0, 1),
            output_padding=dice.between(0, stride - 1),
            groups=groups,
            bias=bias,
            dilation=dice.pick([1, 1, 2]),
        )
    if dice.chance(0.2):
        mode = dice.pick(["reflect", "circular", "replicate"])
        options: Constants = {"padding": 1, "padding_mode": mode}
    else:
        options = {"padding": dice.pick([0, 0, 1, 1, "same", "valid"])}
    if options["padding"] != "same":
        options["stride"] = dice.pick([1, 1, 2])
    kind = dice.pick(OWN_CONVS[x.dim()]) if dice.chance(0.2) else CONVS[x.dim()]
    return kind(c_in, c_out, kernel, groups=groups, bias=bias, dilation=dice.pick([1, 1, 2]), **options)


def dressed(dice: Dice, module: nn.Module) -> nn.Module:
    """A layer whose weight is computed from other parameters, by one of torch's tools."""
    tool = dice.pick(["weight", "old", "spectral", "old spectral", "orthogonal", "prune"])
    if tool == "weight":
        return parametrizations.weight_norm(module, dim=dice.pick([0, 0, 1]))
    if tool == "old":
        return nn.utils.weight_norm(module, dim=dice.pick([0, 0, 1, None]))
    if tool == "spectral":
        return parametrizations.spectral_norm(module)
    if tool == "old spectral":
        return nn.utils.spectral_norm(module)
    if tool == "orthogonal":
        return parametrizations.orthogonal(module)
    return prune.random_unstructured(module, "weight", 0.3)


def add_linear(b: Builder) -> None:
    """A linear operator, on a register that fits."""
    kind = b.dice.weighted(
        [(8, "conv"), (4, "linear"), (3, "matmul"), (2, "channels"), (1, "recurrent"), (0.7, "attention"), (1, "tied")]
    )
    r = b.register({"conv": (3, 4, 5), "channels": (3, 4, 5), "recurrent": (3,), "attention": (3,)}.get(kind, ()))
    if r is None:
        return
    x, dice = b.values[r], b.dice
    if kind in ("conv", "linear"):
        outs = dice.pick([1, 2, 3, 4, 5, x.shape[-1] if x.dim() else 1])
        module = conv(dice, x) if kind == "conv" else nn.Linear(x.shape[-1], outs, bias=dice.chance(0.7))
        if dice.chance(0.07):
            module = dressed(dice, module.to(b.dtype))
        b.call(module, r)
    elif kind == "matmul" and x.dim():
        w = b.tensor(dice.normal((x.shape[-1], dice.between(1, 5)), scale=0.7))
        b.add("matmul", r, w=w, spelling=dice.pick(MATMULS))
    elif kind == "channels":
        w = b.tensor(dice.normal((x.shape[1], dice.between(1, 5)), scale=0.7))
        b.add("channels", r, w=w, spelling=dice.pick(CHANNELS))
    elif kind == "recurrent":
        b.call(Recurrent(dice.pick(["LSTM", "GRU", "RNN"]), x.shape[-1], dice), r)
    elif kind == "attention":
        b.call(Attention(x.shape[-1], dice), r)
    elif kind == "tied":
        paths = [path for path in b.paths if isinstance(getattr(b.net.at(path), "weight", None), torch.Tensor)]
        paths = [path for path in paths if b.net.at(path).weight.dim() > 1] + b.tensors
        if paths:
            axis = dice.between(0, max(x.dim() - 1, 0))
            b.add("other_weight", r, path=dice.pick(paths), transposed=dice.chance(0.5), axis=axis)
