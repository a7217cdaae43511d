"""The command line itself: what reaches the API, what comes out where, and the exit codes. The API is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import bnfold
from bnfold.checks.options import CheckOptions
from bnfold.cli import main
from bnfold.errors import EquivalenceError, MissingDependency, ModelError, OutputError
from bnfold.results import Counts, Latency, OutputDifference, Report, Site, Source, Verification

FOLDED = Site("bn1", "BatchNormalization", "folded", "backward", ("conv1",), ("Reshape",))
KEPT = Site("bn2", "BatchNormalization", "kept", reason="shared-value", blocker="c", detail="read twice")
KEPT_CHAIN = Site("add", "affine", "kept", reason="off-channel", detail="varies along axis 2")
VERIFIED = Verification(True, "the original", (OutputDifference("y", 1e-7, 1e-7, 1e-4, True),), ("normal",))
DIFFERENT = Verification(False, "the original", (OutputDifference("y", 1.0, 1.0, 1e-4, False),), ("normal",))
SAME_SPEED = Latency(
    provider="CPUExecutionProvider",
    opt_level="all",
    before_ms=1.0,
    after_ms=1.0,
    ratio=1.0,
    ci95=(0.9, 1.1),
    init_before_ms=2.0,
    init_after_ms=2.0,
    verdict="no measurable difference",
    control_ratio=1.0,
    control_ci95=(0.9, 1.1),
    before_p90_ms=1.0,
    before_p99_ms=1.0,
    after_p90_ms=1.0,
    after_p99_ms=1.0,
    runs=10,
    minimum_effect=0.04,
)
REPORT = Report(
    version="1",
    source=Source("in.onnx", "00", 17, 8),
    sites=(FOLDED, KEPT),
    before=Counts(2, 1, 0, 3, 1000),
    after=Counts(1, 1, 0, 2, 900),
    output_path="in.folded.onnx",
    verification=VERIFIED,
    latency=(SAME_SPEED,),
)
INSPECTED = REPORT.with_(after=None, output_path=None, verification=None, latency=())

DYNAMIC = {"x": {0: "batch", 2: None}, "a.b": {1: None}}

Outcome = Any
Install = Callable[[str, Outcome], dict[str, Any]]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Replace one function of the API by one that notes its arguments and returns, or raises, what it is told."""

    def install(name: str, outcome: Outcome) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def stand_in(*models: Path, **keywords: Any) -> Any:
            seen.update(keywords, models=models)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setitem(bnfold.__dict__, name, stand_in)
        return seen

    return install


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_convert_passes_defaults_that_are_those_of_the_api(api: Install) -> None:
    seen = api("convert", REPORT)
    assert run("convert", "in.onnx").exit_code == 0
    progress = seen.pop("progress")
    assert progress is None
    assert seen.pop("drawings") is False  # no report is written that could show them
    assert seen == {
        "models": (Path("in.onnx"), None),
        "verify": True,
        "bench": True,
        "certify": False,
        "depth": False,
        "only": (),
        "skip": (),
        "freeze_initializers": False,
        "assume_eval": False,
        "simplify": False,
        "save_as_external_data": None,
        "force": False,
        "checksum": None,
        "options": CheckOptions(),
        "weights": None,
        "dynamic_shapes": None,
        "trust_pickle": False,
    }


def test_a_report_is_to_have_the_checksum_of_the_source(api: Install, tmp_path: Path) -> None:
    seen = api("convert", REPORT)
    assert run("convert", "in.onnx", "--report", tmp_path / "r.json").exit_code == 0
    assert seen["checksum"] is True
    assert seen["depth"] is True
    assert seen["drawings"] is True


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        (["-o", "out.onnx"], "models", (Path("in.onnx"), Path("out.onnx"))),
        (["--output", "out.onnx"], "models", (Path("in.onnx"), Path("out.onnx"))),
        (["--no-verify"], "verify", False),
        (["--no-bench"], "bench", False),
        (["--only", "a*", "--only", "b"], "only", ("a*", "b")),
        (["--skip", "a*"], "skip", ("a*",)),
        (["--freeze-initializers"], "freeze_initializers", True),
        (["--assume-eval"], "assume_eval", True),
        (["--certify"], "certify", True),
        (["--simplify"], "simplify", True),
        (["--save-as-external-data"], "save_as_external_data", True),
        (["--force"], "force", True),
        (["--weights", "w.pth"], "weights", Path("w.pth")),
        (["--trust-pickle"], "trust_pickle", True),
        (["--dynamic", "0"], "dynamic_shapes", {"": {0: None}}),
        (["--dynamic", "x:0=batch", "--dynamic", "x:2", "--dynamic", "a.b:1"], "dynamic_shapes", DYNAMIC),
    ],
)
def test_every_option_of_convert_reaches_the_api(args: list[str], name: str, value: object, api: Install) -> None:
    seen = api("convert", REPORT)
    assert run("convert", "in.onnx", *args).exit_code == 0
    assert seen[name] == value


