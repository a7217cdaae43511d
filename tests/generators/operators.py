"""One operator alone, of the uses that sandwiches are made of, held to ONNX Runtime without optimisations.

Three parts of bnfold say something of what an operator makes: what knows sizes, the evaluation of constants, and the
float64 engine. Whatever they say has to be so; each may say nothing. Seeds count the uses; beyond them, they are drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx
from oracle import Answers, run_on_reference, run_on_runtime

from bnfold.graphs.onnx.constants import may_be_known
from bnfold.graphs.onnx.document import Document
from bnfold.graphs.onnx.evaluation import evaluate
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.graphs.onnx.index import index_model
from bnfold.graphs.onnx.kinds.facts import Facts
from bnfold.graphs.onnx.settled import settled
from generators.drawn import drawn
from generators.sandwich.alone import alone
from generators.sandwich.nodes import uses
from generators.sandwich.use import Use
from generators.verdict import Verdict

RTOL = {"float64": 1e-6, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@cache
def all_uses() -> tuple[Use, ...]:
    """The uses, once for a process."""
    return tuple(uses())


def judged(seed: int) -> Verdict:
    """Hold what is said of the use of a seed to what ONNX Runtime makes of it."""
    use = all_uses()[seed] if seed < len(all_uses()) else drawn(seed)
    model, feeds = alone(use)
    verdict = Verdict(seed, about=use.text(), files={f"operator_{seed}.onnx": model.SerializeToString()})
    expected = run_on_runtime(model, feeds)
    if isinstance(expected, str):
        verdict.unjudged = "ONNX Runtime does not run the operator"
        return verdict
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        verdict.failures += [*sizes(use, expected), *constants(use, model, expected), *exact(model, feeds, expected)]
        reference = run_on_reference(model, feeds)
    if not isinstance(reference, str) and list(differences("the reference", reference, expected, False)):
        verdict.disputed = "the reference and ONNX Runtime differ"
    return verdict


def sizes(use: Use, expected: Answers) -> Iterator[str]:
    """What shape inference and outlines say wrongly of the outputs, for inputs of fixed and of symbolic shapes."""
    for fixed in (True, False):
        for constant in (True, False):
            model, _ = alone(use, fixed=fixed, index_constant=constant)
            main, *_ = scopes = index_model(model)
            facts = Facts(*settled(Document(model, {}, None, ()), scopes, False))
            for name, array in expected.items():
                value = main.values.get(name)
                for shape in (facts.shape(value), facts.outline(value)):
                    pairs = zip(shape or (), array.shape, strict=False)
                    wrong = any(isinstance(size, int) and size != real for size, real in pairs)
                    if shape is not None and (wrong or len(shape) != array.ndim):
                        yield f"{name} is {array.shape}, not {shape}; fixed {fixed}, indices known {constant}"


def constants(use: Use, model: onnx.ModelProto, expected: Answers) -> Iterator[str]:
    """What the evaluation of constants makes of the operands otherwise than ONNX Runtime."""
    node = index_model(model)[0].nodes[0]
    if may_be_known(node):
        feeds = [None if operand is None else operand.array for operand in use.inputs]
        values = [value for value in node.outputs if value is not None]
        found = {value.name: evaluate(node.proto, node.opset, feeds, value.port) for value in values}
        made = {name: array for name, array in found.items() if array is not None}
        yield from differences("evaluated", made, expected, typed=True)


def exact(model: onnx.ModelProto, feeds: dict[str, Any], expected: Answers) -> Iterator[str]:
    """What the float64 engine makes of the operands otherwise than ONNX Runtime."""
    narrows = any(item.name == "to" and item.i in HALVES for item in model.graph.node[0].attribute)
    try:
        found = Engine(Document(model, {}, None, ())).run(feeds)
    except CannotRun:
        return
    if narrows:
        expected = {name: array for name, array in expected.items() if np.isfinite(array).all()}  # it rounds nothing
    yield from differences("in float64", found, expected, typed=False)


def differences(what: str, found: Answers, expected: Answers, typed: bool) -> Iterator[str]:
    """Where arrays are not those expected, up to rounding; `typed` asks for the same type, too."""
    for name, got in found.items():
        want = expected.get(name)
        if want is None:
            continue
        if got.shape != want.shape or (got.dtype != want.dtype and (typed or not is_float(got) or not is_float(want))):
            yield f"{what}, {name} is {got.dtype} {got.shape} instead of {want.dtype} {want.shape}"
        elif not is_float(want) and not np.array_equal(got, want):
            yield f"{what}, {name} has other numbers"
        elif is_float(want):
            rtol, wide = RTOL.get(want.dtype.name, 0.1), want.astype(np.float64)
            atol = rtol * max(1e-3, float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0)))
            if not np.allclose(got.astype(np.float64), wide, rtol, atol, equal_nan=True):
                yield f"{what}, {name} has other values"


def is_float(array: Any) -> bool:
    """Whether an array holds floating-point numbers."""
    return bool(array.dtype.kind == "f" or array.dtype.name == "bfloat16")
