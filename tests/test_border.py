"""The comparison across the border of PyTorch: on plain functions of arrays, and PyTorch's own in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from bnfold.checks.border import Origin, compare_across
from bnfold.checks.functions import ExactFunction, FunctionSession
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import TensorInfo
from bnfold.errors import ModelError
from bnfold.results import Border

Array = np.ndarray[Any, np.dtype[Any]]
X = TensorInfo("x", "float32", ("N", 5))
Y = TensorInfo("y", "float32", ("N", 5))
FORMS = ("exported", "folded")


def tripled(error: float = 0.0, dtype: str = "float32") -> Callable[[Sequence[Array]], list[Array]]:
    """Three times the input, with a relative error."""
    return lambda arrays: [(arrays[0].astype(np.float64) * 3 * (1 + error)).astype(dtype)]


def refusing(why: str, batch: int | None = None) -> Callable[[Sequence[Array]], list[Array]]:
    """A function that cannot be computed, for this batch or for any."""

    def function(arrays: Sequence[Array]) -> list[Array]:
        if batch is None or len(arrays[0]) == batch:
            raise ModelError(why)
        return tripled()(arrays)

    return function


def across(
    own: Any = None,
    exact: Any = None,
    exported: Any = None,
    folded: Any = None,
    *,
    in_float64: Any = None,
    narrowed: bool = True,
    **options: Any,
) -> Border:
    def session(function: Any) -> FunctionSession:
        return FunctionSession(function or tripled(), (X,), (Y,), "elsewhere")

    origin = Origin("There 1.0", own or tripled(), exact or tripled(dtype="float64"), narrowed)
    widened = in_float64 or exported or tripled(dtype="float64")
    function = ExactFunction(lambda arrays: [array.astype(np.float64) for array in widened(arrays)], (X,), (Y,))
    checks = CheckOptions(**options)
    return compare_across(origin, session(exported), session(folded), function, FORMS, checks, lambda done, of: None)


def test_four_forms_of_one_function() -> None:
    border = across()
    assert (border.passed, border.reference, border.forms) == (True, "There 1.0 in float64", ("PyTorch", *FORMS))
    (output,) = border.outputs
    assert (output.name, output.passed, output.export_error, output.detail) == ("y", True, 0.0, None)
    assert 0 < output.eager == output.exported == output.folded < 1e-5


@pytest.mark.parametrize(("error", "passed"), [(1e-5, True), (1e-3, False)])
def test_an_exporter_is_held_to_what_it_exported(error: float, passed: bool) -> None:
    border = across(exported=tripled(error), folded=tripled(error))
    (output,) = border.outputs
    assert (border.passed, output.passed) == (passed, passed)
    assert output.export_error == pytest.approx(output.exported, rel=0.1)
    assert output.folded == output.exported > 10 * output.eager
    assert (output.detail is None) is passed


@pytest.mark.parametrize("narrowed", [False, True])
def test_the_rounding_of_the_runtime_is_not_the_exporters_unless_that_took_to_a_coarser_type(narrowed: bool) -> None:
    border = across(exported=tripled(1e-3), in_float64=tripled(1e-9, "float64"), narrowed=narrowed)
    (output,) = border.outputs
    assert border.passed is not narrowed
    assert ("rounding alone passes" in (output.detail or "")) is not narrowed


def test_another_function_in_float64_is_the_exporters_doing() -> None:
    assert not across(exported=tripled(1e-3), narrowed=False).passed


def test_the_users_tolerance_counts() -> None:
    assert not across(exported=tripled(1e-3)).passed
    assert across(exported=tripled(1e-3), rtol=1e-2).passed
    assert not across(exported=tripled(1e-5), rtol=1e-7).passed


def test_a_fold_is_not_judged_here() -> None:
    border = across(folded=tripled(0.5))
    assert border.passed
    assert border.outputs[0].folded > 0.1


def test_without_float64_the_own_types_are_the_reference() -> None:
    border = across(exact=refusing("no such operator"), exported=tripled(1e-5))
    (output,) = border.outputs
    assert border.reference == "There 1.0 in the model's own types (no such operator)"
    assert (border.passed, output.eager) == (True, 0.0)
    assert output.exported == output.export_error > 0
    assert output.input is not None


def test_an_input_that_the_origin_refuses_counts_for_nothing() -> None:
    assert across(own=refusing("not three", batch=3), check_n=3).passed
    with pytest.raises(ModelError, match=r"^not at all; the sizes of x"):
        across(own=refusing("not at all"))


def test_another_number_of_outputs_is_told() -> None:
    with pytest.raises(ModelError, match=r"^There 1\.0 gives 2 outputs where the model has 1;"):
        across(own=lambda arrays: [arrays[0], arrays[0]])


def test_float64_reaches_types_that_the_code_asks_for() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    from torch.utils._pytree import tree_flatten

    from bnfold.graphs.torch.eager import Function

    class Asking(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((4,), 1 / 3))

        def forward(self, x: Any, ids: Any) -> Any:
            y = (x.float() * self.weight).half().to(torch.float32)
            y = y + torch.full((4,), 0.1, dtype=torch.float32)
            return {"y": torch.softmax(y, 0), "ids": ids * 2, "none": None}

    module = Asking()
    leaves, spec = tree_flatten(((torch.float32, torch.int64), {}))
    function = Function(module, tuple(leaves), spec, (0, 1), "it")
    x, ids = np.linspace(-1, 1, 4, dtype=np.float32), np.arange(4)
    own, exact = function([x, ids]), function.in_float64()([x, ids])
    expected = np.exp(x.astype(np.float64) * np.float64(np.float32(1 / 3)) + 0.1)
    expected /= expected.sum()
    assert (own[0].dtype, exact[0].dtype, exact[1].dtype) == (np.float32, np.float64, np.int64)
    assert np.abs(exact[0] - expected).max() < 1e-15
    assert 1e-6 < np.abs(own[0] - expected).max() < 1e-3
    assert np.array_equal(exact[1], ids * 2)
    assert module.weight.dtype is torch.float32
