"""Writing in place, where a fold lets two values share memory that did not.

A BatchNorm makes a new tensor, which the activation behind it may overwrite. An Identity hands on the tensor that it is
given: then what is overwritten has to be memory that nobody else reads, not in evaluation and not for a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from bnfold.algebra import ops
from bnfold.graphs.torch.index import Node, Value, size_of

Kinds = Callable[[Node], ops.Kind]


def may_be_overwritten(value: Value | None, kind: Kinds, handing_on: Collection[Node]) -> bool:
    """Whether the one reader of a value may overwrite it: it is the result, or a view, of a sum or contraction.

    Sums and contractions need their result for no gradient. `handing_on` are nodes that may become identities.
    """
    while value is not None and value.producer is not None:
        if value.is_output or len(value.readers) != 1:
            return False
        node = value.producer
        source = node.inputs[0] if node.inputs else None
        if node not in handing_on and not _is_whole_view(node, value, source):
            return isinstance(kind(node), ops.Linear | ops.Sum | ops.Concat)
        value = source
    return False


def _is_whole_view(node: Node, value: Value, source: Value | None) -> bool:
    """Whether a node gives all elements of what it reads, each once, in the same memory."""
    if source is None or source.tensor is None or value.tensor is None or source.storage != value.storage:
        return False
    return len(node.outputs) == 1 and size_of(source.tensor.numel()) == size_of(value.tensor.numel())
