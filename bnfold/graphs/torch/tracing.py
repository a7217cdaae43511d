"""From a module to its program: what can be traced, on what, and with which axes of any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import config
from torch.nn.parameter import is_lazy

from bnfold.errors import ModelError, UsageError
from bnfold.graphs.torch.fold import attempt

_NO_STACK_TRACES = "do_not_emit_stack_traces"


def check(module: nn.Module) -> None:
    """Raise ModelError for what is a module, but not one whose code and layers are its own."""
    what = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"a {what} is compiled TorchScript, which cannot be traced: fold the module, then script it")
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(f"a {what} wraps the module to fold: fold model.module, and wrap the result again")
    if hasattr(module, "_orig_mod"):
        raise ModelError(f"a {what} is compiled: fold model._orig_mod, and give the result to torch.compile")
    for path, submodule in module.named_modules():
        if any(map(is_lazy, (*submodule._parameters.values(), *submodule._buffers.values()))):
            kind = type(submodule).__name__
            raise ModelError(f"'{path}' ({kind}) has no weights yet: call the module once on an example, then fold it")
    absent = next((name for name, tensor in module.state_dict(keep_vars=True).items() if _is_meta(tensor)), None)
    if absent is not None:
        raise ModelError(f"'{absent}' is on the meta device and has no values: load the weights, then fold the {what}")


def _is_meta(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.is_meta


def arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and named arguments; UsageError if there are none."""
    if example_inputs is None:
        raise UsageError("a PyTorch module needs example_inputs=...: a tensor, a tuple of arguments or a dict of them")
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def traced(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any) -> ExportedProgram:
    """The program of a module, which is left as it was. Raises ModelError if torch.export cannot trace it."""
    with attributes_kept(module):
        program: ExportedProgram = attempt(
            f"torch.export cannot trace the {type(module).__name__}",
            lambda: torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False),
        )
    return program


@contextmanager
def attributes_kept(module: nn.Module) -> Iterator[None]:
    """Give a module and its layers back the attributes that they had; those that their code has set for itself go."""
    layers = list(module.modules())
    held = [space for layer in layers for space in (vars(layer), layer._parameters, layer._buffers, layer._modules)]
    before = [dict(space) for space in held]
    try:
        yield
    finally:
        for space, items in zip(held, before, strict=True):
            for name in space.keys() - items.keys():
                del space[name]
            space.update(items)


@contextmanager
def without_stack_traces() -> Iterator[None]:
    """Let torch.export not note at every operator which lines of code called it, where this release can be told so.

    They are a fifth of its time, and of no use in a program that nobody keeps.
    """
    if not hasattr(config, _NO_STACK_TRACES):
        yield
        return
    usual = getattr(config, _NO_STACK_TRACES)
    setattr(config, _NO_STACK_TRACES, True)
    try:
        yield
    finally:
        setattr(config, _NO_STACK_TRACES, usual)
