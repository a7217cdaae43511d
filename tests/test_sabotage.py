"""Sabotage: faults planted in folds are caught by the verdict, found by what they do by themselves, and taken back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_builder import DOUBLE, FLOAT, HALF
from graphs import parse, weights
from random_graphs import random_model
from sabotaging import KINDS, Fault, Sabotage, found_by, planted
from saved import TWO_BATCH_NORMS, save

import bnfold
from bnfold.checks.options import CheckOptions
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.onnx.document import to_proto
from bnfold.graphs.onnx.exact.cutouts import GraphDiff
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.findings import relative_error
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.graphs.onnx.exact.matching import Graph, matched
from bnfold.graphs.onnx.fold import fold_document
from bnfold.graphs.onnx.sources import open_model

MODELS = Path(__file__).parent.parent / "models"
QUICK = CheckOptions(check_n=3)


# Random faults.


@pytest.mark.parametrize(("name", "count"), [("bnlenet", 10), ("bnlenet_handwritten", 4)])
def test_every_fault_past_the_tolerance_is_caught_named_and_taken_back(name: str, count: int, tmp_path: Path) -> None:
    sabotage = Sabotage(MODELS / f"{name}.onnx", tmp_path, QUICK)
    trials = [sabotage.trial(fault) for fault in sabotage.faults(count, seed=1)]
    assert [trial for trial in trials if trial.missed or trial.misnamed] == []
    assert count == 4 or {trial.fault.kind for trial in trials} == set(KINDS)
    assert sum(trial.effect > 1 for trial in trials) >= count - 2


@pytest.mark.parametrize("exact_seconds", [0.0, 5.0])
def test_a_fault_below_the_tolerance_is_seen_in_its_part_alone(exact_seconds: float, tmp_path: Path) -> None:
    options = CheckOptions(check_n=3, rtol=0.5, exact_seconds=exact_seconds)
    sabotage = Sabotage(MODELS / "bnlenet.onnx", tmp_path, options)
    trial = sabotage.trial(next(fault for fault in sabotage.faults(9, seed=2) if fault.kind == "scale"))
    assert 0 < trial.effect < 1
    assert trial.caught == (exact_seconds > 0)
    assert not trial.misnamed
    assert trial.passed


# Where the error is, and where it goes.


def test_a_bad_fold_is_named_with_its_error_and_the_way_of_that_through_the_graph(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    with planted(Fault("scale", "w.folded", (3, 0), ("b",))):
        report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, options=QUICK)
    verdict = report.verification
    assert verdict is not None
    assert verdict.taken_back == ("b",)
    (culprit,) = verdict.culprits
    assert culprit.site == "b"
    assert culprit.error is not None
    assert 1e-4 < culprit.error < 2e-2
    values = [value for value, _ in culprit.growth]
    assert values[0] == "b"
    assert values[-1] == "y"
    assert dict(culprit.growth)["b"] == pytest.approx(culprit.error, rel=2)


def test_folds_that_meet_in_one_operator_are_told_apart_from_the_rest(tmp_path: Path) -> None:
    """The convolution between takes in one BatchNorm from above and one from below: its fault is of both."""
    text = """(T[N,4,6,6] x) => (T[N,4,2,2] y) <T[4,4,3,3] u, T[4,4,1,1] v, T[4,4,3,3] w, bn[4], bn2[4], bn3[4]> {
        c = Conv(x, u) a = Relu(c) b = BN(a) d = Conv(b, v) e = BN2(d) r = Relu(e) f = Conv(r, w) y = BN3(f) }"""
    save(tmp_path / "a.onnx", text)
    sabotage = Sabotage(tmp_path / "a.onnx", tmp_path, QUICK)
    shared = next(fault for fault in sabotage.faults(50, seed=0) if len(fault.owners) == 2 and fault.kind == "scale")
    trial = sabotage.trial(shared)
    assert set(shared.owners) == {"b", "e"}
    assert trial.caught
    assert not trial.misnamed


# Certificates.


@pytest.mark.parametrize("verify", [True, False])
def test_certificates_are_in_the_report_and_in_the_model(verify: bool, tmp_path: Path) -> None:
    report = bnfold.convert(
        MODELS / "bnlenet.onnx", tmp_path / "b.onnx", verify=verify, bench=False, certify=True, options=QUICK
    )
    found = [site.certificate for site in report.sites]
    assert len(found) == 4
    for certificate in found:
        assert certificate is not None
        assert certificate.status == "proven"
        assert certificate.error is not None
        assert certificate.error < 1e-12
        assert certificate.rounding is not None
        assert 0 < certificate.rounding <= 2.0**-24
        assert {"Conv", "BatchNormalization"} & set(certificate.operators)
    written = {item.key: json.loads(item.value) for item in onnx.load(tmp_path / "b.onnx").metadata_props}
    for site in report.sites:
        assert site.certificate is not None
        entry = written[f"bnfold.certificate.{site.name}"]
        assert (entry["status"], entry["error"], entry["into"]) == ("proven", site.certificate.error, list(site.into))
    plain = bnfold.convert(MODELS / "bnlenet.onnx", tmp_path / "c.onnx", verify=False, bench=False)
    assert all(site.certificate is None for site in plain.sites)
    assert not [item for item in onnx.load(tmp_path / "c.onnx").metadata_props if item.key.startswith("bnfold.")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verify", [True, False])
def test_a_fold_whose_certificate_fails_is_taken_back(kind: str, verify: bool, tmp_path: Path) -> None:
    """Even one that no output shows."""
    model = save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    constant = "c.bias.folded" if kind == "bias" else "w.folded"
    fault = Fault(kind, constant, (1, 2), ("b",), weights(model)["w"])
    loose = CheckOptions(check_n=1, rtol=1e6)
    with planted(fault):
        report = bnfold.convert(
            tmp_path / "a.onnx", tmp_path / "b.onnx", verify=verify, bench=False, certify=True, options=loose
        )
    assert [(site.name, site.folded) for site in report.sites] == [("b", False), ("y", True)]
    assert report.sites[0].reason == "taken-back"
    assert report.sites[0].detail == "its certificate failed and was taken back"
    assert report.sites[1].certificate is not None
    assert report.sites[1].certificate.status == "proven"
    assert bnfold.verify(tmp_path / "a.onnx", tmp_path / "b.onnx").passed


def test_a_fold_in_a_model_that_float64_cannot_run_is_proven_all_the_same(tmp_path: Path) -> None:
    text = """(T[2,4,6,6] x) => (T[2,4,6,6] y) <T[4,4,1,1] w, bn[4]> {
        c = Conv(x, w) l = LRN<size=3>(c) d = Conv(l, w) y = BN(d) }"""
    save(tmp_path / "a.onnx", text)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, certify=True, options=QUICK)
    (site,) = report.sites
    assert site.certificate is not None
    assert (site.folded, site.certificate.status) == (True, "proven")
    assert report.verification is not None
    assert report.verification.passed
    assert "(LRN): this operator has no implementation in float64 here" in (report.verification.exact or "")


@pytest.mark.parametrize("elem_type", [DOUBLE, FLOAT, HALF], ids=["float64", "float32", "float16"])
def test_folds_of_random_models_are_all_proven(elem_type: int) -> None:
    proven = 0
    for seed in range(5000, 5030):
        case = random_model(seed, elem_type)
        document = open_model(case.model).document
        fold_document(document, "m", FoldOptions())
        if document.ledger is None:
            continue
        engines = Engine(open_model(case.model).document), Engine(open_model(to_proto(document)).document)
        try:
            found = found_by(*engines, document.ledger, case.feeds[0])
        except CannotRun:
            continue
        assert [finding.reason for finding in found.values() if finding.is_wrong] == []
        proven += sum(finding.proven for finding in found.values())
    assert proven > 25


def test_a_cut_out_holds_the_fold_and_nothing_else() -> None:
    model = parse(TWO_BATCH_NORMS, "float")
    document = open_model(model).document
    fold_document(document, "m", FoldOptions())
    assert document.ledger is not None
    engines = Engine(open_model(model).document), Engine(open_model(to_proto(document)).document)
    graphs = Graph(engines[0]), Graph(engines[1])
    matching = matched(*graphs, document.ledger.changed - {"y"})
    found = list(GraphDiff(*graphs, matching, document.ledger.sites, ()).cutouts())
    assert [(piece.value, piece.inputs, piece.sites) for piece in found] == [
        ("b", {"x": "x"}, (0,)),
        ("y", {"r": "r"}, (1,)),
    ]
    assert [[node.op_type for node in piece.before] for piece in found] == [["Conv", "BatchNormalization"]] * 2
    assert [[node.op_type for node in piece.after] for piece in found] == [["Conv"]] * 2


def test_a_wrong_rule_is_found_by_algebra_alone() -> None:
    """The constants in the file are the rounded ones of the plan; the plan itself is wrong."""
    model = parse(TWO_BATCH_NORMS, "float")
    document = open_model(model).document
    fold_document(document, "m", FoldOptions())
    other = parse(TWO_BATCH_NORMS, "float")
    gamma = next(tensor for tensor in other.graph.initializer if tensor.name == "gamma2")
    gamma.CopyFrom(onnx.numpy_helper.from_array((weights(other)["gamma2"] * (1 + 1e-6)).astype(np.float32), "gamma2"))
    assert document.ledger is not None
    engines = Engine(open_model(other).document), Engine(open_model(to_proto(document)).document)
    found = found_by(*engines, document.ledger, {"x": np.ones((1, 16, 4, 4))})
    assert [finding.is_wrong for finding in found.values()] == [False, True]
    assert 1e-8 < found[1].error < 1e-5
    assert "is off by" in (found[1].reason or "")


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        ([1.0, -2.0], [1.0, -2.5], 0.25),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1e-9], np.inf),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
        ([1, 2], [1, 2], 0.0),
        ([1, 2], [1, 3], np.inf),
    ],
)
def test_relative_errors(expected: list[float], found: list[float], error: float) -> None:
    assert relative_error(np.array(expected), np.array(found)) == error