@pytest.mark.parametrize("text", ["x", "x:", "x:-1", "x:0=", "x:0=9", "x:0=a b", "x:a", ""])
def test_a_dynamic_axis_that_cannot_be_read(text: str, api: Install) -> None:
    seen = api("convert", REPORT)
    result = run("convert", "in.onnx", "--dynamic", text)
    assert (result.exit_code, seen) == (2, {})
    assert result.stderr == f"Error: --dynamic {text}: write it as x:0, or x:0=batch to give the axis a label\n"


def test_a_dynamic_axis_given_twice(api: Install) -> None:
    api("convert", REPORT)
    result = run("convert", "in.onnx", "--dynamic", "x:0", "--dynamic", "x:0=batch")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: --dynamic x:0=batch: this axis is given twice; give it once\n",
    )


CHECKS = [
    (["--input-shape", "x:1,3,8,8", "--input-shape", "z:2x4"], {"input_shapes": {"x": (1, 3, 8, 8), "z": (2, 4)}}),
    (["--input-shape", "1x3x8x8"], {"input_shapes": {"": (1, 3, 8, 8)}}),
    (["--input-data", "x.npz"], {"input_data": Path("x.npz")}),
    (["--mean", "0.5,0.4,0.3", "--std", "0.2"], {"mean": (0.5, 0.4, 0.3), "std": (0.2,)}),
    (["--val-range", "-1,2.5"], {"val_range": (-1.0, 2.5)}),
    (["--seed", "7"], {"seed": 7}),
    (["--providers", "cpu, cuda"], {"providers": ("cpu", "cuda")}),
    (["--intra-op-num-threads", "2"], {"intra_op_num_threads": 2}),
    (["--intra-op-num-threads", "2,1"], {"intra_op_num_threads": 2, "bench_threads": (2, 1)}),
]
TOLERANCES = [
    (["--check-n", "3"], {"check_n": 3}),
    (["--exact-seconds", "0"], {"exact_seconds": 0.0}),
    (["--seconds", "7"], {"seconds": 7.0}),
    (["--rtol", "1e-3", "--rtol", "y:1e-2"], {"rtol": 1e-3, "output_rtol": {"y": 1e-2}}),
    (["--atol", "y:0", "--atol", "1e-6"], {"atol": 1e-6, "output_atol": {"y": 0.0}}),
]
BENCH = [
    (["--bench-seconds", "0.5"], {"bench_seconds": 0.5}),
    (["--batch-sizes", "8, 1,8"], {"batch_sizes": (8, 1)}),
    (
        ["--provider-option", "cuda:use_tf32=0", "--provider-option", "cuda:x=a=b", "--provider-option", "dml:d=1"],
        {"provider_options": {"cuda": {"use_tf32": "0", "x": "a=b"}, "dml": {"d": "1"}}},
    ),
]


@pytest.mark.parametrize(
    ("command", "outcome", "args", "fields"),
    [("convert", REPORT, *case) for case in CHECKS + TOLERANCES + BENCH]
    + [("verify", VERIFIED, *case) for case in CHECKS + TOLERANCES]
    + [("bench", (SAME_SPEED,), *case) for case in CHECKS + BENCH],
)
def test_every_option_of_the_checks_reaches_the_api(
    command: str, outcome: Outcome, args: list[str], fields: dict[str, Any], api: Install
) -> None:
    seen = api(command, outcome)
    models = ["in.onnx"] if command == "convert" else ["a.onnx", "b.onnx"]
    result = run(command, *models, *args)
    assert result.exit_code == 0, result.stderr
    assert seen["options"] == CheckOptions(**fields)


@pytest.mark.parametrize(("args", "memory"), [([], True), (["--no-memory"], False)])
def test_bench_measures_memory_unless_told_not_to(args: list[str], memory: bool, api: Install) -> None:
    seen = api("bench", (SAME_SPEED,))
    assert run("bench", "a.onnx", "b.onnx", *args).exit_code == 0
    assert seen["memory"] is memory


