"""What must hold of every folded model, checked on one random model at a time."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from generators.verdict import Verdict
from graph_builder import BFLOAT, DOUBLE, FLOAT, HALF
from interpreter import run
from random_graphs import RandomModel, random_model, reads, reordered

import bnfold
from bnfold.graphs.onnx.fold import all_nodes
from bnfold.results import Site

Array = np.ndarray[Any, Any]

# Both models are computed in float64, so that they differ by the rounding of the folded weights to their type alone.
# The bounds are relative to the largest element of an output; the second is for outputs that are nearly nothing.
RTOL = {DOUBLE: 1e-9, FLOAT: 2e-5, HALF: 5e-2, BFLOAT: 0.4}
ATOL = {DOUBLE: 1e-12, FLOAT: 1e-6, HALF: 2e-3, BFLOAT: 2e-2}


def judge(seed: int, elem_type: int) -> Verdict:
    """Make the model of a seed, fold it, and check everything."""
    verdict = Verdict(seed)
    try:
        case = random_model(seed, elem_type)
        name = onnx.TensorProto.DataType.Name(elem_type).lower()
        verdict.files = {f"fuzz_{seed}_{name}.onnx": case.model.SerializeToString()}
        check(case, verdict)
    except Exception as error:  # a crash of any kind is what the search is for
        place = traceback.extract_tb(error.__traceback__)[-1]
        verdict.failures.append(f"crash: {type(error).__name__}: {error} ({place.filename}:{place.lineno})")
    return verdict


def check(case: RandomModel, verdict: Verdict) -> None:
    """Fold a model and note in the verdict whatever does not hold."""
    model, fail = case.model, verdict.failures.append
    before = canonical(model)
    freeze = freezes(case)
    result = bnfold.fold(model, freeze_initializers=freeze)
    verdict.sites = result.sites
    if canonical(model) != before:
        fail("the model that was given has changed")
    for message in miscounted(model, result.model, result.sites):
        fail(message)
    for message in misnamed(model, result.sites):
        fail(message)
    for site in result.sites:
        if "contradict" in (site.detail or ""):  # what is said of operators that are not valid; all of them are
            fail(f"of {site.name} it is told that {site.detail}")
    if not any(site.folded for site in result.sites):
        if canonical(result.model) != before:
            fail("nothing has folded, and yet the model has changed")
        return

    try:
        onnx.checker.check_model(result.model, full_check=passes_full_check(model))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        fail(f"the checker refuses the result: {error}")
    for message in [*differences(result.model, case), *untidy(model, result.model)]:
        fail(message)

    again = bnfold.fold(result.model, freeze_initializers=freeze)
    if any(site.folded for site in again.sites):
        fail(f"a second fold folds {[site.name for site in again.sites if site.folded]}")
    elif canonical(again.model) != canonical(result.model):
        fail("a second fold changes the model")

    if case.seed % 4 == 0:
        for message in unselected(case, result.sites):
            fail(message)
    other = bnfold.fold(reordered(model, case.seed), freeze_initializers=freeze)
    if account(other.sites) != account(result.sites):
        change = (account(other.sites) - account(result.sites)) | (account(result.sites) - account(other.sites))
        fail(f"another order of the nodes changes {sorted(change)}")


def freezes(case: RandomModel) -> bool:
    """Whether to take what callers may override as constant: here and there, if they do not."""
    return case.seed % 7 == 0 and not case.overrides


def unselected(case: RandomModel, sites: tuple[Site, ...]) -> list[str]:
    """What goes wrong where every other site that folds is left out; and whether `inspect` tells what `fold` does."""
    if bnfold.inspect(case.model, freeze_initializers=freezes(case)).sites != sites:
        return ["inspect tells of other sites than fold"]
    left_out = [site.name for site in sites if site.folded][case.seed // 4 % 2 :: 2]
    part = bnfold.fold(case.model, skip=left_out, freeze_initializers=freezes(case))
    out = [f"with sites left out, {message}" for message in differences(part.model, case)]
    out += [f"{site.name} was left out and folded" for site in part.sites if site.folded and site.name in left_out]
    told = [*miscounted(case.model, part.model, part.sites), *misnamed(case.model, part.sites)]
    return out + [f"with sites left out, {message}" for message in told]


def canonical(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def account(sites: tuple[Site, ...]) -> Counter[tuple[str, str]]:
    """Sites by name and status, without the numbers that depend on the order of the file."""
    return Counter((plain(site.name), site.status) for site in sites)


def plain(name: str) -> str:
    """A name without the numbers that onnx's inliner gives calls."""
    return re.sub(r"__\d+(?=$|\.\.)", "", name)


