"""Steps that run a network within the network: as a module, in a context, under a transform, or several times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from generators.modules.builder import Builder, acceptable
from generators.modules.inplace import add_write
from generators.modules.linears import add_linear
from generators.modules.net import Net, step
from generators.modules.norms import add_link, add_norm
from generators.modules.passers import add_combination, add_passer
from generators.modules.rare import add_rare
from generators.modules.reading import add_reading

Tensors = list[torch.Tensor]
Constants = dict[str, Any]
Adder = Callable[[Builder], None]

ADDERS: dict[str, tuple[tuple[float, Adder], ...]] = {
    "plain": ((5, add_linear), (5, add_norm), (2, add_link), (4, add_passer), (1, add_combination)),
    "writing": ((4, add_linear), (4, add_norm), (1, add_link), (3, add_passer), (1.5, add_combination), (4, add_write)),
    "reading": ((5, add_linear), (5, add_norm), (1, add_link), (2, add_passer), (1, add_combination), (3, add_reading)),
    "affine": ((4, add_linear), (2, add_norm), (7, add_link), (3, add_passer), (1, add_combination), (0.5, add_write)),
    "rare": ((4, add_linear), (4, add_norm), (1, add_link), (2, add_passer), (5, add_rare), (0.5, add_write)),
    "all": (
        *((4, add_linear), (4, add_norm), (2, add_link), (3, add_passer)),
        *((2, add_combination), (1, add_write), (0.7, add_reading)),
    ),
}


class Hooked(nn.Module):
    """Keeps the result of a child by a hook and returns it with the child's own."""

    def __init__(self, child: nn.Module) -> None:
        super().__init__()
        self.child = child
        self.kept: list[Any] = []
        child.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, args: Any, output: Any) -> None:
        self.kept.append(output)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept.clear()
        result = self.child(x)
        return result + self.kept.pop()


@step
def block(net: Net, xs: Tensors, k: Constants) -> Any:
    """Run a block of the network in one of many ways."""
    inner, x, how = net.at(k["path"]), xs[0], k["how"]
    if how == "twice":
        return inner(x) + inner(x * 0.5)
    if how == "loop":
        for _ in range(2):
            x = inner(x)
        return x
    if how == "residual":
        return x + inner(x)
    if how == "no_grad":
        with torch.no_grad():
            return inner(x)
    if how == "enable_grad":
        with torch.enable_grad():
            return inner(x)
    if how == "checkpoint":
        return checkpoint(inner, x, use_reentrant=k["flag"])
    if how == "vmap":
        return torch.vmap(inner)(torch.stack([x, -x]))[0]
    if how == "functional":
        weights = {name: p * 0.5 if p.dim() > 1 else p for name, p in inner.named_parameters()}
        return torch.func.functional_call(inner, weights, (x,))
    if how == "cond":
        return torch.cond(x.sum() > 0, inner, lambda t: inner(t) * 2, (x,))
    if how == "autocast":
        with torch.autocast("cpu", enabled=False):
            return inner(x)
    if how == "siamese":
        return torch.cat([inner(x), inner(x.flip(0))], 1)
    if how == "halves":
        return torch.cat([inner(part) for part in x.chunk(2, 0)], 0)
    if how == "each":
        return torch.stack([inner(part[None]) for part in x.unbind(0)], 0)
    if how == "sequential":
        return nn.Sequential(nn.ReLU(), inner)(x)
    return inner(x)


WAYS = ["plain", "plain", "plain", "twice", "loop", "residual", "no_grad", "enable_grad", "checkpoint", "vmap"]
WAYS += ["functional", "cond", "autocast", "siamese", "halves", "each", "sequential"]


def add_block(b: Builder, depth: int = 1) -> None:
    """A block of a few steps, at times within another one."""
    r = b.register()
    if r is None:
        return
    inner = Net()
    builder = Builder(b.dice, inner, [b.values[r]], b.dtype)
    adders = ADDERS[b.dice.pick(["plain", "plain", "all", "writing"])]
    for _ in range(b.dice.between(1, 4)):
        if depth and b.dice.chance(0.15):
            add_block(builder, depth - 1)
        else:
            b.dice.weighted(adders)(builder)
    found = builder.floats()
    inner.outputs = (found[-1],)
    module: nn.Module = inner
    wrap = b.dice.weighted([(8, "no"), (1, "hook"), (1, "sequential"), (0.5, "list")])
    if wrap == "hook":
        module = Hooked(inner)
    elif wrap == "sequential":
        module = nn.Sequential(inner, nn.Identity())
    path = b.attach(module, fresh=False)
    if wrap != "list":
        module.eval()
    b.add("block", r, path=path, how=b.dice.pick(WAYS), flag=b.dice.chance(0.5))


def add_shared(b: Builder) -> None:
    """A module or a block that is there already, once more."""
    r = b.register()
    if r is None or not b.paths:
        return
    for _ in range(4):
        if b.add("call", r, path=b.dice.pick(b.paths)) is not None:
            return


def filled(b: Builder, count: int) -> None:
    """Add steps to a network until it has enough of them, or until nothing fits for long."""
    theme = b.dice.weighted(b.themes)
    adders = [*ADDERS[theme], (1.0, add_block), (0.7, add_shared)]
    for _ in range(4 * count):
        if len(b.net.steps) >= count:
            return
        b.dice.weighted(adders)(b)
    if not acceptable(b.values[-1]):
        raise ValueError("the last register is no tensor")
