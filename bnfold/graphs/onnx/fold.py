"""Folding a document: from a model as it was read to the model as it will be written, and the account of its sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx

from bnfold.algebra.fold import fold_graph
from bnfold.graphs.account import FoldOptions, account
from bnfold.graphs.chains import BATCH_NORM
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.emit import emit
from bnfold.graphs.onnx.functions import inlined
from bnfold.graphs.onnx.graph import OnnxGraph
from bnfold.graphs.onnx.index import graphs_of, is_foreign
from bnfold.graphs.onnx.ledger import ledger_of
from bnfold.graphs.onnx.validity import blamed_on, hold_to_checker
from bnfold.results import Counts, Site


def fold_document(document: Document, where: str, options: FoldOptions) -> tuple[Site, ...]:
    """Fold all sites that the options choose, in place; one account per site, in topological order.

    The document's model is changed only if a site folds, or by `assume_eval`. Raises ModelError for a graph that
    contradicts itself.
    """
    before = document.copy()
    with blamed_on(before, where), np.errstate(all="ignore"):  # what is not finite is refused by name
        if options.assume_eval:
            evaluate_batch_norms(document.model)
        sites = (_with_functions if document.model.functions else _fold)(document, where, options)
    if any(site.folded for site in sites):
        hold_to_checker(document, before, where)
    return sites


def _with_functions(document: Document, where: str, options: FoldOptions) -> tuple[Site, ...]:
    """Fold with the functions as they are, or written out at their calls where fewer sites stay then.

    That is decided without `without`, whose places mean the sites of the form decided on.
    """
    whole = replace(options, without=frozenset(), drawn=False)
    flat = inlined(document)
    if flat is not None:
        kept = [sum(map(_stays, _fold(form.copy(), where, whole))) for form in (document, flat)]
        if kept[1] < kept[0]:
            original = document.model
            document.model = flat.model
            sites = _fold(document, where, options)
            if not any(site.folded for site in sites):
                document.model = original
            return sites
    return _fold(document, where, options)


def _stays(site: Site) -> bool:
    """Whether operators of a site are left: a chain that could only be shortened is still there."""
    return not site.folded or site.direction == "shortened"


def _fold(document: Document, where: str, options: FoldOptions) -> tuple[Site, ...]:
    graph = OnnxGraph(document, where, freeze_initializers=options.freeze_initializers)
    outcomes = fold_graph(graph, lambda index, site: options.chooses(index, site.name), drawn=options.drawn)
    if any(outcome.refusal is None for outcome in outcomes):
        document.ledger = ledger_of(graph, outcomes)
        emit(graph)
    return tuple(account(outcome) for outcome in outcomes)


def count(model: onnx.ModelProto, file_bytes: int | None = None) -> Counts:
    """What the graph, its bodies and its functions hold."""
    ops = Counter(node.op_type for node in all_nodes(model))
    return Counts(
        batch_norms=ops[BATCH_NORM],
        convs=ops["Conv"] + ops["ConvTranspose"],
        linears=ops["Gemm"] + ops["MatMul"],
        nodes=ops.total(),
        file_bytes=file_bytes,
    )


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the graph, of every body inside it, and of every function."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node
            waiting.extend(graphs_of(node))


def evaluate_batch_norms(model: onnx.ModelProto) -> int:
    """Turn BatchNorms in training mode whose statistics nobody uses into inference ones; returns how many."""
    used = {name for node in all_nodes(model) for name in node.input} | {info.name for info in model.graph.output}
    changed = 0
    for node in all_nodes(model):
        if node.op_type != BATCH_NORM or is_foreign(node) or used.intersection(node.output[1:]):
            continue
        kept = [item for item in node.attribute if item.name != "training_mode" or not item.i]
        if len(kept) < len(node.attribute) or any(node.output[1:]):
            del node.attribute[:]
            node.attribute.extend(kept)
            del node.output[1:]
            changed += 1
    return changed


def strip_empty_outputs(model: onnx.ModelProto) -> int:
    """Take trailing empty outputs off BatchNorms, which changes no function; returns how many there were."""
    changed = 0
    for node in all_nodes(model):
        if node.op_type != BATCH_NORM:
            continue
        while len(node.output) > 1 and not node.output[-1]:
            del node.output[-1]
            changed += 1
    return changed
