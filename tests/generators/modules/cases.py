"""Random modules in evaluation mode, with inputs, to fold and to judge: `make(seed)` is the same for the same seed."""

from __future__ import annotations

import contextlib
import copy
import importlib
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from generators.modules.blocks import filled
from generators.modules.builder import Builder
from generators.modules.changes import changed
from generators.modules.dice import Arguments, Dice
from generators.modules.net import Keyword, Net, Single, Variadic
from generators.modules.traps import TRAPS, Parts
from generators.modules.wraps import wrapped

for _family in ("sharing", "writing", "state", "reading", "classes", "contexts", "types", "networks", "libraries"):
    importlib.import_module(f"generators.modules.traps.{_family}")  # they enter themselves into the table


@dataclass
class TorchCase:
    """A module in evaluation mode, the arguments to trace it on, and more to compare it on.

    `more` are arguments of the same shapes; `batches` are one with a larger batch and one with larger other axes, where
    the module runs on them, and None where it does not. `coarse` tells of types in between that are less exact.
    """

    model: nn.Module
    example: Arguments
    more: list[Arguments] = field(default_factory=list)
    batches: list[Arguments | None] = field(default_factory=list)
    origin: str = ""
    coarse: bool = False


def make(seed: int) -> TorchCase:
    """The case of a seed: one of the traps that were written by hand, or a network of random steps, at times in what
    torch has made of it.
    """
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        dice = Dice(seed)
        if seed % 10 < 3:
            name = dice.pick(sorted(TRAPS))
            model, example = TRAPS[name](Parts(dice))
            with contextlib.suppress(NotImplementedError):  # of a module that torch.export has made
                model.eval()
            case = TorchCase(model, example, origin=f"seed {seed}: {name}")
            case.coarse = any(word in name for word in ("half", "bf16", "autocast", "context_mixed"))
        else:
            case = _network(seed, dice)
        if dice.chance(0.5):  # torch refuses many writes into values that need a gradient
            with contextlib.suppress(ValueError):  # of a lazy layer that has not seen an input
                case.model.requires_grad_(False)
        _more_inputs(case, dice)
    return case


def _network(seed: int, dice: Dice) -> TorchCase:
    for _ in range(20):
        case = _try_network(seed, dice)
        if case is not None:
            return case
    raise RuntimeError(f"no network for seed {seed}")


def _try_network(seed: int, dice: Dice) -> TorchCase | None:
    dtype = dice.weighted([(15, torch.float64), (5, torch.float32), (0.4, torch.bfloat16), (0.4, torch.float16)])
    inputs = _inputs(dice, dtype)
    net = {1: dice.pick([Net, Single, Variadic]), 2: dice.pick([Net, Keyword, Variadic])}.get(len(inputs), Net)()
    b = Builder(dice, net, inputs, dtype)
    try:
        if not inputs[0].is_floating_point():
            embedding = nn.Embedding(11, dice.between(2, 6))
            net.embedding = embedding.to(dtype)
            b.add("call", 0, path=("embedding",))
        filled(b, dice.between(2, 9))
        _outputs(b)
        notes = changed(b)
        net.eval()
        named = ((inputs[0],), {"scale": inputs[1]}) if isinstance(net, Keyword) else (tuple(inputs), {})
        runs(net, named)
        runs(net, named)
    except Exception:  # a change did not fit, or the network had no output
        return None
    origin = "\n".join([f"seed {seed}: {type(net).__name__}, {dtype}", net.listing(), *notes])
    if dice.chance(0.2) and not (named[1] and named[0]):
        try:
            model, name = wrapped(net, named, dice)
            runs(model, named)
        except Exception:  # torch makes nothing of it
            return None
        return TorchCase(model, named, origin=f"{origin}\nwrapped: {name}")
    return TorchCase(net, named, origin=origin)


def _inputs(dice: Dice, dtype: torch.dtype) -> list[torch.Tensor]:
    rank = dice.weighted([(2, 2), (3, 3), (7, 4), (1, 5)])
    batch, channels = dice.weighted([(5, 2), (1, 1), (1, 3)]), dice.pick([1, 2, 3, 4, 4, 6])
    largest = {2: 0, 3: 6, 4: 6, 5: 4}[rank]
    shape = (batch, channels, *(dice.between(2, largest) for _ in range(rank - 2)))
    if dice.chance(0.04):
        return [torch.tensor(dice.stream.integers(0, 11, size=(batch, dice.between(2, 5))))]
    count = dice.weighted([(6, 1), (1.5, 2), (0.5, 3)])
    return [dice.normal(shape, dtype) for _ in range(count)]


def _outputs(b: Builder) -> None:
    """The last register, and at times older ones, so that values are read by others than the network."""
    net, dice = b.net, b.dice
    last = len(b.values) - 1
    net.outputs = (last,)
    rest = [(1, "tuple"), (1, "dict"), (1, "list"), (1, "nested"), (0.5, "dataclass")]
    net.structure = dice.weighted([(6, "single"), *rest])
    if net.structure != "single" or dice.chance(0.1):
        others = dice.some(range(net.inputs, last), 0.25)
        net.outputs = tuple(dice.shuffled([last, *others]))
    if not net.steps or not isinstance(b.values[last], torch.Tensor):
        raise ValueError("nothing to return")


def runs(model: nn.Module, arguments: Arguments) -> Any:
    """What a module returns, on copies of the arguments."""
    args, kwargs = cloned(arguments)
    with torch.no_grad():
        return model(*args, **kwargs)


def cloned(arguments: Arguments) -> Arguments:
    return torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, arguments)


def _more_inputs(case: TorchCase, dice: Dice) -> None:
    def other(x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point():
            return x.flip(0) if x.dim() else x
        return dice.normal(x.shape, x.dtype, dice.pick([1.0, 3.0])) + dice.pick([0, 1])

    def batched(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, other(x)], 0)[: x.shape[0] + 1] if x.dim() else x

    def wider(x: torch.Tensor) -> torch.Tensor:
        for axis in range(2, x.dim()):
            x = torch.cat([x, x.flip(axis).narrow(axis, 0, 1)], axis)
        return other(x)

    if any(value.is_meta for value in torch.utils._pytree.tree_leaves(case.example) if isinstance(value, torch.Tensor)):
        return
    tree_map = torch.utils._pytree.tree_map_only
    case.more = [tree_map(torch.Tensor, other, case.example) for _ in range(2)]
    larger = [tree_map(torch.Tensor, change, case.example) for change in (batched, wider)]
    case.batches = [_if_it_runs(case.model, arguments) for arguments in larger]


def _if_it_runs(model: nn.Module, arguments: Arguments) -> Arguments | None:
    try:
        runs(copy.deepcopy(model), arguments)
    except Exception:  # whatever the module says to other sizes
        return None
    return arguments
