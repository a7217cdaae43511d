"""The calls of submodules while a module is traced, and the hooks that its user has put on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Call(NamedTuple):
    """One call of a module: how many positional arguments, which named ones, and whether it gave one tensor."""

    positional: int
    named: tuple[str, ...]
    gives_tensor: bool

    @property
    def is_plain(self) -> bool:
        """Whether an Identity could be called alike."""
        return self.gives_tensor and (self.positional, self.named) in ((1, ()), (0, ("input",)))


@dataclass
class Calls:
    """Calls of submodules by path, in the order in which they ended."""

    made: list[tuple[str, Call]] = field(default_factory=list)
    _by_path: dict[str, list[Call]] = field(default_factory=dict)

    def add(self, path: str, call: Call) -> None:
        self.made.append((path, call))
        self._by_path.setdefault(path, []).append(call)

    def of(self, path: str) -> list[Call]:
        return self._by_path.get(path, [])

    def within(self, path: str) -> list[tuple[str, Call]]:
        """The calls of the direct and indirect children of a module, by their names from there."""
        return [(name.removeprefix(f"{path}."), call) for name, call in self.made if name.startswith(f"{path}.")]


@contextmanager
def recorded(layers: Mapping[str, nn.Module]) -> Iterator[Calls]:
    """Record the calls of these modules, under their paths, while the context lasts.

    Calls in branches and bodies of control flow, which TorchDynamo traces, are not recorded: it allows no side effects.
    """
    calls = Calls()
    handles = []
    for path, layer in layers.items():

        def record(_: nn.Module, args: Any, kwargs: Any, result: Any, path: str = path) -> None:
            if not torch.compiler.is_dynamo_compiling():
                calls.add(path, Call(len(args), tuple(kwargs), isinstance(result, torch.Tensor)))

        handles.append(layer.register_forward_hook(record, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def hooked(layers: Mapping[str, nn.Module]) -> list[str]:
    """The paths of those modules that bear hooks, apart from hooks by which PyTorch itself computes weights."""
    return [path for path, layer in layers.items() if any(map(_is_foreign, _hooks(layer)))]


def _hooks(module: nn.Module) -> list[Any]:
    return [hook for kind in _HOOKS for hook in getattr(module, kind).values()]


def _is_foreign(hook: Any) -> bool:
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return not str(home).startswith("torch.nn.utils")
