"""A model as objects: who makes a value, who reads it, in which graph.

Names are resolved once, scope by scope, so that a body's reference to a value outside is a reader of that value like
any other. Every protobuf message stays where it is until `graph.emit` writes the changes of the plans into it.

Repeated fields of messages are read as slices (`field[:]`, a list): element by element it takes twice as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

from bnfold.errors import ModelError

# Operators that look only at a value's shape or type at this input: they see no difference after a fold.
_LOOKERS = {("Shape", 0), ("Size", 0), ("CastLike", 1)}
_LOOKING = {op for op, _ in _LOOKERS}

# The operators of the standard that hold graphs; a foreign one may, too.
_HOLDING_GRAPHS = {"If", "Loop", "Scan", "SequenceMap"}

# Files older than the field `type` leave it undefined.
_MAY_HOLD_GRAPHS = {onnx.AttributeProto.UNDEFINED, onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}


class Value:
    """A value of one scope. `tensor` is the initializer that it is (or is by default, where it is an input too).

    `readers` and `lookers` hold who reads it, and at which input, in the order of reading.
    """

    __slots__ = ("is_input", "is_output", "lookers", "name", "port", "producer", "readers", "scope", "tensor")

    def __init__(self, name: str, scope: Scope, producer: Node | None = None, port: int = 0) -> None:
        self.name = name
        self.scope = scope
        self.producer = producer
        self.port = port
        self.tensor: onnx.TensorProto | None = None
        self.is_input = False
        self.is_output = False
        self.readers: dict[tuple[Node, int], None] = {}
        self.lookers: dict[tuple[Node, int], None] = {}

    def __repr__(self) -> str:
        return f"<value {self.name}>"


class Node:
    """A node of one scope, with the values that it reads and makes; None stands for an empty optional one.

    `is_open` says that it takes an attribute from the caller of the function that it lies in: what it computes is not
    known here.
    """

    __slots__ = ("changed", "domain", "inputs", "is_open", "is_read", "op", "outputs", "proto", "scope")

    def __init__(self, proto: onnx.NodeProto, scope: Scope) -> None:
        self.proto = proto
        self.scope = scope
        self.is_open = scope.in_function and any(item.ref_attr_name for item in proto.attribute[:])
        self.op: str = proto.op_type
        self.domain = _domain(proto.domain)
        self.inputs: list[Value | None] = []
        self.outputs: list[Value | None] = []
        self.changed = False
        self.is_read = False  # whether the file has come by it, while it is read

    def __repr__(self) -> str:
        return f"<node {self.name} ({self.op})>"

    @property
    def name(self) -> str:
        """The node's name in the model as it was read; of one without, that of the first value that it made there."""
        return self.proto.name or next(filter(None, self.proto.output), self.op)

    @property
    def opset(self) -> int:
        return self.scope.opsets.get(self.domain, 0)


@dataclass(eq=False, repr=False)
class Scope:
    """One graph or function body: its nodes in file order and its values by name.

    `is_unsorted` says that a node reads what another one makes only further down in the file.
    """

    graph: onnx.GraphProto | onnx.FunctionProto
    parent: Scope | None
    opsets: dict[str, int]
    owner: Node | None = None
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    bodies: list[Scope] = field(default_factory=list)
    changed: bool = False
    in_function: bool = False
    is_unsorted: bool = False

    @property
    def is_function(self) -> bool:
        return isinstance(self.graph, onnx.FunctionProto)

    def resolve(self, name: str) -> Value | None:
        """The value that a name stands for here: the innermost of that name."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return None

    def walk(self) -> Iterator[Scope]:
        """This scope and every body inside it."""
        yield self
        for body in self.bodies:
            yield from body.walk()


def index_model(model: onnx.ModelProto, where: str = "the model") -> list[Scope]:
    """The scopes of a model: the main graph first, then one per model-local function.

    Raises ModelError for a graph that contradicts itself: a name that nothing makes, or that two make.
    """
    opsets = {_domain(item.domain): item.version for item in model.opset_import}
    scopes = [_scope_of_graph(model.graph, None, opsets, where)]
    for function in model.functions:
        versions = {**opsets, **{_domain(item.domain): item.version for item in function.opset_import}}
        scope = Scope(function, None, versions, in_function=True)
        for name in function.input[:]:
            _define(scope, name, where).is_input = True
        _fill(scope, where)
        for name in function.output[:]:
            _hand_out(scope, name, where)
        scopes.append(scope)
    return scopes


def link(node: Node, position: int, value: Value | None) -> None:
    """Let a node read a value at a position, and forget what it read there before."""
    old = node.inputs[position] if position < len(node.inputs) else None
    if old is not None:
        old.readers.pop((node, position), None)
        old.lookers.pop((node, position), None)
    while len(node.inputs) <= position:
        node.inputs.append(None)
    node.inputs[position] = value
    if value is not None:
        _enter(node, position, value)


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """An attribute of a node that is one integer."""
    return next((item.i for item in node.attribute[:] if item.name == name), default)


def integers(node: onnx.NodeProto, name: str) -> list[int]:
    """An attribute of a node that is a list of integers; empty where it is not given."""
    return next((item.ints[:] for item in node.attribute[:] if item.name == name), [])


def is_foreign(node: onnx.NodeProto) -> bool:
    """Whether a node is no operator of the standard: one of somebody else's, or a call of a function of the model."""
    return bool(_domain(node.domain))


