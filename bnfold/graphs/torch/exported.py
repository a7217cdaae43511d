"""Folding an ExportedProgram: a program in, a new one out, and the account of its sites."""

from __future__ import annotations

import copy
import math
import operator
import os
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument

from bnfold.errors import ModelError, OutputError
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.emit import emit
from bnfold.graphs.torch.fold import Folded, attempt, fold_laid_out, quietly, state_of
from bnfold.graphs.torch.graph import TorchGraph
from bnfold.graphs.torch.index import Index
from bnfold.graphs.torch.layout import Layout
from bnfold.graphs.torch.reading import index_program, is_plain, is_region, runs_graphs
from bnfold.graphs.torch.untrusted import check_program

_GUARDS = "_guards_fn"  # the one module that the graph module of a program calls
_ASSERTION = torch.ops.aten._assert_tensor_metadata.default


def fold_exported(program: ExportedProgram, options: FoldOptions) -> Folded:
    """Fold every site of a program that the options choose; the program that is given is not changed.

    PyTorch itself first makes operators that write in place functional, and writes out regions under `no_grad` or
    `autocast`. Dynamic shapes stay; so do the names of all parameters that stay. A program in which nothing folds is
    handed back as it is. As the program is for the way that the code took when it was traced, so is the fold.

    Raises ModelError if PyTorch cannot make the program functional.
    """
    if options.assume_eval:
        program = evaluated(program)
    given = program
    if not is_plain(program):
        program = functional(program)

    def graph_of(unfit: set[str]) -> TorchGraph:
        return TorchGraph(index_program(program), state_of(program), unfit)

    run = fold_laid_out(graph_of, program.graph, options, relaxing=True)
    if not run.graph.merged:
        return Folded(given, run.sites, run.graph.before, run.graph.before)
    with quietly():
        folded = emit(run.graph, program, run.layout)
    coarser = _coarser_than_outputs(folded.program)
    exact = {name: array for name, array in folded.exact.items() if name in coarser}
    return Folded(folded.program, run.sites, run.graph.before, run.graph.count(), exact)


def _coarser_than_outputs(program: ExportedProgram) -> set[str]:
    """The tensors of a program that are of a coarser floating-point type than an output has."""
    returned: Any = program.graph.output_node().args[0]
    outputs = [node.meta.get("val") for node in returned if isinstance(node, fx.Node)]
    finest = min((_step(value) for value in outputs if _step(value)), default=math.inf)
    return {name for name, tensor in state_of(program).items() if _step(tensor) > finest}


def _step(value: Any) -> float:
    """The relative step of a floating-point tensor's type; 0 for anything else."""
    return torch.finfo(value.dtype).eps if isinstance(value, torch.Tensor) and value.dtype.is_floating_point else 0.0


def functional(program: ExportedProgram) -> ExportedProgram:
    """The program without operators that write in place, by PyTorch, which leaves out what nobody reads.

    So that a BatchNorm that nobody reads stays, and has its place in the account, an assertion looks at every one, and
    at every operator that may run one.
    """
    looked_at = emit(TorchGraph(Index(), {}), program, Layout()).program
    _look_at_norms(looked_at.graph_module)
    result: ExportedProgram = attempt(
        "run_decompositions({}) cannot make the program functional", lambda: looked_at.run_decompositions({})
    )
    for node in list(result.graph.nodes):
        if node.target is _ASSERTION and len(node.args) == 1 and not node.kwargs:
            result.graph.erase_node(node)
    result.graph_module.recompile()
    return result


def _look_at_norms(root: fx.GraphModule) -> None:
    """Put the assertions into a graph, and into copies of the regions in it."""
    waiting = [root]
    while waiting:
        module = waiting.pop()
        for node in list(module.graph.nodes):
            if is_region(node):
                holder = next(item for item in node.all_input_nodes if item.op == "get_attr")
                region = copy.deepcopy(getattr(module, str(holder.target)))
                setattr(module, str(holder.target), region)
                waiting.append(region)
            elif node.target is torch.ops.aten.batch_norm.default or runs_graphs(node):
                _look_at(module.graph, node)
        module.recompile()


def _look_at(graph: fx.Graph, node: fx.Node) -> None:
    several, seen = isinstance(node.meta.get("val"), tuple | list), node
    with graph.inserting_after(node):
        if several:
            seen = graph.call_function(operator.getitem, (node, 0))
            seen.meta.update({**node.meta, "val": node.meta["val"][0]})
    with graph.inserting_after(seen):
        graph.call_function(_ASSERTION, (seen,)).meta.update({**node.meta, "val": None})


def evaluated(program: ExportedProgram) -> ExportedProgram:
    """The program with its BatchNorms in inference mode, and without their counters of batches; itself if they are."""
    if not any(trains(node) for node in program.graph.nodes):
        return program
    copied = emit(TorchGraph(Index(), {}), program, Layout()).program
    counters = {
        spec.arg.name
        for spec in copied.graph_signature.input_specs
        if isinstance(spec.arg, TensorArgument) and str(spec.target).endswith("num_batches_tracked")
    }
    for node in list(copied.graph.nodes):
        if trains(node):
            node.args = (*node.args[:5], False, *node.args[6:])
        counted = node.args[0] if node.target is torch.ops.aten.add_.Tensor else None
        if isinstance(counted, fx.Node) and counted.name in counters and not node.users:
            copied.graph.erase_node(node)
    copied.graph_module.recompile()
    return copied


def in_training(module: torch.nn.Module) -> bool:
    """Whether a module is in training mode; of a program's graph module, whose flag is no use, the operators tell."""
    nodes = module.graph.nodes if isinstance(module, fx.GraphModule) else ()
    if not nodes or any(node.op == "call_module" and node.target != _GUARDS for node in nodes):
        return module.training
    return any(trains(node) for node in nodes)


def trains(node: fx.Node) -> bool:
    """Whether a node is a BatchNorm that has statistics and does not use them."""
    return node.target is torch.ops.aten.batch_norm.default and node.args[3] is not None and node.args[5] is True


def load_program(path: str | os.PathLike[str], *, trusted: bool) -> ExportedProgram:
    """The program in a .pt2 file; code in it may run only if the file is `trusted`.

    Raises ModelError if there is none that this PyTorch reads, or one whose reading would run code.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: there is no such file; give the path of a program that torch.export.save wrote")
    if not trusted:
        check_program(Path(path))
    program: ExportedProgram = attempt(
        f"{path}: this is no program that PyTorch {torch.__version__} reads", lambda: torch.export.load(path)
    )
    return program


def save_program(program: ExportedProgram, path: str | os.PathLike[str]) -> None:
    """Write a program to a .pt2 file, all or nothing. Raises OutputError if that is not possible."""
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.pt2")
    try:
        with quietly():
            torch.export.save(program, temporary)
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{target}: cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
