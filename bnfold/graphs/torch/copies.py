"""A copy of a module whose weights are blank at first: memory that is written once, with what a fold makes of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from bnfold.graphs.torch.constants import Known
from bnfold.graphs.torch.fold import attempt

_SMALL = 4096


@dataclass
class Blanks:
    """Parameters of a copy that hold no values yet, by identity, each with the one that it is the copy of."""

    pairs: dict[int, tuple[nn.Parameter, nn.Parameter]] = field(default_factory=dict)

    def fill(self, blank: Any, known: Known) -> bool:
        """Give a parameter the values of a folded constant; False if it is no blank."""
        if self.pairs.pop(id(blank), None) is None:
            return False
        known.fill(blank)
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
    for submodule in module.modules():
        for item in vars(submodule).values():
            if isinstance(item, torch.Tensor) and not item.is_leaf:
                memo[id(item)] = item.detach().clone()
    for parameter in module.parameters():
        if _has_memory_of_its_own(parameter):
            blank = nn.Parameter(torch.empty_like(parameter.detach()), requires_grad=parameter.requires_grad)
            memo[id(parameter)] = blank
            blanks.pairs[id(blank)] = (blank, parameter)
    result: nn.Module = attempt(
        f"the {type(module).__name__} cannot be copied (inplace=True folds it as it is)",
        lambda: copy.deepcopy(module, memo),
    )
    return result, blanks


def _has_memory_of_its_own(parameter: nn.Parameter) -> bool:
    if type(parameter) is not nn.Parameter or parameter.layout is not torch.strided or parameter.numel() < _SMALL:
        return False
    return parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()