def test_inspect_passes_its_options(api: Install) -> None:
    seen = api("inspect", INSPECTED)
    result = run("inspect", "in.onnx", "--only", "a", "--skip", "b", "--freeze-initializers", "--assume-eval")
    assert result.exit_code == 0
    assert seen == {
        "models": (Path("in.onnx"),),
        "only": ("a",),
        "skip": ("b",),
        "freeze_initializers": True,
        "assume_eval": True,
        "weights": None,
        "dynamic_shapes": None,
        "trust_pickle": False,
        "drawings": False,
        "checks": None,
    }


@pytest.mark.parametrize(
    "args",
    [
        ["--input-shape", "1,x"],
        ["--input-shape", "1,2", "--input-shape", "1,3"],
        ["--val-range", "1"],
        ["--rtol", "y:much"],
        ["--rtol", "1", "--rtol", "2"],
        ["--seed", "-1"],
        ["--check-n", "0"],
        ["--providers", ""],
        ["--intra-op-num-threads", "0"],
        ["--bench-seconds", "0"],
        ["--batch-sizes", "1,-2"],
        ["--batch-sizes", "1,"],
        ["--provider-option", "use_tf32=0"],
        ["--provider-option", "cuda:use_tf32"],
        ["--report", "x.pdf"],
        ["--report", "x.txt"],
        ["--report", "/no/such/folder/x.json"],
    ],
)
def test_a_value_that_makes_no_sense_is_one_line_and_2_before_any_work(args: list[str], api: Install) -> None:
    seen = api("convert", REPORT)
    result = run("convert", "in.onnx", *args)
    assert (result.exit_code, result.stdout, seen) == (2, "", {})
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "last_line"),
    [
        (["convert"], "Error: Missing argument 'IN'."),
        (["convert", "in.onnx", "--fast"], "Error: No such option '--fast'."),
        (["convert", "in.onnx", "--seed", "x"], "Error: Invalid value for '--seed': 'x' is not a valid integer."),
        (["verify", "a.onnx"], "Error: Missing argument 'B'."),
        (["fold"], "Error: No such command 'fold'."),
    ],
)
def test_usage_errors_end_with_the_message(args: list[str], last_line: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    # The releases of click differ in a colon and in whether they guess what was meant.
    message = result.stderr.splitlines()[-1]
    assert message.replace("option:", "option").replace("--fast.", "'--fast'.").startswith(last_line[:-1])


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (ModelError("in.onnx: not a model"), 2, "Error: in.onnx: not a model\n"),
        (OutputError("disk full"), 2, "Error: disk full\n"),
        (MissingDependency("install onnxruntime"), 2, "Error: install onnxruntime\n"),
        (EquivalenceError("not the same"), 1, "Error: not the same\n"),
        (ModelError("two\n  lines\x1b[31m"), 2, "Error: two lines\\x1b[31m\n"),
        (OSError(28, "No space left on device"), 2, "Error: [Errno 28] No space left on device\n"),
        (MemoryError("12 GiB"), 2, "Error: out of memory: 12 GiB\n"),
        (KeyboardInterrupt(), 130, "Error: interrupted\n"),
        (BrokenPipeError(), 141, ""),
        (
            KeyError("x"),
            70,
            "Error: internal error: KeyError: 'x' (please report this; --verbose shows the traceback)\n",
        ),
    ],
)
@pytest.mark.parametrize("command", ["convert", "inspect"])
def test_every_exception_is_one_line_and_an_exit_code(
    error: BaseException, exit_code: int, line: str, command: str, api: Install
) -> None:
    api(command, error)
    result = run(command, "in.onnx")
    assert (result.exit_code, result.stderr, result.stdout) == (exit_code, line, "")


def test_verbose_shows_the_traceback_of_an_internal_error(api: Install) -> None:
    api("convert", ValueError("odd"))
    result = run("convert", "in.onnx", "--verbose")
    assert result.exit_code == 70
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert result.stderr.endswith("\nError: internal error: ValueError: odd (please report this)\n")


