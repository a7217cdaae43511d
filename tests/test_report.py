"""Reports as text: what each format says, and that it says so on every kind of screen and for every kind of name."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import asdict, replace

import pytest

from bnfold.report import as_json, as_markdown, words
from bnfold.report.terminal import Screen, render
from bnfold.results import (
    Accuracy,
    Comparison,
    Counts,
    Environment,
    Latency,
    OutputDifference,
    Report,
    Site,
    Source,
    Verification,
)

PIPE = Screen(width=100_000, styled=False, encoding="utf-8")


def kept(name: str, reason: str, blocker: str | None, detail: str, op: str = "BatchNormalization") -> Site:
    return Site(name, op, "kept", reason=reason, blocker=blocker, detail=detail)  # type: ignore[arg-type]


FOLDED = Site("bn1", "BatchNormalization", "folded", "backward", ("conv1",), ("Reshape", "Transpose"))
OUTPUT = OutputDifference("y", 3e-6, 1.2e-6, 2.4e-4, True, noise_floor=1e-6, cosine=1.0, smallest_rtol=1e-7)
VERIFIED = Verification(True, "the original, not optimised", (OUTPUT,), ("normal, 2 rows", "the file x.npy"))
FASTER = Latency(
    provider="CPUExecutionProvider",
    opt_level="disable",
    before_ms=12.345,
    after_ms=9.5,
    ratio=1.299,
    ci95=(1.281, 1.312),
    init_before_ms=120.44,
    init_after_ms=95.0,
    verdict="faster",
    control_ratio=1.001,
    control_ci95=(0.991, 1.011),
    before_p90_ms=13.0,
    before_p99_ms=14.0,
    after_p90_ms=10.0,
    after_p99_ms=11.0,
    runs=200,
    minimum_effect=0.023,
)
SAME_SPEED = replace(FASTER, opt_level="all", ratio=1.002, ci95=(0.99, 1.01), verdict="no measurable difference")
CONVERTED = Report(
    version="9.8.7",
    source=Source("models/net.onnx", "ab" * 32, 17, 8),
    sites=(
        FOLDED,
        kept("bn2", "shared-value", "conv2", "its input is read by relu too"),
        kept("bn3", "off-channel", None, "the scale varies along axis 2"),
        kept("bn4", "shared-value", "conv2", "its input is read by relu too"),
        kept("chain", "graph-output", "add", "the value is an output", op="affine"),
        replace(FOLDED, name="chain2", op="affine"),
    ),
    before=Counts(4, 3, 1, 40, 2_345_678),
    after=Counts(3, 3, 1, 36, 2_300_000),
    output_path="models/net.folded.onnx",
    verification=VERIFIED,
    latency=(FASTER, SAME_SPEED),
    notes=("the weights are in another file",),
)
INSPECTED = replace(CONVERTED, after=None, output_path=None, verification=None, latency=())
DIFFERENT = Verification(
    False,
    "the original, not optimised",
    (OUTPUT, replace(OUTPUT, name="z", passed=False, max_abs=0.5, tolerance=1e-3, detail="NaN in other places")),
    ("normal", "uniform"),
    taken_back=("bn7", "bn8"),
)


def test_a_conversion_on_a_pipe_reads_as_agreed() -> None:
    assert render(CONVERTED, PIPE) == (
        """\
net.onnx                                   before  after
────────────────────────────────────────────────────────
BatchNorm                                       4      3
Conv                                            3      3
linear (Gemm, MatMul)                           1      1
nodes                                          40     36
file size [MB]                               2.35   2.30
session creation [ms], CPU, not optimised   120.4  95.00
session creation [ms], CPU, optimised       120.4  95.00

1 of 4 BatchNorms folded
affine chains: 1 of 2 folded
3 BatchNorms and 1 affine chain stay:
  shared-value
    bn2, bn4: blocked by conv2: its input is read by relu too
  off-channel
    bn3: the scale varies along axis 2
  graph-output
    chain: blocked by add: the value is an output
note: the weights are in another file

verified: the folded model is the same function (largest error 3.0e-06, tolerance 2.4e-04, relative error 1.2e-06, 2 inputs)

