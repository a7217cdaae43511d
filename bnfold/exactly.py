"""A model as `checks.exact` asks for one: opened when it is first run, and run by the engine of `graphs.onnx.exact`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnfold.checks.exact import ExactPair
from bnfold.checks.session import Array, TensorInfo
from bnfold.errors import BnfoldError
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.graphs.onnx.sources import open_model


class ExactSource:
    """A model, given as `sources.open_model` takes it, to be run in float64."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._engine: Engine | str | None = None

    def run(self, feeds: Mapping[str, Array], deadline: float, nudge: int | None = None) -> dict[str, Array] | str:
        engine = self.engine()
        if isinstance(engine, str):
            return engine
        try:
            weights = None if nudge is None else engine.nudged(np.random.default_rng(nudge))
            return engine.run(feeds, deadline=deadline, weights=weights)
        except CannotRun as error:
            return str(error)

    def engine(self) -> Engine | str:
        """The engine, or why there is none."""
        if self._engine is None:
            try:
                self._engine = Engine(open_model(self._model).document)
            except (CannotRun, BnfoldError) as error:
                self._engine = str(error)
        return self._engine

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        engine = self.engine()
        return () if isinstance(engine, str) else tuple(TensorInfo(*item) for item in engine.declared("input"))

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        engine = self.engine()
        return () if isinstance(engine, str) else tuple(TensorInfo(*item) for item in engine.declared("output"))


def exact_pair(original: Any, folded: Any) -> ExactPair:
    """Two models to be run in float64, each as `sources.open_model` takes it."""
    return ExactPair(ExactSource(original), ExactSource(folded))
