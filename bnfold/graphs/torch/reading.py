"""Reading a program into an index.

A torch.fx node that only picks one result of another (`getitem`) is an output port. A region under `no_grad` or
`autocast`, which torch.export sets apart, is read as if it stood in the graph itself. Of a graph that an operator runs
as it likes, such as a branch of `cond`, the BatchNorms are noted, as nodes that read and give nothing.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from bnfold.graphs.torch.index import NESTED, Index, Node, Slot, Value, leaves, link, size_of
from bnfold.graphs.torch.inplace import Writes, storage_of, writes_in_place, written
from bnfold.graphs.torch.kinds import BATCH_NORMS
from bnfold.graphs.torch.schemas import schema_of

_STATE = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
# In evaluation these hand out the very tensor that they read, which their schema does not say.
_HAND_ON = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
# The operator that a module is known for, where its call takes several.
_PRINCIPAL = ("conv", "linear", "batch_norm", "native_batch_norm", "_native_batch_norm")
_AUTOCAST = "wrap_with_autocast"
_REGIONS = ("wrap_with_set_grad_enabled", _AUTOCAST)


def index_program(program: ExportedProgram) -> Index:
    """The graph of a program, which is not changed."""
    return _Reading(program).run()


def branching(program: ExportedProgram) -> str | None:
    """An operator of a program that runs graphs as it likes, such as `cond`, if there is one."""
    return next((node.name for node in program.graph.nodes if runs_graphs(node)), None)


def runs_graphs(node: fx.Node) -> bool:
    """Whether a node is an operator that runs graphs as it likes; a region is run as if it stood there."""
    is_higher = isinstance(node.target, torch._ops.HigherOrderOperator) and not is_region(node)
    return is_higher and any(holder.op == "get_attr" for holder in node.all_input_nodes)


def written_parameters(program: ExportedProgram) -> frozenset[str]:
    """The parameters of a program that an operator writes to in place."""
    memory = {}
    for node, spec in zip(program.graph.find_nodes(op="placeholder"), program.graph_signature.input_specs, strict=True):
        if spec.kind is InputKind.PARAMETER:
            memory[storage_of(node.meta["val"])] = str(spec.target)
    found = {spec.target for spec in program.graph_signature.output_specs if spec.target in memory.values()}
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            values = [item.meta.get("val") for item in written(node)] if node.op == "call_function" else []
            found.update(memory.get(storage_of(value)) for value in values if isinstance(value, torch.Tensor))
    return frozenset(name for name in found if name is not None)


def has_autocast(program: ExportedProgram) -> bool:
    """Whether a region of a program is under `autocast`."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, fx.GraphModule)]
    return any(getattr(node.target, "__name__", "") == _AUTOCAST for graph in graphs for node in graph.nodes)


def is_plain(program: ExportedProgram) -> bool:
    """Whether no operator of a program writes in place, and no region of it stands apart."""
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    return not any(writes_in_place(node) or is_region(node) for node in calls)


