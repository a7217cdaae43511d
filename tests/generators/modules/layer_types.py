"""Layers that override what torch does with a layer: calls, copies, attributes, equality, arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from generators.modules.norm_types import AnyBatchNorm
from generators.modules.traps import Parts


class GuardedNorm(AnyBatchNorm):
    """A BatchNorm whose parameters cannot be replaced."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("weight", "bias") and "sealed" in self.__dict__:
            raise AttributeError(f"{name} is sealed")
        super().__setattr__(name, value)


class PropertyWeight(nn.Conv2d):
    """The weight is computed from another parameter by a property."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1)
        weight = self._parameters.pop("weight")
        self.raw = nn.Parameter(weight.detach().clone())

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        return self.raw * 2

    @weight.setter
    def weight(self, value: Any) -> None:
        self.raw = value


class PropertyBias(nn.Conv2d):
    """There is always a bias, if only a computed one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1, bias=False)
        del self._parameters["bias"]
        self.gain = nn.Parameter(torch.randn(channels))

    @property
    def bias(self) -> torch.Tensor:  # type: ignore[override]
        return self.gain * 0.5


class PropertyEps(AnyBatchNorm):
    @property
    def eps(self) -> float:  # type: ignore[override]
        return 0.1

    @eps.setter
    def eps(self, value: float) -> None:
        """Ignored."""


class OverridesCall(nn.Conv2d):
    """More happens in a call than in forward."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs) * 2


class OverridesNormCall(AnyBatchNorm):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs) + 1


class SharedCopy(AnyBatchNorm):
    """A norm that copies share."""

    def __deepcopy__(self, memo: Any) -> SharedCopy:
        return self


class SharedConv(nn.Conv2d):
    def __deepcopy__(self, memo: Any) -> SharedConv:
        return self


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


class EqualNorm(AnyBatchNorm):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyBatchNorm)

    def __hash__(self) -> int:
        return 1


class ScaledNorm(nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.norm = parts.norm()

    def forward(self, x: torch.Tensor, scale: float = 1.0, mask: Any = None, *, flag: bool = False) -> torch.Tensor:
        return self.norm(input=x) * scale if not flag else self.norm(x)


class ExtraArgumentNorm(AnyBatchNorm):
    """Takes a second argument, as a conditional normalisation does, and adds it."""

    def forward(self, input: torch.Tensor, other: Any = None) -> torch.Tensor:  # noqa: A002
        y = super().forward(input)
        return y if other is None else y + other


class TupleNorm(AnyBatchNorm):
    """Returns a pair."""

    def forward(self, input: torch.Tensor) -> Any:  # noqa: A002
        return super().forward(input), input
