"""The Python API: what goes in, what comes back, and what does not change."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnx_ir.passes.common
import pytest
from graphs import op_types, parse, weights
from saved import CONV_BN, NO_BATCH_NORM, TWO_BATCH_NORMS, names, save, save_external

import bnfold
from bnfold.errors import BnfoldError, MissingDependency, ModelError, OutputError, UsageError
from bnfold.onnx_ir import FoldBatchNorms

TRAINING = CONV_BN.replace("BN(c)", "BN<training_mode=1>(c)")


def convert(source: Any, target: Path, **options: Any) -> bnfold.Report:
    return bnfold.convert(source, target, verify=False, bench=False, **options)


# The same kind comes back, and what was given is as before.


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_gives_a_model_proto(kind: Callable[[Path], Any], tmp_path: Path) -> None:
    model = save(tmp_path / "a.onnx")
    result = bnfold.fold(kind(tmp_path / "a.onnx"))
    assert type(result.model) is onnx.ModelProto
    assert result.model == bnfold.fold(model).model
    assert names(tmp_path) == {"a.onnx"}
    assert (tmp_path / "a.onnx").read_bytes() == model.SerializeToString()


def test_a_path_with_external_data_gives_a_model_that_is_whole(tmp_path: Path) -> None:
    model = save_external(tmp_path / "a.onnx", CONV_BN)
    result = bnfold.fold(tmp_path / "a.onnx")
    for tensor in result.model.graph.initializer:
        assert tensor.data_location == onnx.TensorProto.DEFAULT
        assert not tensor.external_data
    expected = weights(bnfold.fold(model).model)
    assert {name: array.tobytes() for name, array in weights(result.model).items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


def test_a_model_proto_gives_another_model_proto() -> None:
    model = parse(TWO_BATCH_NORMS, "float")
    before = model.SerializeToString(deterministic=True)
    result = bnfold.fold(model)
    assert type(result.model) is onnx.ModelProto
    assert op_types(result.model) == ["Conv", "Relu", "Conv"]
    assert [(site.name, site.into) for site in result.sites] == [("b", ("c",)), ("y", ("d",))]
    assert (result.before.batch_norms, result.after.batch_norms) == (2, 0)
    # What was given shares nothing with what came back.
    for tensor in result.model.graph.initializer:
        tensor.raw_data = b"\0" * len(tensor.raw_data)
    result.model.graph.node[0].attribute[0].ints[:] = [7]
    assert model.SerializeToString(deterministic=True) == before


def test_a_model_proto_without_batch_norm_comes_back_equal() -> None:
    model = parse(NO_BATCH_NORM, "float")
    result = bnfold.fold(model)
    assert result.model is not model
    assert result.model.SerializeToString() == model.SerializeToString()
    assert result.sites == ()


def test_an_ir_model_gives_another_ir_model_that_shares_what_no_fold_named() -> None:
    model = onnx_ir.from_proto(parse(TWO_BATCH_NORMS, "float"))
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    result = bnfold.fold(model, only=["b"])
    assert type(result.model) is onnx_ir.Model
    assert [node.op_type for node in result.model.graph] == ["Conv", "Relu", "Conv", "BatchNormalization"]
    old, new = model.graph.initializers, result.model.graph.initializers
    assert new["v"].const_value is old["v"].const_value
    assert "w" not in new
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == before
    expected = weights(bnfold.fold(parse(TWO_BATCH_NORMS, "float"), only=["b"]).model)
    found = {name: value.const_value.numpy() for name, value in new.items()}
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_an_ir_model_with_external_data_folds_and_keeps_its_tensors(tmp_path: Path) -> None:
    save_external(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    model = onnx_ir.load(tmp_path / "a.onnx")
    result = bnfold.fold(model, only=["b"])
    assert [site.folded for site in result.sites] == [True, False]
    for name in ("v", "gamma2"):
        assert result.model.graph.initializers[name].const_value is model.graph.initializers[name].const_value
    onnx_ir.save(result.model, tmp_path / "b.onnx")
    expected = bnfold.fold(onnx.load(tmp_path / "a.onnx"), only=["b"]).model
    np.testing.assert_array_equal(weights(onnx.load(tmp_path / "b.onnx"))["w.folded"], weights(expected)["w.folded"])


def test_an_ir_model_with_weights_of_text_is_no_obstacle() -> None:
    proto = parse(CONV_BN, "float")
    proto.graph.initializer.append(onnx.helper.make_tensor("words", onnx.TensorProto.STRING, [2], [b"one", b"two"]))
    proto.graph.node.append(onnx.helper.make_node("Identity", ["words"], ["said"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("said", onnx.TensorProto.STRING, [2]))
    model = onnx_ir.from_proto(proto)
    tensor = onnx_ir.StringTensor(np.array([b"one", b"two"], object), name="words")
    model.graph.initializers["words"].const_value = tensor
    result = bnfold.fold(model)
    assert [site.folded for site in result.sites] == [True]
    assert list(result.model.graph.initializers["words"].const_value.string_data()) == [b"one", b"two"]


# The pass.


@pytest.mark.parametrize(("text", "modified"), [(CONV_BN, True), (NO_BATCH_NORM, False)])
def test_the_pass_says_whether_it_changed_anything(text: str, modified: bool) -> None:
    model = onnx_ir.from_proto(parse(text, "float"))
    result = FoldBatchNorms()(model)
    assert result.modified is modified
    assert result.model is not model
    if not modified:
        assert result.model.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
        assert onnx_ir.to_proto(result.model) == onnx_ir.to_proto(model)


def test_the_pass_stands_in_a_row_with_others() -> None:
    model = onnx_ir.from_proto(parse(TWO_BATCH_NORMS.replace("Relu(b)", "Identity(b)"), "float"))
    fold = FoldBatchNorms(skip=["y"])
    row = onnx_ir.passes.Sequential(fold, onnx_ir.passes.common.IdentityEliminationPass(), FoldBatchNorms())
    result = row(model)
    assert result.modified
    assert [node.op_type for node in result.model.graph] == ["Conv", "Conv"]
    assert [(site.name, site.folded) for site in fold.sites] == [("b", True), ("y", False)]
    assert len(model.graph) == 5


def test_the_pass_counts_a_change_without_a_fold() -> None:
    text = "(T[N,4,H,W] x) => (T[N,4,H,W] y) <bn[4]> { r = Relu(x) y = BN<training_mode=1>(r) }"
    model = onnx_ir.from_proto(parse(text, "float"))
    fold = FoldBatchNorms(assume_eval=True)
    result = fold(model)
    assert [site.folded for site in fold.sites] == [False]
    assert result.modified
    assert "training_mode" in model.graph.node(1).attributes
    assert "training_mode" not in result.model.graph.node(1).attributes


def test_a_string_for_patterns_is_refused_by_the_pass() -> None:
    with pytest.raises(UsageError, match="give a list of patterns"):
        FoldBatchNorms(only="b")


# Which sites.


@pytest.mark.parametrize(
    ("options", "folded"),
    [
        ({}, "b y"),
        ({"only": ["b"]}, "b"),
        ({"only": ["nothing", "y"]}, "y"),
        ({"only": ["?"]}, "b y"),
        ({"only": ["B"]}, ""),
        ({"skip": ["b"]}, "y"),
        ({"skip": ["*"]}, ""),
        ({"only": ["[a-c]", "y"], "skip": ["y*"]}, "b"),
        ({"only": (name for name in "y")}, "y"),
    ],
)
def test_patterns_choose_sites(options: dict[str, Any], folded: str) -> None:
    result = bnfold.fold(parse(TWO_BATCH_NORMS, "float"), **options)
    assert " ".join(site.name for site in result.sites if site.folded) == folded
    assert [site.name for site in result.sites] == ["b", "y"]
    assert result.after.batch_norms == 2 - len(folded.split())


@pytest.mark.parametrize("option", ["only", "skip"])
@pytest.mark.parametrize("function", [bnfold.fold, bnfold.inspect])
def test_a_string_for_patterns_is_refused(function: Callable[..., Any], option: str) -> None:
    with pytest.raises(UsageError, match=rf"^{option}='b': give a list of patterns, as in {option}=\['b'\]$"):
        function(parse(CONV_BN, "float"), **{option: "b"})


def test_training_mode_is_folded_only_on_request() -> None:
    model = parse(TRAINING, "float")
    (site,) = bnfold.fold(model).sites
    assert (site.folded, site.reason) == (False, "training-mode")
    assert [site.folded for site in bnfold.fold(model, assume_eval=True).sites] == [True]
    assert "training_mode" in str(model)


def test_a_weight_that_callers_may_override_is_folded_only_on_request() -> None:
    model = parse(CONV_BN, "float")
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [16, 8, 3, 3]))
    (site,) = bnfold.fold(model).sites
    assert (site.folded, site.reason) == (False, "overridable")
    assert [site.folded for site in bnfold.fold(model, freeze_initializers=True).sites] == [True]


# Inspection.


@pytest.mark.parametrize("options", [{}, {"only": ["b"]}, {"skip": ["*"]}])
def test_inspection_agrees_with_the_fold_and_writes_nothing(options: dict[str, Any], tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", TWO_BATCH_NORMS)
    before = (tmp_path / "a.onnx").read_bytes()
    result = bnfold.fold(tmp_path / "a.onnx", **options)
    report = bnfold.inspect(tmp_path / "a.onnx", **options)
    assert report.sites == result.sites
    assert report.before == replace(result.before, file_bytes=len(before))
    assert (report.after, report.output_path, report.verification, report.latency) == (result.after, None, None, ())
    assert names(tmp_path) == {"a.onnx"}
    assert (tmp_path / "a.onnx").read_bytes() == before


# Conversion.


def test_the_report_of_a_conversion_says_what_was_read_and_written(tmp_path: Path) -> None:
    model = parse(TWO_BATCH_NORMS, "float", opset=15, ir=7)
    onnx.save(model, tmp_path / "a.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    report = bnfold.convert(tmp_path / "a.onnx", bench=False)
    target = tmp_path / "a.folded.onnx"
    assert report.version == bnfold.__version__
    assert report.output_path == str(target)
    assert report.source == bnfold.Source(str(tmp_path / "a.onnx"), hashlib.sha256(data).hexdigest(), 15, 7)
    assert report.sites == bnfold.fold(tmp_path / "a.onnx").sites
    assert report.before == bnfold.Counts(2, 2, 0, 5, len(data))
    assert report.after == bnfold.Counts(0, 2, 0, 3, target.stat().st_size)
    assert report.verification is not None
    assert report.verification.passed
    assert [output.name for output in report.verification.outputs] == ["y"]
    assert report.latency == ()
    assert (onnx.load(target).ir_version, onnx.load(target).opset_import[0].version) == (7, 15)


@pytest.mark.parametrize("checksum", [None, False, True])
def test_a_conversion_without_verification_computes_a_checksum_on_request(checksum: bool, tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    report = convert(tmp_path / "a.onnx", tmp_path / "b.onnx", checksum=checksum)
    assert report.verification is None
    expected = hashlib.sha256((tmp_path / "a.onnx").read_bytes()).hexdigest()
    assert report.source.sha256 == (expected if checksum else None)


def test_a_model_in_memory_is_converted_to_a_path_that_is_named(tmp_path: Path) -> None:
    model = parse(CONV_BN, "float")
    before = model.SerializeToString()
    for number, source in enumerate((model, onnx_ir.from_proto(model))):
        target = tmp_path / f"{number}.onnx"
        report = bnfold.convert(source, target, bench=False)
        assert report.source == bnfold.Source(None, None, 17, 8)
        assert report.verification is not None
        assert report.verification.passed
        assert op_types(onnx.load(target)) == ["Conv"]
        with pytest.raises(UsageError, match="needs an output path"):
            bnfold.convert(source)
    assert names(tmp_path) == {"0.onnx", "1.onnx"}
    assert model.SerializeToString() == before


def test_nothing_to_fold_needs_no_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.onnx", NO_BATCH_NORM)
    monkeypatch.setattr(bnfold.conversion, "runnable", None)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert report.verification == bnfold.Verification(True, "the output is the input, byte for byte", ())
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_assumed_inference_is_verified_against_the_original_in_inference_mode(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", TRAINING)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", assume_eval=True, bench=False)
    assert report.verification is not None
    assert report.verification.passed
    assert op_types(onnx.load(tmp_path / "b.onnx")) == ["Conv"]


# What a Mul by ones is, bnfold leaves; onnxsim takes it away.
SUPERFLUOUS = """(T[N,8,4,4] x) => (T[N,16,4,4] y) <T[16,8,3,3] w, T one = {1}, bn[16]>
    { c = Conv<pads=[1,1,1,1]>(x, w) r = Relu(c) m = Mul(r, one) y = Relu(m) }"""


@pytest.mark.parametrize("external", [False, True])
def test_simplification_comes_first_and_is_verified_with_the_rest(external: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxsim")
    source = tmp_path / "in/a.onnx"
    source.parent.mkdir()
    (save_external if external else save)(source, SUPERFLUOUS.replace("T one", "float one"))
    before = source.read_bytes()
    report = bnfold.convert(source, tmp_path / "b.onnx", simplify=True, bench=False)
    assert report.verification is not None
    assert report.verification.passed
    assert report.verification.outputs  # it was run, although nothing folds
    assert report.source.path == str(source)
    assert report.before.nodes == 4
    assert len(onnx.load(tmp_path / "b.onnx").graph.node) < 4
    assert source.read_bytes() == before
    inside = {"in", "in/a.onnx", "b.onnx"}
    assert names(tmp_path) == inside | ({"in/a.onnx.data", "b.onnx.data"} if external else set())


# What is refused.


@pytest.mark.parametrize("model", [None, 3, b"bytes", [], {}, onnx.GraphProto(), object()])
@pytest.mark.parametrize("function", [bnfold.fold, bnfold.inspect])
def test_what_is_no_model_is_refused(function: Callable[[Any], Any], model: Any) -> None:
    with pytest.raises(ModelError, match="no model that bnfold reads: give a path to an ONNX file") as caught:
        function(model)
    assert type(model).__qualname__ in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda model: model.ClearField("graph"), "it holds no graph"),
        (lambda model: model.ClearField("opset_import"), "which opset"),
        (lambda model: model.graph.initializer.append(model.graph.initializer[0]), "two initializers are named 'w'"),
        (lambda model: model.graph.node[0].input.append("nobody"), "reads 'nobody', which nothing makes"),
        (lambda model: model.graph.node.append(model.graph.node[0]), "the name 'c' is made twice"),
        (lambda model: model.graph.output.add(name="nobody"), "nothing makes its output 'nobody'"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(change: Callable[[onnx.ModelProto], Any], why: str) -> None:
    model = parse(CONV_BN, "float")
    change(model)
    for function in (bnfold.fold, bnfold.inspect):
        with pytest.raises(ModelError, match=why):
            function(model)


def test_every_error_is_one_of_bnfolds_own() -> None:
    for error in (ModelError, UsageError, OutputError, MissingDependency, bnfold.EquivalenceError):
        assert issubclass(error, BnfoldError)
        assert getattr(bnfold, error.__name__) is error


# Without packages that are optional.

BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it fails as if it were not installed
import bnfold
{code}
"""


