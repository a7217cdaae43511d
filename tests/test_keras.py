"""A Keras 3 model on its PyTorch backend, by way of the ONNX file that Keras exports."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")
os.environ["KERAS_BACKEND"] = "torch"  # read once, when Keras is imported
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of other people's imports
    keras = pytest.importorskip("keras", reason="needs the dependency group 'neighbours'")
    pytest.importorskip("onnxscript", reason="the exporter of PyTorch needs it")

from graphs import runtime

import bnfold

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
IMAGES = (4, 12, 12, 3)
RTOL = 1e-5


@pytest.fixture
def model() -> Any:
    """A small network of channels-last layers, with the statistics of something."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input(IMAGES[1:]),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(scale=False),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
            layers.BatchNormalization(center=False),
            layers.Activation("tanh"),
            layers.Dense(4),
        ]
    )
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return network


def test_an_export_of_keras_folds(model: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal(IMAGES).astype(np.float32)
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(path, format="onnx", verbose=False)
    result = bnfold.fold(path)
    assert [site.status for site in result.sites] == ["folded"] * 3
    (found,) = runtime(result.model)({result.model.graph.input[0].name: x})
    assert np.abs(found - expected).max() < RTOL * np.abs(expected).max()
