"""The benchmark: what it says of a row, how it runs programs, and a small run of the whole."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from benchmark_page import page, section
from benchmark_rows import Result, Row, Speed, not_won, row_from_json, row_to_json, standing, total
from programs import Program, reason, run

ROOT = Path(__file__).resolve().parent.parent
SLOWER = Speed(1.0, 2.0, 2.0, (1.9, 2.1), "slower")
EVEN = Speed(1.0, 1.0, 1.0, (0.9, 1.1), "no measurable difference")
FASTER = Speed(1.0, 0.5, 0.5, (0.4, 0.6), "faster")


def right(left: int, disable: Speed | None = None, all_: Speed | None = None, **more: Any) -> Result:
    speeds = {level: speed for level, speed in (("disable", disable), ("all", all_)) if speed is not None}
    return Result(
        passed=True, max_rel=1e-7, batch_norms=left, chains=0, seconds=1.0, peak_mib=50.0, speeds=speeds, **more
    )


def row(ours: Result | None = None, original: Speed = SLOWER, **rivals: Result) -> Row:
    results = {"original": right(4, original, original), "bnfold": ours or right(1), **rivals}
    return Row("net", 4, 0, results)


WRONG = Result(passed=False, max_rel=1.2, batch_norms=0, chains=0, seconds=1.0, peak_mib=50.0)
CRASHED = Result(problem="ValueError: no")


# Who wins a row


@pytest.mark.parametrize(
    ("rivals", "left"),
    [
        ({"a": right(2)}, ("won", ())),
        ({"a": right(1)}, ("even", ("a",))),
        ({"a": right(2), "b": right(1)}, ("even", ("b",))),
        ({"a": right(0), "b": right(1)}, ("lost", ("a",))),
        ({"a": WRONG}, ("won", ())),
        ({"a": CRASHED}, ("won", ())),
        ({"a": Result(passed=True)}, ("won", ())),
        ({}, ("won", ())),
    ],
)
def test_fewest_sites_left_with_a_right_answer(rivals: dict[str, Result], left: tuple[str, tuple[str, ...]]) -> None:
    assert standing(row(**rivals), "left") == left


@pytest.mark.parametrize(
    ("original", "rivals", "expected"),
    [
        (SLOWER, {"a": right(9, SLOWER, SLOWER)}, ("won", ())),
        (SLOWER, {"a": right(9, EVEN, EVEN)}, ("even", ("a",))),
        (SLOWER, {"a": right(9, FASTER, FASTER), "b": right(9, EVEN, EVEN)}, ("lost", ("a",))),
        (FASTER, {"a": right(9, SLOWER, SLOWER)}, ("lost", ("original",))),
        (EVEN, {}, ("even", ("original",))),
        (SLOWER, {"a": WRONG}, ("won", ())),
    ],
)
def test_the_fastest_output(original: Speed, rivals: dict[str, Result], expected: tuple[str, tuple[str, ...]]) -> None:
    for measure in ("disable", "all"):
        assert standing(row(original=original, **rivals), measure) == expected


def test_a_file_for_one_runtime_competes_on_that_runtime_only() -> None:
    entry = row(a=right(0, FASTER, FASTER, domains=("com.microsoft",)))
    assert standing(entry, "disable") == ("won", ())
    assert standing(entry, "all") == ("lost", ("a",))
    assert standing(entry, "left") == ("won", ())


def test_without_a_right_answer_there_is_nothing_to_win() -> None:
    for ours in (WRONG, CRASHED):
        assert standing(row(ours, a=WRONG), "left")[0] == "lost"


def test_every_row_that_is_not_won_is_named() -> None:
    rows = [
        row(a=right(0, FASTER, EVEN)),
        row(a=right(1, EVEN, SLOWER)),
        Row("broken", 1, 0, {}, unjudged="ONNX Runtime cannot load it"),
        row(WRONG),
        row(CRASHED),
    ]
    assert not_won(rows) == [
        "net, sites left: a leaves 0, bnfold 1",
        "net, speed, not optimised: the output of a takes 0.50 of the time of bnfold's (0.40 to 0.60)",
        "broken: no output could be compared with the original: ONNX Runtime cannot load it",
        "net: bnfold gives no right answer: wrong answer, relative error 1.2",
        "net: bnfold gives no right answer: ValueError: no",
    ]


def test_a_total_counts_a_model_without_a_right_answer_with_all_its_sites() -> None:
    rows = [row(a=right(1, SLOWER)), row(a=WRONG), row(a=CRASHED), Row("broken", 1, 0, {}, unjudged="no"), row()]
    sums = total("a", rows)
    assert (sums.models, sums.right, sums.wrong, sums.failed) == (3, 1, 1, 1)
    assert (sums.left, sums.sites) == (1 + 4 + 4, 12)
    assert sums.time == pytest.approx(1.0)
    assert sums.latency == {"disable": pytest.approx(2.0), "all": None}


def test_a_row_survives_json() -> None:
    entry = row(a=right(1, SLOWER, EVEN, domains=("com.microsoft",)), b=CRASHED)
    assert row_from_json(json.loads(json.dumps(row_to_json(entry)))) == entry


def test_a_page_names_what_failed_and_what_is_not_there() -> None:
    settings = {"name": "some", "rounds": 1, "seconds": 0.5, "latency": True}
    about = {"tools": {"bnfold": "1", "a": "2", "b": "3", "c": "4"}, "missing": ["d"], "settings": settings}
    about |= {"runtime": "1", "python": "3", "machine": "abacus", "load": 0.0}
    rows = [row(a=WRONG, b=CRASHED), Row("other", 2, 1, {**row(a=right(1, SLOWER)).results}, not_for=("c",))]
    text = page({"about": about, "rows": [row_to_json(entry) for entry in rows]})
    assert "| net | 4 | 1 | wrong (1.2) | fails |" in text
    assert "- net, a: wrong answer, relative error 1.2" in text
    assert "- net, b: ValueError: no" in text
    assert "left out: d" in text
    assert "c: no source for 1 of the models" in text
    assert section({"about": about, "rows": [row_to_json(rows[1])]}, "docs/").count("(docs/some-latency.svg)") == 1


# Programs


def program(code: str) -> Program:
    return Program("p", ("-c", code, "{source}", "{out}"), ())


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import sys; open(sys.argv[2], 'w').close()", None),
        ("pass", "ended without an error, and without a file"),
        ("raise ValueError('bad\\nmore')", "ValueError: bad"),
        ("import sys; sys.exit('first\\nlast')", "last"),
        ("import os; os._exit(3)", "ended with an error, and without a word"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("import time; time.sleep(60)", "not done after 0.5 s"),
        ("import sys; sys.stderr.write('x' * 1000000); sys.exit(1)", "x" * 159 + "…"),
    ],
)
def test_a_program_that_fails_says_why(code: str, problem: str | None, tmp_path: Path) -> None:
    limit = 0.5 if "sleep" in code else None
    done = run(program(code), tmp_path / "in", tmp_path / "out", limit)
    assert done.problem == problem
    assert done.seconds > 0
    assert done.peak_mib > 1


@pytest.mark.parametrize(
    ("origin", "line"), [("", "KeyError: 'k'"), (" from error", "ZeroDivisionError: division by zero")]
)
def test_of_chained_exceptions_the_cause_is_named(origin: str, line: str) -> None:
    script = f"try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('k'){origin}\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert reason(done.stderr) == line


def test_peak_memory_is_that_of_the_program(tmp_path: Path) -> None:
    """Asked from a small process, for what the parent holds counts as well."""
    ask = (
        "import sys; sys.path.insert(0, sys.argv[1]); from programs import run_python\n"
        "for code in ('', 'x = b\"x\" * 200_000_000'): print(run_python(['-c', code]).peak_mib)"
    )
    command = [sys.executable, "-c", ask, str(ROOT / "scripts")]
    small, large = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert 180 < large - small < 200


# The whole


def unrunnable(path: Path) -> None:
    """A model that is valid, and that ONNX Runtime cannot run on any input."""
    text = "f (float[2, 3] x) => (float[a, b] y) { s = Constant<value_ints = [4, 4]>() y = Reshape(x, s) }"
    onnx.save(parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}'), path)


def test_a_small_run_of_the_whole(tmp_path: Path) -> None:
    unrunnable(tmp_path / "unrunnable.onnx")
    models = [str(ROOT / "models" / "bnlenet.onnx"), str(tmp_path / "unrunnable.onnx")]
    options = ["--rounds", "1", "--seconds", "0.05", "--only", "ORT all", "--only", "OnnxSlim"]
    command = [
        sys.executable,
        str(ROOT / "scripts" / "benchmark.py"),
        *models,
        "--out",
        str(tmp_path / "out"),
        *options,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert (tmp_path / "out" / "benchmark.md").read_text().strip() == done.stdout.strip()
    drawn = {path.name for path in (tmp_path / "out").glob("*.svg")}
    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    assert drawn == ({"benchmark-left.svg", "benchmark-latency.svg"} if has_matplotlib else set())
    assert ("no pictures" in done.stderr) != has_matplotlib
    there = set(found["about"]["tools"])
    assert {"bnfold", "ORT all"} <= there
    assert there | set(found["about"]["missing"]) == {"bnfold", "ORT all", "OnnxSlim"}
    net, broken = (row_from_json(fields) for fields in found["rows"])
    assert broken.model == "unrunnable"
    assert broken.unjudged is not None
    assert f"- unrunnable: no output could be compared with the original: {broken.unjudged}" in done.stdout
    assert (net.model, net.batch_norms, net.unjudged) == ("bnlenet", 4, None)
    assert net.results["bnfold"].left == 0
    assert net.results["ORT all"].left == 2
    assert set(net.results) == there | {"original"}
    for name, result in net.results.items():
        assert result.passed, name
        assert set(result.speeds) == (set() if name == "bnfold" else {"disable", "all"})


def test_a_wrong_answer_is_found(tmp_path: Path) -> None:
    """The rival's own program is bnfold's, on a copy of the model with another weight."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import benchmark, programs\n"
        'code = "import sys, onnx, numpy as np; from onnx import numpy_helper as h; m = onnx.load(sys.argv[1]); '
        't = m.graph.initializer[0]; t.CopyFrom(h.from_array(h.to_array(t) * 2, t.name)); onnx.save(m, sys.argv[2])"\n'
        "benchmark.TOOLS['liar'] = programs.Program('liar', ('-c', code, '{source}', '{out}'), ('onnx',))\n"
        "sys.argv = ['benchmark.py', sys.argv[2], '--rounds', '1', '--no-latency', '--only', 'liar']\n"
        "sys.exit(benchmark.main())\n"
    )
    text = "f (float[N, 3] x) => (float[N, 3] y) { y = MatMul(x, w) }"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    model.graph.initializer.append(numpy_helper.from_array(np.eye(3, dtype=np.float32), "w"))
    onnx.save(model, tmp_path / "m.onnx")
    command = [sys.executable, "-c", script, str(ROOT / "scripts"), str(tmp_path / "m.onnx")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert "- m, liar: wrong answer, relative error 1" in done.stdout
    assert "m, bnfold" not in done.stdout
