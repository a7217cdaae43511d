"""PyTorch models as functions of NumPy arrays: in their own types, and in float64, as the exact reference.

A function gives the same for the same arrays, however often it has been called: it is run as `run_aside` does.

The float64 run is that of a copy with float64 weights on float64 inputs, in a mode in which every floating-point type
that the code asks for (`.float()`, `torch.zeros(..., dtype=torch.float32)`) is float64 as well. What is computed from
weights alone is rounded as in the model's own types, since that is part of the function: `weight.half()` is another
constant than `weight`. What an operator does inside in a narrower type is beyond the mode's reach.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

from bnfold.errors import ModelError
from bnfold.graphs.torch.copies import deep_copy
from bnfold.graphs.torch.fold import attempt, first_line
from bnfold.graphs.torch.running import run_aside, shell_of

Array = NDArray[Any]
_NARROWER = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, eq=False)
class Function:
    """A model that is called with arrays, one per tensor among its arguments, and gives those of its results, in order.

    A bfloat16 tensor is a float32 array, since NumPy has no such type. `leaves` are the arguments flattened by `spec`,
    with the dtype of each tensor in its place; `results` are the places of what is given, among the results flattened.
    `written` are the parameters that the code writes to, `branching` is an operator that runs graphs of its own.
    `widened` are the types that the weights had before they became float64, where the function runs in float64.
    """

    call: Callable[..., Any]
    leaves: tuple[Any, ...]
    spec: TreeSpec
    results: tuple[int, ...]
    what: str
    written: frozenset[str] = frozenset()
    branching: str | None = None
    widened: WeakIdKeyDictionary | None = None

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """Raises ModelError if PyTorch cannot run the model on these arrays."""
        args, kwargs = self._arguments(arrays)

        def run() -> Any:
            mode: Any = nullcontext() if self.widened is None else _EverythingInFloat64(self.widened)
            with mode:
                if isinstance(self.call, nn.Module) and not isinstance(self.call, torch.jit.ScriptModule):
                    return run_aside(shell_of(self.call), args, kwargs, self.written)
                with torch.no_grad():
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

    def in_float64(self, exact: Mapping[str, Callable[[], Array]] | None = None) -> Function:
        """The same function in float64, in which weights may have the values of `exact` instead of their own.

        Raises ModelError if the model cannot be copied, or branches: PyTorch traces branches, which no mode survives.
        """
        if self.branching is not None:
            raise ModelError(f"{self.what} runs graphs of its own ('{self.branching}'), which float64 does not reach")
        model: Any = self.call
        types: dict[torch.Tensor, torch.dtype] = {}
        if isinstance(model, nn.Module):
            own = {name: held.dtype for name, held in _held(model)}
            model = deep_copy(model, self.what).double()
            types = {wide: own[name] for name, wide in _held(model) if name in own}
            for name, array in (exact or {}).items():
                _put(model, name, torch.from_numpy(array()), types)
        return replace(self, call=model, what=f"{self.what} in float64", widened=WeakIdKeyDictionary(types))

    def _arguments(self, arrays: Sequence[Array]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        waiting = iter(arrays)
        leaves = [self._tensor(next(waiting), leaf) if isinstance(leaf, torch.dtype) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.spec)
        return args, kwargs

    def _tensor(self, array: Array, dtype: torch.dtype) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(array)).to(dtype)  # a copy: what is written to an input stays here
        return tensor.double() if self.widened is not None and dtype in _NARROWER else tensor


class _EverythingInFloat64(TorchDispatchMode):
    """Gives every operator float64 where the code that calls it asks for, or holds, a narrower type.

    Operators on constants alone run in the types that these have outside of the mode, which `own` holds; their results
    are float64 as well, so that what comes from the inputs can be written into them.
    """

    def __init__(self, own: WeakIdKeyDictionary) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own = own

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._assert_tensor_metadata.default:
            return None
        given = args, kwargs or {}
        tensors = [item for item in tree_leaves(given) if isinstance(item, torch.Tensor)]
        constant = all(item in self.own or item.dtype in _NARROWER for item in tensors)
        if constant and not any(argument.alias_info for argument in func._schema.arguments):
            args, kwargs = tree_map(self._narrowed, given)
            return tree_map(self._noted, func(*args, **kwargs))
        args, kwargs = tree_map(_widened, given)
        made = func(*args, **kwargs)
        for item in tree_leaves(made) if constant else ():  # views
            if isinstance(item, torch.Tensor):
                self.own[item] = self.own[tensors[0]] if tensors[0] in self.own else tensors[0].dtype
        for item in () if constant else _written(func._schema, *given):
            for changed in (item, item._base) if isinstance(item, torch.Tensor) else ():
                if changed is not None and changed in self.own:
                    del self.own[changed]
        return made

    def _narrowed(self, item: Any) -> Any:
        return item.to(self.own[item]) if isinstance(item, torch.Tensor) and item in self.own else item

    def _noted(self, item: Any) -> Any:
        if not isinstance(item, torch.Tensor):
            return item
        wide = _widened(item)
        self.own[wide] = item.dtype
        return wide


def _widened(item: Any) -> Any:
    if isinstance(item, torch.dtype) and item in _NARROWER:
        return torch.float64
    return item.double() if isinstance(item, torch.Tensor) and item.dtype in _NARROWER else item


def _written(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that an operator writes to."""
    names = [item.name for item in schema.arguments if item.alias_info is not None and item.alias_info.is_write]
    given = {**{item.name: value for item, value in zip(schema.arguments, args, strict=False)}, **kwargs}
    return tree_leaves([given.get(name) for name in names])


def _put(module: nn.Module, name: str, exact: torch.Tensor, types: dict[torch.Tensor, torch.dtype]) -> None:
    """Give a tensor of a module the value that it had before it was rounded to its type, if it is that."""
    home, _, attribute = name.rpartition(".")
    layer: Any = module.get_submodule(home)
    held: torch.Tensor = getattr(layer, attribute)
    if not torch.equal(held.detach().double(), exact.to(types.get(held, held.dtype)).double()):
        return
    if held.dtype is torch.float64:
        held.detach().copy_(exact)
        types[held] = torch.float64
    else:  # a constant, which is no part of the module's state
        setattr(layer, attribute, exact)


def _held(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a module by name; of a program's, constants are attributes, and buffers of a copy of it."""
    yield from module.named_parameters()
    yield from module.named_buffers()
    yield from ((name, item) for name, item in vars(module).items() if isinstance(item, torch.Tensor))


def _array(leaf: torch.Tensor | int | float) -> Array:
    if not isinstance(leaf, torch.Tensor):
        return np.asarray(leaf)
    leaf = leaf.detach().cpu()
    return np.array((leaf.float() if leaf.dtype is torch.bfloat16 else leaf).numpy())
