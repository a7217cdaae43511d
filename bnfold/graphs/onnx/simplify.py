"""onnxsim in front of the fold, on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bnfold.errors import MissingDependency, ModelError
from bnfold.graphs.onnx.document import from_proto, to_proto
from bnfold.graphs.onnx.sources import open_model
from bnfold.graphs.onnx.staging import stage


def simplified(source: Any, folder: Path) -> Path:
    """The source after onnxsim, as a file in `folder`.

    Raises MissingDependency if onnxsim is not installed, ModelError if it cannot handle the model.
    """
    try:
        import onnxsim
    except ImportError:
        raise MissingDependency('--simplify needs onnxsim: pip install "bnfold[simplify]"') from None
    opened = open_model(source)
    external = bool(opened.document.external)
    try:
        model, _ = onnxsim.simplify(to_proto(opened.document))
    except Exception as error:  # onnxsim raises whatever its C++ core throws
        reason = " ".join(str(error).split())
        raise ModelError(f"{opened.name}: onnxsim cannot simplify it ({reason}); leave --simplify out") from None
    return stage(from_proto(model), folder / "simplified.onnx", folder, external).model
