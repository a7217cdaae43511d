"""Weights from a checkpoint into a module.

Decisions. A checkpoint is a state dict, or a dict around one. Where it has averaged weights (EMA) beside the trained
ones, the trained ones are taken; what was taken, and what else was there, is said. The prefixes that `DataParallel` and
`torch.compile` put before names are taken off where the module does not have them. All names and shapes must agree,
counters of batches aside: a module that keeps some of its random weights would fold, verify, and be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnfold.errors import ModelError
from bnfold.graphs.torch.archives import read_weights
from bnfold.graphs.torch.fold import attempt

_TRAINED = ("state_dict", "model_state_dict", "model")
_AVERAGED = ("ema", "model_ema", "state_dict_ema")
_PREFIXES = ("module.", "_orig_mod.")
_COUNTERS = ("num_batches_tracked", "n_averaged")  # of BatchNorm, and of torch.optim.swa_utils.AveragedModel
_MOST_NAMED = 3


def load_weights(module: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a file of weights into a module; returns notes for the user.

    Raises ModelError if the file cannot be read, or its names or shapes are not those of the module.
    """
    tensors, notes = _state_dict(read_weights(path), path)
    wanted = module.state_dict()
    given = {_stripped(name, wanted): tensor for name, tensor in tensors.items()}
    held = {_memory(wanted[name]) for name in given if name in wanted}
    missing = [name for name, tensor in wanted.items() if name not in given and _memory(tensor) not in held]
    missing = [name for name in missing if not name.endswith(_COUNTERS)]
    unexpected = [name for name in given if name not in wanted and not name.endswith(_COUNTERS)]
    problems = [_named("missing", missing), _named("not in the module", unexpected)]
    fitting = [name for name, tensor in wanted.items() if name in given and isinstance(tensor, torch.Tensor)]
    other = [_shapes(name, given[name], wanted[name]) for name in fitting if given[name].shape != wanted[name].shape]
    problems.append(_named("of another shape", other))
    said = "; ".join(filter(None, problems))
    if said:
        raise ModelError(f"{path}: these are not the weights of the {type(module).__name__}: {said}")
    known = {name: tensor for name, tensor in given.items() if name in wanted}
    attempt(f"{path}: the weights cannot be loaded", lambda: module.load_state_dict(known, strict=False))
    return notes


def _state_dict(content: Any, path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The tensors in a checkpoint, and a note on where they were, unless they were all that there is."""
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: this holds a {type(content).__name__}, no state dict; save model.state_dict()")
    if _is_state(content):
        return dict(content), ()
    found = [key for key in (*_TRAINED, *_AVERAGED) if _is_state(content.get(key))]
    if not found:
        keys = ", ".join(map(repr, list(content)[:_MOST_NAMED])) or "nothing"
        places = ", ".join((*_TRAINED, *_AVERAGED))
        raise ModelError(f"{path}: no state dict in it (it holds {keys}); looked also under {places}")
    also = f"; it also holds {', '.join(map(repr, found[1:]))}" if len(found) > 1 else ""
    return dict(content[found[0]]), (f"weights taken from '{found[0]}' of {path}{also}",)


def _is_state(item: Any) -> bool:
    return isinstance(item, Mapping) and bool(item) and all(isinstance(value, torch.Tensor) for value in item.values())


def _stripped(name: str, wanted: Mapping[str, Any]) -> str:
    """The name without prefixes that no name of the module has."""
    while name not in wanted:
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            break
        name = name.removeprefix(prefix)
    return name


def _memory(tensor: Any) -> int:
    """Where a tensor lies: a weight that two names share stands once in a file."""
    return tensor.data_ptr() if isinstance(tensor, torch.Tensor) and tensor.numel() else id(tensor)


def _named(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{what}: {', '.join(names[:_MOST_NAMED])}{more}"


def _shapes(name: str, given: torch.Tensor, wanted: torch.Tensor) -> str:
    return f"{name} ({'x'.join(map(str, given.shape))} instead of {'x'.join(map(str, wanted.shape))})"
