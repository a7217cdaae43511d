"""What a file holds that PyTorch wrote: a program, TorchScript, a pickled module, or weights alone.

The suffix does not tell; the members of the archive do. Decisions:
- Reading a pickle runs the code that is in it, and reading TorchScript may run its own. A state dict is read with
  `weights_only=True`, which runs none; a whole module, TorchScript, and a program with more in it than a plain one
  (`untrusted`) need the caller's word (`trust_pickle`).
- Weights alone are no model: the code of the network is not in the file.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import MissingDependency, ModelError, refused_as
from bnfold.graphs.torch.exported import load_program
from bnfold.graphs.torch.factories import current_directory_first
from bnfold.graphs.torch.fold import first_line, quietly
from bnfold.graphs.torch.untrusted import ADVICE

Kind = Literal["program", "script", "pickle", "safetensors"]
_GLOBAL = re.compile(r"GLOBAL (\S+) was not an allowed global")
_NEEDS_CODE = "the code of the network is not in it: give package.module:factory as the model, and this as --weights"


def read_model(path: Path, *, trust_pickle: bool = False) -> nn.Module | ExportedProgram:
    """The model in a file.

    Raises ModelError where there is no file, or none that PyTorch reads, or it holds weights alone, or what may run
    code while `trust_pickle` is not given.
    """
    kind = kind_of(path)
    if kind == "program":
        return load_program(path, trusted=trust_pickle)
    if kind == "script":
        if not trust_pickle:
            raise ModelError(f"{path}: this is TorchScript, which is code and may run when it is read; {ADVICE}")
        load: Any = torch.jit.load
        script: nn.Module = _read(path, lambda: load(path, map_location="cpu"))
        return script
    if kind == "safetensors":
        raise ModelError(f"{path}: this holds weights alone; {_NEEDS_CODE}")
    try:
        with current_directory_first() if trust_pickle else contextlib.nullcontext():
            content = _read(path, lambda: torch.load(path, map_location="cpu", weights_only=not trust_pickle))
    except _Pickled as error:
        raise ModelError(
            f"{path}: it holds a pickled {error}, and unpickling runs whatever code is in the file: give "
            "--trust-pickle if you know who wrote it, or package.module:factory with the state dict as --weights"
        ) from error
    if isinstance(content, nn.Module):
        return content
    if isinstance(content, dict):
        raise ModelError(f"{path}: this holds weights (a state dict); {_NEEDS_CODE}")
    raise ModelError(f"{path}: this holds a {type(content).__name__}, which is no model; save the module, or export it")


def read_weights(path: Path) -> Any:
    """What is in a file of weights: a state dict, or a dict around one. Raises ModelError where that cannot be read."""
    kind = kind_of(path)
    if kind == "safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise MissingDependency(f'{path}: reading it needs safetensors: pip install "bnfold[torch]"') from None
        return _read(path, lambda: load_file(path))
    if kind != "pickle":
        what = "an exported program" if kind == "program" else "TorchScript"
        raise ModelError(f"{path}: this is {what}, code and weights together; give it as the model, without --weights")
    try:
        return _read(path, lambda: torch.load(path, map_location="cpu", weights_only=True))
    except _Pickled as error:
        raise ModelError(
            f"{path}: besides weights it holds a pickled {error}; save model.state_dict() alone"
        ) from error


def kind_of(path: Path) -> Kind:
    """What a file is by its content; raises ModelError if there is none."""
    if not path.is_file():
        raise ModelError(f"{path}: {'this is a directory; name a file' if path.is_dir() else 'no such file'}")
    if path.suffix.lower() == ".safetensors":
        return "safetensors"
    if not zipfile.is_zipfile(path):
        return "program" if path.suffix.lower() == ".pt2" else "pickle"
    damaged = refused_as(ModelError, f"{path}: this archive is damaged", "copy or save it again")
    with damaged, zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.endswith("/data.pkl") for name in names):
        return "program"
    return "script" if any("/code/" in name for name in names) else "pickle"


class _Pickled(Exception):
    """A file holds an object of this class, and nobody has said that unpickling may run its code."""


def _read(path: Path, load: Callable[[], Any]) -> Any:
    try:
        with quietly():
            return load()
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        if found is not None:
            raise _Pickled(found[1]) from error
        raise ModelError(
            f"{path}: this is no file that PyTorch {torch.__version__} reads; if it is ONNX, let its name end in .onnx"
        ) from error
    except ImportError as error:
        raise ModelError(f"{path}: the code of what is pickled in it is not here: {first_line(error)}") from error
    except Exception as error:  # PyTorch and the code of the pickle raise what they like
        said = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"{path}: this is no file that PyTorch {torch.__version__} reads ({said})") from error
