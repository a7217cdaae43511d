"""What onnx's own checker says of a document: no fold is handed out that makes an invalid model of a valid one."""

from __future__ import annotations

import onnx

from bnfold.errors import ModelError
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.external import internalise
from bnfold.graphs.onnx.index import index_model


def hold_to_checker(document: Document, before: Document, where: str) -> None:
    """Raises ModelError if `document` is invalid and `before`, of which folds have made it, is not.

    Where both are, every name that is read must have a maker all the same.
    """
    flaw = _flaw(document)
    if flaw is None:
        return
    if _flaw(before) is None:
        raise ModelError(
            f"{where}: the fold would make the model invalid ({flaw}), which is an error of bnfold: "
            "leave sites out with --skip, and report it"
        )
    index_model(document.model, where)


def _flaw(document: Document) -> str | None:
    """The first line of what the checker has against a model; None if it is valid.

    Weights that are not in the skeleton are shown to it as empty ones.
    """
    shown = document.copy()
    for _, tensor in shown.detached():
        internalise(tensor)
        tensor.dims[:] = [0]
    try:
        onnx.checker.check_model(shown.model)
    except (onnx.checker.ValidationError, ValueError) as error:
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return None