def graphs_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs inside a node, in the order of its attributes."""
    return [graph for _, graph in named_graphs_of(node)]


def named_graphs_of(node: onnx.NodeProto) -> list[tuple[str, onnx.GraphProto]]:
    """The graphs inside a node, each with the name of its attribute."""
    found: list[tuple[str, onnx.GraphProto]] = []
    for attribute in node.attribute[:] if node.op_type in _HOLDING_GRAPHS or is_foreign(node) else ():
        if attribute.type in _MAY_HOLD_GRAPHS:
            graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
            found.extend((attribute.name, graph) for graph in graphs)
    return found


def _enter(node: Node, position: int, value: Value) -> None:
    """Note a node as a reader of a value."""
    looks = node.op in _LOOKING and (node.op, position) in _LOOKERS and not node.domain
    (value.lookers if looks else value.readers)[node, position] = None


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _scope_of_graph(graph: onnx.GraphProto, parent: Scope | None, opsets: dict[str, int], where: str) -> Scope:
    scope = Scope(graph, parent, opsets, in_function=parent is not None and parent.in_function)
    for item in graph.input[:]:
        _define(scope, item.name, where).is_input = True
    for tensor in graph.initializer[:]:
        name = tensor.name
        value = scope.values.get(name) or _define(scope, name, where)
        if value.tensor is not None:
            raise ModelError(f"{where}: invalid graph: two initializers are named '{name}'; export it again")
        value.tensor = tensor
    for sparse in graph.sparse_initializer:
        _define(scope, sparse.values.name, where)
    _fill(scope, where)
    for item in graph.output[:]:
        _hand_out(scope, item.name, where)
    return scope


def _fill(scope: Scope, where: str) -> None:
    """The nodes: outputs first, so that a file in another than topological order is read as what it means."""
    for proto in scope.graph.node[:]:
        node = Node(proto, scope)
        scope.nodes.append(node)
        for port, name in enumerate(proto.output[:]):
            value = None
            if name:
                value = _define(scope, name, where)
                value.producer, value.port = node, port
            node.outputs.append(value)
    values = scope.values
    for node in scope.nodes:
        for position, name in enumerate(node.proto.input[:]):
            value = (values.get(name) or scope.resolve(name)) if name else None
            if value is not None:
                _enter(node, position, value)
                _note_order(value)
            elif name:
                raise ModelError(
                    f"{where}: invalid graph: node '{node.name}' ({node.op}) reads '{name}', which nothing makes; "
                    "export it again"
                )
            node.inputs.append(value)
        for graph in graphs_of(node.proto):
            body = _scope_of_graph(graph, scope, scope.opsets, where)
            body.owner = node
            scope.bodies.append(body)
        node.is_read = True
    if scope.is_unsorted:
        _refuse_cycles(scope, where)


def _note_order(value: Value) -> None:
    """Note that somebody reads a value, which its scope may make only further down."""
    if value.producer is not None and not value.producer.is_read:
        value.scope.is_unsorted = True


def _refuse_cycles(scope: Scope, where: str) -> None:
    """Raises ModelError if a node of a scope depends on what it makes."""
    inside: dict[Node, list[Value]] = {}
    for body in scope.bodies:
        if body.owner is not None:
            inside.setdefault(body.owner, []).extend(_read_in(body))
    waiting: dict[Node, int] = {}
    below: dict[Node, list[Node]] = {}
    for node in scope.nodes:
        read = [value for value in (*node.inputs, *inside.get(node, ())) if value is not None and value.scope is scope]
        makers = {value.producer for value in read if value.producer is not None}
        waiting[node] = len(makers)
        for maker in makers:
            below.setdefault(maker, []).append(node)
    ready = [node for node in scope.nodes if not waiting[node]]
    for node in ready:  # grows meanwhile
        for reader in below.get(node, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    if len(ready) < len(scope.nodes):
        node = next(node for node in scope.nodes if waiting[node])
        raise ModelError(
            f"{where}: invalid graph: node '{node.name}' ({node.op}) depends on its own result; export it again"
        )


def _read_in(body: Scope) -> Iterator[Value]:
    """What a body and those inside it read or hand out."""
    for scope in body.walk():
        for node in scope.nodes:
            yield from (value for value in node.inputs if value is not None)
        handed_out = scope.graph.output if isinstance(scope.graph, onnx.GraphProto) else ()
        yield from filter(None, (scope.resolve(info.name) for info in handed_out))


def _define(scope: Scope, name: str, where: str) -> Value:
    if name in scope.values:
        raise ModelError(f"{where}: invalid graph: the name '{name}' is made twice; export it again")
    value = Value(name, scope)
    scope.values[name] = value
    return value


def _hand_out(scope: Scope, name: str, where: str) -> None:
    value = scope.resolve(name)
    if value is None:
        raise ModelError(f"{where}: invalid graph: nothing makes its output '{name}'; export it again")
    value.is_output = True
    if value.scope is not scope:
        _note_order(value)
