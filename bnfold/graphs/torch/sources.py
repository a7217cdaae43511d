"""What a caller may hand over as a PyTorch model, and how it gets the folded one back: the same kind."""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import UsageError
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.exported import fold_exported, load_program
from bnfold.graphs.torch.fold import Folded
from bnfold.graphs.torch.module import fold_module


def fold_model(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    options: FoldOptions,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    inplace: bool = False,
) -> Folded:
    """Fold a module, an exported program, or the program in a .pt2 file, which is given back as one.

    Raises what `fold_module`, `fold_exported` and `load_program` raise, and UsageError for arguments that only a module
    takes.
    """
    if isinstance(model, nn.Module):
        return fold_module(model, example_inputs, options, dynamic_shapes=dynamic_shapes, inplace=inplace)
    if example_inputs is not None or dynamic_shapes is not None or inplace:
        raise UsageError("example_inputs, dynamic_shapes and inplace are for a module; a program was given")
    program = model if isinstance(model, ExportedProgram) else load_program(model)
    return fold_exported(program, options)
