"""A folder of pictures as test inputs, read by Pillow.

Decisions: the first `MOST` pictures by name are taken; each is turned to RGB, or to grey where the model takes one
channel, and scaled to the model's size, without regard to its proportions. Floating-point inputs get `(x / 255 - mean)
/ std`, inputs of uint8 the pixels as they are.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.checks.feed import FLOATS
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Array, TensorInfo
from bnfold.checks.shapes import PartialShape, solve_shapes
from bnfold.errors import MissingDependency, UsageError, refused_as

MOST = 32
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Pillow would look at the content otherwise, and give a PostScript file of any name to Ghostscript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MODES = {1: "L", 3: "RGB"}


def read_images(
    folder: Path, inputs: Sequence[TensorInfo], given: Mapping[str, PartialShape], options: CheckOptions
) -> dict[str, Array]:
    """The pictures of a folder as one array for the model's only input, (N, C, H, W) or (N, H, W, C).

    Raises:
        UsageError: if the model takes no pictures, there are none, one cannot be read, or mean and std do not fit.
        MissingDependency: if Pillow is not installed.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())[:MOST]
    if not paths:
        raise UsageError(f"input data {folder}: the folder holds no pictures ({', '.join(sorted(_SUFFIXES))})")
    info = inputs[0]
    shape = solve_shapes(inputs, given, len(paths))[info.name] if len(inputs) == 1 else ()
    last = len(shape) == 4 and shape[3] in _MODES and shape[1] not in _MODES
    channels = shape[3 if last else 1] if len(shape) == 4 else 0
    if channels not in _MODES or info.dtype not in (*FLOATS, "uint8"):
        raise UsageError(f"input data {folder}: the model does not take pictures as its only input; give a .npz file")
    height, width = shape[1:3] if last else shape[2:4]
    pixels = np.stack([_pixels(path, channels, (width, height)) for path in paths])
    values = pixels if info.dtype == "uint8" else _normalised(pixels, folder, options)
    return {info.name: values if last else np.ascontiguousarray(np.moveaxis(values, 3, 1))}


def _normalised(pixels: Array, folder: Path, options: CheckOptions) -> Array:
    channels = pixels.shape[3]
    mean, std = (np.asarray(value, np.float32) for value in (options.mean or (0.0,), options.std or (1.0,)))
    for what, value in (("mean", mean), ("std", std)):
        if value.size not in (1, channels):
            raise UsageError(f"{what} has {value.size} numbers, the pictures of {folder} have {channels} channels")
    return np.asarray((pixels.astype(np.float32) / 255 - mean) / std)


def _pixels(path: Path, channels: int, size: tuple[int, int]) -> Array:
    """One picture as (H, W, C), of uint8."""
    image = _pillow()
    with refused_as(UsageError, f"input data {path} cannot be read"), warnings.catch_warnings():
        warnings.simplefilter("error", image.DecompressionBombWarning)
        with image.open(path, formats=_FORMATS) as picture:
            array = np.asarray(picture.convert(_MODES[channels]).resize(size, image.Resampling.BILINEAR))
    return array.reshape(size[1], size[0], channels)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependency('a folder of pictures needs Pillow: pip install "bnfold[images]"') from None
    logger = logging.getLogger("PIL")
    if not logger.handlers:  # without one, what Pillow logs is printed beside what it raises
        logger.addHandler(logging.NullHandler())
    return Image
