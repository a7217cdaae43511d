"""What must hold of the fold of any ONNX model, judged by two engines that are not bnfold's.

ONNX Runtime runs the original and the folded model without optimisations, in the model's own types; onnx.reference runs
both in float64 (`widened`). Where the two engines agree on the original, both judge the fold. Where they differ, one of
them has an error: the case is counted as `disputed`, and the fold is held to ONNX Runtime alone, which is what users
run. A case that ONNX Runtime does not run is `unjudged`, and only what needs no engine is checked.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from reference import evaluator as ReferenceEvaluator
from reference import inlined
from shaken import movement
from widened import widened

import bnfold
from bnfold.results import Site

Array = np.ndarray[Any, Any]
Answers = dict[str, Array]

# Relative to the largest element of an output. The widened models differ by the rounding of the folded weights alone.
RTOL = {"float64": 1e-9, "float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-1}
# Of the runtime, on top of 20 times its own error on the original. Where that is not enough, both engines are allowed
# 20 times what rounding of the constants does to the original (`shaken`).
RUNTIME_RTOL = {"float64": 1e-8, "float32": 2e-4, "float16": 2e-2, "bfloat16": 2e-1}
AGREES = {"float64": 1e-6, "float32": 1e-2, "float16": 1e-1, "bfloat16": 5e-1}


@dataclass(frozen=True, eq=False)
class Case:
    """A model and the inputs to judge its fold on; `origin` says how it was made, for a report."""

    model: onnx.ModelProto
    feeds: tuple[Mapping[str, Array], ...]
    origin: str = ""


@dataclass
class Judgement:
    """What became of one case; `failures` is empty where all is well, the rest is as the module says."""

    failures: list[str] = field(default_factory=list)
    sites: tuple[Site, ...] = ()
    disputed: bool = False
    unjudged: bool = False


def judge(case: Case) -> Judgement:
    """Fold a case and note whatever does not hold of the result."""
    out = Judgement()
    try:
        _judge(case, out)
    except Exception as error:  # a crash of any kind is what the search is for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        out.failures.append(f"crash: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")
    return out


def _judge(case: Case, out: Judgement) -> None:
    fail = out.failures.append
    before = case.model.SerializeToString(deterministic=True)
    result = bnfold.fold(case.model)
    out.sites = result.sites
    if case.model.SerializeToString(deterministic=True) != before:
        fail("the model that was given has changed")
    folded = [site for site in result.sites if site.folded]
    for message in miscounted(case.model, result.model, result.sites):
        fail(message)
    if not folded:
        if result.model.SerializeToString(deterministic=True) != before:
            fail("nothing has folded, and yet the model has changed")
        return
    try:
        onnx.checker.check_model(result.model, full_check=_passes(case.model, full=True))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        if _passes(case.model, full=False):
            fail(f"the checker refuses the result: {error}")
    again = bnfold.fold(result.model)
    if again.model.SerializeToString(deterministic=True) != result.model.SerializeToString(deterministic=True):
        names = [site.name for site in again.sites if site.folded]
        fail(f"a second fold changes the model, and folds {names}")
    for feeds in case.feeds:
        for message in _compared(case, result.model, feeds, out):
            fail(message)


def _compared(case: Case, folded: onnx.ModelProto, feeds: Mapping[str, Array], out: Judgement) -> list[str]:
    """Where the folded model gives something else than the original did."""
    expected, found = run_on_runtime(case.model, feeds), run_on_runtime(folded, feeds)
    exact, exact_found = run_on_reference(case.model, feeds), run_on_reference(folded, feeds)
    if isinstance(expected, str):
        out.unjudged = True
        return []
    if isinstance(found, str):
        return [f"the runtime cannot run the folded model: {found}"]
    agreed = not isinstance(exact, str) and _agree(expected, exact)
    out.disputed |= not isinstance(exact, str) and not agreed
    failures: list[str] = []
    if agreed and isinstance(exact_found, str):
        failures.append(f"the reference cannot run the folded model: {exact_found}")
    elif agreed:
        failures += _differing("float64", exact, exact_found, expected, RTOL, {})
        if failures:
            moved = movement(case.model, feeds, run_on_reference)
            failures = _differing("float64", exact, exact_found, expected, RTOL, moved)
    noise = _apart(expected, exact) if agreed and not isinstance(exact_found, str) else {}
    if _differing("the runtime", expected, found, expected, RUNTIME_RTOL, noise):
        moved = movement(case.model, feeds, run_on_runtime)
        noise = {name: max(noise.get(name, 0.0), moved.get(name, 0.0)) for name in expected}
        failures += _differing("the runtime", expected, found, expected, RUNTIME_RTOL, noise)
    return failures


def _apart(found: Answers, exact: Answers) -> dict[str, float]:
    """How far each output lies from that of float64 at most, where both are finite."""
    out = {}
    for name, got in found.items():
        if name in exact and exact[name].shape == got.shape and got.dtype.kind == "f":
            with np.errstate(all="ignore"):
                away = np.abs(got.astype(np.float64) - exact[name])[np.isfinite(got)]
            out[name] = float(np.nan_to_num(away).max(initial=0.0))
    return out


def _differing(
    engine: str,
    expected: Answers,
    found: Answers,
    typed: Answers,
    rtol: Mapping[str, float],
    noise: Mapping[str, float],
) -> list[str]:
    """The outputs that lie further apart than rounding explains. `typed` has the outputs in the model's own types."""
    if list(expected) != list(found):
        return [f"on {engine} the outputs are {list(found)} instead of {list(expected)}"]
    failures = []
    for name, want in expected.items():
        got = found[name]
        # In float64, a value that constants alone make is as wide as the reference makes the operators that make it.
        widths = got.dtype != want.dtype and (engine != "float64" or {got.dtype.kind, want.dtype.kind} != {"f"})
        if got.shape != want.shape or widths:
            failures.append(
                f"on {engine} output {name} is {got.dtype} {got.shape} instead of {want.dtype} {want.shape}"
            )
            continue
        if want.dtype.kind not in "f":
            continue  # what rounding does to an integer is not known here
        own = typed[name].dtype.name
        finite = np.isfinite(want)
        if not np.array_equal(finite, np.isfinite(got)):
            if own == "float64" or finite.all():
                failures.append(f"on {engine} output {name} has NaN or infinity in other places")
            continue
        want, got = want[finite].astype(np.float64), got[finite].astype(np.float64)
        bound = rtol.get(own, 0.2) * float(np.abs(want).max(initial=0.0)) + 20 * noise.get(name, 0.0) + 1e-30
        error = float(np.abs(got - want).max(initial=0.0))
        if not error <= bound:
            failures.append(f"on {engine} output {name} is off by {error:.3g}, {bound:.3g} allowed")
    return failures


