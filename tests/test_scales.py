"""Inputs are drawn at the scale that the first normalisation of a model expects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import parse
from numpy.typing import ArrayLike

import bnfold
from bnfold.checks.draw import draw_feeds
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import TensorInfo
from bnfold.graphs.onnx.document import from_proto
from bnfold.graphs.onnx.scales import input_scales

PIXELS = {"mean": [100.0, 120, 140], "var": [4000.0, 5000, 6000]}
CASES: dict[str, tuple[str, dict[str, ArrayLike], tuple[float, float] | None]] = {
    "a BatchNorm": ("n = BN(x) y = Relu(n)", PIXELS, (120.0, 72.6)),
    "behind a layout": ("t = Transpose<perm=[0,3,1,2]>(x) n = BN(t) y = Relu(n)", PIXELS, (120.0, 72.6)),
    "behind a cast and a factor": (
        "c = Cast<to=1>(x) m = Mul(c, s) n = BN(m) y = Relu(n)",
        {"s": 0.1, **PIXELS},
        (1200, 726),
    ),
    "constants of its own": ("m = Sub(x, s) n = Div(m, u) y = Relu(n)", {"s": 127.5, "u": 60.0}, (127.5, 60.0)),
    "a factor": ("n = Mul(x, s) y = Relu(n)", {"s": 1 / 255}, (0.0, 255.0)),
    "a flipped sign": ("m = Sub(s, x) n = Div(m, u) y = Relu(n)", {"s": 127.5, "u": 60.0}, (127.5, 60.0)),
    "none": ("y = Relu(x)", {}, None),
    "a usual one": ("n = BN(x) y = Relu(n)", {"mean": 0.4, "var": 0.2}, None),
    "two readers": ("n = BN(x) m = Relu(x) y = Add(n, m)", PIXELS, None),
    "division by it": ("n = Div(s, x) y = Relu(n)", {"s": 100.0}, None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_scale_is_that_of_the_first_normalisation(name: str) -> None:
    nodes, values, expected = CASES[name]
    text = f"(T[2,3,3,3] x) => (T[2,3,3,3] y) <bn[3], T s, T u> {{ {nodes} }}"
    found = input_scales(from_proto(parse(text, "float", values=values)))
    if expected is None:
        assert found == {}
    else:
        assert found["x"] == pytest.approx(expected, rel=0.01)


def test_inputs_are_drawn_at_it_unless_a_range_is_given() -> None:
    info = TensorInfo("x", "float32", (1, 3, 50, 50))
    options = CheckOptions(check_n=3, input_scales={"x": (120.0, 70.0)})
    normal, uniform, large = (feed.values["x"] for feed in draw_feeds([info], {}, options))
    for array, spread in ((normal, 70), (uniform, 70), (large, 700)):
        assert array.std() == pytest.approx(spread, rel=0.05)
    assert normal.mean() == pytest.approx(120, rel=0.05)
    ranged = CheckOptions(check_n=1, input_scales={"x": (120.0, 70.0)}, val_range=(0.0, 1.0))
    (inside,) = (feed.values["x"] for feed in draw_feeds([info], {}, ranged))
    assert inside.min() >= 0
    assert inside.max() <= 1


def test_a_branch_that_no_input_takes_is_told_where_it_is_not_proven(tmp_path: Path) -> None:
    """Nothing is known of what a branch is given that cannot run on these inputs."""
    text = """(T[N,4,6,6] x) => (T[N,4,h,w] y) <bool k = {1}, int64[4] far = {1, 1, 3, 1000}, bn[4], T[4,4,1,1] W>
        { y = If(k) <then_branch = a () => (T[N,4,h,w] t) { t = Relu(x) },
                     else_branch = b () => (T[N,4,h,w] e) { w = Reshape(x, far) d = Conv(w, W) e = BN(d) }> }"""
    onnx.save(parse(text, "float"), tmp_path / "a.onnx")
    options = CheckOptions(check_n=2)
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, options=options)
    assert report.verification is not None
    assert report.verification.proof is not None
    assert report.verification.proof.open
    assert "node 'y' (If) took its then_branch on every input that was run in float64" in report.verification.notes
    assert np.all([output.passed for output in report.verification.outputs])
