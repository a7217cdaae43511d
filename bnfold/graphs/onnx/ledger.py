"""What a run of folds did, noted before it is written into the model: for certificates, and to find a bad one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from bnfold.algebra.fold import Outcome
from bnfold.graphs.onnx.document import Ledger
from bnfold.graphs.onnx.graph import OnnxGraph
from bnfold.graphs.onnx.index import Value


def ledger_of(graph: OnnxGraph, outcomes: Sequence[Outcome], values: Mapping[str, Value]) -> Ledger:
    """The ledger of folds that a graph has carried out and not yet emitted.

    `values` are those of the main graph by name as they were before.
    """
    main = graph.scopes[0]
    folded = [(place, outcome) for place, outcome in enumerate(outcomes) if outcome.refusal is None]
    known = {value.name: graph.constants.known(value) for value in graph.alive(main)}

    def constant(name: str) -> NDArray[Any] | None:
        found = graph.constants.known(values.get(name))
        if found is None:
            return None
        return found.float64() if found.is_floating else found.read()

    return Ledger(
        sites={node.proto.output[0]: place for place, outcome in folded for node in outcome.nodes},
        inner=frozenset(place for place, outcome in folded if any(node.scope is not main for node in outcome.nodes)),
        changed=frozenset(value.name for _, outcome in folded for value in outcome.changed if value.scope is main),
        exact={name: found.float64 for name, found in known.items() if found is not None},
        known=constant,
    )
