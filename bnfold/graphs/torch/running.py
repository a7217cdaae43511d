"""A module run so that neither it nor its arguments are others afterwards, and every run is like the first.

Each run is of copies of the arguments, the buffers and those parameters that the code writes to, from one seed;
afterwards the module has its attributes back. What else its code may change, such as what is in a list, is that of a
shell: a copy of all but its parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from bnfold.graphs.torch.tracing import attributes_kept


def run_aside(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], written: Collection[str]) -> Any:
    """What a module gives; it raises what its code raises. `written` are the parameters that its code writes to."""
    copied_args, copied_kwargs = pytree.tree_map(cloned, (tuple(args), dict(kwargs)))
    with attributes_kept(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        changing = (*module.named_buffers(), *((name, module.get_parameter(name)) for name in written))
        tensors = {name: tensor.clone() for name, tensor in changing}
        return functional_call(module, tensors, copied_args, copied_kwargs)


def shell_of(module: nn.Module) -> nn.Module:
    """A copy of a module that shares its parameters; the module itself where it cannot be copied, or is a program's."""
    if isinstance(module, fx.GraphModule):  # whose code keeps nothing
        return module
    plain = [item for layer in module.modules() for item in vars(layer).values() if isinstance(item, torch.Tensor)]
    memo = {id(tensor): tensor.detach().clone() for tensor in plain}
    memo |= {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    try:
        return copy.deepcopy(module, memo)
    except Exception:  # a module may refuse in its own way
        return module


def cloned(item: Any) -> Any:
    """A copy of a tensor; anything else as it is."""
    return item.detach().clone() if isinstance(item, torch.Tensor) else item
