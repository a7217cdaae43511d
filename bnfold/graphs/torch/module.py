"""Folding a module: an nn.Module in, a folded one of the same class out, and the account of its sites.

Decisions. A copy is made first and traced itself; its weights are written once, when it is known what they are. While
it is traced, a convolution or linear layer that lacks a bias and has code of its own is lent one of zeros, so that the
graph says whether this code reads it; those that no fold has used are taken back. Where code outside of a layer reads
its weight, and a bias is missed there, the module is traced again with biases in all such layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.calls import hooked, recorded
from bnfold.graphs.torch.copies import Blanks, copied
from bnfold.graphs.torch.fold import Folded, Run, fold_laid_out
from bnfold.graphs.torch.module_graph import ModuleGraph
from bnfold.graphs.torch.reading import index_program
from bnfold.graphs.torch.structure import Unit, lacks_bias, runs_as_written
from bnfold.graphs.torch.tracing import arguments, check, traced, without_stack_traces


def fold_module(
    module: nn.Module,
    example_inputs: Any,
    options: FoldOptions,
    *,
    dynamic_shapes: Any = None,
    inplace: bool = False,
) -> Folded:
    """Fold every site that the options choose and that the module's structure can carry.

    The module is traced by torch.export on `example_inputs`: a tensor, a tuple of positional arguments or a mapping of
    named ones; `dynamic_shapes` is handed on to it. The result is a copy of the module, or with `inplace` the module
    itself, whose parameters, as an optimiser holds them, then take new values. BatchNorms that folded are Identities,
    weights and biases are new, all else is as it was; with `assume_eval` the result is in evaluation mode.

    Raises:
        ModelError: if the module cannot be traced or copied, or has lazy layers that were never run.
        UsageError: if there are no example inputs.
    """
    check(module)
    args, kwargs = arguments(example_inputs)
    result, blanks = (module, Blanks()) if inplace else copied(module)
    values = dict(module.named_parameters(remove_duplicate=False))
    layers = dict(result.named_modules())
    hooks = hooked(layers)
    training = result.training and not options.assume_eval

    def folded() -> Run[ModuleGraph]:
        with recorded(layers) as calls, without_stack_traces():
            program = traced(result, args, kwargs, dynamic_shapes)
        state = {**program.constants, **program.state_dict, **values}

        def graph_of(unfit: set[str]) -> ModuleGraph:
            return ModuleGraph(index_program(program), state, result, calls, hooks, unfit, training=training)

        return fold_laid_out(graph_of, program.graph, options, relaxing=False)

    with _in_evaluation(layers.values(), options.assume_eval):
        for everywhere in (False, True):
            with _with_biases(layers.values(), everywhere) as lent:
                run = folded()
                if everywhere or not run.graph.structure.wants_biases:
                    _write(run.graph, blanks, lent)
                    break
    return Folded(result, run.sites, run.graph.before, run.graph.count())


@contextmanager
def _in_evaluation(layers: Collection[nn.Module], keep: bool) -> Iterator[None]:
    """Evaluation mode while the context lasts, and if `keep` is given after it, too; the first layer is the root."""
    modes = [(layer, layer.training) for layer in layers]
    module, training = modes[0]
    if training or keep:
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


def _write(graph: ModuleGraph, blanks: Blanks, lent: Iterable[nn.Parameter]) -> None:
    """Carry out in the module what the plans changed in its graph, and fill in the rest; `lent` are to be replaced."""
    modules = graph.structure.modules
    replaced = {id(parameter) for parameter in lent}
    for (node, position), value in graph.changed.items():
        if node in graph.gone or node.inputs[position] is not value:
            continue
        known = graph.constants.known(value)
        if known is None:
            raise KeyError(f"a constant of '{node.name}' was folded and is gone")
        home, _, name = known.name.rpartition(".")
        layer = modules[home]
        held = getattr(layer, name)
        if id(held) in replaced or not blanks.fill(held, known):
            setattr(layer, name, known.tensor())
    blanks.fill_rest()
    for node in graph.gone:
        if node in graph.units:
            _leave_out(modules, graph.units[node])


def _leave_out(modules: Mapping[str, nn.Module], unit: Unit) -> None:
    home, _, name = unit.path.rpartition(".")
    parent, left = modules[home], modules[unit.path]
    stand_in = nn.Sequential() if unit.rest else nn.Identity()
    for child in unit.rest:
        stand_in.add_module(child, left.get_submodule(child))
    stand_in.training = left.training
    parent._modules[name] = stand_in