@pytest.mark.parametrize(
    ("command", "outcome", "expected"),
    [
        (["convert", "in.onnx"], REPORT, "1 of 2 BatchNorms folded\n"),
        (["inspect", "in.onnx"], INSPECTED, "1 of 2 BatchNorms would fold\n"),
        (["verify", "a.onnx", "b.onnx"], VERIFIED, "verified: the two models are the same function"),
        (["bench", "a.onnx", "b.onnx"], (SAME_SPEED,), "no measurable difference of 4.0 % or more (ratio 1.000"),
    ],
)
def test_success_prints_the_report_to_stdout_and_quiet_prints_nothing(
    command: list[str], outcome: Outcome, expected: str, api: Install
) -> None:
    api(command[0], outcome)
    loud, quiet = run(*command), run(*command, "--quiet")
    assert (loud.exit_code, loud.stderr) == (0, "")
    assert expected in loud.stdout
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_verbose_says_more(api: Install) -> None:
    api("convert", REPORT)
    assert "bn1: backward into conv1 through Reshape" not in run("convert", "in.onnx").stdout
    assert "bn1: backward into conv1 through Reshape" in run("convert", "in.onnx", "-v").stdout


@pytest.mark.parametrize(
    ("sites", "exit_code"), [((FOLDED, KEPT), 3), ((FOLDED,), 0), ((FOLDED, KEPT_CHAIN), 0), ((), 0)]
)
@pytest.mark.parametrize("command", ["convert", "inspect"])
def test_require_all_is_about_batchnorms_that_stay(
    command: str, sites: tuple[Site, ...], exit_code: int, api: Install
) -> None:
    report = REPORT if command == "convert" else INSPECTED
    api(command, report.with_(sites=sites))
    result = run(command, "in.onnx", "--require-all", "--quiet")
    assert result.exit_code == exit_code
    written = "; in.folded.onnx is written all the same" if command == "convert" else ""
    assert result.stderr == (f"Error: --require-all: 1 of 2 BatchNorms stay{written}\n" if exit_code else "")


def test_a_batchnorm_that_stays_is_no_failure(api: Install) -> None:
    api("convert", REPORT.with_(sites=(KEPT,)))
    assert run("convert", "in.onnx").exit_code == 0


def test_models_that_differ_exit_with_1_and_still_report(api: Install, tmp_path: Path) -> None:
    api("verify", DIFFERENT)
    report = tmp_path / "r.json"
    result = run("verify", "a.onnx", "b.onnx", "--report", report)
    assert result.exit_code == 1
    assert "NOT verified" in result.stdout
    assert result.stderr == "Error: a.onnx and b.onnx are not the same function within tolerance\n"
    assert json.loads(report.read_text())["verification"]["passed"] is False


def test_a_failed_conversion_still_reports(api: Install, tmp_path: Path) -> None:
    failed = REPORT.with_(output_path=None, verification=DIFFERENT, latency=())
    api("convert", EquivalenceError("in.onnx: folding changed the answers", report=failed))
    report = tmp_path / "r.json"
    result = run("convert", "in.onnx", "--report", report)
    assert (result.exit_code, result.stderr) == (1, "Error: in.onnx: folding changed the answers\n")
    assert result.stdout.endswith("nothing was written\n")
    document = json.loads(report.read_text())
    assert (document["verification"]["passed"], document["output_path"]) == (False, None)


@pytest.mark.parametrize(
    ("command", "outcome", "key"),
    [
        (["convert", "in.onnx"], REPORT, "batch_norms"),
        (["inspect", "in.onnx"], INSPECTED, "batch_norms"),
        (["verify", "a.onnx", "b.onnx"], VERIFIED, "verification"),
        (["bench", "a.onnx", "b.onnx"], (SAME_SPEED,), "latency"),
    ],
)
def test_every_command_writes_every_report_asked_for(
    command: list[str], outcome: Outcome, key: str, api: Install, tmp_path: Path
) -> None:
    api(command[0], outcome)
    paths = tmp_path / "r.json", tmp_path / "r.md"
    result = run(*command, "--quiet", "--report", paths[0], "--report", paths[1])
    assert (result.exit_code, result.output) == (0, "")
    assert json.loads(paths[0].read_text())[key]
    assert paths[1].read_text().startswith(f"# bnfold {command[0]}: ")


def test_a_report_that_cannot_be_written_after_the_work_is_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def convert(*_: object, **__: object) -> Report:
        folder.rmdir()
        return REPORT

    monkeypatch.setitem(bnfold.__dict__, "convert", convert)
    result = run("convert", "in.onnx", "--report", folder / "r.json")
    assert result.exit_code == 2
    assert "r.json: cannot be written: No such file or directory\n" in result.stderr


def test_the_help_explains_the_exit_codes() -> None:
    result = run("--help")
    for code in ("0  ", "1  ", "2  ", "3  ", "70 ", "130"):
        assert f"\n    {code}" in result.output
