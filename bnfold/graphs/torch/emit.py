"""What plans changed in the index, written into a new ExportedProgram, once, after the last plan.

Decisions:
- The program that is given is not changed; tensors that no plan names are shared with it.
- A changed parameter that nobody else reads keeps its name. A new one gets a name of its own beside it.
- Parameters and buffers that nobody reads any more go, with the counter of batches of a BatchNorm that went.
- An output keeps its place; the signature names whoever makes it now.
- Where a node that goes laid its result out anew in memory, views of it become reshapes.
- An operator that takes a number (`mul.Scalar`) becomes the one that takes a tensor where it is given one.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument

from bnfold.algebra.affine import Array
from bnfold.graphs.torch.constants import Known
from bnfold.graphs.torch.graph import TorchGraph
from bnfold.graphs.torch.index import Node, Slot, Value
from bnfold.graphs.torch.layout import RESHAPE, Layout
from bnfold.graphs.torch.schemas import schema_of
from bnfold.graphs.torch.unflattening import before_write, entries, tell_calls_apart, written

_COUNTER = "num_batches_tracked"
_HELD = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
# The order in which torch.export lists what a graph reads.
_ORDER = [InputKind.TOKEN, *_HELD, InputKind.CUSTOM_OBJ, InputKind.USER_INPUT]


class Emitted(NamedTuple):
    """A new program, and its new constants, by name, in float64 as they were before they were rounded."""

    program: ExportedProgram
    exact: dict[str, Callable[[], Array]]


def emit(graph: TorchGraph, program: ExportedProgram, layout: Layout) -> Emitted:
    """A program with all that the plans changed, and with what that does to layouts in memory."""
    emission = _Emission(graph, program)
    return Emitted(emission.run(layout), emission.exact)


class _Emission:
    """A copy of a program's graph while it is rewritten; `made` is the copied node that stands for each value."""

    def __init__(self, graph: TorchGraph, program: ExportedProgram) -> None:
        self.graph = graph
        self.program = program
        self.fx = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.output = self.fx.output(self.fx.graph_copy(program.graph, self.copies))
        for source, node in self.copies.items():
            node.name = source.name  # a copy gets another one where it is a word of Python, such as `input`
        self.tensors: dict[str, Any] = dict(program.state_dict)
        self.constants: dict[str, Any] = dict(program.constants)
        placeholders = self.fx.find_nodes(op="placeholder")
        self.specs = dict(zip(placeholders, program.graph_signature.input_specs, strict=True))
        self.read = {node for node in placeholders if node.users}
        self.changed: list[fx.Node] = []
        self.exact: dict[str, Callable[[], Array]] = {}
        self.made = {value: self.copies[source] for value, source in graph.index.sources.items()}

    def run(self, layout: Layout) -> ExportedProgram:
        returned: Any = self.output.args[0]
        writes = written(self.program.graph_signature.output_specs, returned, self.specs)
        for node in self.graph.appended:
            if node not in self.graph.gone:
                self._append(node)
        for node, position, value in self.graph.rewritten():
            if node.source is not None:
                self._rewrite(self.copies[node.source], node.slots[position], self._known(value))
                self.made[value] = _argument(self.copies[node.source], node.slots[position])
        names = {}
        for target in self.graph.merged:
            old, new = self._node(target), self._node(self.graph.final(target))
            if new in writes:
                new = before_write(self.fx, old, new, writes[new])
            names[old.name] = new.name
            old.replace_all_uses_with(new)
        for view in layout.relaxed:
            self.copies[view].target = RESHAPE
        for source, fake in layout.found.items():
            self.copies[source].meta["val"] = fake
        changed = [node.source for node in (*self.graph.gone, *self.graph.appended) if node.source is not None]
        self.changed += [self.copies[source] for source in changed]
        self._sweep()
        tell_calls_apart(self.fx, self.changed)
        return self._program(names)

    def _node(self, value: Value) -> fx.Node:
        """Who makes a value; one that an appended node made which is gone again is made by whom it was behind."""
        return self.made[value] if value in self.made else self.made[self.graph.final(value)]

    def _known(self, value: Value | None) -> Known:
        known = self.graph.constants.known(value)
        if known is None:
            raise KeyError("a value that was folded is no constant")
        return known

    def _append(self, node: Node) -> None:
        inner, final = node.inputs[0], node.outputs[0]
        if inner is None or final is None:
            raise KeyError(f"'{node.name}' reads or makes nothing")
        base = self.made[final]
        with self.fx.inserting_after(base):
            add = self.fx.call_function(torch.ops.aten.add.Tensor, (base, base))
        add.meta.update(base.meta)
        base.replace_all_uses_with(add, delete_user_cb=lambda user: user is not add)
        self.changed.append(add)
        add.args = (base, self._placeholder(self._known(node.inputs[1])))
        self.made[inner], self.made[final] = base, add

    def _rewrite(self, node: fx.Node, slot: Slot, known: Known) -> None:
        """Let a node read a folded constant: the old one, changed, where it is read here alone; else a new one."""
        self.changed.append(node)
        old = _argument(node, slot)
        spec = self.specs.get(old) if isinstance(old, fx.Node) else None
        if spec is not None and spec.target == known.name and _reads(old) == 1:
            holder = self._holder(spec)
            holder[known.name], self.exact[known.name] = known.tensor(), known.float64
            old.meta["val"] = self._fake(holder[known.name])
        else:
            _set_argument(node, slot, self._placeholder(known))

    def _placeholder(self, known: Known) -> fx.Node:
        """A new parameter of the program, or a new constant where that which it comes from is no parameter."""
        tensor = known.tensor()
        kind = InputKind.PARAMETER if isinstance(tensor, torch.nn.Parameter) else InputKind.CONSTANT_TENSOR
        target = self._unique(known.name)
        self.exact[target] = known.float64
        below = (node for node in self.fx.nodes if node not in self.specs or self._rank(node) > _ORDER.index(kind))
        with self.fx.inserting_before(next(below)):
            node = self.fx.placeholder(self._word(f"{kind.name[0].lower()}_{target}"))
        self.specs[node] = InputSpec(kind, TensorArgument(node.name), target)
        (self.tensors if kind is InputKind.PARAMETER else self.constants)[target] = tensor
        node.meta["val"] = self._fake(tensor)
        return node

    def _word(self, text: str) -> str:
        """A name that is a word, which it has to be as an argument of the program's code, and that nobody has."""
        name = base = re.sub(r"\W", "_", text)
        taken, number = {node.name for node in self.fx.nodes}, 1
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        return name

    def _rank(self, node: fx.Node) -> int:
        return _ORDER.index(self.specs[node].kind)

    def _holder(self, spec: InputSpec) -> dict[str, Any]:
        return self.tensors if spec.target in self.tensors else self.constants

    def _unique(self, base: str) -> str:
        name, count = base, 1
        while name in self.tensors or name in self.constants:
            name, count = f"{base}_folded{count if count > 1 else ''}", count + 1
        return name

    def _fake(self, tensor: torch.Tensor) -> Any:
        modes = (getattr(node.meta.get("val"), "fake_mode", None) for node in self.fx.nodes)
        mode = next(mode for mode in modes if mode is not None)
        return mode.from_tensor(tensor.detach(), static_shapes=True)

    def _sweep(self) -> None:
        """Remove the nodes that went, what computed their constants, and the parameters that only they read."""
        gone = {self.copies[node.source] for node in self.graph.gone if node.source is not None}
        gone |= {node for value, node in self.made.items() if self.graph.constants.known(value) is not None}
        for node in reversed(list(self.fx.nodes)):
            picked = node.args[0] if node.target is operator.getitem else None
            if node not in self.specs and (node in gone or picked in gone) and not node.users:
                self.fx.erase_node(node)
        unread = [node for node in self.read if not node.users and self.specs[node].kind in _HELD]
        tensors = {id(self._held(node)) for node in unread}
        unread += [node for node in self.specs if not node.users and id(self._held(node)) in tensors]  # by another name
        counters = {_sibling(self.specs[node].target, _COUNTER) for node in unread}
        unread += [node for node, spec in self.specs.items() if spec.target in counters and not node.users]
        for node in dict.fromkeys(unread):
            spec = self.specs.pop(node)
            self._holder(spec).pop(str(spec.target), None)
            self.fx.erase_node(node)

    def _held(self, node: fx.Node) -> Any:
        """The parameter, buffer or constant that a placeholder stands for."""
        spec = self.specs[node]
        return self._holder(spec)[str(spec.target)] if spec.kind in _HELD else node

    def _program(self, names: dict[str, str]) -> ExportedProgram:
        program = self.program
        returned: Any = self.output.args[0]
        outputs = [
            replace(spec, arg=replace(spec.arg, name=node.name)) if isinstance(node, fx.Node) else spec
            for spec, node in zip(program.graph_signature.output_specs, returned, strict=True)
        ]
        inputs = [self.specs[node] for node in self.fx.find_nodes(op="placeholder")]
        return ExportedProgram(
            root=program.graph_module,
            graph=self.fx,
            graph_signature=ExportGraphSignature(inputs, outputs),
            state_dict=self.tensors,
            range_constraints=dict(program.range_constraints),
            module_call_graph=entries(program.module_call_graph, self.fx, names),
            example_inputs=program.example_inputs,
            constants=self.constants,
            verifiers=program.verifiers,
        )


