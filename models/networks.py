"""The two networks whose trained weights lie in this folder, as PyTorch modules.

Both are LeNet with batch normalisation after every convolution and every hidden linear layer, as in
*Dive into Deep Learning*, section 8.5. They differ only in how the normalisation is spelled: `bnlenet`
uses PyTorch's own layers, `bnlenet_handwritten` a module of elementary tensor operations, the way
BatchNorm reaches converters from custom code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

IMAGE_SIZE = 28
CLASSES = 10


class HandwrittenBatchNorm(nn.Module):
    """Batch normalisation over axis 1, spelled in elementary operations.

    `y = (x - mean) / sqrt(var + eps) * gamma + beta`, with the statistics of the batch in training mode
    and their running averages in eval mode. The variance is the biased one in both.

    The parameters `gamma`, `beta` and the buffers `mean`, `var` have shape (1, C, 1, ..., 1) with as many
    axes as the input (`rank`), so that they broadcast without a reshape in the exported graph.
    """

    def __init__(self, channels: int, rank: int, eps: float = 1e-8, momentum: float = 0.1) -> None:
        super().__init__()
        shape = (1, channels, *(1,) * (rank - 2))
        self.eps = eps
        self.momentum = momentum
        self.reduced_axes = [axis for axis in range(rank) if axis != 1]
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.mean, self.var
        if self.training:
            mean = x.mean(self.reduced_axes, keepdim=True)
            var = x.var(self.reduced_axes, correction=0, keepdim=True)
            self.mean.lerp_(mean.detach(), self.momentum)
            self.var.lerp_(var.detach(), self.momentum)
        return (x - mean) / torch.sqrt(var + self.eps) * self.gamma + self.beta


def bnlenet() -> nn.Sequential:
    """(N, 1, 28, 28) images to (N, 10) logits, with PyTorch's BatchNorm layers."""
    return _lenet(nn.BatchNorm2d, nn.BatchNorm1d)


def bnlenet_handwritten() -> nn.Sequential:
    """The same network with `HandwrittenBatchNorm` in place of PyTorch's layers."""
    return _lenet(
        lambda channels: HandwrittenBatchNorm(channels, rank=4),
        lambda channels: HandwrittenBatchNorm(channels, rank=2),
    )


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {"bnlenet": bnlenet, "bnlenet_handwritten": bnlenet_handwritten}


def _lenet(norm_of_maps: Callable[[int], nn.Module], norm_of_vectors: Callable[[int], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, kernel_size=5),
            norm1=norm_of_maps(6),
            act1=nn.Sigmoid(),
            pool1=nn.AvgPool2d(kernel_size=2, stride=2),
            conv2=nn.Conv2d(6, 16, kernel_size=5),
            norm2=norm_of_maps(16),
            act2=nn.Sigmoid(),
            pool2=nn.AvgPool2d(kernel_size=2, stride=2),
            flatten=nn.Flatten(),
            linear1=nn.Linear(16 * 4 * 4, 120),
            norm3=norm_of_vectors(120),
            act3=nn.Sigmoid(),
            linear2=nn.Linear(120, 84),
            norm4=norm_of_vectors(84),
            act4=nn.Sigmoid(),
            linear3=nn.Linear(84, CLASSES),
        )
    )