latency [ms]        before  after  ratio      95 % CI  verdict
───────────────────────────────────────────────────────────────────────────────
CPU, not optimised   12.35   9.50  1.299  1.281-1.312  faster
CPU, optimised       12.35   9.50  1.002  0.990-1.010  no measurable difference

CPU, not optimised: the folded model is faster, 1.299 times the speed of the original (95 % interval 1.281 to 1.312)
CPU, optimised: no measurable difference of 2.3 % or more (ratio 1.002, 95 % interval 0.990 to 1.010; the original against itself 0.991 to 1.011)

written: models/net.folded.onnx
"""  # noqa: E501 - the line is as long as it is printed
    )


def test_an_inspection_says_would_fold_and_lists_every_site() -> None:
    text = render(INSPECTED, PIPE)
    assert "1 of 4 BatchNorms would fold\naffine chains: 1 of 2 would fold\n" in text
    assert "  bn1: backward into conv1 through Reshape, Transpose\n" in text
    for name in ("bn2", "bn3", "bn4", "chain"):
        assert re.search(rf"\b{name}\b", text)
    for absent in ("written", "verified", "latency"):
        assert absent not in text


def test_verbose_adds_where_every_site_went_and_what_was_tried() -> None:
    short, long = render(CONVERTED, PIPE), render(CONVERTED, PIPE, verbose=True)
    added = (
        "bn1: backward into conv1 through Reshape, Transpose",
        "reference: the original, not optimised",
        "input: the file x.npy",
        "noise floor",
        "p99 before",
        "0.991-1.011",
    )
    for text in added:
        assert text not in short
        assert text in long


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sites": (), "before": Counts(0, 3, 1, 40)}, "\nno BatchNorm found\n"),
        ({"sites": CONVERTED.sites[-2:], "before": Counts(0, 3, 1, 40)}, "\nno BatchNorm found\naffine chains: 1 of 2"),
        ({"sites": (), "before": Counts(4, 3, 1, 40)}, "\nnone of the 4 BatchNorms was selected\n"),
        ({"sites": (FOLDED,)}, "\n1 of 1 BatchNorm folded\n"),
        ({"sites": CONVERTED.sites[1:2]}, "\n1 BatchNorm stays:\n"),
        ({"verification": None}, "\nnot verified: the folded model was not compared with the original\n"),
        ({"latency": ()}, "\nlatency not measured\n"),
        ({"output_path": None}, "\nnothing was written\n"),
        (
            {"verification": replace(VERIFIED, accuracy=(Accuracy("y", 355, 354, 360),))},
            "\naccuracy on 360 labelled samples: 98.61 % before, 98.33 % after (355 of 360, 354 of 360)\n",
        ),
        (
            {"verification": replace(VERIFIED, accuracy=(Accuracy("y", 1, 1, 1), Accuracy("z", 0, 1, 1)))},
            "\naccuracy of output z on 1 labelled sample: 0.00 % before, 100.00 % after (0 of 1, 1 of 1)\n",
        ),
        (
            {"verification": replace(VERIFIED, accuracy=(Accuracy("y", 0, 0, 0),))},
            "\naccuracy: no labelled samples\n",
        ),
        ({"verification": replace(VERIFIED, taken_back=("bn9",))}, "\ntaken back, because the outputs differed with "),
        (
            {"verification": replace(VERIFIED, outputs=())},
            "\nverified: the folded model is the same function (2 inputs)\n",
        ),
    ],
)
def test_special_cases_are_said(change: dict[str, object], expected: str) -> None:
    assert expected in render(CONVERTED.with_(**change), PIPE)


def test_a_failed_conversion_names_the_outputs_and_the_folds_taken_back() -> None:
    text = render(CONVERTED.with_(verification=DIFFERENT, output_path=None, latency=()), PIPE)
    assert "NOT verified: the folded model is not the same function (1 of 2 outputs differs; 2 inputs)\n" in text
    assert "\n  z: error 5.0e-01, allowed 1.0e-03; NaN in other places\n" in text
    assert "with them: bn7, bn8\n" in text
    assert re.search(r"^z .* DIFFERS$", text, re.MULTILINE)
    assert text.endswith("nothing was written\n")


def test_the_output_nearest_to_its_tolerance_speaks_for_the_verdict() -> None:
    large_but_allowed = replace(OUTPUT, max_abs=1.0, tolerance=100.0)
    outputs = (large_but_allowed, replace(OUTPUT, max_abs=2e-5, tolerance=3e-5), replace(OUTPUT, max_abs=0.0))
    assert "largest error 2.0e-05, tolerance 3.0e-05" in words.verdict(replace(VERIFIED, outputs=outputs), "it is")


@pytest.mark.parametrize(("max_abs", "tolerance"), [(math.nan, 1e-4), (math.inf, 1e-4), (1.0, 0.0), (0.0, 0.0)])
def test_errors_that_are_no_ordinary_numbers_still_render(max_abs: float, tolerance: float) -> None:
    output = replace(OUTPUT, max_abs=max_abs, tolerance=tolerance)
    text = render(Comparison("1", "a", "b", replace(VERIFIED, outputs=(output,))), PIPE)
    assert words.error_size(max_abs) in text


def test_a_comparison_prints_the_table_and_the_verdict() -> None:
    text = render(Comparison("1", "a.onnx", "b.onnx", verification=VERIFIED), PIPE)
    header, _, row, *_ = text.splitlines()
    assert header.split("  ")[0] == "output"
    assert row.split() == ["y", "3.0e-06", "2.4e-04", "1.2e-06", "1.0e-06", "1.00000000", "1.0e-07", "same"]
    assert "top-1" not in header
    assert "verified: the two models are the same function" in text


def test_a_benchmark_says_in_words_what_its_numbers_mean() -> None:
    text = render(Comparison("1", "a.onnx", "b.onnx", latency=(FASTER, SAME_SPEED)), PIPE)
    assert (
        "CPU, not optimised: b.onnx is faster, 1.299 times the speed of a.onnx (95 % interval 1.281 to 1.312)\n"
        "CPU, optimised: no measurable difference of 2.3 % or more (ratio 1.002, 95 % interval 0.990 to 1.010; "
        "a.onnx against itself 0.991 to 1.011)\n"
    ) in text


@pytest.mark.parametrize(
    ("row", "sentence", "cell"),
    [
        (replace(SAME_SPEED, minimum_effect=0.05), "no measurable difference of 5.0 % or more (", SAME_SPEED.verdict),
        (
            replace(SAME_SPEED, minimum_effect=0.21),
            "no measurable difference, but not measured well enough to tell less than 21 % (",
            "not measured well",
        ),
        (replace(SAME_SPEED, minimum_effect=None), "too few runs to tell anything (", "not measured well"),
        (replace(SAME_SPEED, clock="cpu"), "difference of 2.3 % or more by processor time (", SAME_SPEED.verdict),
        (replace(FASTER, clock="cpu"), "1.299 times the speed of a by processor time (", "faster"),
        (replace(FASTER, batch_size=8), "CPU, not optimised, batch 8: b is faster", "faster"),
        (replace(FASTER, intra_op_num_threads=1), "CPU, not optimised, 1 thread: b is faster", "faster"),
    ],
)
def test_what_was_not_measured_well_is_not_called_equal(row: Latency, sentence: str, cell: str) -> None:
    assert sentence in words.latency(row, "a", "b")
    assert words.latency_verdict(row) == cell


def test_what_disturbed_a_measurement_is_said() -> None:
    assert words.disturbance((FASTER, SAME_SPEED)) is None
    asleep = replace(SAME_SPEED, segments=16, disturbed_segments=1, sleeping_workers=True, clock="cpu")
    line = words.disturbance((replace(FASTER, segments=4), asleep))
    assert line == (
        "other programs took the cores while latency was measured: 1 of 20 segments dropped, "
        "worker threads slept instead of spinning, processor time is compared where it says so"
    )
    for text in (
        render(CONVERTED.with_(latency=(asleep,)), PIPE),
        as_markdown.dumps(CONVERTED.with_(latency=(asleep,))),
    ):
        assert "1 of 16 segments dropped" in text
        assert "| CPU, optimised, processor time |" in text or "CPU, optimised, processor time  " in text


def test_what_a_provider_was_set_to_is_said_once() -> None:
    cuda = replace(
        FASTER, provider="CUDAExecutionProvider", provider_options=(("use_tf32", "1"), ("cudnn_conv_algo_search", "X"))
    )
    comparison = Comparison("1", "a", "b", latency=(cuda, replace(cuda, opt_level="all"), FASTER))
    for text in (render(comparison, PIPE), as_markdown.dumps(comparison)):
        assert text.count("CUDA: use_tf32=1, cudnn_conv_algo_search=X\n") == 1
        assert "CPU: " not in text


def test_what_models_cost_beside_latency_stands_in_a_table_of_its_own() -> None:
    row = replace(
        FASTER,
        file_before_bytes=2_345_678,
        file_after_bytes=2_300_000,
        first_run_before_ms=31.0,
        first_run_after_ms=30.0,
        memory_before_bytes=12_000_000,
        memory_after_bytes=11_000_000,
    )
    text = render(Comparison("1", "a.onnx", "b.onnx", latency=(row, SAME_SPEED)), PIPE)
    rows = [line.split() for line in text.splitlines()[2:6]]
    assert [cells[-2:] for cells in rows] == [
        ["2.35", "2.30"],
        ["120.4", "95.00"],
        ["31.00", "30.00"],
        ["12.00", "11.00"],
    ]
    assert "| peak memory [MB], CPU, not optimised | 12.00 | 11.00 |" in as_markdown.dumps(
        Comparison("1", "a.onnx", "b.onnx", latency=(row,))
    )


def test_the_machine_is_named_where_every_detail_is() -> None:
    where = Environment("Linux-6", "Some CPU", 2, 4.25, "3.11.7", "2.3.0", "1.31.1")
    line = "Some CPU, 2 cores, load 4.2; Linux-6; Python 3.11.7, NumPy 2.3.0, ONNX Runtime 1.31.1"
    report = CONVERTED.with_(environment=where)
    assert line in render(report, PIPE, verbose=True)
    assert line not in render(report, PIPE)
    assert line in as_markdown.dumps(Comparison("1", "a", "b", latency=(FASTER,), environment=where))
    assert json.loads(as_json.dumps(report))["environment"]["load"] == 4.25


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_every_encoding_can_hold_the_text(encoding: str) -> None:
    report = CONVERTED.with_(notes=("größer → 層",))
    text = render(report, Screen(100, False, encoding))
    assert text.encode(encoding).decode(encoding) == text
    assert ("─" in text) == encoding.startswith("utf")
    assert ("größer" in text) == (encoding != "ascii")


def test_nothing_is_cut_or_broken_on_a_pipe_and_nothing_is_lost_on_a_narrow_terminal() -> None:
    detail = " ".join(f"word{i}" for i in range(200))
    report = CONVERTED.with_(sites=(kept("bn", "shared-value", "conv", detail),))
    assert f"    bn: blocked by conv: {detail}\n" in render(report, PIPE)
    narrow = render(report, Screen(40, False, "utf-8"))
    assert max(map(len, narrow.splitlines())) <= 40
    assert detail.split() == [word for word in narrow.split() if word.startswith("word")]


def test_latency_and_counts_fit_a_terminal_of_80_columns() -> None:
    text = render(CONVERTED, Screen(80, False, "utf-8"))
    assert re.search(r"^CPU, optimised .* no measurable difference$", text, re.MULTILINE)


class Stream(io.StringIO):
    encoding = "utf-8"

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": ""}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "20"}, False),
    ],
)
def test_styles_are_for_terminals_that_want_them(
    terminal: bool, environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    text = render(CONVERTED, Screen.of(Stream(terminal)))
    assert ("\x1b[" in text) == coloured
    if not terminal:
        assert text == render(CONVERTED, PIPE)


HOSTILE = "a[bold]b[/bold]\x1b[31m|`<i>\nc\udc80"


def test_names_reach_the_terminal_as_text() -> None:
    report = CONVERTED.with_(sites=(kept(HOSTILE, "shared-value", HOSTILE, HOSTILE), replace(FOLDED, into=(HOSTILE,))))
    text = render(report, replace(PIPE, encoding="utf-8"), verbose=True)
    assert "\x1b" not in text
    assert text.count(r"a[bold]b[/bold]\x1b[31m|`<i>\nc\udc80") == 4


def test_names_cannot_break_markdown() -> None:
    report = CONVERTED.with_(sites=(kept(HOSTILE, "shared-value", HOSTILE, HOSTILE),), notes=(HOSTILE,))
    text = as_markdown.dumps(report)
    (row,) = (line for line in text.splitlines() if line.startswith("| `` a[bold]"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 6
    assert "\x1b" not in text
    assert "- a[bold]b[/bold]\\x1b[31m|`&lt;i>\\nc\\udc80" in text


def test_markdown_says_what_the_terminal_says() -> None:
    text = as_markdown.dumps(CONVERTED)
    expected = (
        "# bnfold convert: `models/net.onnx`\n",
        f"bnfold 9.8.7, opset 17, IR version 8, SHA-256 `{'ab' * 32}`\n",
        "| net.onnx | before | after |\n| --- | ---: | ---: |\n| BatchNorm | 4 | 3 |\n",
        "- 1 of 4 BatchNorms folded\n- affine chains: 1 of 2 folded\n- written: `models/net.folded.onnx`\n",
        "| `bn1` | BatchNormalization | backward | `conv1` | `Reshape`, `Transpose` |\n",
        "| `bn2` | BatchNormalization | `shared-value` | `conv2` | its input is read by relu too |\n",
        "verified: the folded model is the same function",
        "- CPU, not optimised: the folded model is faster, 1.299 times the speed of the original",
        "- input: the file x.npy\n",
    )
    for part in expected:
        assert part in text


@pytest.mark.parametrize(
    ("result", "title", "absent"),
    [
        (INSPECTED, "# bnfold inspect: `models/net.onnx`\n", "written"),
        (CONVERTED.with_(output_path=None, verification=DIFFERENT), "# bnfold convert: ", "written:"),
        (Comparison("1", "a", "b", verification=VERIFIED), "# bnfold verify: `a`, `b`\n", "Latency"),
        (Comparison("1", "a", "b", latency=(FASTER,)), "# bnfold bench: `a`, `b`\n", "Verification"),
    ],
)
def test_markdown_of_every_command(result: Report | Comparison, title: str, absent: str) -> None:
    text = as_markdown.dumps(result)
    assert text.startswith(title)
    assert absent not in text


def test_json_holds_the_contract() -> None:
    document = json.loads(as_json.dumps(CONVERTED))
    assert document["bnfold"] == "9.8.7"
    assert document["source"] == {"path": "models/net.onnx", "sha256": "ab" * 32, "opset": 17, "ir_version": 8}
    assert document["batch_norms"] == {"found": 4, "folded": 1, "kept": 3}
    assert document["affine_chains"] == {"found": 2, "folded": 1, "kept": 1}
    assert document["sites"][:2] == [
        {
            "name": "bn1",
            "op": "BatchNormalization",
            "status": "folded",
            "direction": "backward",
            "into": ["conv1"],
            "through": ["Reshape", "Transpose"],
            "added_bytes": 0,
            "operators": [],
        },
        {
            "name": "bn2",
            "op": "BatchNormalization",
            "status": "kept",
            "reason": "shared-value",
            "blocker": "conv2",
            "detail": "its input is read by relu too",
            "operators": [],
        },
    ]
    assert document["output_path"] == "models/net.folded.onnx"


def test_json_loses_no_field() -> None:
    document = json.loads(as_json.dumps(CONVERTED))
    plain = json.loads(json.dumps(asdict(CONVERTED)))
    for field in ("source", "before", "after", "verification", "latency", "notes", "output_path"):
        assert document[field] == plain[field]
    assert document.keys() - plain.keys() == {"bnfold", "batch_norms", "affine_chains"}


def test_json_has_null_for_what_is_no_number() -> None:
    outputs = (replace(OUTPUT, max_abs=math.nan, max_rel=math.inf, smallest_rtol=-math.inf),)
    comparison = Comparison("1", "a", "b", replace(VERIFIED, outputs=outputs))
    document = json.loads(as_json.dumps(comparison), parse_constant=pytest.fail)
    (output,) = document["verification"]["outputs"]
    assert (output["max_abs"], output["max_rel"], output["smallest_rtol"]) == (None, None, None)
    assert output["tolerance"] == OUTPUT.tolerance
    assert (document["bnfold"], document["original"], document["other"]) == ("1", "a", "b")
