"""A copy of a module whose weights are blank at first: memory that is written once, with what a fold makes of them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from bnfold.errors import ModelError
from bnfold.graphs.torch.constants import Known
from bnfold.graphs.torch.fold import attempt

_SMALL = 4096
_ATOMS = frozenset((type(None), bool, int, float, str))
_CONTAINERS = frozenset((OrderedDict, dict, set, list))
_NO_TENSORS = _ATOMS | _CONTAINERS
# Where PyTorch notes, while it copies, what became of the memory that several tensors may share.
_STORAGES: Any = "torch"
# By these a class says how it is copied.
_COPYING = (
    "__deepcopy__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__getstate__",
    "__reduce__",
    "__reduce_ex__",
)
# These add what modules of older releases lack, and otherwise set the attributes alone.
_SETSTATE = (nn.Module.__setstate__, _ConvNd.__setstate__)


@dataclass
class Blanks:
    """Parameters of a copy that hold no values yet, by identity, each with the one that it is the copy of."""

    pairs: dict[int, tuple[nn.Parameter, nn.Parameter]] = field(default_factory=dict)

    def fill(self, held: Any, known: Known) -> bool:
        """Give a parameter, blank or not, the values of a folded constant; False if it cannot take them."""
        if self.pairs.pop(id(held), None) is None and not _can_take(held, known):
            return False
        known.fill(held)
        return True

    def fill_rest(self) -> None:
        """Give every blank that is left the values of that which it is the copy of."""
        with torch.no_grad():
            for blank, original in self.pairs.values():
                blank.copy_(original)
        self.pairs.clear()


def copied(module: nn.Module) -> tuple[nn.Module, Blanks]:
    """A copy of a module that shares no memory with it, and those of its parameters that have yet to be filled.

    What hooks compute anew before every call is copied as a value. Raises ModelError if the module cannot be copied.
    """
    blanks = Blanks()
    memo: dict[int, Any] = {}
    modules = list(module.modules())
    for submodule in modules:
        for item in vars(submodule).values():
            if type(item) not in _NO_TENSORS and isinstance(item, torch.Tensor) and not item.is_leaf:
                memo[id(item)] = item.detach().clone()
        for parameter in submodule._parameters.values():
            if type(parameter) is nn.Parameter and id(parameter) not in memo:
                _copy_parameter(parameter, memo, blanks)
        for buffer in submodule._buffers.values():
            if type(buffer) is torch.Tensor and id(buffer) not in memo:
                _copy_buffer(buffer, memo)
    result: nn.Module = attempt(
        f"the {type(module).__name__} cannot be copied (inplace=True folds it as it is)",
        lambda: _deepcopy(module, modules, memo),
    )
    _check_copy(result, modules, f"the {type(module).__name__}", " (inplace=True folds it as it is)")
    return result, blanks


def deep_copy(module: nn.Module, what: str) -> nn.Module:
    """What `copy.deepcopy` gives. Raises ModelError where that fails, or is no copy throughout."""
    result: nn.Module = attempt(f"{what} cannot be copied", lambda: copy.deepcopy(module))
    _check_copy(result, module.modules(), what, "")
    return result


def _check_copy(result: nn.Module, modules: Iterable[nn.Module], what: str, advice: str) -> None:
    own = {id(submodule) for submodule in modules}
    shared = next((path for path, submodule in result.named_modules() if id(submodule) in own), None)
    if shared is not None:
        kind = type(result.get_submodule(shared)).__name__
        raise ModelError(f"{what} cannot be copied: a copy of '{shared}' is the {kind} itself{advice}")


def _copy_parameter(parameter: nn.Parameter, memo: dict[int, Any], blanks: Blanks) -> None:
    values = parameter.detach()
    if values.numel() < _SMALL:
        memo[id(parameter)] = nn.Parameter(values.clone(), requires_grad=parameter.requires_grad)
    elif _is_whole(values):
        blank = nn.Parameter(torch.empty_like(values), requires_grad=parameter.requires_grad)
        memo[id(parameter)] = blank
        blanks.pairs[id(blank)] = (blank, parameter)


def _copy_buffer(buffer: torch.Tensor, memo: dict[int, Any]) -> None:
    """Copy a buffer that is nothing but its elements; any other is left to `copy.deepcopy`."""
    held = buffer.untyped_storage() if buffer.layout is torch.strided and not buffer.is_quantized else None
    shared = memo.setdefault(_STORAGES, {})
    plain = not (buffer.requires_grad or buffer.grad_fn or buffer.is_conj() or buffer.is_neg() or vars(buffer))
    if held is None or not plain or held._cdata in shared or held.nbytes() != buffer.numel() * buffer.element_size():
        return
    memo[id(buffer)] = twin = buffer.clone()
    shared[held._cdata] = twin.untyped_storage()


def _deepcopy(module: nn.Module, modules: list[nn.Module], memo: dict[int, Any]) -> nn.Module:
    """What `copy.deepcopy(module, memo)` gives, without the detours that it takes for the `modules` in a module."""
    kinds = {kind for kind in set(map(type, modules)) if _is_copied_by_its_dict(kind)}
    plain = [submodule for submodule in modules if type(submodule) in kinds]
    for submodule in plain:
        memo[id(submodule)] = object.__new__(type(submodule))
    for submodule in reversed(plain):  # inner ones first: a wrapper may look at the module in it while it is copied
        state = vars(memo[id(submodule)])
        for name, item in submodule.__getstate__().items():  # type: ignore[no-untyped-call]
            state[name] = _copied(item, memo)
    copy_of: nn.Module = copy.deepcopy(module, memo)
    return copy_of


def _copied(item: Any, memo: dict[int, Any]) -> Any:
    kind = type(item)
    if kind in _ATOMS:
        return item
    if id(item) in memo:
        return memo[id(item)]
    if kind in _CONTAINERS and not item:  # as most dicts of hooks are
        memo[id(item)] = empty = kind()
        return empty
    if kind is tuple and all(type(inner) in _ATOMS for inner in item):
        return item
    if kind is not dict or not all(type(key) is str for key in item):
        return copy.deepcopy(item, memo)
    memo[id(item)] = twin = {}
    for key, inner in item.items():
        twin[key] = _copied(inner, memo)
    return twin


def _is_copied_by_its_dict(kind: type[nn.Module]) -> bool:
    """Whether a copy of a module is an object of its class with copies of its attributes, and nothing else."""
    if any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in _COPYING):
        return False
    return kind.__setstate__ in _SETSTATE and hasattr(kind, "__getstate__")


def _can_take(held: Any, known: Known) -> bool:
    if type(held) not in (nn.Parameter, torch.Tensor) or held.is_inference() or not _is_whole(held):
        return False
    return bool(held.dtype is known.dtype and tuple(held.shape) == known.folded_shape)


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether a tensor has memory of its own, each element in one place."""
    if tensor.layout is not torch.strided:
        return False
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
