"""A model as `checks.exact` asks for one: opened when it is first run, and run by the engine of `graphs.onnx.exact`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bnfold.checks.compare import distance, tolerance_for
from bnfold.checks.exact import Nudge
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import Array, TensorInfo, open_session
from bnfold.errors import BnfoldError, ModelError
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.kernels import CannotRun, widened
from bnfold.graphs.onnx.exact.parting import parting, runtime_values
from bnfold.graphs.onnx.exact.samples import Samples
from bnfold.graphs.onnx.sources import open_model

_MOST_KEPT_BYTES = 64 * 2**20
_ROUNDINGS = 10.0


class ExactSource:
    """A model, given as `sources.open_model` takes it, to be run in float64.

    Answers are kept, as far as they are small, for a model that is the reference of several runs. `exact` are constants
    in float64 as they were before they were rounded; those take the place of stored ones whose type is coarser than an
    output's, which is not to be held to what is lost in them.
    """

    is_believed = False

    def __init__(self, model: Any, exact: Mapping[str, Callable[[], Array]] | None = None) -> None:
        self._model = model
        self._exact = exact or {}
        self._engine: Engine | str | None = None
        self._kept: dict[str, dict[str, Array]] = {}
        self._kept_bytes = 0

    def run(self, feeds: Mapping[str, Array], deadline: float, nudge: Nudge | None = None) -> dict[str, Array] | str:
        key = _key(feeds, nudge)
        if key in self._kept:
            return self._kept[key]
        answers = self._run(feeds, deadline, nudge)
        if not isinstance(answers, str):
            self._keep(key, answers)
        return answers

    def samples(self, feeds: Mapping[str, Array], deadline: float) -> Samples:
        """What a run on these feeds comes by, bodies included. Raises CannotRun.

        ONNX Runtime runs a model that float64 cannot run, and shows what is outside of bodies.
        """
        engine = self.engine()
        if isinstance(engine, str):
            raise CannotRun(engine)
        samples = Samples.of(feeds)
        try:
            answers = engine.run(feeds, deadline=deadline, watch=samples.note, inside=True)
            self._keep(_key(feeds), answers)
            return samples
        except CannotRun as error:
            if time.monotonic() > deadline:
                raise
            reason = str(error)
        try:
            for _, values in runtime_values(engine, feeds, lambda model: open_session(model).run(feeds)):
                for name, value in values.items():
                    if isinstance(value, np.ndarray):
                        samples.note(name, widened(value))
        except BnfoldError:
            raise CannotRun(reason) from None
        return samples

    def _keep(self, key: str, answers: dict[str, Array]) -> None:
        self._kept_bytes += sum(array.nbytes for array in answers.values())
        if self._kept_bytes <= _MOST_KEPT_BYTES:
            self._kept[key] = answers

    def _run(self, feeds: Mapping[str, Array], deadline: float, nudge: Nudge | None) -> dict[str, Array] | str:
        engine = self.engine()
        if isinstance(engine, str):
            return engine
        try:
            if nudge is None:
                return engine.run(feeds, deadline=deadline, weights=self._unrounded(engine))
            rng = np.random.default_rng(nudge.seed)
            rounding = engine.rounding(rng) if nudge.everywhere else None
            return engine.run(feeds, deadline=deadline, weights=engine.nudged(rng), rounding=rounding)
        except CannotRun as error:
            return str(error)

    def _unrounded(self, engine: Engine) -> dict[str, Array]:
        values = {name: self._exact[name]() for name in engine.coarser_than_outputs() & self._exact.keys()}
        return {name: value for name, value in values.items() if engine.is_rounding(name, value)}

    def engine(self) -> Engine | str:
        """The engine, or why there is none."""
        if self._engine is None:
            try:
                self._engine = Engine(open_model(self._model).document)
            except (CannotRun, BnfoldError) as error:
                self._engine = str(error)
        return self._engine

    def parting(self, feeds: Mapping[str, Array]) -> str | None:
        """The first operator of the main graph that, on what the runtime gives it, does not make what it makes there.

        None where there is none, and where the model is too large for its values to be asked for.
        """
        engine = self.engine()
        if isinstance(engine, str):
            return None
        try:
            return parting(engine, feeds, lambda model: open_session(model).run(feeds), _differ)
        except ModelError:
            return None

    def branches_left_out(self) -> tuple[str, ...]:
        """What no run so far has seen of the branches of the model, in words."""
        engine = self.engine()
        if isinstance(engine, str):
            return ()
        alone = ((node, next(iter(taken))) for node, taken in engine.taken.items() if len(taken) == 1)
        return tuple(f"{node} took its {branch} on every input that was run in float64" for node, branch in alone)

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
        return () if isinstance(engine, str) else tuple(TensorInfo(*item) for item in engine.inputs)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        engine = self.engine()
        return () if isinstance(engine, str) else tuple(TensorInfo(*item) for item in engine.outputs)


def runtime_agrees(model: bytes, feeds: Mapping[str, Array], exact: Array) -> bool:
    """Whether ONNX Runtime's only output is this one in float64, up to rounding; True where it cannot run the model."""
    try:
        (answer,) = open_session(model).run(feeds).values()
    except BnfoldError:
        return True
    return not _differ(answer, exact)


def _differ(answer: Any, exact: Any) -> bool:
    """Whether a value of the runtime's and one in float64 are further apart than by rounding."""
    if isinstance(answer, list):
        return len(answer) != len(exact) or any(map(_differ, answer, exact))
    if answer.dtype.kind != "f":
        return not np.array_equal(answer, exact)
    gap = distance(exact, answer)
    rtol = _ROUNDINGS * tolerance_for("", str(answer.dtype), CheckOptions()).rtol
    return gap.problem is not None or not gap.errors.within(gap.sizes.to_judge_by(gap.sizes.shares()).times(rtol))


def _key(feeds: Mapping[str, Array], nudge: Nudge | None = None) -> str:
    """What tells one run of a model from another."""
    digest = hashlib.sha256()
    for name, array in feeds.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(str(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).data)
    return f"{nudge} {digest.hexdigest()}"
