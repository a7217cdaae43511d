"""A module run before and after its fold, on the inputs that it was traced on.

A trace sees operators. It does not see code that asks a layer for its class, its `num_features` or its missing bias, or
that hands a parameter out: there, a fold that is right for the graph changes what the module does.

What the answers may differ by is far more than rounding, and far less than a fold in the wrong place makes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from bnfold.graphs.torch.fold import first_line, quietly
from bnfold.graphs.torch.running import cloned, run_aside, shell_of

_MOST_FLIPPED = 0.5
_RTOL = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


class Rehearsal:
    """The answers of a module on example inputs, to hold its folds against; none where it cannot be run on them.

    `written` are the parameters that its code writes to; None says that they are not known, and all are copied.
    """

    def __init__(
        self,
        module: nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        written: Collection[str] | None,
        *,
        evaluate: bool,
    ) -> None:
        self._inputs = tuple(args), dict(kwargs)
        self._written = written
        shell = shell_of(module)
        try:
            self._expected: list[Any] | None = self._answers(shell.eval() if evaluate else shell)
        except Exception:  # a module that runs nowhere but in the trace cannot be held to anything
            self._expected = None

    def difference(self, folded: nn.Module, coarsest: torch.dtype) -> str | None:
        """How a folded module differs from the original, if it does; `coarsest` is the coarsest type in between."""
        if self._expected is None:
            return None
        try:
            found = self._answers(shell_of(folded))
        except Exception as error:  # the user's code raises what it likes
            return f"its code then raises {type(error).__name__}: {first_line(error)}"
        if len(found) != len(self._expected):
            return f"it then gives {len(found)} values instead of {len(self._expected)}"
        rtol = _RTOL.get(coarsest, math.inf)
        pairs = zip(self._expected, found, strict=True)
        return next(filter(None, (_differs(expected, other, rtol) for expected, other in pairs)), None)

    def _answers(self, module: nn.Module) -> list[Any]:
        with quietly():
            # Copies, since a parameter that is handed out may change afterwards.
            written = dict(module.named_parameters()) if self._written is None else self._written
            return [cloned(leaf) for leaf in pytree.tree_leaves(run_aside(module, *self._inputs, written))]


def _differs(expected: Any, found: Any, rtol: float) -> str | None:
    if not isinstance(expected, torch.Tensor) or not isinstance(found, torch.Tensor):
        same = type(expected) is type(found) and (not isinstance(expected, int | str) or expected == found)
        return None if same else f"it then gives {found!r:.40} instead of {expected!r:.40}"
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"it then gives {found.dtype} {tuple(found.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
    if expected.layout is not torch.strided:
        return None
    if expected.is_complex():
        return _differs(torch.view_as_real(expected.resolve_conj()), torch.view_as_real(found.resolve_conj()), rtol)
    if not expected.dtype.is_floating_point:  # a number that is near a border may fall to either side of it
        share = float((expected != found).double().mean()) if expected.numel() else 0.0
        return f"its result then differs in {share:.0%} of its elements" if share > _MOST_FLIPPED else None
    wide = expected.double()
    finite = wide.isfinite()
    if not torch.equal(finite, found.isfinite()):
        return "it then gives NaN or infinity in other places"
    error = float((found.double() - wide)[finite].abs().max()) if bool(finite.any()) else 0.0
    size = float(wide[finite].abs().max()) if bool(finite.any()) else 0.0
    if error <= max(rtol, _RTOL.get(expected.dtype, math.inf)) * size:
        return None
    return f"its result then differs by {error:.2g}, of {size:.2g}"
