"""Model-local functions, written out at their calls.

A function's body is shared by its callers and gets its weights from them, so that nothing in it is constant and
nothing can be folded for one caller alone. Written out (by onnx's own inliner) each call has a body and weights of
its own. That changes more of the model than a fold does, so it is done only where it makes sites fold that else would
stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

import onnx
import onnx.inliner

from bnfold.errors import ModelError
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.index import graphs_of

MOST_NODES = 500_000  # of a model whose functions are written out: inference, checker and runtimes all write them out
DEEPEST = 100  # calls within calls, as onnx has it

_Key = tuple[str, str, str]


def check_functions(model: onnx.ModelProto, where: str) -> None:
    """Raises ModelError where functions have one name, call themselves, or would be too large written out.

    Thirty functions that each call the next one twice are a billion nodes.
    """
    if not model.functions:
        return
    calls = {}
    for function in model.functions:
        key = (function.domain, function.name, function.overload)
        if key in calls:
            raise ModelError(f"{where}: invalid model: two functions are named '{function.name}'; export it again")
        calls[key] = Counter(_called(function.node))
    sizes: dict[_Key, tuple[int, int]] = {}  # nodes, and depth of calls
    for key in calls:
        waiting, entered = [key], set[_Key]()
        while waiting:
            at = waiting[-1]
            missing = [other for other in calls[at] if other in calls and other not in sizes]
            if at in sizes:
                waiting.pop()
            elif missing and at in entered:
                raise ModelError(f"{where}: invalid model: the function '{at[1]}' calls itself; export it again")
            elif missing:
                entered.add(at)
                waiting += missing
            else:
                sizes[at] = _size(calls[at], sizes)
    nodes, depth = _size(Counter(_called(model.graph.node)), sizes)
    depth = max([depth, *(found[1] for found in sizes.values())])
    if nodes > MOST_NODES or depth > DEEPEST:
        what = f"{nodes} nodes" if nodes > MOST_NODES else f"calls {depth} deep"
        raise ModelError(f"{where}: its functions, written out where they are called, are {what}, which is too many")


def _size(calls: Counter[_Key], sizes: dict[_Key, tuple[int, int]]) -> tuple[int, int]:
    """How many nodes these calls are, written out, and how deep they go; what is no function of the model is one."""
    known = {key: sizes.get(key, (1, 0)) for key in calls}
    nodes = sum(known[key][0] * count for key, count in calls.items())
    return nodes, 1 + max((depth for _, depth in known.values()), default=0)


def _called(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Key]:
    """What these nodes, and those in their bodies, are calls of."""
    return ((node.domain, node.op_type, node.overload) for node in _all_nodes(nodes))


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes, and those in their bodies."""
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting.extend(graph.node for graph in graphs_of(node))


def inlined(document: Document) -> Document | None:
    """A document without model-local functions; None where onnx cannot write them out.

    It renames what a body hands out, once for every time that the body does so.
    """
    nodes = _all_nodes(chain.from_iterable(function.node for function in document.model.functions))
    handed_out = ([info.name for info in body.output] for node in nodes for body in graphs_of(node))
    if any(len(set(names)) < len(names) for names in handed_out):
        return None
    try:
        model: onnx.ModelProto = onnx.inliner.inline_local_functions(_with_defaults(document.model))
    except (RuntimeError, ValueError):
        return None
    return Document(model, dict(document.payloads), document.path, document.external)


def _with_defaults(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every default of a function's attributes written at its calls: onnx's inliner drops them."""
    defaults = {(f.domain, f.name, f.overload): f.attribute_proto for f in model.functions if f.attribute_proto}
    if not defaults:
        return model
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for node in chain(_all_nodes(out.graph.node), *(_all_nodes(function.node) for function in out.functions)):
        given = {item.name for item in node.attribute}
        defaulted = defaults.get((node.domain, node.op_type, node.overload), ())
        node.attribute.extend([item for item in defaulted if item.name not in given])
    return out
