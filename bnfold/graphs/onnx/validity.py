"""What onnx's own checker says of a document: no fold is handed out that makes an invalid model of a valid one, and
what goes wrong on an invalid one is put down to the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx.shape_inference

from bnfold.errors import BnfoldError, ModelError
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.external import internalise
from bnfold.graphs.onnx.index import index_model


@contextmanager
def blamed_on(document: Document, where: str) -> Iterator[None]:
    """Around all work on a model: an unexpected exception becomes a ModelError if the checker rejects the model.

    On one that it does not reject, it is an error of bnfold. The document is to be as it was read.
    """
    try:
        yield
    except (BnfoldError, MemoryError):
        raise
    except Exception as error:
        flaw = _flaw(document) or _contradiction(document)
        if flaw is None:
            raise
        raise ModelError(f"{where}: not a valid ONNX model ({flaw}); export it again") from error


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
        return _first_line(error)
    return None


def _contradiction(document: Document) -> str | None:
    """The first line of what strict shape inference, the checker's full check, has against a model; None for nothing.

    It needs the shapes of weights, which `_flaw` does not show.
    """
    try:
        onnx.shape_inference.infer_shapes(document.model, check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
