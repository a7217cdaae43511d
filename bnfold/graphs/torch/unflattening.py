"""What torch.export.unflatten, which makes a tree of modules of a program, relies on in its graph.

Decisions:
- It lets calls of one module share their code where that looks alike, and does not look into the modules that this code
  calls. A call within which something has changed is told from the others by its key in the stack of calls.
- It writes to inputs and buffers where what is written is computed. Who read an input above that, by way of a node that
  went, and stands below it, reads a copy.
- It wants a node of every module whose signature was asked for; those of modules that are gone are forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.export import ModuleCallEntry
from torch.export.graph_signature import InputSpec, OutputKind, OutputSpec

_STACK = "nn_module_stack"


def tell_calls_apart(graph: fx.Graph, changed: Iterable[fx.Node]) -> None:
    """Give those calls of modules that are called several times, and within which a node changed, keys of their own."""
    calls: dict[str, set[str]] = {}
    for node in graph.nodes:
        for key in node.meta.get(_STACK) or ():
            calls.setdefault(_split(key)[0], set()).add(key)
    inner = (key for node in changed for key in list(node.meta.get(_STACK) or ())[:-1])
    apart = {key for key in inner if len(calls.get(_split(key)[0], ())) > 1}
    for node in graph.nodes if apart else ():
        stack, tag = {}, ""
        for key, call in (node.meta.get(_STACK) or {}).items():
            base, number = _split(key)
            tag += f"_folded{number or '@0'}".replace("@", "_") if key in apart else ""
            stack[base + tag + number] = call
        if stack:
            node.meta[_STACK] = stack


def written(
    outputs: Sequence[OutputSpec], returned: Sequence[Any], inputs: Mapping[fx.Node, InputSpec]
) -> dict[fx.Node, fx.Node]:
    """The node that computes what is written to an input or buffer, by the placeholder of that."""
    holders = {name: node for node, spec in inputs.items() for name in (spec.target, node.name)}
    given = (OutputKind.USER_OUTPUT, OutputKind.TOKEN)
    pairs = ((spec, node) for spec, node in zip(outputs, returned, strict=True) if spec.kind not in given)
    return {holders[spec.target]: node for spec, node in pairs if spec.target in holders}


def before_write(graph: fx.Graph, gone: fx.Node, source: fx.Node, write: fx.Node) -> fx.Node:
    """What is read in place of a node that goes: its source, or a copy where a reader stands below the write."""
    places = {node: place for place, node in enumerate(graph.nodes)}
    if all(places[user] < places[write] or user.op == "output" for user in gone.users):
        return source
    with graph.inserting_before(gone):
        copied = graph.call_function(torch.ops.aten.clone.default, (source,))
    copied.meta.update({**gone.meta, "val": source.meta["val"]})
    return copied


def entries(known: Iterable[ModuleCallEntry], graph: fx.Graph, names: Mapping[str, str]) -> list[ModuleCallEntry]:
    """The calls of modules as a program lists them; `names` says who now makes the values of nodes that are gone."""
    stacks = (node.meta.get(_STACK) or {} for node in graph.nodes)
    left = {path + _split(key)[1] for stack in stacks for key, (path, _) in stack.items()}
    return [_renamed(entry, names) if entry.fqn in left or not entry.fqn else _unsigned(entry) for entry in known]


def _split(key: str) -> tuple[str, str]:
    """The key of a module, and what tells this call of it from the first ("@1")."""
    base, at, number = key.partition("@")
    return base, at + number


def _unsigned(entry: ModuleCallEntry) -> ModuleCallEntry:
    return replace(entry, signature=None)


def _renamed(entry: ModuleCallEntry, names: Mapping[str, str]) -> ModuleCallEntry:
    """A preserved signature of a module's call, in which other nodes now make some of the values."""
    if entry.signature is None:
        return entry
    lists = (entry.signature.inputs, entry.signature.outputs)
    inputs, outputs = ([_said(item, names) for item in items] for items in lists)
    return replace(entry, signature=replace(entry.signature, inputs=inputs, outputs=outputs))


def _said(item: Any, names: Mapping[str, str]) -> Any:
    name: Any = getattr(item, "name", None)
    return replace(item, name=names[name]) if name in names else item
