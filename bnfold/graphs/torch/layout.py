"""How tensors lie in memory, as far as those who read them depend on it.

A BatchNorm lays its result out without gaps whatever it reads; an elementwise operator behind it keeps that layout, and
a `view` behind that relies on it. Where a fold leaves such an operator out, the layouts below are computed anew, on
fake tensors. These tell gaps, but not always the order of axes in memory, so what depends on that is never tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from bnfold.graphs.torch.graph import TorchGraph
from bnfold.graphs.torch.index import Value, leaves, size_of

_STRICT = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
_BY_STRIDES = (torch.ops.aten.as_strided.default, torch.ops.aten.as_strided_copy.default)
RESHAPE = torch.ops.aten.reshape.default


@dataclass
class Layout:
    """What a fold does to the layout of values: those that lie otherwise now, and who could not read them.

    `found` are the new fake tensors by node. `relaxed` are views that have to be reshapes. `unfit` are the names of the
    nodes that must stay, because somebody below relies on how they lay out what they make.
    """

    found: dict[fx.Node, Any] = field(default_factory=dict)
    relaxed: list[fx.Node] = field(default_factory=list)
    unfit: set[str] = field(default_factory=set)


def layout_after(graph: TorchGraph, program: fx.Graph, *, relaxing: bool) -> Layout:
    """The layout of a program's values after all plans; `relaxing` says that views may be made reshapes."""
    layout = Layout()
    nodes = graph.index.sources
    constant = [value for value in graph.merged if graph.final(value) in graph.evaluated]
    layout.unfit |= {value.producer.name for value in constant if value.producer and not _lies_alike(graph, value)}
    gone = {nodes[value]: value for value in graph.merged if value in nodes and value not in constant}
    for node in program.nodes:
        if node.target in _BY_STRIDES:
            layout.unfit |= _makers(gone, node)
    replaced = {node: nodes[graph.final(value)] for node, value in gone.items()}
    moved = {node: value for node, value in gone.items() if _relaid(value, graph.final(value))}
    apart = {value.producer.name for node, value in moved.items() if node.graph is not program and value.producer}
    layout.unfit |= apart  # in a region, whose nodes are not run here
    if len(moved) == len(apart):
        return layout
    layout.found = {replaced[node]: replaced[node].meta["val"] for node in moved}
    seeds = set(layout.found)
    for node in program.nodes:
        sources = [replaced.get(source, source) for source in node.all_input_nodes]
        if node.op != "call_function" or not any(source in layout.found for source in sources):
            continue
        value = _run(node, node.target, replaced, layout.found)
        if value is None and relaxing and node.target in _STRICT:
            layout.relaxed.append(node)
            value = _run(node, RESHAPE, replaced, layout.found)
        if value is None:
            layout.unfit |= _makers(moved, node)
        elif _steps(value) != _steps(node.meta.get("val")) or node in seeds:
            layout.found[node] = value
    layout.found = {node: value for node, value in layout.found.items() if node not in seeds}
    return layout


def _makers(values: dict[fx.Node, Value], node: fx.Node) -> set[str]:
    """The names of those who make values that a node depends on."""
    makers = (values[above].producer for above in _ancestors(node) if above in values)
    return {maker.name for maker in makers if maker is not None}


def _run(node: fx.Node, target: Any, replaced: dict[fx.Node, fx.Node], found: dict[fx.Node, Any]) -> Any:
    """What an operator makes of the fake tensors that a node reads; None where it cannot."""

    def given(source: fx.Node) -> Any:
        source = replaced.get(source, source)
        return found[source] if source in found else source.meta.get("val")

    args, kwargs = fx.node.map_arg((node.args, node.kwargs), given)
    mode = next((item.fake_mode for item in leaves((args, kwargs)) if hasattr(item, "fake_mode")), None)
    if mode is None:
        return None
    guards = mode.shape_env.suppress_guards() if mode.shape_env is not None else nullcontext()
    try:
        with mode, guards, torch.no_grad():
            return target(*args, **kwargs)
    except Exception:  # it raises what it likes; what cannot be tried is taken for what does not work
        return None


def _ancestors(node: fx.Node) -> Iterator[fx.Node]:
    seen, waiting = {node}, [node]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
                yield source


def _relaid(a: Value, b: Value) -> bool:
    """Whether two values of the same shape lie differently in memory."""
    return _steps(a.tensor) != _steps(b.tensor)


def _lies_alike(graph: TorchGraph, value: Value) -> bool:
    """Whether the constant that has taken the place of a value lies in memory as the value did."""
    known = graph.constants.known(graph.final(value))
    return known is not None and _steps(known.like) == _steps(value.tensor)


def _steps(item: Any) -> list[Any]:
    """The strides of a tensor, or of several."""
    return [[size_of(step) for step in leaf.stride()] for leaf in leaves(item) if isinstance(leaf, torch.Tensor)]
