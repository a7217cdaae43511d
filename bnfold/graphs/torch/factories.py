"""Modules by the name of what makes them: "package.module:factory".

Decisions. The current directory is looked at first, as `python -m` does. A class is built without arguments and put
into evaluation mode, since a class has no mode of its own; what a function returns, or a module that stands there by
that name, keeps its mode.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from bnfold.errors import ModelError
from bnfold.graphs.torch.fold import first_line


def build(home: str, name: str) -> nn.Module:
    """The module that `name`, found in the Python module `home`, is or makes.

    Raises ModelError if it cannot be imported or called, or makes something else.
    """
    spelled = f"{home}:{name}"
    with current_directory_first():
        made = _found(home, name)
        is_class = isinstance(made, type)
        if not isinstance(made, nn.Module):
            if not callable(made):
                raise ModelError(f"{spelled}: this is a {type(made).__name__}; name a function or class to call")
            try:
                made = made()
            except (Exception, SystemExit) as error:
                raise ModelError(
                    f"{spelled}: calling it without arguments failed: {type(error).__name__}: {first_line(error)}"
                ) from error
    if not isinstance(made, nn.Module):
        raise ModelError(f"{spelled}: it gives a {type(made).__name__}; it must give a torch.nn.Module")
    return made.eval() if is_class else made


def _found(home: str, name: str) -> Any:
    try:
        found: Any = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{home}.".startswith(f"{error.name}."):
            raise ModelError(f"{home}:{name}: importing {home} failed: {first_line(error)}") from error
        raise ModelError(
            f"{home}:{name}: there is no Python module '{error.name}', neither in the current directory nor installed"
        ) from error
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{home}:{name}: importing {home} failed: {type(error).__name__}: {first_line(error)}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ModelError(f"{home}:{name}: '{getattr(found, '__name__', home)}' has no '{part}'")
        found = getattr(found, part)
    return found


@contextmanager
def current_directory_first() -> Iterator[None]:
    """Import from the current directory while the context lasts."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
