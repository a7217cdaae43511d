"""Index maps, views, pools, activations and sums of networks of steps."""

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
One = Callable[[torch.Tensor, Constants], Any]

VIEWS: dict[str, One] = {
    "transpose": lambda x, k: x.transpose(k["i"], k["j"]),
    "swapaxes": lambda x, k: x.swapaxes(k["i"], k["j"]).contiguous(),
    "permute": lambda x, k: x.permute(k["order"]),
    "movedim": lambda x, k: torch.movedim(x, k["i"], k["j"]),
    "flatten": lambda x, k: x.flatten(k["i"]),
    "reshape_rows": lambda x, k: x.reshape(x.shape[0], -1),
    "reshape_merge": lambda x, k: x.reshape(-1, *x.shape[2:]),
    "view_split": lambda x, k: x.view(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:]),
    "view_fixed": lambda x, k: x.reshape(tuple(reversed(x.shape))),
    "unflatten": lambda x, k: x.unflatten(1, (x.shape[1] // 2, 2)),
    "shuffle": lambda x, k: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    "narrow": lambda x, k: x.narrow(k["i"], 0, max(1, x.shape[k["i"]] - 1)),
    "slice": lambda x, k: x[:, 1:],
    "slice_step": lambda x, k: x[:, ::2],
    "slice_last": lambda x, k: x[..., : max(1, x.shape[-1] - 1)],
    "ellipsis": lambda x, k: x[..., None, :],
    "select": lambda x, k: x.select(k["i"], 0),
    "select_keep": lambda x, k: x[:, [0]],
    "chunk": lambda x, k: x.chunk(2, k["i"])[-1],
    "chunk_cat": lambda x, k: torch.cat(x.chunk(2, 1)[::-1], 1),
    "split": lambda x, k: x.split([1, x.shape[1] - 1], 1)[1],
    "split_sum": lambda x, k: sum(x.split(1, 1)),
    "glu": lambda x, k: F.glu(x, 1),
    "gate": lambda x, k: x.chunk(2, 1)[0] * torch.sigmoid(x.chunk(2, 1)[1]),
    "unbind": lambda x, k: torch.stack(x.unbind(k["i"]), k["j"]),
    "stack": lambda x, k: torch.stack([x, -x], k["i"]),
    "cat_self": lambda x, k: torch.cat([x, x], k["i"]),
    "cat_constant": lambda x, k: torch.cat([x, torch.zeros_like(x[:, :1])], 1),
    "roll": lambda x, k: x.roll(1, k["i"]),
    "roll_flat": lambda x, k: x.roll(1),
    "flip": lambda x, k: x.flip(k["i"]),
    "index_select": lambda x, k: x.index_select(k["i"], torch.tensor([0, x.shape[k["i"]] - 1, 0])),
    "index_list": lambda x, k: x[:, torch.arange(x.shape[1] - 1, -1, -1)],
    "take_along": lambda x, k: torch.take_along_dim(x, torch.zeros_like(x[:, :1], dtype=torch.long), 1),
    "masked": lambda x, k: x.masked_fill(torch.zeros_like(x, dtype=torch.bool), 1.0),
    "expand": lambda x, k: x.unsqueeze(k["i"]).expand(*x.shape[: k["i"]], 2, *x.shape[k["i"] :]),
    "expand_ones": lambda x, k: x.expand(*[2 if n == 1 else -1 for n in x.shape]),
    "repeat": lambda x, k: x.repeat(*[2 if i == k["i"] else 1 for i in range(x.dim())]),
    "repeat_interleave": lambda x, k: x.repeat_interleave(2, k["i"]),
    "tile": lambda x, k: x.tile((2,)),
    "squeeze": lambda x, k: x.squeeze(),
    "squeeze_dim": lambda x, k: x.squeeze(k["i"]),
    "unsqueeze": lambda x, k: x.unsqueeze(k["i"]),
    "unsqueeze_end": lambda x, k: x[..., None],
    "diagonal": lambda x, k: x.diagonal(0, -2, -1),
    "tril": lambda x, k: x.tril(),
    "rot90": lambda x, k: x.rot90(1, (-2, -1)),
    "unfold": lambda x, k: x.unfold(-1, 2, 1),
    "im2col": lambda x, k: F.unfold(x, 2),
    "fold": lambda x, k: F.fold(F.unfold(x, 1), x.shape[-2:], 1),
    "pixel_shuffle": lambda x, k: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x, k: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x, k: F.channel_shuffle(x, 2),
    "as_strided": lambda x, k: x.contiguous().as_strided((x.shape[0], 2), (x.stride(0), 1)),
    "mT": lambda x, k: x.mT,
    "view_as": lambda x, k: x.contiguous().view_as(torch.empty_like(x)),
    "meshgrid": lambda x, k: torch.meshgrid(x[0].flatten(), x[0].flatten(), indexing="ij")[0],
    "contiguous": lambda x, k: x.contiguous(),
    "clone": lambda x, k: x.clone(),
    "channels_last": lambda x, k: x.contiguous(memory_format=torch.channels_last),
    "detach": lambda x, k: x.detach(),
    "alias": lambda x, k: x.view(x.shape),
    "double": lambda x, k: x.double().to(x.dtype),
    "int_index": lambda x, k: x[torch.tensor([1, 0])],
    "scatter": lambda x, k: torch.zeros_like(x).index_copy(1, torch.arange(x.shape[1]), x),
    "select_scatter": lambda x, k: torch.select_scatter(x, x[:, 1], 1, 0),
    "slice_scatter": lambda x, k: torch.slice_scatter(torch.ones_like(x), x[:, 1:], 1, 1),
    "bool_index": lambda x, k: x[x.flatten(1)[:, 0] < 9e9],
    "nonzero": lambda x, k: x[(x.flatten(1)[:, 0] < 9e9).nonzero()[:, 0]],
    "sorted": lambda x, k: x.sort(-1).values,
    "cumsum": lambda x, k: x.cumsum(k["i"]),
    "diff": lambda x, k: x.diff(dim=k["i"]),
}

REDUCTIONS: dict[str, One] = {
    "mean": lambda x, k: x.mean(k["i"]),
    "mean_keep": lambda x, k: x.mean(k["i"], keepdim=True),
    "mean_spatial": lambda x, k: x.mean(tuple(range(2, x.dim()))),
    "mean_all": lambda x, k: x.mean(),
    "sum": lambda x, k: x.sum(k["i"]),
    "amax": lambda x, k: x.amax(k["i"]),
    "max_values": lambda x, k: x.max(k["i"]).values,
    "amin": lambda x, k: x.amin(k["i"], keepdim=True),
    "minus_mean": lambda x, k: x - x.mean(1, keepdim=True),
    "norm": lambda x, k: F.normalize(x, dim=1),
    "softmax": lambda x, k: x.softmax(k["i"]),
    "std": lambda x, k: x.std(k["i"], unbiased=False),
    "logsumexp": lambda x, k: x.logsumexp(k["i"]),
    "prod": lambda x, k: x.prod(k["i"]),
    "squeeze_excite": lambda x, k: x * torch.sigmoid(x.mean(tuple(range(2, x.dim())), keepdim=True)),
}

POINTWISE: dict[str, One] = {
    "relu": lambda x, k: x.relu(),
    "relu6": lambda x, k: F.relu6(x),
    "leaky": lambda x, k: F.leaky_relu(x, k["n"]),
    "prelu": lambda x, k: F.prelu(x, torch.tensor([0.2], dtype=x.dtype)),
    "abs": lambda x, k: x.abs(),
    "sigmoid": lambda x, k: x.sigmoid(),
    "tanh": lambda x, k: torch.tanh(x),
    "gelu": lambda x, k: F.gelu(x),
    "silu": lambda x, k: F.silu(x),
    "swish": lambda x, k: x * torch.sigmoid(x),
    "hardswish": lambda x, k: F.hardswish(x),
    "elu": lambda x, k: F.elu(x),
    "softplus": lambda x, k: F.softplus(x),
    "clamp": lambda x, k: x.clamp(-1, k["n"] + 2),
    "clamp_min": lambda x, k: x.clamp(min=0),
    "maximum": lambda x, k: torch.maximum(x, torch.zeros((), dtype=x.dtype)),
    "maximum_own": lambda x, k: torch.maximum(x, 0.3 * x),
    "where": lambda x, k: torch.where(x > 0, x, k["n"] * x),
    "sin": lambda x, k: x.sin(),
    "exp": lambda x, k: x.clamp(max=3).exp(),
    "dropout": lambda x, k: F.dropout(x, 0.5, training=False),
    "softsign": lambda x, k: F.softsign(x),
    "threshold": lambda x, k: F.threshold(x, 0.0, 0.0),
    "celu": lambda x, k: F.celu(x),
    "rrelu": lambda x, k: F.rrelu(x, training=False),
    "hardtanh": lambda x, k: F.hardtanh(x),
    "nan_to_num": lambda x, k: torch.nan_to_num(x),
}

POOLS: dict[str, One] = {
    "avg1": lambda x, k: F.avg_pool1d(x, 2),
    "avg": lambda x, k: F.avg_pool2d(x, 2, 1),
    "avg_pad": lambda x, k: F.avg_pool2d(x, 3, 1, 1, count_include_pad=k["flag"]),
    "avg_ceil": lambda x, k: F.avg_pool2d(x, 2, 2, ceil_mode=True),
    "avg_divisor": lambda x, k: F.avg_pool2d(x, 2, divisor_override=3),
    "avg3": lambda x, k: F.avg_pool3d(x, 2, 1),
    "max1": lambda x, k: F.max_pool1d(x, 2),
    "max": lambda x, k: F.max_pool2d(x, 2, 1),
    "max_pad": lambda x, k: F.max_pool2d(x, 3, 2, 1),
    "max3": lambda x, k: F.max_pool3d(x, 2, 1),
    "lp": lambda x, k: F.lp_pool2d(x, 2, 2),
    "adaptive": lambda x, k: F.adaptive_avg_pool2d(x, 1),
    "adaptive1": lambda x, k: F.adaptive_avg_pool1d(x, 2),
    "adaptive_odd": lambda x, k: F.adaptive_avg_pool2d(x, (2, 3)),
    "adaptive_max": lambda x, k: F.adaptive_max_pool2d(x, 2),
    "nearest": lambda x, k: F.interpolate(x, scale_factor=2),
    "nearest_exact": lambda x, k: F.interpolate(x, size=(3, 5), mode="nearest-exact"),
    "bilinear": lambda x, k: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=k["flag"]),
    "bicubic": lambda x, k: F.interpolate(x, size=(5, 4), mode="bicubic", align_corners=False),
    "linear1": lambda x, k: F.interpolate(x, scale_factor=2, mode="linear"),
    "area": lambda x, k: F.interpolate(x, size=(2, 2), mode="area"),
    "pad": lambda x, k: F.pad(x, (1, 1)),
    "pad_value": lambda x, k: F.pad(x, (0, 1, 1, 0), value=k["n"]),
    "pad_crop": lambda x, k: F.pad(x, (-1, 0)),
    "pad_channels": lambda x, k: F.pad(x, (0, 0, 0, 0, 1, 1)),
    "reflect": lambda x, k: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "replicate": lambda x, k: F.pad(x, (1, 1), mode="replicate"),
    "circular": lambda x, k: F.pad(x, (1, 0, 0, 1), mode="circular"),
    "grid": lambda x, k: F.grid_sample(x, torch.zeros(x.shape[0], 2, 2, 2, dtype=x.dtype) + 0.3, align_corners=False),
}

