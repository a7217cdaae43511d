"""What a run of folds did, noted before it is written into the model: for certificates, and to find a bad one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.algebra.fold import Outcome
from bnfold.graphs.onnx.document import Ledger
from bnfold.graphs.onnx.graph import OnnxGraph
from bnfold.graphs.onnx.index import Scope, Value
from bnfold.graphs.onnx.paths import path_of


def all_values(graph: OnnxGraph) -> dict[str, Value]:
    """The values of a graph and of all bodies inside it, by the names that they have from outside."""
    found: dict[str, Value] = {}
    for scope in graph.all_scopes():
        path = path_of(scope)
        found.update({path + name: value for name, value in scope.values.items()})
    return found


def ledger_of(graph: OnnxGraph, outcomes: Sequence[Outcome], values: Mapping[str, Value]) -> Ledger:
    """The ledger of folds that a graph has carried out and not yet emitted.

    `values` are `all_values` of the graph as it was before.
    """
    folded = [(place, outcome) for place, outcome in enumerate(outcomes) if outcome.refusal is None]
    paths: dict[Scope, str] = {scope: path_of(scope) for scope in graph.all_scopes()}
    known = {
        path + value.name: graph.constants.known(value) for scope, path in paths.items() for value in graph.alive(scope)
    }

    def constant(name: str) -> NDArray[Any] | None:
        with np.errstate(all="ignore"):
            found = graph.constants.known(values.get(name))
            if found is None:
                return None
            return found.float64() if found.is_floating else found.read()

    return Ledger(
        sites={
            paths[node.scope] + node.proto.output[0]: place
            for place, outcome in folded
            for node in outcome.nodes
            if node not in graph.added
        },
        in_functions=frozenset(
            place for place, outcome in folded if any(_is_in_function(node.scope) for node in outcome.nodes)
        ),
        changed=frozenset(paths[value.scope] + value.name for _, outcome in folded for value in outcome.changed),
        exact={name: found.float64 for name, found in known.items() if found is not None},
        known=constant,
    )


def _is_in_function(scope: Scope) -> bool:
    return scope.is_function or (scope.parent is not None and _is_in_function(scope.parent))
