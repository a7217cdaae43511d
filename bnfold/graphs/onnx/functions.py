"""Model-local functions, written out at their calls.

A function's body is shared by its callers and gets its weights from them, so that nothing in it is constant and
nothing can be folded for one caller alone. Written out (by onnx's own inliner) each call has a body and weights of
its own. That changes more of the model than a fold does, so it is done only where it makes sites fold that else would
stay.
"""

from __future__ import annotations

import onnx
import onnx.inliner

from bnfold.graphs.onnx.document import Document


def inlined(document: Document) -> Document | None:
    """A document without model-local functions; None where onnx cannot write them out."""
    try:
        model: onnx.ModelProto = onnx.inliner.inline_local_functions(document.model)
    except (RuntimeError, ValueError):
        return None
    return Document(model, dict(document.payloads), document.path, document.external)


def copied(document: Document) -> Document:
    """A document over the same weights with a skeleton of its own."""
    model = onnx.ModelProto()
    model.CopyFrom(document.model)
    return Document(model, dict(document.payloads), document.path, document.external)