TABLES = {"view": VIEWS, "reduction": REDUCTIONS, "pointwise": POINTWISE, "pool": POOLS}
LAYERS: list[Any] = [
    *[nn.ReLU, nn.GELU, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.PReLU, nn.Sigmoid, nn.Hardswish],
    *[lambda: nn.AvgPool2d(2), lambda: nn.MaxPool2d(2, 1), lambda: nn.Upsample(scale_factor=2)],
    lambda: nn.ChannelShuffle(2),
    *[lambda: nn.AdaptiveAvgPool2d(1), lambda: nn.PixelShuffle(2), lambda: nn.ZeroPad2d(1), lambda: nn.Softmax(1)],
    *[lambda: nn.Unflatten(1, (2, -1)), lambda: nn.ReflectionPad2d(1), lambda: nn.LeakyReLU(0.2), nn.Tanh],
]


@step
def passer(net: Net, xs: Tensors, k: Constants) -> Any:
    return TABLES[k["table"]][k["name"]](xs[0], k)


@step
def combine(net: Net, xs: Tensors, k: Constants) -> torch.Tensor:
    """Two registers in one."""
    x, y = xs
    functions: dict[str, Any] = {
        "add": lambda: x + y,
        "sub": lambda: x - y,
        "mul": lambda: x * y,
        "cat": lambda: torch.cat([x, y], 1),
        "cat_last": lambda: torch.cat([y, x], -1),
        "stack": lambda: torch.stack([x, y], 1),
        "max": lambda: torch.maximum(x, y),
        "gate": lambda: x * torch.sigmoid(y),
        "matmul": lambda: x @ y.transpose(-1, -2),
        "broadcast": lambda: x + y.mean(-1, keepdim=True),
        "alpha": lambda: torch.add(x, y, alpha=-0.5),
        "where": lambda: torch.where(x > y, x, y * 2),
        "sum_list": lambda: sum([x, y, x]),
        "div": lambda: x / (y.abs() + 1),
        "lerp": lambda: torch.lerp(x, y, 0.25),
    }
    return functions[k["how"]]()