def _sibling(target: str | None, name: str) -> str:
    """The name of a tensor of the same module."""
    home = (target or "").rpartition(".")[0]
    return f"{home}.{name}" if home else name


def _reads(node: fx.Node) -> int:
    """How often a node is read."""
    found: list[fx.Node] = []
    for user in node.users:
        fx.node.map_arg((user.args, user.kwargs), lambda item: found.append(item) if item is node else None)
    return len(found)


def _place(node: fx.Node, slot: Slot) -> int | None:
    """The place of an argument among the positional ones, where it may stand there."""
    schema = schema_of(node.target)
    names = [parameter.name for parameter in schema.parameters] if schema else []
    at = names.index(slot.argument)
    return at if at <= len(node.args) and slot.argument not in node.kwargs else None


def _argument(node: fx.Node, slot: Slot) -> Any:
    at = _place(node, slot)
    whole = node.kwargs.get(slot.argument) if at is None else node.args[at] if at < len(node.args) else None
    return whole[slot.place] if slot.place is not None and isinstance(whole, list | tuple) else whole


def _takes_tensor(node: fx.Node, slot: Slot) -> bool:
    schema = schema_of(node.target)
    parameters = {parameter.name: parameter for parameter in schema.parameters} if schema else {}
    return slot.argument not in parameters or parameters[slot.argument].takes_tensors


def _set_argument(node: fx.Node, slot: Slot, value: fx.Node) -> None:
    if not _takes_tensor(node, slot):
        target: Any = node.target
        node.target = target.overloadpacket.Tensor
        node.args, node.kwargs = (node.args[0], value), {}  # all else is at its default, or the fold would be refused
        return
    at = _place(node, slot)
    new: Any = value
    if slot.place is not None:
        whole = node.kwargs[slot.argument] if at is None else node.args[at]
        new = [value if place == slot.place else item for place, item in enumerate(whole)]  # type: ignore[arg-type]
    if at is None:
        node.kwargs = {**node.kwargs, slot.argument: new}
    else:
        node.args = (*node.args[:at], new, *node.args[at + 1 :])
