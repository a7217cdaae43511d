"""What must hold of every folded model, checked on one random model at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from graph_builder import BFLOAT, DOUBLE, FLOAT, HALF
from interpreter import run
from random_graphs import RandomModel, random_model, reordered

import bnfold
from bnfold.graphs.onnx.fold import all_nodes
from bnfold.results import Site

Array = np.ndarray[Any, Any]

# Both models are computed in float64: they differ by the rounding of the folded weights to their type alone.
RTOL = {DOUBLE: 1e-9, FLOAT: 2e-5, HALF: 5e-2, BFLOAT: 0.4}
ATOL = {DOUBLE: 1e-12, FLOAT: 1e-6, HALF: 2e-3, BFLOAT: 2e-2}


@dataclass
class Verdict:
    """What became of one model; `failures` is empty where all is well."""

    seed: int
    elem_type: int
    failures: list[str] = field(default_factory=list)
    sites: tuple[Site, ...] = ()


def judge(seed: int, elem_type: int = DOUBLE) -> Verdict:
    """Make the model of a seed, fold it, and check everything."""
    case = random_model(seed, elem_type)
    verdict = Verdict(seed, elem_type)
    try:
        check(case, verdict)
    except Exception as error:  # a crash of any kind is what the search is for
        verdict.failures.append(f"crash: {type(error).__name__}: {error}")
    return verdict


def check(case: RandomModel, verdict: Verdict) -> None:
    model, fail = case.model, verdict.failures.append
    before = model.SerializeToString(deterministic=True)
    freeze = case.seed % 7 == 0
    result = bnfold.fold(model, freeze_initializers=freeze)
    verdict.sites = result.sites
    if model.SerializeToString(deterministic=True) != before:
        fail("the model that was given has changed")

    names = [site.name for site in result.sites if site.op == "BatchNormalization"]
    norms = [node.name or node.output[0] for node in all_nodes(model) if node.op_type == "BatchNormalization"]
    if sorted(names) != sorted(norms):
        fail(f"BatchNorms {sorted(norms)} are accounted for as {sorted(names)}")
    if not any(site.folded for site in result.sites):
        if result.model.SerializeToString(deterministic=True) != before:
            fail("nothing has folded, and yet the model has changed")
        return

    try:
        onnx.checker.check_model(result.model, full_check=full_check_passes(model))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        fail(f"the checker refuses the result: {error}")
    for message in differences(result.model, case):
        fail(message)

    again = bnfold.fold(result.model, freeze_initializers=freeze)
    folded = [site.name for site in again.sites if site.folded]
    if folded:
        fail(f"a second fold folds {folded}")
    elif again.model.SerializeToString(deterministic=True) != result.model.SerializeToString(deterministic=True):
        fail("a second fold changes the model")

    other = bnfold.fold(reordered(model, case.seed), freeze_initializers=freeze)
    if account(other.sites) != account(result.sites):
        fail(f"another order of the nodes gives {sorted(account(other.sites) ^ account(result.sites))}")


def differences(folded: onnx.ModelProto, case: RandomModel) -> list[str]:
    """Where the folded model gives something else than the original did."""
    out = []
    for world, (feeds, expected) in enumerate(zip(case.feeds, case.expected, strict=True)):
        found = run(folded, feeds)
        if list(found) != list(expected):
            out.append(f"outputs {list(found)} instead of {list(expected)}")
            continue
        out += [f"world {world}: {message}" for message in different(found, expected, case.elem_type)]
    return out


def different(found: Mapping[str, Array], expected: Mapping[str, Array], elem_type: int) -> list[str]:
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


def account(sites: tuple[Site, ...]) -> set[tuple[str, str]]:
    return {(site.name, site.status) for site in sites}


def full_check_passes(model: onnx.ModelProto) -> bool:
    """Whether strict shape inference has nothing to say against a model."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True
