"""Models that run elsewhere than in ONNX Runtime, as functions of arrays; what runs them is known to the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from bnfold.checks.exact import Nudge
from bnfold.checks.session import Array, TensorInfo
from bnfold.errors import ModelError

ArrayFunction: TypeAlias = Callable[[Sequence[Array]], list[Array]]
"""One array per input, in order, to one array per output; raises ModelError where it cannot be computed."""


class FunctionSession:
    """A function with names for its inputs and outputs. `provider` names what runs it."""

    def __init__(
        self,
        function: ArrayFunction,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        provider: str,
    ) -> None:
        self._function = function
        self.inputs = inputs
        self.outputs = outputs
        self.provider = provider

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name. Raises ModelError if the function does, or gives another number of them."""
        arrays = self._function([feeds[info.name] for info in self.inputs])
        if len(arrays) != len(self.outputs):
            raise ModelError(f"{self.provider} gives {len(arrays)} outputs where the model has {len(self.outputs)}")
        return {info.name: array for info, array in zip(self.outputs, arrays, strict=True)}


class PreparedFunction(Protocol):
    """A function that can be timed: what only brings arrays to it and back is done before, or not at all."""

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """As an `ArrayFunction`."""

    def prepared(self, arrays: Sequence[Array]) -> Callable[[], object]:
        """A call that runs it once on these arrays. Raises ModelError."""


class TimedFunctionSession(FunctionSession):
    """A function that is ready to be timed; `init_ms` is what it took to make it so."""

    def __init__(
        self,
        function: PreparedFunction,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        provider: str,
        init_ms: float,
    ) -> None:
        super().__init__(function, inputs, outputs, provider)
        self._prepared = function.prepared
        self.init_ms = init_ms
        self.provider_options: Mapping[str, str] = {}

    def runner(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        return self._prepared([feeds[info.name] for info in self.inputs])


class ExactFunction:
    """A function in float64, as `exact` asks for one. Whether it jumps is not known, and no use where weights stay."""

    jumps = False
    is_believed = True
    foreign: str | None = None

    def __init__(
        self, function: ArrayFunction, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]
    ) -> None:
        self._session = FunctionSession(function, inputs, outputs, "float64")
        self.inputs, self.outputs = inputs, outputs

    def parting(self, feeds: Mapping[str, Array]) -> str | None:
        """Nobody asks, since its answers are believed."""
        return None

    def run(self, feeds: Mapping[str, Array], deadline: float, nudge: Nudge | None = None) -> dict[str, Array] | str:
        """The outputs, or why there are none: the weights of a function cannot be moved."""
        if nudge is not None:
            return "its weights cannot be moved"
        try:
            return self._session.run(feeds)
        except ModelError as error:
            return str(error)
