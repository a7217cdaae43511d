"""The calibration script: that what it plants is more work and nothing else, and that it judges as it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from bnfold.checks.session import open_session

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import calibrate


def network(path: Path, dtype: str = "float") -> Path:
    text = f"f ({dtype}[N, 8] x) => ({dtype}[N, 8] y) {{ y = Add(x, w) }}"
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    zeros = np.zeros(8, np.float32 if dtype == "float" else np.int64)
    proto.graph.initializer.append(numpy_helper.from_array(zeros, "w"))
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(("rows", "products"), [(1, 1), (512, 1), (513, 2), (5000, 10)])
@pytest.mark.parametrize("level", ["disable", "all"])
def test_a_planted_model_gives_the_same_answers_and_more(rows: int, products: int, level: str, tmp_path: Path) -> None:
    source, target = network(tmp_path / "m.onnx"), tmp_path / "planted.onnx"
    assert calibrate.plant(source, target, rows)
    assert [node.op_type for node in onnx.load(target).graph.node].count("MatMul") == products
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    before, after = (open_session(path, opt_level=level).run({"x": x}) for path in (source, target))
    np.testing.assert_array_equal(before["y"], after.pop("y"))
    ((_, extra),) = after.items()
    height = round(rows / products)
    # All rows are alike, and a rotation keeps their length.
    np.testing.assert_allclose(np.linalg.norm(extra, axis=1), np.full(height, abs(x[0, 0]) * 128**0.5), rtol=1e-4)


def test_a_model_without_an_input_to_feed_is_left_out(tmp_path: Path) -> None:
    assert not calibrate.plant(network(tmp_path / "m.onnx", "int64"), tmp_path / "planted.onnx", 10)
    assert not (tmp_path / "planted.onnx").exists()


@pytest.mark.parametrize(
    ("claimed", "found", "code"),
    [(1, 19, 0), (2, 19, 1), (1, 18, 1), (0, 20, 0)],
    ids=["good", "false", "blind", "best"],
)
def test_the_verdict_on_the_measurement(
    claimed: int, found: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = [[True] * hits + [False] * (20 - hits) for hits in (claimed, found)]
    assert calibrate.report(*counts, 0.1) == code
    assert capsys.readouterr().out.split("\n")[-3:-1] == [
        f"A/A: a difference claimed in {claimed} of 20 runs",
        f"planted 10%: found in {found} of 20 runs",
    ]
