"""What a caller may hand over as a PyTorch model, and how it gets the folded one back: the same kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import UsageError
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.families import factory_name
from bnfold.graphs.torch.archives import read_model
from bnfold.graphs.torch.exported import fold_exported
from bnfold.graphs.torch.factories import build
from bnfold.graphs.torch.fold import Folded
from bnfold.graphs.torch.module import fold_module


def fold_model(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    options: FoldOptions,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    inplace: bool = False,
    trust_pickle: bool = False,
) -> Folded:
    """Fold a module, an exported program, or what a file or "package.module:factory" gives, which comes back folded.

    Raises what `read`, `fold_module` and `fold_exported` raise, and UsageError for arguments that only a module takes.
    """
    if isinstance(model, str | os.PathLike):
        model = read(model, trust_pickle=trust_pickle)
    if isinstance(model, nn.Module):
        return fold_module(model, example_inputs, options, dynamic_shapes=dynamic_shapes, inplace=inplace)
    if example_inputs is not None or dynamic_shapes is not None or inplace:
        raise UsageError("example_inputs, dynamic_shapes and inplace are for a module; a program was given")
    return fold_exported(model, options)


def read(source: str | os.PathLike[str], *, trust_pickle: bool = False) -> nn.Module | ExportedProgram:
    """The model that a file holds, or that a factory gives. Raises what `build` and `read_model` raise."""
    factory = factory_name(source)
    return build(*factory) if factory else read_model(Path(source), trust_pickle=trust_pickle)
