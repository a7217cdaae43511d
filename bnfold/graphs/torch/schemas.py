"""What an operator of a program takes and does, by its schema, which PyTorch takes long to tell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch


@dataclass(frozen=True)
class Parameter:
    """One argument that an operator takes. `is_written` says that it writes to it."""

    name: str
    takes_tensors: bool
    has_default: bool
    default: Any
    is_written: bool


@dataclass(frozen=True)
class Schema:
    """An operator of this name ("relu_") in this space ("aten"); what it does beside computing its results.

    `has_out` says that it writes its result into a tensor that it is given for that (out=).
    """

    space: str
    name: str
    parameters: tuple[Parameter, ...]
    writes: bool
    has_out: bool
    is_random: bool


@lru_cache(maxsize=1024)
def schema_of(target: Any) -> Schema | None:
    """The schema of what a node calls; None for what is no operator. `detach_` writes nothing, whatever it says."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return None
    space, _, name = schema.name.partition("::")
    return Schema(
        space,
        name,
        tuple(_parameter(argument) for argument in schema.arguments),
        bool(schema.is_mutable) and schema.name != "aten::detach_",
        any(argument.kwarg_only and _is_written(argument) for argument in schema.arguments),
        torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()),
    )


def _parameter(argument: Any) -> Parameter:
    return Parameter(
        argument.name,
        "Tensor" in str(argument.type),
        argument.has_default_value(),
        argument.default_value,
        _is_written(argument),
    )


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)
