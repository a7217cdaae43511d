"""TorchScript, which PyTorch has deprecated and users still have: from a ScriptModule to a program.

Decisions (PyTorch 2.13; torch.jit.script, trace and freeze were tried). torch.export refuses a ScriptModule and names
its own converter, which keeps names of weights and BatchNorms; that is taken. The converter leaves every axis open, so
the program that it gives is traced again, with the axes open that the user names. The TorchScript-based ONNX exporter
works as well, but it gives no program to fold or to run, and is deprecated itself. A loop or branch that depends on the
size of an open axis is beyond the converter, and is refused in its words. `torch.jit.freeze` has folded BatchNorms
already.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import ModelError
from bnfold.graphs.torch.fold import attempt
from bnfold.graphs.torch.tracing import traced


def program_of_script(script: torch.jit.ScriptModule, args: tuple[Any, ...], dynamic_shapes: Any) -> ExportedProgram:
    """The program of a ScriptModule on positional arguments; `dynamic_shapes` is a tuple with a place for each.

    Raises ModelError if PyTorch cannot convert it.
    """
    try:
        from torch._export.converter import TS2EPConverter
    except ImportError as error:
        raise ModelError(
            f"PyTorch {torch.__version__} has no converter for TorchScript: give the module that was scripted, as "
            "package.module:factory with --weights, or as a program of torch.export.save"
        ) from error

    def convert() -> Any:
        loose = TS2EPConverter(script, args).convert().module()
        # Checks of the code, such as how many axes its input has, which nobody asks for any more.
        loose.graph.eliminate_dead_code()
        loose.recompile()
        return loose

    loose: nn.Module = attempt("PyTorch cannot convert this TorchScript to a program", convert)
    return traced(loose, args, {}, dynamic_shapes)
