"""Which sizes and which integers a model's inputs are tried with."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from graphs import parse

import bnfold
from bnfold.checks.feeds import make_feeds
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import TensorInfo
from bnfold.graphs.onnx.limits import index_limits
from bnfold.graphs.onnx.sources import open_model


def test_sizes_that_are_free_are_tried_at_two_values() -> None:
    inputs = [TensorInfo("x", "float32", ("N", 3, "H", "W"))]
    feeds = make_feeds(inputs, CheckOptions())
    assert [feed.values["x"].shape[2:] for feed in feeds] == [(224, 224)] * 3 + [(160, 160)] * 3
    assert [feed.label for feed in feeds][2:4] == ["large, batch 3", "normal 2, batch 2, other sizes"]
    given = make_feeds(inputs, CheckOptions(input_shapes={"x": (1, 3, 32, 32)}))
    assert {feed.values["x"].shape for feed in given} == {(1, 3, 32, 32)}


def test_indices_go_up_to_their_limit_and_no_further() -> None:
    inputs = [TensorInfo("t", "int64", (4, 64)), TensorInfo("m", "int64", (4, 64))]
    feeds = make_feeds(inputs, CheckOptions(index_limits={"t": 99}))
    assert max(feed.values["t"].max() for feed in feeds) == 99
    assert min(feed.values["t"].min() for feed in feeds) == 0
    assert max(feed.values["m"].max() for feed in feeds) == 1


@pytest.mark.parametrize(
    ("body", "limits"),
    [
        ("y = Gather(w, t)", {"t": 8}),
        ("y = Gather<axis = 1>(w, t)", {"t": 3}),
        ("i = Cast<to = 6>(t) j = Unsqueeze(i, a) y = Gather(w, j)", {"t": 8}),
        ("p = Gather(w, t) q = Gather<axis = 1>(w, t) y = Concat<axis = 0>(p, q)", {"t": 3}),
        ("f = Cast<to = 1>(t) y = Mul(f, f)", {}),
        ("y = Gather(x, t)", {}),
    ],
)
def test_limits_are_read_from_the_tables_that_indices_point_into(body: str, limits: dict[str, int]) -> None:
    model = parse(
        f"(int64[5] t, float[9,4] x) => (float[A] y) <float[9,4] w, int64[1] a> {{ {body} }}", values={"a": 0}
    )
    assert index_limits(open_model(model).document) == limits


def test_a_fault_in_a_row_of_a_table_that_is_seldom_asked_for_is_caught(tmp_path: Path) -> None:
    text = "(int64[64] t) => (float[64,4] y) <float[40,4] w> { y = Gather(w, t) }"
    model = parse(text)
    onnx.save(model, tmp_path / "a.onnx")
    array = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    array[17] *= 2
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, "w"))
    assert not bnfold.verify(tmp_path / "a.onnx", model).passed
