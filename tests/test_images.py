"""Folders of pictures as test inputs."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from saved import save

import bnfold
from bnfold.checks.feeds import make_feeds
from bnfold.checks.images import MOST
from bnfold.checks.options import CheckOptions, parse_numbers
from bnfold.checks.session import TensorInfo
from bnfold.errors import MissingDependency, UsageError

RED, BLUE = (255, 0, 0), (0, 0, 51)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (9, 7), RED).save(pictures / "a.png")
    Image.new("RGB", (5, 5), BLUE).save(pictures / "b.bmp")
    (pictures / "notes.txt").write_text("no picture")
    return pictures


def fed(folder: Path, shape: tuple[Any, ...], dtype: str = "float32", **options: Any) -> np.ndarray:
    (feed,) = make_feeds([TensorInfo("x", dtype, shape)], CheckOptions(input_data=folder, check_n=0, **options))
    assert feed.label == "folder pictures"
    return feed.values["x"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(("N", 3, 4, 6), (2, 3, 4, 6)), ((2, 4, 6, 3), (2, 4, 6, 3)), (("N", 1, 4, 6), (2, 1, 4, 6))],
)
def test_layouts_and_channels(shape: tuple[Any, ...], expected: tuple[int, ...], folder: Path) -> None:
    values = fed(folder, shape)
    assert (values.shape, values.dtype) == (expected, np.float32)
    if 1 not in expected:
        channel = values[0, ..., 0] if expected[-1] == 3 else values[0, 0]
        np.testing.assert_array_equal(channel, 1.0)
    else:
        assert 0.2 < values[0].mean() < 0.4  # how bright red is


def test_mean_and_std_are_of_channels_or_of_all(folder: Path) -> None:
    values = fed(folder, ("N", 3, 2, 2), mean=(0.5, 0.25, 0.2), std=(0.5, 1.0, 2.0))
    np.testing.assert_allclose(values[:, :, 0, 0], [[1, -0.25, -0.1], [-1, -0.25, 0]], atol=1e-7)
    np.testing.assert_allclose(fed(folder, ("N", 3, 2, 2), std=(0.5,))[0, 0], 2.0)
    pixels = fed(folder, ("N", 3, 2, 2), "uint8")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:, :, 0, 0], [RED, BLUE])


def test_symbolic_sizes_are_given_or_guessed(folder: Path) -> None:
    shape = ("N", 3, "H", "W")
    assert fed(folder, shape).shape == (2, 3, 224, 224)
    assert fed(folder, shape, input_shapes={"x": (2, 3, 16, 8)}).shape == (2, 3, 16, 8)


def test_no_more_pictures_than_the_bound(folder: Path) -> None:
    for i in range(MOST):
        Image.new("L", (2, 2), i).save(folder / f"c{i:02}.png")
    assert len(fed(folder, ("N", 3, 2, 2))) == MOST


def test_a_conversion_is_verified_on_pictures(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.onnx", "(T[N,3,8,8] x) => (T[N,4,8,8] y) <T[4,3,1,1] w, bn[4]> { c = Conv(x, w) y = BN(c) }")
    options = CheckOptions(input_data=folder, check_n=1, mean=(0.5,), std=(0.2,))
    report = bnfold.convert(tmp_path / "a.onnx", tmp_path / "b.onnx", bench=False, options=options)
    assert report.verification is not None
    assert report.verification.passed
    assert report.verification.inputs[0].endswith("pictures")


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "reason"),
    [
        (("N", 5, 4, 4), "float32", {}, "does not take pictures as its only input"),
        (("N", 3), "float32", {}, "does not take pictures as its only input"),
        (("N", 3, 4, 4), "int64", {}, "does not take pictures as its only input"),
        (("N", 3, 4, 4), "float32", {"mean": (0.1, 0.2)}, "mean has 2 numbers, the pictures of .* have 3 channels"),
    ],
)
def test_models_and_options_that_do_not_fit(
    shape: tuple[Any, ...], dtype: str, options: dict[str, Any], reason: str, folder: Path
) -> None:
    with pytest.raises(UsageError, match=reason):
        fed(folder, shape, dtype, **options)


def test_folders_without_pictures_and_broken_ones(folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(UsageError, match=r"a\.png cannot be read \("):
        fed(folder, ("N", 3, 4, 4))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="the folder holds no pictures"):
        fed(tmp_path / "empty", ("N", 3, 4, 4))


def test_pillow_is_asked_for_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r'pip install "bnfold\[images\]"'):
        fed(folder, ("N", 3, 4, 4))


@pytest.mark.parametrize("options", [{"mean": ()}, {"std": (0.0,)}, {"std": (-1.0,)}, {"mean": (np.inf,)}])
def test_means_and_deviations_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"mean|std"):
        CheckOptions(**options)


def test_numbers_are_read() -> None:
    assert parse_numbers("0.485, 0.456,0.406") == (0.485, 0.456, 0.406)
    with pytest.raises(UsageError, match=r"cannot read the numbers '1;2': write them as"):
        parse_numbers("1;2")
