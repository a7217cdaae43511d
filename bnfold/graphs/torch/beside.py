"""Modules that code can reach beside the tree: an attribute holds them, or a list, another module or the like in one.

A call from there runs the module that is held, whatever stands in its place in the tree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from types import MethodType
from typing import Any

from torch import nn

_TREE = ("_modules", "_parameters", "_buffers")
_ROWS = (list, tuple, set, frozenset, deque)


def held_beside(modules: Collection[nn.Module]) -> set[int]:
    """The identities of the modules that attributes of these modules hold, however deep."""
    tree = {id(module) for module in modules}
    waiting = [item for module in modules for item in _attributes(module)]
    found: set[int] = set()
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, nn.Module):
            found.add(id(item))
            inner = [] if id(item) in tree else [*item.children(), *_attributes(item)]
        else:
            inner = [*_within(item)]
        if inner and id(item) not in seen:
            seen.add(id(item))
            waiting += inner
    return found


def _attributes(module: nn.Module) -> Iterator[Any]:
    yield from (item for name, item in vars(module).items() if name not in _TREE)


def _within(item: Any) -> Iterator[Any]:
    if isinstance(item, _ROWS):
        yield from item
    elif isinstance(item, Mapping):
        yield from item.values()
    elif isinstance(item, partial):
        yield from (item.func, item.args, item.keywords)
    elif isinstance(item, MethodType):
        yield item.__self__
