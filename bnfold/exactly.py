"""A model as `checks.exact` asks for one: opened when it is first run, and run by the engine of `graphs.onnx.exact`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bnfold.checks.exact import ExactPair
from bnfold.checks.session import Array, TensorInfo
from bnfold.errors import BnfoldError
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.kernels import CannotRun
from bnfold.graphs.onnx.sources import open_model

_MOST_KEPT_BYTES = 64 * 2**20


class ExactSource:
    """A model, given as `sources.open_model` takes it, to be run in float64.

    Answers are kept, as far as they are small, for a model that is the reference of several runs.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._engine: Engine | str | None = None
        self._kept: dict[str, dict[str, Array]] = {}
        self._kept_bytes = 0

    def run(self, feeds: Mapping[str, Array], deadline: float, nudge: int | None = None) -> dict[str, Array] | str:
        key = f"{nudge} {_digest(feeds)}"
        if key in self._kept:
            return self._kept[key]
        answers = self._run(feeds, deadline, nudge)
        if not isinstance(answers, str):
            self._kept_bytes += sum(array.nbytes for array in answers.values())
            if self._kept_bytes <= _MOST_KEPT_BYTES:
                self._kept[key] = answers
        return answers

    def _run(self, feeds: Mapping[str, Array], deadline: float, nudge: int | None) -> dict[str, Array] | str:
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
    def jumps(self) -> bool:
        engine = self.engine()
        return not isinstance(engine, str) and engine.jumps

    @property
    def foreign(self) -> str | None:
        engine = self.engine()
        return None if isinstance(engine, str) else engine.foreign

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


def _digest(feeds: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name, array in feeds.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(str(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).data)
    return digest.hexdigest()
