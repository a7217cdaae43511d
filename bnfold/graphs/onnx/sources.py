"""What a caller may hand over as an ONNX model, and how it gets the folded one back: the same kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from bnfold.errors import MissingDependency, ModelError
from bnfold.graphs.families import is_onnx_program
from bnfold.graphs.onnx import files
from bnfold.graphs.onnx.document import Document, from_proto, to_proto
from bnfold.graphs.onnx.functions import check_functions


@dataclass(frozen=True)
class Opened:
    """A caller's model as a document, what to call it, and how to hand the document back in the caller's kind."""

    document: Document
    name: str
    give_back: Callable[[Document], Any]


def open_model(model: Any) -> Opened:
    """The document in a path, an onnx.ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram.

    A path is given back as a ModelProto, an ONNXProgram as a new one that shares the program that it was exported from.

    Raises ModelError for anything else, or for a model that cannot be read.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return Opened(files.load(path), str(path), to_proto)
    if isinstance(model, onnx.ModelProto):
        files.check_header(model, "the model")
        files.check_text(model, "the model")
        check_functions(model, "the model")
        document = from_proto(model)
        files.refuse_external(document, "the model")
        return Opened(document, model.graph.name or "the model", to_proto)
    if is_onnx_program(model):
        inner = _open_ir(model.model)
        return replace(inner, give_back=lambda folded: type(model)(inner.give_back(folded), model.exported_program))
    if type(model).__module__.partition(".")[0] == "onnx_ir" and type(model).__name__ == "Model":
        return _open_ir(model)
    raise ModelError(
        f"a {type(model).__module__}.{type(model).__qualname__} is no model that bnfold reads: "
        "give a path to an ONNX file, an onnx.ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram"
    )


def _open_ir(model: Any) -> Opened:
    try:
        from bnfold.graphs.onnx import ir
    except ImportError:
        raise MissingDependency('folding an onnx_ir model needs onnx_ir: pip install "bnfold[ir]"') from None
    document, shared = ir.document_of(model)
    return Opened(document, model.graph.name or "the model", lambda folded: ir.model_of(folded, shared))
