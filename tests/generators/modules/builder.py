"""What writes a network of steps, line by line, with real values at hand, so that every line that is kept can run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from generators.modules.dice import Dice, randomise
from generators.modules.net import STEPS, Net, Path, Step

LARGEST = 3000
KEYS = ("a-0", "1x1", "conv", "3", "norm.", "weight", "ключ", "a b", "forward_", "bn", "_x", "0")


class Builder:
    """A network in the making. `values` are its registers on the example inputs."""

    def __init__(self, dice: Dice, net: Net, inputs: Sequence[Any], dtype: torch.dtype) -> None:
        self.dice, self.net, self.dtype = dice, net, dtype
        self.values: list[Any] = [value.clone() for value in inputs]
        net.inputs = len(inputs)
        self.paths: list[Path] = []  # of modules
        self.tensors: list[Path] = []  # of parameters and constants
        self.style = dice.pick(["attributes", "attributes", "dict", "list", "sequential", "mixed"])
        self.count = 0
        self.themes = [(3, "plain"), (2, "writing"), (0.7, "reading"), (1.5, "affine"), (2, "all"), (4, "rare")]
        net.parts = nn.ModuleDict()
        net.stages = nn.ModuleList()
        net.chain = nn.Sequential()

    def floats(self, ranks: Sequence[int] = ()) -> list[int]:
        """The registers that are tensors of real numbers, of these ranks."""
        return [
            i
            for i, value in enumerate(self.values)
            if isinstance(value, torch.Tensor) and value.is_floating_point() and (not ranks or value.dim() in ranks)
        ]

    def register(self, ranks: Sequence[int] = ()) -> int | None:
        """A register to go on from: mostly the last one, at times an older one."""
        found = self.floats(ranks)
        if not found:
            return None
        if self.dice.chance(0.8):
            return found[-1]
        return self.dice.pick(found)

    def add(self, name: str, *args: int, **constants: Any) -> int | None:
        """Append a step if it runs on the values at hand and its result is of a bounded size; its register, or None."""
        line = Step(name, args, constants)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = STEPS[name](self.net, [self.values[i] for i in args], constants)
        except Exception:  # a proposal that does not fit, whatever torch says to it
            return None
        if not acceptable(value):
            return None
        self.net.steps.append(line)
        self.values.append(value)
        return len(self.values) - 1

    def attach(self, module: nn.Module, fresh: bool = True) -> Path:
        """Put a module into the tree, somewhere that fits the style of the network."""
        if fresh:
            randomise(module, self.dice)
            module.to(self.dtype)
        self.count += 1
        style = self.style
        if style == "mixed":
            style = self.dice.pick(["attributes", "dict", "list", "sequential"])
        path: Path
        if style == "dict":
            key = next((key for key in self.dice.shuffled(KEYS) if key not in self.net.parts and "." not in key), None)
            key = key or f"part{self.count}"
            self.net.parts[key] = module
            path = ("parts", key)
        elif style == "list":
            self.net.stages.append(module)
            path = ("stages", len(self.net.stages) - 1)
        elif style == "sequential":
            self.net.chain.append(module)
            path = ("chain", len(self.net.chain) - 1)
        else:
            name = f"{type(module).__name__.lower()}{self.count}"
            setattr(self.net, name, module)
            path = (name,)
        self.paths.append(path)
        return path

    def call(self, module: nn.Module, *args: int) -> int | None:
        """Attach a module and call it; it stays in the tree, unused, where the call does not fit."""
        return self.add("call", *args, path=self.attach(module))

    def tensor(self, value: torch.Tensor, kinds: Sequence[str] = ()) -> Path:
        """A constant of the network: a parameter, a buffer of either kind, or a plain attribute; the path to it."""
        self.count += 1
        kind = self.dice.pick(kinds or ["parameter", "parameter", "parameter", "buffer", "hidden", "plain"])
        name = f"{kind}{self.count}"
        value = value.to(self.dtype) if value.is_floating_point() else value
        if kind == "parameter" and value.is_floating_point():
            setattr(self.net, name, nn.Parameter(value, requires_grad=self.dice.chance(0.8)))
        elif kind == "hidden":
            self.net.register_buffer(name, value, persistent=False)
        elif kind == "plain":
            setattr(self.net, name, value)
        else:
            self.net.register_buffer(name, value)
        self.tensors.append((name,))
        return (name,)


def acceptable(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return bool(value) and all(acceptable(part) for part in value)
    if not isinstance(value, torch.Tensor):
        return isinstance(value, (int, float))
    if not 0 < value.numel() <= LARGEST:
        return False
    if value.is_floating_point():
        return bool(torch.isfinite(value).all()) and float(value.detach().abs().max()) < 1e6
    return True
