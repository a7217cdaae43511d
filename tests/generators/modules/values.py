"""Values of modules and programs: run them on copies, compare outputs, and read what a fold must not change."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensor
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from generators.modules.cases import cloned
from generators.modules.dice import Arguments

RTOL = {torch.float64: 1e-9, torch.float32: 3e-5, torch.float16: 3e-2, torch.bfloat16: 2e-1}
NOISE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def called(function: Any, arguments: Arguments) -> tuple[list[Any], list[Any]]:
    """The leaves of what a callable returns, and the arguments as it left them."""
    args, kwargs = cloned(arguments)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = function(*args, **kwargs)
    return pytree.tree_leaves(result), pytree.tree_leaves((args, kwargs))


def answers(model: Any, inputs: Sequence[Arguments]) -> list[tuple[list[Any], list[Any]]]:
    """What a copy of a module returns on every input, one call after the other, so that a changed state shows."""
    model = copied(model)
    return [called(model, arguments) for arguments in inputs]


def copied(model: Any) -> Any:
    """A copy, or the module itself where it cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception:  # whatever a module says to that
        return model


def widened(model: nn.Module, inputs: Sequence[Arguments]) -> tuple[nn.Module, list[Arguments]] | None:
    """The module and its inputs in double, or None where they cannot be had so."""
    try:
        wide = copy.deepcopy(model).double()
    except Exception:
        return None
    return wide, [as_double(arguments) for arguments in inputs]


def as_double(arguments: Arguments) -> Arguments:
    def change(value: torch.Tensor) -> torch.Tensor:
        return value.double() if value.is_floating_point() else value

    return pytree.tree_map_only(torch.Tensor, change, arguments)


def noise(model: nn.Module, inputs: Sequence[Arguments], dtype: torch.dtype) -> list[list[Any]] | None:
    """The answers of a module whose parameters are off by a rounding: what rounding alone may do."""
    try:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for value in {id(v): v for v in [*moved.parameters(), *moved.buffers()]}.values():
                if value.is_floating_point():
                    rounding = torch.randn(value.shape, generator=generator, dtype=torch.float64) * NOISE[dtype]
                    value.mul_((1 + rounding).to(value.dtype))
        return [called(moved, arguments)[0] for arguments in inputs]
    except Exception:
        return None


def difference(found: Sequence[Any], wanted: Sequence[Any], rtol: float, moved: Sequence[Any] | None = None) -> str:
    """The first difference between two lists of leaves in words, or nothing."""
    if len(found) != len(wanted):
        return f"{len(found)} outputs instead of {len(wanted)}"
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if isinstance(b, torch.Tensor):
            if not isinstance(a, torch.Tensor):
                return f"output {number} is a {type(a).__name__} instead of a tensor"
            if a.shape != b.shape:
                return f"output {number} has the shape {tuple(a.shape)} instead of {tuple(b.shape)}"
            if a.dtype != b.dtype:
                return f"output {number} has the type {a.dtype} instead of {b.dtype}"
            other = moved[number] if moved is not None and number < len(moved) else None
            if text := _far(a, b, rtol, other):
                return f"output {number} {text}"
        elif isinstance(a, torch.Tensor):
            return f"output {number} is a tensor instead of a {type(b).__name__}"
        elif type(a) in (int, float, str, bool, type(None)) and a != b and a == a:
            return f"output {number} is {a!r} instead of {b!r}"
    return ""


def _far(a: torch.Tensor, b: torch.Tensor, rtol: float, moved: Any) -> str:
    if not b.numel() or b.is_meta or isinstance(b, FakeTensor):
        return ""
    if isinstance(a, FakeTensor):
        return "has no value"
    if not (b.is_floating_point() or b.is_complex()):
        # A value that is rounded may fall to either side; a few such elements are no error.
        share = float((a != b).double().mean())
        return "" if share < 0.05 else f"differs in {share:.0%} of its elements"
    a, b = a.detach().to(torch.complex128), b.detach().to(torch.complex128)
    a, b = torch.view_as_real(a), torch.view_as_real(b)
    if not torch.equal(torch.isfinite(a), torch.isfinite(b)):
        return "is finite elsewhere"
    a, b = a.nan_to_num(), b.nan_to_num()
    error, scale = float((a - b).abs().max()), float(b.abs().max())
    allowed = rtol * scale + 1e-300
    if isinstance(moved, torch.Tensor) and moved.shape == b.shape[:-1]:
        moved = torch.view_as_real(moved.detach().to(torch.complex128)).nan_to_num()
        allowed += 3 * float((moved - b).abs().max())
    return "" if error <= allowed else f"is off by {error / (scale or 1.0):.1e} of the largest element"


def digest(module: nn.Module) -> dict[str, Any]:
    """What must not change of a module that is folded as a copy: bytes, flags, hooks, types, and identities."""
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    out: dict[str, Any] = {f"bytes of {name}": content(value) for name, value in tensors}
    out |= {f"identity of {name}": (id(value), value.requires_grad) for name, value in tensors}
    for name, owner in module.named_modules(remove_duplicate=False):
        out[f"type of {name}"] = (type(owner), id(owner))
        out[f"flag of {name}"] = owner.training
        hooks = (owner._forward_hooks, owner._forward_pre_hooks, owner._backward_hooks, owner._state_dict_hooks)
        out[f"hooks of {name}"] = [list(map(id, hook.values())) for hook in hooks]
        out[f"names of {name}"] = sorted(vars(owner))
        out[f"children of {name}"] = [child for child, _ in owner._modules.items()]  # of a script it is no dict
    return out


def content(value: Any) -> str:
    plain = isinstance(value, nn.Parameter) or type(value) is torch.Tensor
    if value is None or not plain or is_lazy(value) or value.is_meta or isinstance(value, FakeTensor):
        return str(type(value))  # a tensor without values, or one of a class of its own
    raw = b""
    try:
        if value.numel():
            flat = value.detach().cpu().flatten().clone(memory_format=torch.contiguous_format)
            raw = flat.view(torch.uint8).numpy().tobytes()
    except RuntimeError:  # of a tensor that a transform of torch has left behind
        return str(type(value))
    return f"{value.dtype}{tuple(value.shape)}{hashlib.sha1(raw, usedforsecurity=False).hexdigest()}"


def state(module: nn.Module) -> dict[str, str]:
    """The state dict, with hashes in place of values."""
    found = module.state_dict()
    return {name: content(v) if isinstance(v, torch.Tensor) else repr(v)[:80] for name, v in found.items()}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
