"""What folding a module and folding a program share: the state of a program, the account, the counts."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from torch import fx
from torch.export import ExportedProgram

from bnfold.algebra.affine import Array
from bnfold.algebra.fold import fold_graph
from bnfold.errors import ModelError
from bnfold.graphs.account import FoldOptions, account
from bnfold.graphs.torch.graph import TorchGraph
from bnfold.graphs.torch.layout import Layout, layout_after
from bnfold.results import Counts, Site

_TALKATIVE = ("torch.export", "torch._export", "torch.onnx")
Graph = TypeVar("Graph", bound=TorchGraph)


@dataclass(frozen=True)
class Run(Generic[Graph]):
    """A graph after its fold, the account of its sites, and what the fold does to layouts."""

    graph: Graph
    sites: tuple[Site, ...]
    layout: Layout


class Folded(NamedTuple):
    """A folded model of the kind that was given, the account of its sites, and what the graph held before and after.

    `exact` are the new constants of a program that are of a coarser type than an output, by name, in float64 as they
    were before they were rounded.
    """

    model: Any
    sites: tuple[Site, ...]
    before: Counts
    after: Counts
    exact: Mapping[str, Callable[[], Array]] = MappingProxyType({})


def fold_laid_out(
    graph_of: Callable[[set[str]], Graph], program: fx.Graph, options: FoldOptions, *, relaxing: bool
) -> Run[Graph]:
    """Fold a program's graph, and fold it again without those nodes whose layout somebody below turns out to need.

    `graph_of(unfit)` gives the graph afresh; `relaxing` says that views below may be made reshapes.
    """
    unfit: set[str] = set()
    with np.errstate(all="ignore"):  # what is not finite is refused by name
        while True:
            graph = graph_of(unfit)
            outcomes = fold_graph(graph, lambda at, site: options.chooses(at, site.name), drawn=options.drawn)
            layout = layout_after(graph, program, relaxing=relaxing)
            if layout.unfit <= unfit:
                return Run(graph, tuple(account(outcome) for outcome in outcomes), layout)
            unfit |= layout.unfit


def state_of(program: ExportedProgram) -> dict[str, Any]:
    """The tensors of a program by their names: parameters, buffers and constants."""
    return {**program.constants, **program.state_dict}


@contextmanager
def quietly() -> Iterator[None]:
    """PyTorch's own warnings while it traces are about its insides, or about the model, which stays as it is."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def attempt(what: str, run: Callable[[], Any]) -> Any:
    """What `run` gives; ModelError, with the first line of what PyTorch said, where it fails."""
    try:
        with quietly():
            return run()
    except Exception as error:  # it raises what it likes, from the user's code and from its own
        raise ModelError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something; of torch.export's, with the first of its reasons."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith("Constraints violated") and len(lines) > 1:
        return f"{lines[0].partition('!')[0]}: {lines[1].removeprefix('- ').partition('. If you')[0]}"
    return lines[0]
