"""A module run before and after its fold, on the inputs that it was traced on.

A trace sees operators. It does not see code that asks a layer for its class, its `num_features` or its missing bias, or
that hands a parameter out: there, a fold that is right for the graph changes what the module does.

Decisions. Each run is of copies of the inputs and the buffers, from one seed. The module that was given is run as a
shell: a copy of all but its tensors, whose attributes its code may change. What the answers may differ by is far more
than rounding, and far less than a fold in the wrong place makes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from bnfold.graphs.torch.fold import first_line, quietly

_RTOL = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


class Rehearsal:
    """The answers of a module on example inputs, to hold its folds against; none where it cannot be run on them."""

    def __init__(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], *, evaluate: bool) -> None:
        self._inputs = tuple(args), dict(kwargs)
        shell = _shell(module)
        try:
            self._expected: list[Any] | None = self._answers(shell.eval() if evaluate else shell)
        except Exception:  # a module that runs nowhere but in the trace cannot be held to anything
            self._expected = None

    def difference(self, folded: nn.Module, coarsest: torch.dtype) -> str | None:
        """How a folded module differs from the original, if it does; `coarsest` is the coarsest type in between."""
        if self._expected is None:
            return None
        try:
            found = self._answers(folded)
        except Exception as error:  # the user's code raises what it likes
            return f"its code then raises {type(error).__name__}: {first_line(error)}"
        if len(found) != len(self._expected):
            return f"it then gives {len(found)} values instead of {len(self._expected)}"
        rtol = _RTOL.get(coarsest, math.inf)
        pairs = zip(self._expected, found, strict=True)
        return next(filter(None, (_differs(expected, other, rtol) for expected, other in pairs)), None)

    def _answers(self, module: nn.Module) -> list[Any]:
        args, kwargs = pytree.tree_map(_cloned, self._inputs)
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        with quietly(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # Copies, since a parameter that is handed out may change afterwards.
            return [_cloned(leaf) for leaf in pytree.tree_leaves(functional_call(module, buffers, args, kwargs))]


def _shell(module: nn.Module) -> nn.Module:
    """A copy of a module that shares its tensors; the module itself where it cannot be copied."""
    held = [item for layer in module.modules() for item in vars(layer).values() if isinstance(item, torch.Tensor)]
    tensors = [*module.parameters(), *module.buffers(), *held]
    try:
        return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    except Exception:  # a module may refuse in its own way
        return module


def _cloned(item: Any) -> Any:
    return item.detach().clone() if isinstance(item, torch.Tensor) else item


def _differs(expected: Any, found: Any, rtol: float) -> str | None:
    if not isinstance(expected, torch.Tensor) or not isinstance(found, torch.Tensor):
        return None if type(expected) is type(found) else f"it then gives a {type(found).__name__}"
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"it then gives {found.dtype} {tuple(found.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
    if not expected.dtype.is_floating_point or expected.layout is not torch.strided:
        return None
    wide = expected.double()
    finite = wide.isfinite()
    if not torch.equal(finite, found.isfinite()):
        return "it then gives NaN or infinity in other places"
    error = float((found.double() - wide)[finite].abs().max()) if bool(finite.any()) else 0.0
    size = float(wide[finite].abs().max()) if bool(finite.any()) else 0.0
    if error <= max(rtol, _RTOL.get(expected.dtype, math.inf)) * size:
        return None
    return f"its result then differs by {error:.2g}, of {size:.2g}"
