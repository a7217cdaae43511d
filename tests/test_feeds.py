"""What a user may ask for, and the inputs that come of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.checks.draw import draw_feeds
from bnfold.checks.feed import Feed, nudged, scaled
from bnfold.checks.feeds import make_feeds
from bnfold.checks.options import CheckOptions, parse_input_shape, parse_range, parse_tolerance
from bnfold.checks.session import TensorInfo
from bnfold.checks.shapes import contradictions
from bnfold.dims import declared_size
from bnfold.errors import UsageError

IMAGE = TensorInfo("x", "float32", (2, 3, 4, 4))
FREE = TensorInfo("x", "float32", ("N", 3, 4, 4))


# Options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x:1,3,224,224", ("x", (1, 3, 224, 224), None)),
        ("x:1x3x224x224", ("x", (1, 3, 224, 224), None)),
        ("1x3x224x224", ("", (1, 3, 224, 224), None)),
        ("1,3,224,224", ("", (1, 3, 224, 224), None)),
        ("1, 3, 8", ("", (1, 3, 8), None)),
        ("7", ("", (7,), None)),
        ("input:0:1,3,8,8", ("input:0", (1, 3, 8, 8), None)),
        ("module/x:5", ("module/x", (5,), None)),
        ("x:uint8:1,100,27,48,3", ("x", (1, 100, 27, 48, 3), "uint8")),
        ("input:0:bfloat16:1x3", ("input:0", (1, 3), "bfloat16")),
        ("int64:1,128", ("", (1, 128), "int64")),
        ("mask:bool:5", ("mask", (5,), "bool")),
    ],
)
def test_input_shapes_are_read(text: str, expected: tuple[str, tuple[int, ...], str | None]) -> None:
    assert parse_input_shape(text) == expected


@pytest.mark.parametrize("text", ["x:int7:1,2", "x:float:1,2", "complex64:1,2", "x:Half:2"])
def test_types_that_there_are_not(text: str) -> None:
    with pytest.raises(UsageError, match=rf"^cannot read the type in '{text}': there are bool, uint8, .*float64$"):
        parse_input_shape(text)


@pytest.mark.parametrize("text", ["", "x:", "x", "x:1,,3", "x:1,a", "x:1x3,4", "x:-1,3", "x:0,3", "x:1.5", "x:1,3,"])
def test_input_shapes_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="shape") as caught:
        parse_input_shape(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [("0,1", (0.0, 1.0)), ("-1.5, 2e3", (-1.5, 2000.0))])
def test_ranges_are_read(text: str, expected: tuple[float, float]) -> None:
    assert parse_range(text) == expected


@pytest.mark.parametrize("text", ["", "1", "0,1,2", "1,0", "1,1", "a,b", "0,inf", "nan,1"])
def test_ranges_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="range"):
        parse_range(text)


@pytest.mark.parametrize(("text", "expected"), [("1e-3", ("", 1e-3)), ("y:0.5", ("y", 0.5)), ("y:0:0", ("y:0", 0.0))])
def test_tolerances_are_read(text: str, expected: tuple[str, float]) -> None:
    assert parse_tolerance(text) == expected


@pytest.mark.parametrize("text", ["", "y:", "y", "-1", "nan", "y:inf"])
def test_tolerances_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="tolerance"):
        parse_tolerance(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_shapes": {"x": (1, 0)}},
        {"input_shapes": {"": (1,), "x": (1,)}},
        {"val_range": (1.0, 0.0)},
        {"seed": -1},
        {"check_n": 0},
        {"rtol": -1.0},
        {"atol": float("nan")},
        {"output_rtol": {"y": float("inf")}},
        {"output_atol": {"y": -0.1}},
        {"providers": ()},
        {"intra_op_num_threads": 0},
        {"bench_seconds": 0.0},
        {"batch_sizes": (1, 0)},
        {"bench_threads": (1, 0)},
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        CheckOptions(**wrong)
    assert "\n" not in str(caught.value)


def test_options_load_no_heavy_library() -> None:
    code = "import sys, bnfold.checks.options; print(sorted({'numpy', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Drawn inputs


def test_distributions_take_turns_and_batches_too() -> None:
    feeds = make_feeds([FREE], CheckOptions(check_n=6))
    assert [feed.label for feed in feeds] == [
        "normal, batch 1",
        "uniform, batch 2",
        "large, batch 3",
        "normal 2, batch 2",
        "uniform 2, batch 3",
        "large 2, batch 1",
    ]
    assert [feed.values["x"].shape[0] for feed in feeds] == [1, 2, 3, 2, 3, 1]
    normal, uniform, large = (feed.values["x"] for feed in feeds[:3])
    assert normal.dtype == uniform.dtype == large.dtype == np.float32
    assert normal.min() < 0 <= uniform.min()
    assert uniform.max() < 1
    assert np.abs(large).max() > 10


def test_a_fixed_batch_stays() -> None:
    feeds = make_feeds([IMAGE], CheckOptions(check_n=2))
    assert [(feed.label, feed.values["x"].shape) for feed in feeds] == [
        ("normal", (2, 3, 4, 4)),
        ("uniform", (2, 3, 4, 4)),
    ]


def test_the_same_seed_draws_the_same() -> None:
    first, again, other = (make_feeds([IMAGE], CheckOptions(seed=seed))[0].values["x"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_value_range_holds_for_every_kind() -> None:
    feeds = make_feeds([FREE], CheckOptions(val_range=(2.0, 3.0)))
    for feed in feeds:
        assert 2 <= feed.values["x"].min() <= feed.values["x"].max() <= 3
    assert set(np.unique(feeds[2].values["x"])) == {2.0, 3.0}
    assert feeds[2].label == "range ends, batch 3"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_types(dtype: str) -> None:
    (feed,) = make_feeds([TensorInfo("x", dtype, (8,))], CheckOptions(check_n=1))
    assert feed.values["x"].dtype == dtype


def test_bfloat16_inputs_are_representable() -> None:
    (feed,) = make_feeds([TensorInfo("x", "bfloat16", (64,))], CheckOptions(check_n=1))
    assert not (feed.values["x"].view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize(
    ("dtype", "val_range", "floats", "low", "high"),
    [
        ("int64", None, False, 0, 1),
        ("int32", None, True, 0, 1),
        ("uint8", None, False, 0, 255),
        ("int64", (0.0, 9.0), False, 0, 9),
        ("int64", (0.0, 9.0), True, 0, 1),
        ("int8", (-1000.0, 1000.0), False, -128, 127),
        ("uint64", None, False, 0, 1),
    ],
)
def test_integers_are_bounded(dtype: str, val_range: Any, floats: bool, low: int, high: int) -> None:
    inputs = [TensorInfo("i", dtype, (4000,))] + [IMAGE] * floats
    (feed,) = make_feeds(inputs, CheckOptions(check_n=1, val_range=val_range))
    values = feed.values["i"]
    assert values.dtype == dtype
    assert (values.min(), values.max()) == (low, high)


def test_booleans_are_both() -> None:
    (feed,) = make_feeds([TensorInfo("b", "bool", (64,))], CheckOptions(check_n=1))
    assert set(feed.values["b"].tolist()) == {False, True}


def test_scalars() -> None:
    inputs = [TensorInfo("x", "float32", ()), TensorInfo("i", "int64", ()), TensorInfo("b", "bool", ())]
    for feed in make_feeds(inputs, CheckOptions(check_n=3)):
        assert [feed.values[info.name].shape for info in inputs] == [(), (), ()]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_scalars_are_arrays_all_the_same(dtype: str) -> None:
    """ONNX Runtime takes no bare number."""
    inputs = [TensorInfo("x", dtype, ())]
    for feed in make_feeds(inputs, CheckOptions(check_n=3)):
        for version in (feed, nudged(feed, inputs, np.random.default_rng(0)), scaled(feed, inputs, 0.5)):
            assert isinstance(version.values["x"], np.ndarray)


@pytest.mark.parametrize(
    ("info", "what"),
    [
        (TensorInfo("s", "string", (2,)), "string"),
        (TensorInfo("q", "seq(tensor(float))", ()), "only tensors"),
        (TensorInfo("f", "float8e4m3fn", (2,)), "float8e4m3fn"),
    ],
)
def test_inputs_that_cannot_be_made_up(info: TensorInfo, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        make_feeds([info], CheckOptions())


def test_a_model_without_inputs() -> None:
    assert [dict(feed.values) for feed in make_feeds([], CheckOptions())] == [{}]


# Sizes


@pytest.mark.parametrize(
    ("shapes", "given", "expected"),
    [
        ([("N", 3, "H", "W")], {}, [(1, 3, 224, 224)]),
        ([("N", "H", "W", 3)], {}, [(1, 224, 224, 3)]),
        ([("N", "C", "H", "W")], {}, [(1, 3, 224, 224)]),
        ([("N", 3, "T", "H", "W")], {}, [(1, 3, 16, 112, 112)]),
        ([("N", "L")], {}, [(1, 128)]),
        ([("N", 8, "L")], {}, [(1, 8, 128)]),
        ([(None, 3, None, None)], {"x0": (5, 3, 8, 9)}, [(5, 3, 8, 9)]),
        ([("N", 4)], {"": (7, 4)}, [(7, 4)]),
        ([("N", "L"), ("N", "L")], {"x1": (3, 9)}, [(3, 9), (3, 9)]),
        ([("N", 4), (2, "M")], {}, [(1, 4), (2, 128)]),
        ([()], {"x0": (2, 2)}, [(2, 2)]),  # a rank that is not known
    ],
)
def test_symbols_get_sizes(shapes: list[Any], given: dict[str, Any], expected: list[tuple[int, ...]]) -> None:
    inputs = [TensorInfo(f"x{i}", "float32", shape) for i, shape in enumerate(shapes)]
    (feed,) = make_feeds(inputs, CheckOptions(check_n=1, input_shapes=given))
    assert [feed.values[info.name].shape for info in inputs] == expected


@pytest.mark.parametrize(
    ("shapes", "given", "reason"),
    [
        ([("N", 3)], {"z": (1, 3)}, "'z', which is no input: the model has x0"),
        ([("N", 3)], {"x0": (1, 4)}, "1x4, the model has Nx3"),
        ([("N", 3)], {"x0": (3,)}, "3, the model has Nx3"),
        ([("N",), ("N",)], {"": (3,)}, "2 inputs"),
    ],
)
def test_sizes_that_contradict_the_model(shapes: list[Any], given: dict[str, Any], reason: str) -> None:
    inputs = [TensorInfo(f"x{i}", "float32", shape) for i, shape in enumerate(shapes)]
    with pytest.raises(UsageError, match=reason):
        make_feeds(inputs, CheckOptions(input_shapes=given))


def test_sizes_that_contradict_the_names_are_taken_and_noted() -> None:
    """Exporters give one name to sizes that differ, and runtimes take what is fed."""
    inputs = [TensorInfo("x0", "float32", ("N", "L")), TensorInfo("x1", "float32", ("N", "L"))]
    given = {"x0": (3, 8), "x1": (4, 8)}
    (feed,) = make_feeds(inputs, CheckOptions(check_n=1, input_shapes=given))
    assert [feed.values[name].shape for name in ("x0", "x1")] == [(3, 8), (4, 8)]
    (note,) = contradictions(inputs, given)
    assert "make 'N' 3 and 4" in note


@pytest.mark.parametrize("declared", ["?", "-1", "None", -1])
def test_a_placeholder_is_no_symbol(declared: str | int) -> None:
    """Paddle writes `?` for height and width alike; a size below zero is none."""
    assert declared_size(declared) is None


# The user's data


def saved(folder: Path, **arrays: Any) -> CheckOptions:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return CheckOptions(input_data=path, check_n=0)


def test_npy_for_the_only_input(tmp_path: Path) -> None:
    x = np.arange(96, dtype=np.float32).reshape(2, 3, 4, 4)
    np.save(tmp_path / "x.npy", x)
    feeds = make_feeds([IMAGE], CheckOptions(input_data=tmp_path / "x.npy", check_n=1))
    assert [feed.label for feed in feeds] == ["file x.npy", "normal"]
    np.testing.assert_array_equal(feeds[0].values["x"], x)


@pytest.mark.parametrize("key", ["labels", "label", "y"])
def test_a_fixed_batch_is_fed_in_parts_and_the_last_one_filled_up(key: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((5, 3, 4, 4), np.float32)
    feeds = make_feeds([IMAGE], saved(tmp_path, x=x, **{key: np.arange(5)}))
    assert [feed.label for feed in feeds] == [f"file data.npz [{a}:{b}]" for a, b in ((0, 2), (2, 4), (4, 5))]
    assert [feed.labels.tolist() for feed in feeds if feed.labels is not None] == [[0, 1], [2, 3], [4]]
    np.testing.assert_array_equal(feeds[2].values["x"], x[[4, 4]])


def test_a_free_batch_is_fed_64_at_a_time(tmp_path: Path) -> None:
    x = np.zeros((130, 3, 4, 4), np.float32)
    feeds = make_feeds([FREE], saved(tmp_path, x=x))
    assert [feed.values["x"].shape[0] for feed in feeds] == [64, 64, 2]


def test_labels_may_be_an_input(tmp_path: Path) -> None:
    inputs = [TensorInfo("x", "float32", (2,)), TensorInfo("y", "int64", (2,))]
    (feed,) = make_feeds(inputs, saved(tmp_path, x=np.zeros(2), y=np.arange(2)))
    assert feed.labels is None
    assert feed.values["y"].tolist() == [0, 1]


def test_drawn_inputs_take_over_the_sizes_of_the_data(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 3, 7, 9), np.float32))
    info = TensorInfo("x", "float32", ("N", 3, "H", "W"))
    feeds = make_feeds([info], CheckOptions(input_data=tmp_path / "x.npy", check_n=2))
    assert [feed.values["x"].shape for feed in feeds] == [(5, 3, 7, 9), (1, 3, 7, 9), (2, 3, 7, 9)]


def test_strings_come_from_the_file_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array(["a", "b"]))
    feeds = make_feeds([TensorInfo("s", "string", ("N",))], CheckOptions(input_data=tmp_path / "s.npy"))
    assert [feed.values["s"].tolist() for feed in feeds] == [["a", "b"]]


@pytest.mark.parametrize(
    ("dtype", "given", "expected"),
    [
        ("float32", np.float64, np.float32),
        ("float32", np.float16, np.float32),
        ("float16", np.float64, np.float16),
        ("int64", np.uint8, np.int64),
        ("uint8", np.int64, np.uint8),
        ("bfloat16", np.float32, np.float32),
        ("bool", np.bool_, np.bool_),
    ],
)
def test_types_that_lose_nothing_are_converted(dtype: str, given: Any, expected: Any, tmp_path: Path) -> None:
    (feed,) = make_feeds([TensorInfo("x", dtype, (2,))], saved(tmp_path, x=np.ones(2, given)))
    assert feed.values["x"].dtype == expected


@pytest.mark.parametrize(
    ("info", "arrays", "reason"),
    [
        (IMAGE, {"z": np.zeros(1)}, "has z: the model's inputs are x"),
        (IMAGE, {"x": np.zeros((2, 3, 4, 4)), "z": np.zeros(1)}, "inputs are x"),
        (IMAGE, {"x": np.zeros((2, 3, 4, 5))}, "2x3x4x5, the model has 2x3x4x4"),
        (IMAGE, {"x": np.zeros((3, 4, 4))}, "3x4x4, the model has 2x3x4x4"),
        (IMAGE, {"x": np.zeros((2, 3, 4, 4), np.uint8)}, "uint8 values that do not fit the model's float32"),
        (TensorInfo("x", "float16", (1,)), {"x": np.array([1e5])}, "do not fit"),
        (TensorInfo("x", "uint8", (1,)), {"x": np.array([256])}, "do not fit"),
        (TensorInfo("x", "string", (1,)), {"x": np.array([1])}, "do not fit"),
        (TensorInfo("x", "float8e4m3fn", (1,)), {"x": np.array([1.0])}, "do not fit"),
        (IMAGE, {"x": np.zeros((2, 3, 4, 4)), "labels": np.zeros(3, int)}, "one class number for each of the 2 rows"),
        (IMAGE, {"x": np.zeros((2, 3, 4, 4)), "labels": np.zeros(2)}, "one class number"),
    ],
)
def test_data_that_does_not_fit(info: TensorInfo, arrays: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        make_feeds([info], saved(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.npy", None, "cannot be read"),
        ("text.npy", b"hello", "cannot be read"),
        ("empty.npz", b"", "cannot be read"),
        ("torn.npz", b"PK\x03\x04rubbish", "cannot be read"),
        ("x.csv", b"1,2", "give a .npy or .npz file"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=reason) as caught:
        make_feeds([IMAGE], CheckOptions(input_data=tmp_path / name))
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UsageError, match="cannot be read"):
        make_feeds([IMAGE], CheckOptions(input_data=tmp_path / "x.npy"))


def test_one_array_for_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(2))
    inputs = [TensorInfo("a", "float32", (2,)), TensorInfo("b", "float32", (2,))]
    with pytest.raises(UsageError, match=r"give a \.npz with a, b"):
        make_feeds(inputs, CheckOptions(input_data=tmp_path / "x.npy"))


# Nudging and scaling


@pytest.mark.parametrize(
    ("dtype", "one_up", "one_down"),
    [
        ("float16", 1 + 2**-10, 1 - 2**-11),
        ("bfloat16", 1 + 2**-7, 1 - 2**-8),
        ("float32", 1 + 2**-23, 1 - 2**-24),
        ("float64", 1 + 2**-52, 1 - 2**-53),
    ],
)
def test_a_nudge_is_one_step_of_the_type(dtype: str, one_up: float, one_down: float) -> None:
    info = TensorInfo("x", dtype, (64,))
    stored = np.float32 if dtype == "bfloat16" else dtype
    moved = nudged(Feed("", {"x": np.ones(64, stored)}), [info], np.random.default_rng(0)).values["x"]
    assert moved.dtype == stored
    assert set(moved.astype(np.float64).tolist()) == {one_up, one_down}


def test_a_nudge_leaves_everything_else_alone() -> None:
    inputs = [TensorInfo("x", "float32", (3,)), TensorInfo("i", "int64", (2,)), TensorInfo("z", "bfloat16", (1,))]
    values = {
        "x": np.array([np.nan, np.inf, np.finfo(np.float32).max], np.float32),
        "i": np.array([1, 2]),
        "z": np.zeros(1, np.float32),
    }
    for seed in range(4):
        moved = nudged(Feed("", values), inputs, np.random.default_rng(seed)).values
        np.testing.assert_array_equal(moved["x"][:2], values["x"][:2])
        assert np.isfinite(moved["x"][2])
        np.testing.assert_array_equal(moved["i"], values["i"])
        assert 0 < abs(moved["z"][0]) < 1e-40


def test_scaling_touches_floats_only() -> None:
    inputs = [TensorInfo("x", "float16", (2,)), TensorInfo("i", "int64", (1,))]
    feed = scaled(Feed("large", {"x": np.array([10, -20], np.float16), "i": np.array([7])}), inputs, 0.1)
    assert feed.label == "large, scaled by 0.1"
    assert feed.values["x"].dtype == np.float16
    np.testing.assert_array_equal(feed.values["x"], np.array([1, -2], np.float16))
    assert feed.values["i"].tolist() == [7]


def test_only_large_draws_are_marked() -> None:
    assert [feed.large for feed in draw_feeds([IMAGE], {}, CheckOptions(check_n=4))] == [False, False, True, False]
