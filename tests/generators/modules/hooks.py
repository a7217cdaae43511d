"""Hooks for random modules: plain functions, so that a module that has them can be pickled."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from generators.modules.dice import Dice


def observe(module: nn.Module, args: Any, output: Any) -> None:
    """Looks and changes nothing."""
    module.seen = tuple(output.shape) if isinstance(output, torch.Tensor) else None


def double(module: nn.Module, args: Any, output: Any) -> Any:
    return output * 2 if isinstance(output, torch.Tensor) else output


def shift(module: nn.Module, args: Any, output: Any) -> Any:
    return output + 0.5 if isinstance(output, torch.Tensor) else output


def relu_in_place(module: nn.Module, args: Any, output: Any) -> Any:
    return output.relu_() if isinstance(output, torch.Tensor) else output


def write_only(module: nn.Module, args: Any, output: Any) -> None:
    """Changes the output without returning it."""
    if isinstance(output, torch.Tensor):
        output.mul_(0.5)


def own_weight(module: nn.Module, args: Any, output: Any) -> Any:
    """Reads the layer that it hangs on."""
    weight = getattr(module, "weight", None)
    return output if weight is None else output + weight.mean()


def own_eps(module: nn.Module, args: Any, output: Any) -> Any:
    return output * (1 + getattr(module, "eps", 0.25)) if isinstance(output, torch.Tensor) else output


def residual(module: nn.Module, args: Any, output: Any) -> Any:
    """Adds the input of the layer, where the shapes agree."""
    same = isinstance(output, torch.Tensor) and output.shape == args[0].shape
    return output + args[0] if same else output


def halve_input(module: nn.Module, args: Any) -> Any:
    return (args[0] * 0.5, *args[1:])


def look_at_input(module: nn.Module, args: Any) -> None:
    """Looks and changes nothing."""


def shift_input(module: nn.Module, args: Any) -> Any:
    return args[0] + 1.0


def write_input(module: nn.Module, args: Any) -> None:
    args[0].add_(0.25)


def halve_with_names(module: nn.Module, args: Any, kwargs: Any) -> Any:
    return (args[0] * 0.5, *args[1:]), kwargs


def residual_with_names(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
    return residual(module, args, output)


def backward(module: nn.Module, grad_input: Any, grad_output: Any) -> None:
    """Looks at gradients and changes nothing."""


def rename(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> dict[str, Any]:
    """A state dict hook that changes nothing."""
    return state


def renormalise_weight(module: nn.Module, args: Any) -> None:
    """Computes an attribute that the forward of the module reads, as the old weight_norm does."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, torch.Tensor):
        module.__dict__["scaled"] = weight * 0.5


def add_hook(module: nn.Module, dice: Dice) -> str:
    """Put a random hook on a module; its name."""
    hook = dice.pick([observe, observe, double, shift, relu_in_place, write_only, own_weight, own_eps, residual])
    before = dice.pick([halve_input, look_at_input, shift_input, write_input, renormalise_weight])
    kind = dice.weighted([(5, "after"), (3, "before"), (1, "names"), (0.5, "backward"), (0.5, "state")])
    if kind == "after":
        module.register_forward_hook(hook, prepend=dice.chance(0.3), always_call=dice.chance(0.1))
        return hook.__name__
    if kind == "before":
        module.register_forward_pre_hook(before)
        return before.__name__
    if kind == "names":
        if dice.chance(0.5):
            module.register_forward_pre_hook(halve_with_names, with_kwargs=True)
        else:
            module.register_forward_hook(residual_with_names, with_kwargs=True)
        return "with names"
    if kind == "backward":
        module.register_full_backward_hook(backward)
        return "backward"
    module._register_state_dict_hook(rename)
    return "state"