def without(blocked: list[str], code: str, folder: Path) -> str:
    """What a process prints that runs some code where packages are not installed."""
    environment = os.environ | {"PYTHONPATH": str(Path(bnfold.__file__).parents[1])}
    argv = [sys.executable, "-c", BLOCKED.format(blocked=blocked, code=code)]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


def test_without_onnx_runtime_a_fold_works_and_verification_says_what_to_install(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    code = """
print(bnfold.fold("a.onnx").after.batch_norms, bnfold.inspect("a.onnx").after.batch_norms)
for stages in ({}, {"bench": False}, {"verify": False}):
    try:
        bnfold.convert("a.onnx", "b.onnx", **stages)
    except bnfold.MissingDependency as error:
        print(error)
for function in (bnfold.verify, bnfold.bench):
    try:
        function("a.onnx", "a.onnx")
    except bnfold.MissingDependency as error:
        print(error)
print(bnfold.convert("a.onnx", "c.onnx", verify=False, bench=False).after.batch_norms)
"""
    lines = without(["onnxruntime"], code, tmp_path).splitlines()
    assert lines[0] == "0 0"
    assert len(lines) == 7
    assert all('pip install "bnfold[cpu]"' in line for line in lines[1:6])
    assert lines[6] == "0"
    assert names(tmp_path) == {"a.onnx", "c.onnx"}


def test_without_onnxsim_simplification_says_what_to_install(tmp_path: Path) -> None:
    save(tmp_path / "a.onnx")
    code = """
try:
    bnfold.convert("a.onnx", "b.onnx", simplify=True, verify=False, bench=False)
except bnfold.MissingDependency as error:
    print(error)
"""
    assert without(["onnxsim"], code, tmp_path) == '--simplify needs onnxsim: pip install "bnfold[simplify]"\n'
    assert names(tmp_path) == {"a.onnx"}


def test_without_onnx_ir_the_pass_says_what_to_install(tmp_path: Path) -> None:
    code = """
try:
    import bnfold.onnx_ir
except ImportError as error:
    print(error)
"""
    assert (
        without(["onnx_ir"], code, tmp_path) == 'bnfold.onnx_ir needs the package onnx_ir: pip install "bnfold[ir]"\n'
    )


@pytest.mark.parametrize(("seconds", "most"), [(None, 4.0), (0.5, 0.5)])
def test_a_conversion_measures_for_a_few_seconds_unless_told_otherwise(
    seconds: float | None, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float | None] = []

    def bench(original: Path, folded: Path, options: bnfold.CheckOptions, **_: Any) -> tuple[bnfold.Latency, ...]:
        seen.append(options.bench_seconds)
        return ()

    monkeypatch.setattr("bnfold.checks.bench.bench", bench)
    save(tmp_path / "a.onnx")
    options = bnfold.CheckOptions(bench_seconds=seconds)
    bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", options=options)
    assert seen == [most]


@pytest.mark.parametrize("enabled", [True, False])
def test_a_fold_leaves_the_search_for_garbage_as_it_was(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        assert not gc.isenabled()
        raise RuntimeError("a fault in the middle")

    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        bnfold.fold(parse(CONV_BN))
        assert gc.isenabled() is enabled
        monkeypatch.setattr("bnfold.algebra.fold.plan_backward", fail)
        with pytest.raises(RuntimeError):
            bnfold.fold(parse(CONV_BN))
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_a_budget_leaves_out_what_is_late_and_says_so(tmp_path: Path) -> None:
    """As if every stage but the first input came too late."""
    save(tmp_path / "a.onnx")
    options = bnfold.CheckOptions(seconds=1e-6)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", options=options)
    assert report.verification is not None
    first, *others = report.verification.inputs
    assert "left out" not in first
    assert all(text.endswith("(left out: the time set for the whole was over)") for text in others)
    assert report.verification.exact == "not run in float64: the time set for it is over"
    assert report.verification.proof is None or not report.verification.proof.proven
    assert report.latency == ()
    assert any(note.startswith("latency was not measured: the 1e-06 s") for note in report.notes)
    assert report.seconds is not None
    assert report.seconds > 1e-6