class _Reading:
    """The state while the nodes of a graph are read, in order: `current` is what every one of them stands for now."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        signature = program.graph_signature
        self.specs = {getattr(spec.arg, "name", None): spec for spec in signature.input_specs}
        self.mutated = {spec.target for spec in signature.output_specs if spec.kind is not OutputKind.USER_OUTPUT}
        self.index = Index()
        self.current: dict[fx.Node, list[Value | None]] = {}
        self.writes = Writes(self.index, self.current)
        self.later: set[fx.Node] = set()

    def run(self) -> Index:
        for value in self._graph(self.program.graph_module):
            if value is not None:
                value.is_output = True
        self.writes.pin()
        self.index.names = _names(self.index.nodes)
        return self.index

    def _graph(self, module: torch.nn.Module) -> list[Value | None]:
        """Read the nodes of a graph module; returns the values that it hands out."""
        graph: Any = module.graph
        self.later.update(graph.nodes)
        for node in graph.nodes:
            self.later.discard(node)
            if node.op in ("placeholder", "get_attr"):
                if node not in self.current:
                    self._enter(node)
            elif _picks(node):
                self._stand(node, [self.current[node.args[0]][node.args[1]]])
            elif node.op == "call_function" and is_region(node):
                self._region(module, node)
            elif node.op == "call_function":
                self._call(node)
                self._nested(module, node)
            else:
                return [self.current[item][0] if isinstance(item, fx.Node) else None for item in leaves(node.args)]
        raise ValueError("a graph hands out nothing")

    def _enter(self, node: fx.Node) -> None:
        spec = self.specs.get(node.name)
        value = _value(node.name, node.meta.get("val"))
        if spec is not None and spec.kind in _STATE and spec.target not in self.mutated:
            value.target = spec.target
            self.index.state.append(value)
        else:
            value.is_input = True
        self._stand(node, [value])
        self.writes.enters(value)

    def _region(self, module: torch.nn.Module, node: fx.Node) -> None:
        """Read the graph of a region as if it stood here: its operands follow it among the arguments."""
        at, holder = next((at, item) for at, item in enumerate(node.args) if getattr(item, "op", "") == "get_attr")
        inner: Any = module.get_submodule(str(holder.target))  # type: ignore[union-attr]
        for placeholder, operand in zip(inner.graph.find_nodes(op="placeholder"), node.args[at + 1 :], strict=True):
            if isinstance(operand, fx.Node):
                self._stand(placeholder, self.current[operand][:1])
        self.current[node] = self._graph(inner)

    def _nested(self, module: torch.nn.Module, source: fx.Node) -> None:
        for holder in source.all_input_nodes:
            inner = getattr(module, str(holder.target), None) if holder.op == "get_attr" else None
            if not isinstance(inner, fx.GraphModule):
                continue
            for node in inner.graph.nodes:
                schema = schema_of(node.target)
                if schema is not None and schema.name in BATCH_NORMS:
                    value = _value(node.name, node.meta.get("val"))
                    arguments = {"runner": source.name}
                    norm = Node(schema.name, f"{source.name}.{node.name}", NESTED, None, outputs=[value])
                    norm.arguments, norm.calls, norm.at = arguments, _calls(node), len(self.index.nodes)
                    self.index.nodes.append(norm)
                self._nested(inner, node)

    def _call(self, source: fx.Node) -> None:
        node = self._node(source)
        meta = source.meta.get("val")
        several = isinstance(meta, tuple | list)
        for port, item in enumerate(leaves(meta) if several else [meta]):
            value = _value(f"{source.name}.{port}" if several else source.name, item)
            value.producer, value.port = node, port
            node.outputs.append(value)
        handed_on = node.inputs[0] if node.op in _HAND_ON and not node.arguments.get("train", True) else None
        for output in node.outputs if handed_on is not None else ():
            if output is not None and handed_on is not None:
                output.storage = handed_on.storage
        self.index.nodes.append(node)
        if writes_in_place(source):
            self.writes.write(source, node, self.later)
        if several:
            self.current[source] = node.outputs
        else:
            self._stand(source, node.outputs)

    def _stand(self, node: fx.Node, values: list[Value | None]) -> None:
        """Note what a node stands for, and in which memory that lies."""
        self.current[node] = values
        if values[0] is not None:
            self.index.sources.setdefault(values[0], node)
            self.writes.lies(node, values[0])

    def _node(self, source: fx.Node) -> Node:
        target, at = source.target, len(self.index.nodes)
        calls = _calls(source)
        schema = schema_of(target)
        if schema is None:
            name = f"python.{getattr(target, '__name__', target)}"
            node = Node(name, source.name, "python", source, calls=calls, at=at)
            for argument in source.all_input_nodes:
                self._read(node, Slot(""), argument)
            return node
        space, name = schema.space, schema.name
        op = name[:-1] if name.endswith("_") and not name.startswith("__") else name
        op += ".out" * schema.has_out
        node = Node(op if space == "aten" else f"{space}.{op}", source.name, space, source, calls=calls, at=at)
        args, kwargs, given = source.args, source.kwargs, []
        for place, parameter in enumerate(schema.parameters):
            name = parameter.name
            value = args[place] if place < len(args) else kwargs.get(name, parameter.default)
            if parameter.takes_tensors and isinstance(value, list | tuple):
                for among, item in enumerate(value):
                    self._read(node, Slot(name, among), item)
            elif parameter.takes_tensors or (name == "other" and isinstance(value, int | float | fx.Node)):
                self._read(node, Slot(name), value)
            else:
                node.arguments[name] = _plain(value)
                if not parameter.has_default or value != parameter.default:
                    given.append(name)
        node.given = frozenset(given)
        return node

    def _read(self, node: Node, slot: Slot, item: Any) -> None:
        value: Value | None = None
        if isinstance(item, fx.Node):
            value = self.current[item][0]
        elif isinstance(item, int | float) and not isinstance(item, bool):
            value = Value(f"{node.name}.{slot.argument}", number=item)
        node.slots.append(slot)
        node.inputs.append(None)
        link(node, len(node.inputs) - 1, value)


def _calls(node: fx.Node) -> tuple[tuple[str, str], ...]:
    return tuple([(key, path) for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items() if path])


def is_region(node: fx.Node) -> bool:
    """Whether a node runs a graph under `no_grad` or `autocast`."""
    return getattr(node.target, "__name__", "") in _REGIONS


def _picks(node: fx.Node) -> bool:
    """Whether a node only takes one result of another."""
    if node.target is not operator.getitem or not isinstance(node.args[1], int):
        return False
    source = node.all_input_nodes[0]
    return is_region(source) or isinstance(source.meta.get("val"), tuple | list)


def _plain(value: Any) -> Any:
    """An argument that is no tensor, with sizes as `size_of` gives them."""
    if value is None or type(value) in (bool, int, float):
        return value
    plain = fx.node.map_aggregate(value, size_of)
    return list(plain) if isinstance(plain, list | tuple) else plain


def _value(name: str, meta: Any) -> Value:
    value = Value(name)
    if isinstance(meta, torch.Tensor):
        value.tensor, value.storage = meta, storage_of(meta)
    return value


def _names(nodes: list[Node]) -> dict[Node, str]:
    """The path of a module for the one node, or the one principal node, that its call consists of.

    Where calls are not known, as after decompositions, the parameters that a principal node reads tell its module.
    """
    calls: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        if any(value and value.tensor is not None for value in node.outputs):
            for call in node.calls[-1:] or _homes(node):
                calls.setdefault(call, []).append(node)
    names = {}
    for (key, path), members in calls.items():
        chosen = [node for node in members if node.op.startswith(_PRINCIPAL)] or members
        if len(chosen) == 1:
            names[chosen[0]] = path + "".join(key.partition("@")[1:])
    return names


def _homes(node: Node) -> list[tuple[str, str]]:
    """The one module that all parameters of a principal node belong to, as if it were a call."""
    homes = {value.target.rpartition(".")[0] for value in node.inputs if value and value.target}
    return [(home, home) for home in homes if home and len(homes) == 1 and node.op.startswith(_PRINCIPAL)]