def _agree(runtime: Answers, reference: Answers) -> bool:
    """Whether both engines compute the same function, up to the rounding of one of them."""
    if list(runtime) != list(reference):
        return False
    for name, got in runtime.items():
        want = reference[name]
        if got.shape != want.shape:
            return False
        if got.dtype.kind not in "f":
            continue
        finite = np.isfinite(want) & np.isfinite(got)
        with np.errstate(all="ignore"):
            error = np.abs(got.astype(np.float64) - want)[finite].max(initial=0.0)
        if not error <= AGREES.get(got.dtype.name, 0.5) * np.abs(want[finite]).max(initial=0.0) + 1e-30:
            return False
    return True


def run_on_runtime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> Answers | str:
    """The outputs as ONNX Runtime gives them without optimisations, or why there are none."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    types = {
        info.name: onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type) for info in model.graph.input
    }
    try:
        session = onnxruntime.InferenceSession(
            _runnable(model).SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        values = session.run(None, {name: array.astype(types[name]) for name, array in feeds.items()})
    except Exception as error:  # ONNX Runtime's exceptions have no common base class of their own
        return " ".join(str(error).split())[:300]
    return _arrays([info.name for info in session.get_outputs()], values)


def _runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without empty trailing outputs of BatchNorms, on which ONNX Runtime crashes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in nodes(copy):
        while node.op_type == "BatchNormalization" and len(node.output) > 1 and not node.output[-1]:
            node.output.pop()
    return copy


def run_on_reference(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> Answers | str:
    """The outputs as onnx.reference gives them in float64, or why there are none."""
    wide = {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array.copy() for name, array in feeds.items()
    }
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = ReferenceEvaluator(widened(inlined(model))).run(None, wide)
    except Exception as error:  # it raises what it likes
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return _arrays([info.name for info in model.graph.output], values)


def _arrays(names: list[str], values: list[Any]) -> Answers:
    """Arrays by name; the elements of a sequence `s` are `s[0]`, `s[1]` and so on."""
    out: Answers = {}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, list):
            out.update({f"{name}[{at}]": np.asarray(element) for at, element in enumerate(value)})
        elif value is not None:
            out[name] = np.asarray(value)
    return out


def _passes(model: onnx.ModelProto, full: bool) -> bool:
    if full and any(dim.dim_value < 0 for info in model.graph.input for dim in info.type.tensor_type.shape.dim):
        return False  # such a size is not known, but inference counts with it, and may end the process
    try:
        onnx.checker.check_model(model, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def miscounted(before: onnx.ModelProto, after: onnx.ModelProto, sites: tuple[Site, ...]) -> list[str]:
    """Every BatchNorm has one site, and stays if its site says so."""
    out = []
    told = Counter(site.name for site in sites if site.op == "BatchNormalization")
    named = norms(before)
    if named != told and (not before.functions or norms(onnx.inliner.inline_local_functions(before)) != told):
        out.append(f"the BatchNorms {sorted(named)} are accounted for as {sorted(told)}")
    kept = sum(site.op == "BatchNormalization" and not site.folded for site in sites)
    if kept != norms(after).total():
        out.append(f"{kept} BatchNorms are told to stay, and {norms(after).total()} are there")
    return out


def norms(model: onnx.ModelProto) -> Counter[str]:
    """The BatchNorms of a model by name, or by output where they have none."""
    return Counter(
        node.name or node.output[0]
        for node in nodes(model)
        if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx")
    )


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the graph, of its bodies and of its functions."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node
            for item in node.attribute:
                waiting.extend([item.g] if item.HasField("g") else item.graphs)
