"""Two models with values from inside handed out as outputs, to see how an error develops on the way down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bnfold.graphs.onnx.document import Document, Ledger, to_proto
from bnfold.graphs.onnx.exact.cutouts import settled_values
from bnfold.graphs.onnx.files import load

MOST_VALUES = 60
LARGEST_BYTES = 300_000_000


@dataclass(frozen=True)
class Exposed:
    """Both models, serialised, and the names of the values, in the order in which the folded one makes them."""

    original: bytes
    folded: bytes
    names: tuple[str, ...]


def exposed(original: Path, folded: Path, ledger: Ledger) -> Exposed | None:
    """Both models with what must be the same in both as outputs: all such values, or evenly chosen ones.

    None where there is no such value, or where the models are so large that another copy of them is too much to ask.
    """
    pair = load(original), load(folded)
    if sum(document.payload_bytes for document in pair) > LARGEST_BYTES:
        return None
    made = [{name for node in document.model.graph.node for name in node.output} for document in pair]
    names = [name for name in settled_values(*pair, ledger) if name in made[0] and name in made[1]]
    chosen = tuple(names[:: max(1, -(-len(names) // MOST_VALUES))])
    if not chosen:
        return None
    return Exposed(with_outputs(pair[0], chosen), with_outputs(pair[1], chosen), chosen)


def with_outputs(document: Document, names: Iterable[str]) -> bytes:
    """A model, serialised, that hands out these values of its main graph, too; the document is used up."""
    model = to_proto(document)
    present = {info.name for info in model.graph.output}
    for name in names:
        if name not in present:
            model.graph.output.add(name=name)  # ONNX Runtime infers the type
    return model.SerializeToString()
