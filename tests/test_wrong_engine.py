"""A wrong float64 engine is noticed, whichever operator it has wrong, and turns no wrong fold into a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from operator_bodies import CASES, X, model_of

from bnfold.checks.exact import ExactPair, Nudge
from bnfold.checks.options import CheckOptions
from bnfold.checks.verify import verify
from bnfold.exactly import ExactSource
from bnfold.graphs.onnx.exact.engine import Engine
from bnfold.graphs.onnx.exact.fixed import Fixed

OPTIONS = CheckOptions(check_n=2)
_RIGHT, _RIGHT_CONSTANT = Engine._computed, Fixed._computed
_FACTOR, _SHIFT = 1.02, 0.02


class Faulty(ExactSource):
    """A model in float64, one of whose operators is computed wrongly."""

    def __init__(self, model: onnx.ModelProto, op: str) -> None:
        super().__init__(model)
        self._op = op

    def run(self, feeds: Mapping[str, Any], deadline: float, nudge: Nudge | None = None) -> Any:
        with self._fault():
            return super().run(feeds, deadline, nudge)

    def parting(self, feeds: Mapping[str, Any]) -> str | None:
        with self._fault():
            return super().parting(feeds)

    @contextmanager
    def _fault(self) -> Iterator[None]:
        def computed(engine: Engine, node: onnx.NodeProto, values: dict[str, Any], run: Any) -> Sequence[Any]:
            results = _RIGHT(engine, node, values, run)
            return [_wrong(result) for result in results] if node.name == self._op else results

        def constant(fixed: Fixed, node: onnx.NodeProto, name: str) -> Any:
            result = _RIGHT_CONSTANT(fixed, node, name)
            return result if result is None or node.name != self._op else _wrong(result).astype(result.dtype)

        with mock.patch.object(Engine, "_computed", computed), mock.patch.object(Fixed, "_computed", constant):
            yield


def _wrong(result: Any) -> Any:
    if isinstance(result, list):
        return [_wrong(element) for element in result]
    array = np.asarray(result)
    if array.dtype == bool:
        return ~array
    return array * _FACTOR + _SHIFT if array.dtype.kind == "f" else array + 1


def _named(body: str) -> onnx.ModelProto:
    """The model of a body, the operator that is meant named `meant`; where that makes a sequence, its reader."""
    model = model_of(body)
    model.graph.node[-2].name = "meant"
    return model


def _changed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with an output that is wrong by 2 % and 0.02: what the wrong engine would call right."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    wrong.graph.node[-1].output[0] = "right"
    for name, number in (("factor", _FACTOR), ("shift", _SHIFT)):
        wrong.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([number]), name))
    wrong.graph.node.append(onnx.helper.make_node("Mul", ["right", "factor"], ["larger"]))
    wrong.graph.node.append(onnx.helper.make_node("Add", ["larger", "shift"], ["y_"]))
    return wrong


@pytest.mark.parametrize("body", CASES)
def test_a_wrong_operator_is_noticed(body: str) -> None:
    model = _named(body)
    shape = {"x": X.shape}
    options = CheckOptions(check_n=2, input_shapes=shape)
    same = model.SerializeToString()
    verdict = verify(same, same, options, exact=ExactPair(Faulty(model, "meant"), ExactSource(model)))
    assert verdict.passed
    op = model.graph.node[-2].op_type
    assert f"first at node 'meant' ({op}); so ONNX Runtime alone decides" in " ".join(verdict.notes)
    wrong = _changed(model)
    pair = ExactPair(Faulty(model, "meant"), ExactSource(wrong))
    assert not verify(same, wrong.SerializeToString(), options, exact=pair).passed
