"""PyTorch models as functions of NumPy arrays: in their own types, and in float64, as the exact reference.

The float64 run is that of a copy with float64 weights on float64 inputs, in a mode in which every floating-point type
that the code asks for (`.float()`, `torch.zeros(..., dtype=torch.float32)`) is float64 as well. What an operator does
inside in a narrower type is beyond its reach.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from bnfold.errors import ModelError
from bnfold.graphs.torch.fold import attempt, first_line

Array = NDArray[Any]
_NARROWER = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, eq=False)
class Function:
    """A model that is called with arrays, one per tensor among its arguments, and gives those of its results, in order.

    A bfloat16 tensor is a float32 array, since NumPy has no such type. `leaves` are the arguments flattened by `spec`,
    with the dtype of each tensor in its place; `results` are the places of what is given, among the results flattened.
    """

    call: Callable[..., Any]
    leaves: tuple[Any, ...]
    spec: TreeSpec
    results: tuple[int, ...]
    what: str
    float64: bool = False

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """Raises ModelError if PyTorch cannot run the model on these arrays."""
        args, kwargs = self._arguments(arrays)

        def run() -> Any:
            mode: Any = _EverythingInFloat64() if self.float64 else nullcontext()  # type: ignore[no-untyped-call]
            with torch.no_grad(), mode:
                return self.call(*args, **kwargs)

        result = attempt(f"PyTorch {torch.__version__} cannot run {self.what}", run)
        given = tree_flatten(result)[0]
        if len(given) <= max(self.results, default=0):
            raise ModelError(f"{self.what} gives {len(given)} results, fewer than its trace did")
        return [_array(given[place]) for place in self.results]

    def prepared(self, arrays: Sequence[Array]) -> Callable[[], object]:
        """A call that runs the model once on tensors that are ready; it raises ModelError where PyTorch cannot."""
        args, kwargs = self._arguments(arrays)

        def run() -> object:
            try:
                with torch.no_grad():
                    return self.call(*args, **kwargs)
            except Exception as error:  # PyTorch raises what it likes
                raise ModelError(f"PyTorch {torch.__version__} cannot run {self.what}: {first_line(error)}") from error

        return run

    def copied(self) -> Function:
        """The same function with weights in memory of its own. Raises ModelError if the model cannot be copied."""
        return replace(self, call=attempt(f"{self.what} cannot be copied", lambda: copy.deepcopy(self.call)))

    def in_float64(self) -> Function:
        """The same function in float64. Raises ModelError if the model cannot be copied."""
        model: Any = self.call
        if isinstance(model, nn.Module):
            model = attempt(f"{self.what} cannot be copied", lambda: copy.deepcopy(model).double())
        return replace(self, call=model, what=f"{self.what} in float64", float64=True)

    def _arguments(self, arrays: Sequence[Array]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        waiting = iter(arrays)
        leaves = [self._tensor(next(waiting), leaf) if isinstance(leaf, torch.dtype) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.spec)
        return args, kwargs

    def _tensor(self, array: Array, dtype: torch.dtype) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(array)).to(dtype)  # a copy: what is written to an input stays here
        return tensor.double() if self.float64 and dtype in _NARROWER else tensor


class _EverythingInFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives every operator float64 where the code that calls it asks for, or holds, a narrower type."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._assert_tensor_metadata.default:
            return None
        args, kwargs = tree_map(_widened, (args, kwargs or {}))
        return func(*args, **kwargs)


def _widened(item: Any) -> Any:
    if isinstance(item, torch.dtype) and item in _NARROWER:
        return torch.float64
    return item.double() if isinstance(item, torch.Tensor) and item.dtype in _NARROWER else item


def _array(leaf: torch.Tensor | int | float) -> Array:
    if not isinstance(leaf, torch.Tensor):
        return np.asarray(leaf)
    leaf = leaf.detach().cpu()
    return np.array((leaf.float() if leaf.dtype is torch.bfloat16 else leaf).numpy())
