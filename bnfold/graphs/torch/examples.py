"""Example inputs for a module, made from the shapes that a user names; a trace needs them, and nothing else does."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bnfold.errors import UsageError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Array = NDArray[Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a module's forward."""

    name: str
    required: bool


def parameters(module: nn.Module) -> list[Parameter]:
    """What the forward of a module takes, in order; variadic parameters aside."""
    if isinstance(module, torch.jit.ScriptModule):
        script: Any = module
        return [Parameter(item.name, not item.has_default_value()) for item in script.forward.schema.arguments[1:]]
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = [item for item in inspect.signature(module.forward).parameters.values() if item.kind not in kinds]
    return [Parameter(item.name, item.default is inspect.Parameter.empty) for item in found]


def example_arguments(
    module: nn.Module,
    shapes: Mapping[str, tuple[int | None, ...]],
    types: Mapping[str, str],
    dynamic: Mapping[str, Mapping[int, Any]],
    arrays: Mapping[str, Array],
) -> Arguments:
    """Arguments of these shapes and types for a module's forward, by the names of its parameters.

    The key "" stands for the first one. Values, and shapes where none are given, are those of `arrays`; else they are
    normal numbers, or zeros of another type. What `types` does not name has the type of the module's weights, or of an
    array of integers. An axis that shall be dynamic is at least 2 long, since torch.export takes a size of 1 for a
    constant. Raises UsageError where a name is none, or one is needed and not there.
    """
    expected = parameters(module)
    names = [item.name for item in expected]
    what = f"the forward of the {type(module).__name__} takes {', '.join(names) or 'nothing'}"

    def named(items: Mapping[str, Item]) -> dict[str, Item]:
        return {names[0] if not name and names else name: item for name, item in items.items()}

    types, dynamic = named(types), named(dynamic)
    data = {name: array for name, array in named(arrays).items() if name in names and array.dtype.kind in "fiub"}
    given: dict[str, tuple[int | None, ...]] = {**{name: data[name].shape for name in data}, **named(shapes)}
    unknown = next((name for name in (*given, *dynamic) if name not in names), None)
    if unknown is not None:
        raise UsageError(f"'{unknown}' is no input: {what}")
    lacking = [item.name for item in expected if item.required and item.name not in given]
    if lacking:
        wanted = " and ".join(f"--input-shape {name}:1,3,224,224" for name in lacking)
        raise UsageError(f"a PyTorch module is traced on example inputs: {what}; give {wanted}, with your sizes")
    beyond = next((f"{name}:{at}" for name in given for at in dynamic.get(name, {}) if at >= len(given[name])), None)
    if beyond is not None:
        raise UsageError(f"--dynamic {beyond}: the shape given for this input has no such axis")
    generator = torch.Generator().manual_seed(0)
    floating = next((item.dtype for item in module.parameters() if item.is_floating_point()), torch.float32)
    made: dict[str, torch.Tensor] = {}
    for name in (name for name in names if name in given):
        sizes = [
            max(size or 2, 2) if axis in dynamic.get(name, {}) else size or 1 for axis, size in enumerate(given[name])
        ]
        array = data.get(name)
        integer = array.dtype.name if array is not None and array.dtype.kind != "f" else None
        dtype = getattr(torch, types.get(name) or integer or "", floating)
        fits = array is not None and array.ndim == len(sizes) and array.size and array.shape[1:] == tuple(sizes[1:])
        made[name] = _taken(array, sizes, dtype) if fits else _values(sizes, dtype, generator)
    leading = list(itertools.takewhile(lambda name: name in made, names))
    return tuple(made[name] for name in leading), {name: made[name] for name in made if name not in leading}


def _taken(array: Any, sizes: list[int], dtype: torch.dtype) -> torch.Tensor:
    """As many rows of an array as are wanted, from the first one again where it has fewer."""
    rows = array[np.arange(sizes[0]) % len(array)] if sizes else np.array(array)
    return torch.from_numpy(rows).to(dtype)


def _values(sizes: list[int], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    if dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(dtype)
    return torch.zeros(sizes, dtype=dtype)
