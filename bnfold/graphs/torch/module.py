"""Folding a module: an nn.Module in, a folded one of the same class out, and the account of its sites.

Decisions. A copy is made first and traced itself; its weights are written once, when it is known what they are. While
it is traced, a convolution or linear layer that lacks a bias and has code of its own is lent one of zeros, so that the
graph says whether this code reads it; those that no fold has used are taken back. Where code outside of a layer reads
its weight, and a bias is missed there, the module is traced again with biases in all such layers.

The result is run on the example inputs beside the original (`rehearsal`). Where it differs, the folds to blame are
found by bisection and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from bnfold.errors import ModelError
from bnfold.graphs.account import FoldOptions, taken_back
from bnfold.graphs.blame import culprits
from bnfold.graphs.torch.calls import hooked, recorded
from bnfold.graphs.torch.copies import Blanks, copied
from bnfold.graphs.torch.exported import in_training
from bnfold.graphs.torch.fold import Folded, Run, first_line, fold_laid_out
from bnfold.graphs.torch.module_graph import ModuleGraph
from bnfold.graphs.torch.reading import index_program, written_parameters
from bnfold.graphs.torch.rehearsal import Rehearsal
from bnfold.graphs.torch.structure import Unit, lacks_bias, runs_as_written
from bnfold.graphs.torch.tracing import arguments, check, traced, without_stack_traces

_STAYS = "the module's own code depends on it"


def fold_module(
    module: nn.Module,
    example_inputs: Any,
    options: FoldOptions,
    *,
    dynamic_shapes: Any = None,
    inplace: bool = False,
) -> Folded:
    """Fold every site that the options choose and that the module's structure and code can carry.

    The module is traced by torch.export on `example_inputs`: a tensor, a tuple of positional arguments or a mapping of
    named ones; `dynamic_shapes` is handed on to it. The result is a copy of the module, or with `inplace` the module
    itself, whose parameters, as an optimiser holds them, then take new values. BatchNorms that folded are Identities,
    weights and biases are new, all else is as it was; with `assume_eval` the result is in evaluation mode.

    A fold holds for the way that the code takes on the example inputs. Where it takes another way on other inputs (a
    branch on the batch size, a flag, the training mode), and a layer that folded is used otherwise there, the result
    differs; leave such layers out with the options.

    Raises:
        ModelError: if the module cannot be traced or copied, has lazy layers that were never run, has no values, or
            has a layer that refuses to be changed.
        UsageError: if there are no example inputs.
    """
    check(module)
    job = _Job(module, *arguments(example_inputs), dynamic_shapes, inplace)
    made = job.fold(options)
    difference = job.rehearsal(options).difference(made.folded.model, made.coarsest) if made.changed else None
    if difference is None:
        return made.folded

    def passes(without: frozenset[int]) -> bool:
        """Whether the module does what it did with these folds left out; it is as it was afterwards."""
        trial = job.fold(replace(options, without=options.without | without))
        fine = job.rehearsal(options).difference(trial.folded.model, trial.coarsest) is None
        trial.undo()
        return fine

    made.undo()
    places = frozenset(place for place, site in enumerate(made.folded.sites) if site.folded)
    wrong = culprits(places, places, passes)
    if not wrong or not passes(wrong):
        wrong = places
    made = job.fold(replace(options, without=options.without | wrong))
    return made.folded._replace(sites=taken_back(made.folded.sites, wrong, f"{_STAYS}: {difference}"))


@dataclass(frozen=True)
class _Made:
    """A folded module, whether it is another than before, and how to make of it what it was.

    `coarsest` is the coarsest floating-point type of a value in its program.
    """

    folded: Folded
    changed: bool
    coarsest: torch.dtype
    changes: list[Callable[[], object]]

    def undo(self) -> None:
        _undo(self.changes)


class _Job:
    """One module to fold, once or, without some of the folds, again."""

    def __init__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any, inplace: bool
    ) -> None:
        self.module, self.args, self.kwargs = module, args, kwargs
        self.dynamic_shapes, self.inplace = dynamic_shapes, inplace
        self._rehearsal: Rehearsal | None = None
        self._written: frozenset[str] | None = None

    def rehearsal(self, options: FoldOptions) -> Rehearsal:
        """The answers of the module that was given; first asked for before it is changed."""
        if self._rehearsal is None:
            evaluate = options.assume_eval
            self._rehearsal = Rehearsal(self.module, self.args, self.kwargs, self._written, evaluate=evaluate)
        return self._rehearsal

    def fold(self, options: FoldOptions) -> _Made:
        """The module, or a copy of it, with all that the options choose folded."""
        if self.inplace:
            self.rehearsal(options)
        result, blanks = (self.module, Blanks()) if self.inplace else copied(self.module)
        values = dict(self.module.named_parameters(remove_duplicate=False))
        layers = dict(result.named_modules())
        hooks = hooked(layers)
        training = in_training(result) and not options.assume_eval

        def folded() -> Run[ModuleGraph]:
            with recorded(layers) as calls, without_stack_traces():
                program = traced(result, self.args, self.kwargs, self.dynamic_shapes)
            self._written = written_parameters(program)
            state = {**program.constants, **program.state_dict, **values}

            def graph_of(unfit: set[str]) -> ModuleGraph:
                return ModuleGraph(index_program(program), state, result, calls, hooks, unfit, training=training)

            return fold_laid_out(graph_of, program.graph, options, relaxing=False)

        with _in_evaluation(layers.values(), options.assume_eval):
            for everywhere in (False, True):
                with _with_biases(layers.values(), everywhere) as lent:
                    run = folded()
                    if everywhere or not run.graph.structure.wants_biases:
                        changes = _write(run.graph, blanks, lent, keep=self.inplace)
                        break
        made = Folded(result, run.sites, run.graph.before, run.graph.count())
        values_made = [value for node in run.graph.index.nodes for value in node.outputs if value is not None]
        types = {value.tensor.dtype for value in values_made if value.tensor is not None}
        floats = [dtype for dtype in types if dtype.is_floating_point]
        coarsest = max(floats, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)
        return _Made(made, bool(run.graph.gone), coarsest, changes)


@contextmanager
def _in_evaluation(layers: Collection[nn.Module], keep: bool) -> Iterator[None]:
    """Evaluation mode while the context lasts, and if `keep` is given after it, too; the first layer is the root."""
    modes = [(layer, layer.training) for layer in layers]
    module, training = modes[0]
    if isinstance(module, fx.GraphModule):  # that of a program has no eval()
        for layer in layers:
            layer.training = False
    elif training or keep:
        module.eval()
    try:
        yield
    except BaseException:
        keep = False
        raise
    finally:
        for layer, mode in () if keep else modes:
            if layer.training is not mode:
                layer.training = mode


@contextmanager
def _with_biases(layers: Iterable[nn.Module], everywhere: bool) -> Iterator[list[nn.Parameter]]:
    """Biases of zeros for those layers that have none, while the context lasts, and after it where they were replaced.

    They are for the layers whose code is not PyTorch's own, or with `everywhere` for all.
    """
    lent: list[tuple[nn.Module, nn.Parameter]] = []
    for layer in layers:
        if not lacks_bias(layer) or (runs_as_written(layer) and not everywhere):
            continue
        weight: Any = layer.weight
        size = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        bias = nn.Parameter(weight.detach().new_zeros(size), requires_grad=weight.requires_grad)
        layer._parameters["bias"] = bias
        lent.append((layer, bias))
    try:
        yield [bias for _, bias in lent]
    finally:
        for layer, bias in lent:
            if layer._parameters["bias"] is bias:
                layer._parameters["bias"] = None


def _write(
    graph: ModuleGraph, blanks: Blanks, lent: Iterable[nn.Parameter], *, keep: bool
) -> list[Callable[[], object]]:
    """Carry out in the module what the plans changed in its graph, and fill in the rest; `lent` are to be replaced.

    Returns what undoes that, in the order of doing, if the old values are to be kept.
    """
    modules = graph.structure.modules
    replaced = {id(parameter) for parameter in lent}
    changes: list[Callable[[], object]] = []
    for node, _, value in graph.rewritten():
        known = graph.constants.known(value)
        if known is None:
            raise KeyError(f"a constant of '{node.name}' was folded and is gone")
        home, _, name = known.name.rpartition(".")
        layer = modules[home]
        held = getattr(layer, name)
        if keep and isinstance(held, torch.Tensor):
            changes.append(partial(held.detach().copy_, held.detach().clone()))
        if id(held) in replaced or not blanks.fill(held, known):
            try:
                setattr(layer, name, known.tensor())
            except Exception as error:  # a layer may refuse in its own way
                _undo(changes)
                said = f"{type(error).__name__}: {first_line(error)}"
                raise ModelError(
                    f"'{known.name}' cannot be set ({said}): leave out the BatchNorm that folds into it with skip=[...]"
                ) from error
            changes.append(partial(setattr, layer, name, None if id(held) in replaced else held))
    blanks.fill_rest()
    for node in graph.gone:
        if node in graph.units:
            home, _, name = graph.units[node].path.rpartition(".")
            changes.append(partial(modules[home]._modules.__setitem__, name, modules[graph.units[node].path]))
            _leave_out(modules, graph.units[node])
    return changes


def _undo(changes: Iterable[Callable[[], object]]) -> None:
    with torch.no_grad():
        for change in reversed([*changes]):
            change()


def _leave_out(modules: Mapping[str, nn.Module], unit: Unit) -> None:
    home, _, name = unit.path.rpartition(".")
    parent, left = modules[home], modules[unit.path]
    stand_in = nn.Sequential() if unit.rest else nn.Identity()
    for child in unit.rest:
        stand_in.add_module(child, left.get_submodule(child))
    stand_in.training = left.training
    parent._modules[name] = stand_in
