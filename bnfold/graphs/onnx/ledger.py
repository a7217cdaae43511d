"""What a run of folds did, noted before it is written into the model: for certificates, and to find a bad one."""

from __future__ import annotations

from collections.abc import Sequence

from bnfold.algebra.fold import Outcome
from bnfold.graphs.onnx.document import Ledger
from bnfold.graphs.onnx.graph import OnnxGraph
from bnfold.graphs.onnx.index import Scope
from bnfold.graphs.onnx.paths import path_of


def ledger_of(graph: OnnxGraph, outcomes: Sequence[Outcome]) -> Ledger:
    """The ledger of folds that a graph has carried out and not yet emitted."""
    folded = [(place, outcome) for place, outcome in enumerate(outcomes) if outcome.refusal is None]
    paths: dict[Scope, str] = {scope: path_of(scope) for scope in graph.all_scopes()}
    known = {
        path + value.name: graph.constants.known(value) for scope, path in paths.items() for value in graph.alive(scope)
    }

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
    )


def _is_in_function(scope: Scope) -> bool:
    return scope.is_function or (scope.parent is not None and _is_in_function(scope.parent))
