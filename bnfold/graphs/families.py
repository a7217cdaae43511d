"""Whose model a caller handed over: ONNX's or PyTorch's; told without an import of either."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

# What torch.export.save, torch.save and torch.jit.save are asked to write, and safetensors.
TORCH_SUFFIXES = (".pt2", ".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_FACTORY = re.compile(rf"({_NAME}):({_NAME})")


def is_of_torch(model: Any) -> bool:
    """Whether a model, a path or the name of a factory is for PyTorch to read."""
    if isinstance(model, str | os.PathLike):
        return Path(model).suffix.lower() in TORCH_SUFFIXES or factory_name(model) is not None
    return any(_is_torchs(base, "Module", "ExportedProgram") for base in type(model).__mro__)


def is_onnx_program(model: Any) -> bool:
    """Whether a model is what torch.onnx.export gives: an ONNX model in a wrapper of PyTorch's."""
    return _is_torchs(type(model), "ONNXProgram")


def factory_name(model: str | os.PathLike[str]) -> tuple[str, str] | None:
    """The module and the attribute in "package.module:factory"; None for a path."""
    text = os.fspath(model)
    match = _FACTORY.fullmatch(text)
    if match is None or text.lower().endswith((".onnx", *TORCH_SUFFIXES)) or Path(text).exists():
        return None
    return match[1], match[2]


def _is_torchs(kind: type, *names: str) -> bool:
    return kind.__module__.startswith("torch.") and kind.__name__ in names
