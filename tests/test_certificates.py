"""Certificates of folds inside bodies, and of folds that reach into them, whichever way a run takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cases import Case
from cases_bodies import BRANCHES, FUNCTIONS, LOOPS
from graphs import parse
from sabotaging import Fault, found_by, planted
from saved import save

import bnfold
from bnfold.checks.options import CheckOptions
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.onnx.document import Ledger, to_proto
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.findings import Finding
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.graphs.onnx.fold import fold_document
from bnfold.graphs.onnx.sources import open_model

QUICK = CheckOptions(check_n=1)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4, 6, 6))

# Both branches call their values the same; the second one reads a value from outside; the loop holds a branch.
MORE = [
    Case(
        "the same names in both branches",
        """(T[N,4,H,W] x, bool k) => (T[N,4,h,w] y)
        { y = If(k) <then_branch = a () => (T[N,4,h,w] r) <T[4,4,3,3] W, bn[4]> { c = Conv(x, W) r = BN(c) },
                     else_branch = b () => (T[N,4,h,w] r) <T[4,4,3,3] W, bn[4]> { c = Conv(x, W) r = BN(c) }> }""",
        "If Conv Conv",
        "c ; c",
    ),
    Case(
        "a branch inside a loop, which reads what lies outside of both",
        """(T[N,4,H,W] x, bool k, int64 trips) => (T[N,4,H,W] y) <bool go = {1}, T[4,4,1,1] V, T[4] B>
        { a = Relu(x) y = Loop(trips, go, x) <body = b (int64 i, bool on, T[N,4,H,W] s) => (bool still, T[N,4,H,W] o)
          { still = Identity(on) o = If(k)
            <then_branch = t () => (T[N,4,H,W] p) <bn[4]> { c = Conv(s, V, B) m = Sub(c, a) p = BN(m) n = Neg(a) },
             else_branch = e () => (T[N,4,H,W] q) <T[4,4,1,1] U, bn[4]> { g = Conv(a, U) f = BN(g) q = Add(f, s) }>
          }> }""",
        "Relu Loop Identity If Conv Add Conv BatchNormalization Add",
        "g",
    ),
]
IR_3 = [
    replace(case, id=f"{case.id}, old file", ir=3) for case in BRANCHES if "outside" in case.id or "read" in case.id
]
BODIES = [*BRANCHES, *LOOPS, *MORE, *IR_3]
by_id = pytest.mark.parametrize("case", BODIES, ids=lambda case: case.id)


def feeds(model: onnx.ModelProto, taken: bool) -> dict[str, Any]:
    """Inputs with which a run takes the first branches, and two trips, or the others, and none."""
    given = {"k": np.asarray(taken), "trips": np.asarray(2 if taken else 0)}
    for info in model.graph.input:
        dims = info.type.tensor_type.shape.dim
        if info.name == "x":
            given["x"] = X[:, : dims[1].dim_value] if len(dims) == 4 else X[:, :, 0, :4]
    names = {info.name for info in model.graph.input}
    return {name: value for name, value in given.items() if name in names}


def folded(model: onnx.ModelProto) -> tuple[Engine, Engine, Ledger]:
    """The engines of a model and of its fold, and what the fold notes."""
    document = open_model(model).document
    fold_document(document, "m", FoldOptions())
    assert document.ledger is not None
    return Engine(open_model(model).document), Engine(open_model(to_proto(document)).document), document.ledger


def findings(model: onnx.ModelProto, taken: bool) -> Iterator[Finding]:
    original, changed, ledger = folded(model)
    yield from found_by(original, changed, ledger, feeds(model, taken)).values()


@by_id
@pytest.mark.parametrize("taken", [True, False])
def test_folds_in_bodies_are_proven_whichever_way_a_run_takes(case: Case, taken: bool) -> None:
    found = list(findings(case.model("float"), taken))
    assert [finding.reason for finding in found if not finding.proven] == []
    assert max(finding.error for finding in found) < 1e-14
    assert all(0 < finding.rounding <= 2.0**-24 for finding in found)


@by_id
@pytest.mark.parametrize("taken", [True, False])
def test_a_wrong_constant_in_a_body_is_found_whichever_way_a_run_takes(case: Case, taken: bool) -> None:
    model = case.model("float")
    original, changed, ledger = folded(model)
    assert ledger.exact
    for name, exact in ledger.exact.items():
        wrong = dict(ledger.exact) | {name: lambda exact=exact: exact() * (1 + 1e-6)}
        found = found_by(original, changed, replace(ledger, exact=wrong), feeds(model, taken))
        assert any(finding.is_wrong and finding.error > 1e-8 for finding in found.values()), name


@pytest.mark.parametrize("constant", ["W.folded", "V.folded"])
def test_a_conversion_takes_back_a_bad_fold_in_either_branch(constant: str, tmp_path: Path) -> None:
    """One of them is never taken."""
    (case,) = (case for case in BRANCHES if case.id == "inside both branches, weights inside")
    model = case.model("float")
    del model.graph.input[1:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(True), "k"))
    onnx.save(model, tmp_path / "a.onnx")
    with planted(Fault("scale", constant, (1, 2), ())):
        report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, certify=True, options=QUICK)
    assert sorted(site.reason or "" for site in report.sites) == ["", "taken-back"]
    (good,) = (site for site in report.sites if site.folded)
    assert good.certificate is not None
    assert good.certificate.status == "proven"


def test_a_fold_from_outside_into_both_branches_is_not_taken_back(tmp_path: Path) -> None:
    (case,) = (case for case in BRANCHES if case.id == "read inside both branches")
    save(tmp_path / "a.onnx", case.graph)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, certify=True, options=QUICK)
    (site,) = report.sites
    assert site.certificate is not None
    assert (site.folded, site.certificate.status) == (True, "proven")
    assert site.certificate.operators == ("BatchNormalization", "Conv")


def test_a_branch_that_does_not_run_on_these_inputs_is_not_proven() -> None:
    """What it would be given there is not known, not even its size."""
    text = """(T[N,4,H,W] x, bool k) => (T[N,4,h,w] y) <int64[4] far = {1, 1, 3, 1000}, bn[4], T[4,4,1,1] W>
        { y = If(k) <then_branch = a () => (T[N,4,h,w] t) { t = Relu(x) },
                     else_branch = b () => (T[N,4,h,w] e) { w = Reshape(x, far) d = Conv(w, W) e = BN(d) }> }"""
    (finding,) = findings(parse(text, "float"), taken=True)
    assert (finding.ran, finding.proven, finding.is_wrong) == (False, False, False)
    assert finding.reason == "'y/else_branch/w' is no array, or no run comes by it"


def test_a_fold_inside_a_function_is_proven_up_to_the_rounding_of_its_weights() -> None:
    (finding,) = findings(FUNCTIONS[0].model("float"), taken=True)
    assert finding.proven
    assert 0 < finding.error < 1e-6


def test_names_that_would_be_one_from_outside_are_refused() -> None:
    model = MORE[0].model("float")
    model.graph.node.append(onnx.helper.make_node("Relu", ["x"], ["y/then_branch/c"]))
    with pytest.raises(CannotRun, match="values of the body 'y/then_branch/' share their names with others"):
        Engine(open_model(model).document)
