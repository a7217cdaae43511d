"""The networks by which books and papers teach batch normalisation, as cases: what becomes of each of their norms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_networks import IMAGES, Code, Formula, lenet

from models.networks import HandwrittenBatchNorm

MAPS, ROWS = (2, 3, 9, 8), (4, 5)


def norm(rank: int, channels: int = 4, **options: bool) -> nn.Module:
    return (nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d)(channels, **options)


def frozen(parameter: str) -> Callable[[int, int], nn.Module]:
    def made(channels: int, rank: int) -> nn.Module:
        layer = norm(rank, channels)
        getattr(layer, parameter).requires_grad_(False)
        return layer

    return made


def only(what: str) -> Callable[[int, int], nn.Module]:
    """Norms that subtract the mean and divide by one, or divide by the deviation and subtract nothing."""

    def made(channels: int, rank: int) -> nn.Module:
        layer = norm(rank, channels)
        layer.only = what
        return layer

    return made


def mlp(body: Callable[[Code, Tensor], Tensor]) -> Code:
    generator = torch.Generator().manual_seed(0)
    shapes = {"w1": (5, 4), "b1": (4,), "w2": (4, 3), "b2": (3,)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return Code(body, norm=norm(2), **weights)


# Every row: the module, the shape of its input, and what becomes of its sites.
BACK = "backward"
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "BNLeNet": (lenet, IMAGES, [BACK] * 4),
    "BNLeNet, lazy layers": (lambda: lenet(lazy=True), IMAGES, [BACK] * 4),
    "BNLeNet, no bias in convs": (lambda: lenet(conv_bias=False), IMAGES, [BACK] * 4),
    "BNLeNet, no bias in linears": (lambda: lenet(linear_bias=False), IMAGES, [BACK] * 4),
    "BNLeNet, no bias at all": (lambda: lenet(conv_bias=False, linear_bias=False), IMAGES, [BACK] * 4),
    **{f"BNLeNet without norm {n}": (lambda n=n: lenet(without=n), IMAGES, [BACK] * 3) for n in (1, 2, 3, 4)},
    "BNLeNet, affine=False": (lambda: lenet(norm=lambda c, r: norm(r, c, affine=False)), IMAGES, [BACK] * 4),
    "BNLeNet, gamma frozen": (lambda: lenet(norm=frozen("weight")), IMAGES, [BACK] * 4),
    "BNLeNet, beta frozen": (lambda: lenet(norm=frozen("bias")), IMAGES, [BACK] * 4),
    "BNLeNet, mean only": (lambda: lenet(norm=only("mean")), IMAGES, [BACK] * 4),
    "BNLeNet, mean only, no bias": (
        lambda: lenet(norm=only("mean"), conv_bias=False, linear_bias=False),
        IMAGES,
        [BACK] * 4,
    ),
    "BNLeNet, variance only": (lambda: lenet(norm=only("variance")), IMAGES, [BACK] * 4),
    "BNLeNet, handwritten, eps 1e-8": (lambda: lenet(norm=HandwrittenBatchNorm), IMAGES, [BACK] * 4),
    "BNLeNet, one formula": (lambda: lenet(norm=Formula), IMAGES, [BACK] * 4),
    "MLP, BN before the activation": (
        lambda: mlp(lambda m, x: torch.sigmoid(m.norm(x @ m.w1 + m.b1)) @ m.w2 + m.b2),
        ROWS,
        [BACK],
    ),
    "MLP, BN after the activation": (
        lambda: mlp(lambda m, x: m.norm(torch.sigmoid(x @ m.w1 + m.b1)) @ m.w2 + m.b2),
        ROWS,
        ["forward"],
    ),
    "conv, BN, ReLU": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU()), MAPS, [BACK]),
    "conv, ReLU, BN, conv": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), norm(4), nn.Conv2d(4, 2, 3)),
        MAPS,
        ["forward"],
    ),
    "BN, conv, sigmoid": (lambda: nn.Sequential(norm(4, 3), nn.Conv2d(3, 2, 3), nn.Sigmoid()), MAPS, ["forward"]),
    "SyncBatchNorm": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)), MAPS, [BACK]),
    "width 1": (lambda: nn.Sequential(nn.Conv2d(3, 1, 3), norm(4, 1)), MAPS, [BACK]),
    "Conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (2, 3, 9), [BACK]),
    "Conv3d": (lambda: nn.Sequential(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4)), (2, 3, 4, 5, 6), [BACK]),
    "ConvTranspose2d, groups, stride": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), norm(4, 6)),
        (2, 4, 5, 6),
        [BACK],
    ),
    "ConvTranspose2d, depthwise": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=4, bias=False), norm(4)),
        (2, 4, 5, 6),
        [BACK],
    ),
    "ConvTranspose2d, C_in = C_out": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3), norm(4)),
        (2, 4, 5, 6),
        [BACK],
    ),
    "ConvTranspose1d": (lambda: nn.Sequential(nn.ConvTranspose1d(4, 4, 3), norm(3)), (2, 4, 9), [BACK]),
    "InstanceNorm and GroupNorm": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)),
        MAPS,
        [],
    ),
    "scalar weights in a chain of calls": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), Formula(4)),
        MAPS,
        [BACK, BACK],
    ),
}
