"""Where float64 and a runtime part: each operator is given what the runtime computed, so that errors do not add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, takewhile
from typing import Any

import onnx

from bnfold.graphs.onnx.exact.engine import Engine, needs
from bnfold.graphs.onnx.exact.exposed import LARGEST_BYTES, with_outputs
from bnfold.graphs.onnx.exact.kernels import CannotRun

_ASKED_AT_ONCE = 64  # operators, whose values are in memory together


def parting(
    engine: Engine,
    feeds: Mapping[str, Any],
    ask: Callable[[bytes], Mapping[str, Any]],
    differ: Callable[[Any, Any], bool],
) -> str | None:
    """The first node of the main graph whose result, in float64 on what the runtime gives it, is not the runtime's.

    `ask` gives a runtime's outputs of a model on these feeds, `differ` says of the runtime's value and one in float64
    whether they are further apart than by rounding. None where there is no such node.
    """
    for block, values in runtime_values(engine, feeds, ask):
        for node in block:
            if _parts(engine, node, values, differ):
                return f"node '{node.name or node.output[0]}' ({node.op_type})"
    return None


def runtime_values(
    engine: Engine, feeds: Mapping[str, Any], ask: Callable[[bytes], Mapping[str, Any]]
) -> Iterator[tuple[list[onnx.NodeProto], dict[str, Any]]]:
    """The nodes of the main graph, block by block, with what they read and make as a runtime has it.

    Nothing for a model that is too large to be copied.
    """
    is_large = engine.document.payload_bytes > LARGEST_BYTES
    nodes = [] if is_large else list(engine.document.model.graph.node)
    for start in range(0, len(nodes), _ASKED_AT_ONCE):
        block = nodes[start : start + _ASKED_AT_ONCE]
        names = dict.fromkeys(name for node in block for name in (*needs(node), *node.output) if name)
        asked = [name for name in names if name not in feeds and not engine.is_weight(name)]
        yield block, {**feeds, **_with_sequences(asked, ask(with_outputs(engine.document.copy(), asked)))}


def _with_sequences(names: Iterable[str], answers: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name, the elements `s[0]`, `s[1]`, ... of a sequence `s` in one list again."""
    values: dict[str, Any] = dict(answers)
    for name in names:
        if name not in answers:
            elements = (answers.get(f"{name}[{i}]") for i in count())
            values[name] = list(takewhile(lambda element: element is not None, elements))
    return values


def _parts(engine: Engine, node: onnx.NodeProto, values: Mapping[str, Any], differ: Callable[[Any, Any], bool]) -> bool:
    expected = {name: values[name] for name in node.output if name in values}
    feeds = {name: values[name] for name in needs(node) if name in values}
    try:
        found = engine.part([node], expected, feeds)
    except CannotRun:
        return False
    return any(differ(answer, found[name]) for name, answer in expected.items())