def misnamed(model: onnx.ModelProto, sites: tuple[Site, ...]) -> list[str]:
    """Every site that stays is blocked by something that the model has."""
    known = names(model)
    if model.functions:  # in which a node without a name goes by what its call makes
        known |= names(onnx.inliner.inline_local_functions(model))
    return [
        f"{site.name} is said to be blocked by {site.blocker}, which is not there ({site.reason})"
        for site in sites
        if not site.folded and plain(site.blocker or "") not in known
    ]


def names(model: onnx.ModelProto) -> set[str]:
    """What an account may speak of: the nodes, and the inputs of the graph, of bodies and of functions."""
    found = {name for node in all_nodes(model) for name in (node.name or node.output[0],)}
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        inputs = graph.input if isinstance(graph, onnx.FunctionProto) else [item.name for item in graph.input]
        found.update(inputs)
        waiting += [item.g for node in graph.node for item in node.attribute if item.HasField("g")]
    return found


def miscounted(before: onnx.ModelProto, after: onnx.ModelProto, sites: tuple[Site, ...]) -> list[str]:
    """Every BatchNorm has one site, and stays if its site says so."""
    out = []
    told = Counter(site.name for site in sites if site.op == "BatchNormalization")
    named = named_norms(before)
    if named != told and (not before.functions or named_norms(onnx.inliner.inline_local_functions(before)) != told):
        out.append(f"the BatchNorms {sorted(named)} are accounted for as {sorted(told)}")
    kept = sum(site.op == "BatchNormalization" and not site.folded for site in sites)
    left = sum(node.op_type == "BatchNormalization" for node in all_nodes(after))
    if kept != left:
        out.append(f"{kept} BatchNorms are told to stay, and {left} are there")
    return out


def named_norms(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.name or node.output[0] for node in all_nodes(model) if node.op_type == "BatchNormalization")


def differences(folded: onnx.ModelProto, case: RandomModel) -> list[str]:
    """Where the folded model gives something else than the original did."""
    out = []
    for world, (feeds, expected) in enumerate(zip(case.feeds, case.expected, strict=True)):
        found = run(folded, feeds)
        if list(found) != list(expected):
            out.append(f"outputs {list(found)} instead of {list(expected)}")
            continue
        out += [f"world {world}: {message}" for message in _different(found, expected, case.elem_type)]
    return out


def _different(found: Mapping[str, Array], expected: Mapping[str, Array], elem_type: int) -> list[str]:
    out = []
    for name, want in expected.items():
        got = found[name]
        if got.shape != want.shape:
            out.append(f"output {name} has shape {got.shape} instead of {want.shape}")
            continue
        error = float(np.abs(got - want).max(initial=0.0))
        allowed = RTOL[elem_type] * float(np.abs(want).max(initial=0.0)) + ATOL[elem_type]
        if not error <= allowed:
            out.append(f"output {name} is off by {error:.3g}, {allowed:.3g} allowed")
    return out


def untidy(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    """What a fold must leave as it is, and what it must not leave behind."""
    out = []
    if before.ir_version != after.ir_version:
        out.append("the IR version has changed")
    versions = [{item.domain: item.version for item in model.opset_import} for model in (before, after)]
    if not versions[1].items() <= versions[0].items():  # a domain of functions may go with them
        out.append(f"the opsets {versions[0]} have become {versions[1]}")
    if list(before.graph.output) != list(after.graph.output):
        out.append("the graph's outputs have changed")
    weights = {tensor.name for model in (before, after) for tensor in model.graph.initializer}
    inputs = [[item for item in model.graph.input if item.name not in weights] for model in (before, after)]
    if inputs[0] != inputs[1]:
        out.append("the graph's inputs have changed")
    orphans = _unread(after.graph) - _unread(before.graph)
    if orphans and before.functions:  # which may hold such constants, too
        orphans -= _unread(onnx.inliner.inline_local_functions(before).graph)
    if orphans:
        out.append(f"nobody reads {sorted(orphans)} any more")
    return out


def _unread(graph: onnx.GraphProto) -> set[str]:
    """The constants that nothing reads, in a graph and its bodies; what callers may feed is none."""
    seen = {name for node in graph.node for name in reads(node)} | {item.name for item in graph.output}
    made = {tensor.name for tensor in graph.initializer} - {item.name for item in graph.input}
    made |= {name for node in graph.node if not any(node.input) for name in node.output if node.op_type == "Constant"}
    out = made - seen
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                out |= _unread(attribute.g)
    return out


def passes_full_check(model: onnx.ModelProto) -> bool:
    """Whether strict shape inference has nothing to say against a model, its functions written out or not."""
    try:
        onnx.checker.check_model(model, full_check=True)
        if model.functions:
            onnx.checker.check_model(onnx.inliner.inline_local_functions(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True
