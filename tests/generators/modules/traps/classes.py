"""Traps: classes that override what nn.Module does, and attributes that shadow what a fold would use."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from generators.modules.dice import Arguments
from generators.modules.layer_types import (
    EqualNorm,
    ExtraArgumentNorm,
    GuardedNorm,
    Lambda,
    OverridesCall,
    OverridesNormCall,
    PropertyBias,
    PropertyEps,
    PropertyWeight,
    ScaledNorm,
    SharedConv,
    SharedCopy,
    TupleNorm,
)
from generators.modules.norm_types import spread
from generators.modules.traps import CHANNELS, Parts, family
from generators.modules.traps.reading import Pair

T = TypeVar("T")


class Slots(Pair):
    __slots__ = ("extra",)

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.extra = [1, 2]


class Guarded(Pair):
    """Attributes cannot be set once it is built."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.__dict__["sealed"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("sealed") and name != "training":
            raise AttributeError(f"{name} is sealed")
        super().__setattr__(name, value)


class Delegating(Pair):
    """Looks up what it lacks in a child."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("conv"), name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.weight.shape[0]


class Property(Pair):
    """A property with the name of a layer hides it; the layer is in the tree under that name all the same."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._modules["hidden"] = self._modules.pop("norm")

    @property
    def norm(self) -> nn.Module:
        return self._modules["hidden"]


class NoCopy(Pair):
    """Refuses to be copied."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("no copies of this module")


class SelfCopy(Pair):
    """A copy of this module is the module itself."""

    def __deepcopy__(self, memo: Any) -> SelfCopy:
        return self


class NoPickle(Pair):
    def __getstate__(self) -> Any:
        raise TypeError("cannot be pickled")


class Empty(Pair):
    """Is false and has no length, although it has layers."""

    def __len__(self) -> int:
        return 0


class TwoEqual(nn.Module):
    """Two normalisations that compare as equal."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.conv2 = parts.linear(), parts.linear()
        self.norm, self.norm2 = EqualNorm(CHANNELS), EqualNorm(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm2(self.conv2(torch.sigmoid(self.norm(self.conv(x)))))


class Abstract(Pair, abc.ABC):
    @abc.abstractmethod
    def extra(self) -> int:
        """Anything."""


class Concrete(Abstract):
    def extra(self) -> int:
        return 1


class Typed(Pair, Generic[T]):
    """A generic class."""


class Renamed(Pair):
    """Its state dict has other names than its attributes."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        return {f"model.{name}": value for name, value in state.items()} if not args and not kwargs else state

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        return super().load_state_dict({n.removeprefix("model."): v for n, v in state_dict.items()}, *args, **kwargs)


class Extra(Pair):
    def get_extra_state(self) -> Any:
        return {"version": 2}

    def set_extra_state(self, state: Any) -> None:
        """Nothing to restore."""


class LimitedParameters(Pair):
    """Shows some of its parameters alone."""

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return (item for item in super().named_parameters(*args, **kwargs) if "norm" not in item[0])


class NoTrain(Pair):
    """Keeps its layers in evaluation mode whatever it is told, as frozen backbones do."""

    def train(self, mode: bool = True) -> NoTrain:
        return super().train(False)


class Arguments2(nn.Module):
    """A layer that takes more than a tensor."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.norm = parts.pair()
        self.wide = ScaledNorm(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wide(self.conv(x), scale=2.0, mask=None) + self.wide(x=self.conv(x), flag=True)


class KeywordNorm(Pair):
    """Calls its normalisation by keyword, which nn.Identity does not take by another name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(input=self.conv(x)))


class CallsExtra(nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv, self.norm, self.pair = parts.linear(), ExtraArgumentNorm(CHANNELS), TupleNorm(CHANNELS)
        self.conv2 = parts.linear()
        self.third = ExtraArgumentNorm(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x), 1.5)
        z, old = self.pair(self.conv2(y))
        return self.third(z, other=old) if x.shape[1] == 3 else self.third(z, None) + self.third(z, other=2.0)


class FrozenGate(nn.Module):
    """A hand-written norm as a module, with a child that nobody calls and a list of factors."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.conv = parts.linear()
        self.factors = nn.ParameterList([nn.Parameter(torch.randn(CHANNELS)) for _ in range(2)])
        first, second = nn.Parameter(torch.randn(CHANNELS)), nn.Parameter(torch.randn(()))
        self.named = nn.ParameterDict({"a-0": first, "1x1": second})
        self.number = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        for factor in self.factors:
            x = x * spread(factor, x)
        return (x - spread(self.named["a-0"], x)) * self.named["1x1"] + self.number


class Holder(nn.Module):
    """One special layer next to ordinary ones."""

    def __init__(self, parts: Parts, conv: nn.Module | None, norm: nn.Module | None) -> None:
        super().__init__()
        self.conv = conv or parts.linear()
        self.norm = norm or parts.norm()
        self.act = parts.activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


CLASSES: list[Any] = [
    *[Slots, Guarded, Delegating, Property, NoCopy, SelfCopy, NoPickle, Empty, Concrete, Typed, Renamed, Extra],
    *[LimitedParameters, NoTrain, Arguments2, KeywordNorm, CallsExtra, TwoEqual, FrozenGate],
]
NORMS: list[Any] = [GuardedNorm, PropertyEps, OverridesNormCall, SharedCopy, EqualNorm]
CONVS: list[Any] = [PropertyWeight, PropertyBias]
SIZED_CONVS: list[Any] = [OverridesCall, SharedConv]
BY_NAME = {cls.__name__: cls for cls in (*CLASSES, *NORMS, *CONVS, *SIZED_CONVS)}


def classes(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    cls = BY_NAME[mode]
    if cls in CLASSES:
        model, arguments = parts.done(cls(parts))
        if cls is TwoEqual:  # the second one is not found by torch, which looks for new modules in a set
            model.norm2.to(parts.dtype).eval()
        return model, arguments
    if cls in NORMS:
        model, arguments = parts.done(Holder(parts, None, cls(CHANNELS)))
        if cls is GuardedNorm:
            model.norm.__dict__["sealed"] = True  # type: ignore[union-attr]
        return model, arguments
    parts.rank = 2
    conv = cls(CHANNELS) if cls in CONVS else cls(CHANNELS, CHANNELS, 1)
    return parts.done(Holder(parts, conv, None))


def closure(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    """A Sequential with lambdas, which no pickle takes."""
    conv, norm = parts.pair()
    function = {"plain": lambda x: x * 2 + 1, "norm": lambda x: norm(x), "reads": lambda x: x * norm.eps}[mode]
    return parts.done(nn.Sequential(conv, norm, Lambda(function), parts.linear()))


family(sorted(BY_NAME), classes, "class")
family(["plain", "norm", "reads"], closure, "lambda")
