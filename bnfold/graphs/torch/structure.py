"""What the tree of a module and its code can carry of a fold: which constants can be changed, which calls left out.

The graph of a module knows nothing of these; a `Structure` answers for the module that it was traced from. Every
refusal here has the reason "structure".

Decisions. A parameter can be changed if one operator reads it, once, and no other name stands for the same memory. The
call of a module can be left out if the module is called once, with one tensor, gives one tensor, computes nothing but
what is left out, and nobody else reads its parameters or holds it; an `Identity` then stands in its place. Where such
a module goes on to call children of its own, one after the other, as a BatchNorm with an activation does, a
`Sequential` of them does. A convolution or linear layer without a bias can be given one where PyTorch's own code runs
it, which reads it, and once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from bnfold.algebra.affine import Refusal
from bnfold.algebra.reasons import REASONS, Reason
from bnfold.graphs.torch.beside import held_beside
from bnfold.graphs.torch.calls import Calls
from bnfold.graphs.torch.index import Index, Node, Value
from bnfold.graphs.torch.kinds.facts import Facts

STRUCTURE = "structure"
_LAYERS = ("torch.nn.modules.conv", "torch.nn.modules.linear")
REASONS.setdefault(
    STRUCTURE,
    Reason(
        "The graph would allow it, but the code or the tree of the PyTorch module cannot carry it: a layer that is "
        "called twice, tied or computed weights, a normalisation written out in the code of a larger module, a hook.",
        "Fold the program that `torch.export` makes of the module, or its ONNX export.",
    ),
)


@dataclass(frozen=True, eq=False)
class Unit:
    """The call of a module that can be left out; `rest` are the names of the children that it goes on to call."""

    path: str
    nodes: tuple[Node, ...]
    rest: tuple[str, ...] = ()

    def holds(self, name: str) -> bool:
        """Whether a parameter or buffer of this name goes with the module."""
        inner = name.removeprefix(f"{self.path}.")
        return inner != name and inner.partition(".")[0] not in self.rest


class Structure:
    """A module, the index of its graph, and the calls of its submodules that were recorded with it.

    `members` are, per call of a module, the nodes in it that compute something from the inputs. `wants_biases` says
    whether a fold was refused because code outside of a layer reads its weight, and perhaps its missing bias as well;
    `wants_room` whether one was refused because of others who read or hold a parameter, or stand in the same code.
    `gone` are calls that folds have left out.
    """

    def __init__(
        self, module: nn.Module, index: Index, facts: Facts, calls: Calls, members: dict[str, list[Node]]
    ) -> None:
        self.facts, self.calls, self.members = facts, calls, members
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.names: dict[int, list[str]] = {}
        for path, submodule in self.modules.items():
            self.names.setdefault(id(submodule), []).append(path)
        self.holders: dict[object, list[str]] = {}
        self.memory: dict[str, object] = {}
        for name, tensor in _state(self.modules):
            self.memory[name] = _memory(tensor)
            self.holders.setdefault(self.memory[name], []).append(name)
        # The values of parameters and buffers by the module that holds them.
        self.state: dict[str, list[Value]] = {}
        for value in index.state:
            self.state.setdefault((value.target or "").rpartition(".")[0], []).append(value)
        self.wants_biases = self.wants_room = False
        self.gone: list[Unit] = []

    @cached_property
    def _beside(self) -> set[int]:
        return held_beside(self.modules.values())

    def fixed(self, value: Value) -> Refusal | None:
        """Why a constant cannot be given another value, if it cannot."""
        if value.number is not None:
            return _no(f"the number {value.number} stands in the code of the module")
        if value.target is None:
            return _no(f"'{value.name}' is computed whenever the module runs, as a parametrized weight is")
        if value.target not in self.memory:
            return _no(f"'{value.target}' is neither a parameter nor a buffer")
        others = [name for name in self.holders[self.memory[value.target]] if name != value.target]
        other = next((name for name in others if not any(unit.holds(name) for unit in self.gone)), None)
        if other is not None:
            self.wants_room = True
            return _no(f"'{value.target}' and '{other}' are tied")
        if value.is_output:
            return _no(f"'{value.target}' is handed out by the module")
        if len(value.readers) > 1:
            self.wants_room = True
            return _no(f"'{value.target}' is used {len(value.readers)} times, and its uses need not agree")
        return None

    def without_bias(self, node: Node, weight: str, *, alone: bool) -> Refusal | None:
        """Why the layer that a node is the call of cannot be given a bias, if it cannot.

        `weight` is the name of what it multiplies by, `alone` says that nobody else reads that.
        """
        home, _, name = weight.rpartition(".")
        layer = self.modules.get(home)
        if layer is not None and name == "weight" and lacks_bias(layer):
            called = sum(len(self.calls.of(path)) for path in self.names[id(layer)])
            inside = bool(node.calls) and self.modules.get(node.calls[-1][1]) is layer
            if runs_as_written(layer) and inside and called == 1 and alone:
                return None
            self.wants_biases |= not inside
            self.wants_room |= not alone
        return _no("it has no bias that could take the shift")

    def units(self, nodes: Sequence[Node]) -> list[Unit] | Refusal:
        """The calls of modules that have to be left out for these nodes to be, which run downward."""
        units: list[Unit] = []
        for node in nodes:
            if any(node in unit.nodes for unit in units):
                continue
            unit = self._unit(node, nodes)
            if isinstance(unit, Refusal):
                return unit
            units = [other for other in units if not set(other.nodes) <= set(unit.nodes)] + [unit]
        return units

    def _unit(self, node: Node, nodes: Sequence[Node]) -> Unit | Refusal:
        """The innermost call that a node lies in, if it can be left out together with these nodes."""
        if not node.calls:
            return _no("it is written out in the code of the model, not in a module of its own")
        key, path = node.calls[-1]
        what = f"'{path}' ({type(self.modules[path]).__name__})" if path in self.modules else f"'{path}'"
        left_out = {member for unit in self.gone for member in unit.nodes}
        members = [member for member in self.members[key] if member not in left_out]
        own = tuple(member for member in members if member in nodes)
        others = [member for member in members if member not in nodes]
        names, calls = self.names.get(id(self.modules.get(path)), []), self.calls.of(path)
        if len(names) != 1:
            return _no(f"{what} is registered under {len(names)} names")
        if len(calls) != 1:
            return _no(f"{what} is called {len(calls)} times")
        if not calls[0].is_plain:
            return _no(f"{what} takes or gives more than one tensor")
        if type(self.modules[path]).__call__ is not nn.Module.__call__:
            return _no(f"{what} has a __call__ of its own")
        if id(self.modules[path]) in self._beside:
            return _no(f"{what} is held by an attribute too, outside of the tree of modules, and may be called there")
        rest: tuple[str, ...] = ()
        if others:
            following = self._rest(path, key, own, others)
            if following is None:
                self.wants_room = True
                return _no(f"it is written out in the code of {what}, which does more")
            rest = following
        if len(self._entering(members)) != 1 or any(value is not members[-1].outputs[0] for value in _leaving(members)):
            return _no(f"{what} takes or gives more than one tensor")
        for value in self._held(path):
            if not all(key in dict(reader.calls) for reader, _ in value.readers):
                self.wants_room = True
                return _no(f"'{value.target}' is read outside of its module too")
        return Unit(path, own, rest)

    def _held(self, path: str) -> Iterator[Value]:
        """The values of the parameters and buffers that lie in a module, however deep."""
        for inner, _ in self.modules[path].named_modules(prefix=path, remove_duplicate=False):
            yield from self.state.get(inner, ())

    def _rest(self, path: str, key: str, own: tuple[Node, ...], others: list[Node]) -> tuple[str, ...] | None:
        """The children of a module that it calls in a row, each with what the one before gave; None if it is not so."""
        if any(node.calls[-1][0] == key for node in others) or self.members[key][: len(own)] != list(own):
            return None
        children = [name for name, _ in self.calls.within(path)]
        if any("." in name for name in children) or not all(call.is_plain for _, call in self.calls.within(path)):
            return None
        value = own[-1].outputs[0]
        for node in others:
            if [source for source in node.inputs if source and not self.facts.known(source)] != [value]:
                return None
            value = node.outputs[0]
        used = {name.partition(".")[0] for name in children}
        return tuple(children) if len(used) == len(children) else None

    def _entering(self, members: Sequence[Node]) -> set[Value]:
        """The values that some nodes read and others made, constants aside, unless there is nothing else."""
        read = {value for node in members for value in node.inputs if value and not self.facts.known(value)}
        entering = {value for value in read if value.producer not in members}
        first = members[0].inputs[0] if members else None  # of a BatchNorm on a constant
        return entering or ({first} if first is not None else set())

    def hooked(self, paths: Iterable[str]) -> Iterable[tuple[str, Value]]:
        """The values that go into and come out of the calls of these modules, with the path of each."""
        wanted = set(paths)
        for key, members in self.members.items() if wanted else ():
            path = next(path for name, path in members[0].calls if name == key)
            if path in wanted:
                for value in (*self._entering(members), *_leaving(members)):
                    yield path, value


def lacks_bias(layer: nn.Module) -> bool:
    """Whether a layer is of a kind that may have a bias, and has a weight but no bias."""
    if not isinstance(layer, nn.Linear | _ConvNd) or layer._parameters.get("weight") is None:
        return False
    return layer._parameters.get("bias", layer) is None


def runs_as_written(layer: nn.Module) -> bool:
    """Whether a convolution or linear layer runs PyTorch's own code, which reads its bias."""
    own = all(name not in vars(layer) for name in ("forward", "_conv_forward"))
    code = (getattr(type(layer), name, None) for name in ("forward", "_conv_forward"))
    return own and all(item is None or item.__module__ in _LAYERS for item in code)


def _leaving(members: Sequence[Node]) -> list[Value]:
    """The values that some nodes make and others read."""
    made = [value for node in members for value in node.outputs if value]
    return [value for value in made if value.is_output or any(reader not in members for reader, _ in value.readers)]


def _no(detail: str) -> Refusal:
    return Refusal(STRUCTURE, detail)


def _state(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters, then the buffers of modules, by their names from the root."""
    for held in ("_parameters", "_buffers"):
        for path, module in modules.items():
            for name, tensor in getattr(module, held).items():
                if tensor is not None:
                    yield f"{path}.{name}" if path else name, tensor


def _memory(tensor: torch.Tensor) -> object:
    """What tells the memory of a tensor from that of another; the tensor itself where it has none."""
    try:
        pointer = tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        pointer = 0
    return (tensor.device, pointer) if pointer else id(tensor)