COMBINE = [*["add"] * 5, *["sub", "mul", "cat"] * 2, "cat_last", "stack", "max", "gate", "matmul", "broadcast", "alpha"]
COMBINE += ["where", "sum_list", "div", "lerp"]


def add_passer(b: Builder) -> None:
    """An index map, a pool, a reduction or an activation."""
    r = b.register()
    if r is None:
        return
    x, dice = b.values[r], b.dice
    if dice.chance(0.12):
        b.call(dice.pick(LAYERS)() if dice.chance(0.9) else nn.Sequential(nn.ReLU(), nn.Identity()), r)
        return
    table = dice.weighted([(6, "view"), (1.5, "reduction"), (3, "pointwise"), (3 if x.dim() > 2 else 0, "pool")])
    axes = range(max(x.dim(), 1))
    constants = {"i": dice.pick(axes), "j": dice.pick(axes), "n": dice.number(), "flag": dice.chance(0.5)}
    if table == "view":
        constants["order"] = tuple(dice.shuffled(axes)) if dice.chance(0.4) else (0, *dice.shuffled(axes[1:]))
    for _ in range(4):  # most of them fit few shapes
        if b.add("passer", r, table=table, name=dice.pick(list(TABLES[table])), **constants) is not None:
            return


def add_combination(b: Builder) -> None:
    """A sum, product or concatenation of two registers, of the same shape where there are two."""
    r = b.register()
    if r is None:
        return
    same = [i for i in b.floats() if b.values[i].shape == b.values[r].shape]
    other = b.dice.pick(same if b.dice.chance(0.8) else b.floats())
    b.add("combine", *b.dice.shuffled([r, other]), how=b.dice.pick(COMBINE))
