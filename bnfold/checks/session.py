"""The only door to ONNX Runtime (ORT): find providers, open sessions, run them.

Values are NumPy arrays. NumPy has no bfloat16: such tensors are float32 arrays here, exactly representable on the way
out and rounded to nearest, ties to even, on the way in.
"""

from __future__ import annotations

import ctypes
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnfold.checks import bfloat16
from bnfold.checks.messages import one_line_reason
from bnfold.dims import declared_size
from bnfold.errors import MissingDependency, ModelError, UsageError

ModelFile: TypeAlias = Path | bytes
"""A model on disk, or serialised; above 2 GB only the former exists."""

OptLevel: TypeAlias = Literal["disable", "all"]
Array: TypeAlias = NDArray[Any]
CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_ON_GPU = (_CUDA, _TENSORRT)
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_TENSOR_TYPE = re.compile(r"tensor\((\w+)\)")
_NUMPY_NAME = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: `dtype` is NumPy's name ("float32"), "bfloat16", "string", or ORT's text for a non-tensor.

    `shape` holds an int for a fixed size, a str for a named and None for an unnamed symbol. ORT tells a scalar and
    an unknown rank alike: both are ().
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    @property
    def is_tensor(self) -> bool:
        return "(" not in self.dtype


class Runner(Protocol):
    """A model that is ready to run, by whatever means: what it asks for and gives, and who runs it."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    provider: str

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name. Raises ModelError."""


class TimedRunner(Runner, Protocol):
    """One that can be timed: `init_ms` is what it took to make it, `provider_options` what the provider was set to."""

    init_ms: float
    provider_options: Mapping[str, str]

    def runner(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        """A call without arguments that runs the model once on `feeds`, and nothing else. Raises ModelError."""


class Session:
    """A model that is loaded and ready to run. Made by `open_session`.

    Attributes:
        inputs, outputs: what the model asks for and gives, in order; initializers that may be overridden are no inputs.
        provider: ORT's name of the execution provider that runs the model.
        provider_options: what that provider was set to.
        init_ms: time it took to create the session.
    """

    def __init__(
        self, inner: Any, provider: str, init_ms: float, label: str, provider_options: Mapping[str, str] | None = None
    ) -> None:
        self._inner = inner
        self._label = label
        self.provider = provider
        self.provider_options: Mapping[str, str] = dict(provider_options or {})
        self._device_id = int(self.provider_options.get("device_id", 0))
        self.init_ms = init_ms
        self.inputs = tuple(_tensor_info(value) for value in inner.get_inputs())
        self.outputs = tuple(_tensor_info(value) for value in inner.get_outputs())
        self._names = [info.name for info in self.outputs]
        self._has_bfloat16 = any(info.dtype == "bfloat16" for info in self.inputs + self.outputs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name; the elements of a sequence output `s` are `s[0]`, `s[1]` and so on.

        Raises:
            ModelError: if ORT cannot run the model on these feeds, or gives something that is no tensor.
        """
        if not self._names:
            return {}  # ORT asks for one at least
        try:
            if self._has_bfloat16:
                answers = self._inner.run_with_ort_values(self._names, self._ort_values(feeds, "cpu"))
                values = [_from_ort_value(answer) for answer in answers]
            else:
                values = self._inner.run(self._names, _copies(feeds))
        except Exception as error:  # ORT's exceptions have no common base class of their own
            raise ModelError(f"ONNX Runtime cannot run {self._label}: {one_line_reason(error)}") from error
        result: dict[str, Array] = {}
        for info, value in zip(self.outputs, values, strict=True):
            result.update(self._arrays(info, value))
        return result

    def runner(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        """A call without arguments that runs the model once on `feeds` and returns when the outputs are there.

        For timing: on a GPU the inputs are copied to the device once, here, and the outputs stay on it, so that a call
        measures the model and not the bus. Both this and the call raise ModelError if ORT cannot run the model.
        """
        try:
            run = self._device_runner(feeds) if self.provider in _ON_GPU else self._host_runner(feeds)
        except Exception as error:  # ORT's exceptions have no common base class of their own
            raise ModelError(f"ONNX Runtime cannot run {self._label}: {one_line_reason(error)}") from error

        def guarded() -> object:
            try:
                return run()
            except Exception as error:  # as above
                raise ModelError(f"ONNX Runtime cannot run {self._label}: {one_line_reason(error)}") from error

        return guarded

    def _host_runner(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        if self._has_bfloat16:
            values = self._ort_values(feeds, "cpu")
            return lambda: self._inner.run_with_ort_values(self._names, values)
        inputs = _copies(feeds)
        return lambda: self._inner.run(self._names, inputs)

    def _device_runner(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        binding = self._inner.io_binding()
        for name, value in self._ort_values(feeds, "cuda").items():
            binding.bind_ortvalue_input(name, value)
        for name in self._names:
            binding.bind_output(name, "cuda", self._device_id)
        binding.synchronize_inputs()

        def run_and_wait() -> None:
            self._inner.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run_and_wait

    def _ort_values(self, feeds: Mapping[str, Array], device: str) -> dict[str, Any]:
        ort = _onnxruntime()
        dtypes = {info.name: info.dtype for info in self.inputs}
        values = {}
        for name, array in feeds.items():
            if dtypes[name] == "bfloat16":
                bits = bfloat16.to_bits(array)
                values[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _BFLOAT16)
            else:
                values[name] = ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"), device, self._device_id)
        return values

    def _arrays(self, info: TensorInfo, value: Any) -> dict[str, Array]:
        if isinstance(value, np.ndarray):
            return {info.name: value}
        if isinstance(value, list) and all(isinstance(element, np.ndarray) for element in value):
            return {f"{info.name}[{i}]": element for i, element in enumerate(value)}
        if value is None:
            return {}
        raise ModelError(f"output '{info.name}' of {self._label} is a {info.dtype}: only tensors can be compared")


def resolve_providers(names: Iterable[str]) -> tuple[str, ...]:
    """ORT's names of the execution providers asked for, each once, in order.

    Short names are ORT's own without "ExecutionProvider", in any case: "cpu", "cuda", "tensorrt".

    Raises:
        UsageError: if one of them is not available in the ORT that is installed.
        MissingDependency: if none is installed.
    """
    available = _onnxruntime().get_available_providers()
    short = {_short_name(name): name for name in available}
    found = []
    for name in names:
        if _short_name(name) not in short:
            raise UsageError(f"execution provider '{name}' is not available here: ONNX Runtime has {', '.join(short)}")
        found.append(short[_short_name(name)])
    return tuple(dict.fromkeys(found))


def resolve_options(options: Mapping[str, Mapping[str, str]], providers: Iterable[str]) -> dict[str, Mapping[str, str]]:
    """Options by ORT's name of the provider, which is one of `providers`, ORT's names too.

    Raises:
        UsageError: if options are given for another provider, or for the CPU, which has none.
    """
    short = {_short_name(provider): provider for provider in providers if provider != CPU}
    for name in options:
        if _short_name(name) == _short_name(CPU):
            raise UsageError("provider options for cpu: ONNX Runtime's CPU provider has none")
        if _short_name(name) not in short:
            raise UsageError(
                f"provider options for '{name}', which is not among the providers to run on: name it there"
            )
    return {short[_short_name(name)]: own for name, own in options.items()}


def open_session(
    model: ModelFile,
    provider: str = CPU,
    opt_level: OptLevel = "disable",
    *,
    intra_op_num_threads: int | None = None,
    tf32: bool = False,
    deterministic: bool = True,
    spinning: bool = True,
    provider_options: Mapping[str, str] | None = None,
    label: str = "the model",
) -> Session:
    """Load `model` on `provider`, given by ORT's name, with graph optimisations off or at their highest level.

    `tf32` lets NVIDIA GPUs round float32 factors to 10 bits of mantissa. `deterministic` asks for kernels that give the
    same bits each time. `spinning` lets worker threads wait busily inside a run, which is ORT's default.
    `provider_options` are the provider's own, by ORT's names; they win over the other arguments. `label` is what error
    messages call the model.

    Raises:
        ModelError: if ORT cannot load the model.
        UsageError: if the provider cannot start; ORT would carry on with the CPU.
        MissingDependency: if ORT is not installed.
    """
    ort = _onnxruntime()
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if opt_level == "all" else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what goes wrong arrives as an exception, once
    options.use_deterministic_compute = deterministic
    if intra_op_num_threads is not None:
        options.intra_op_num_threads = intra_op_num_threads
    if spinning:
        # Between runs they would spin on the cores that the next session is using.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    chain = _provider_chain(provider, tf32, deterministic, provider_options or {})
    start = time.perf_counter_ns()
    try:
        # Without this ORT prints the error of a provider and goes on with the CPU.
        inner = ort.InferenceSession(source, options, providers=chain, enable_fallback=0)
    except Exception as error:  # ORT's exceptions have no common base class of their own
        raise ModelError(f"ONNX Runtime cannot load {label}: {one_line_reason(error)}") from error
    init_ms = (time.perf_counter_ns() - start) / 1e6
    if inner.get_providers()[0] != provider:
        raise UsageError(
            f"{provider} is installed but cannot start here: check its driver and libraries, or name another provider"
        )
    return Session(inner, provider, init_ms, label, chain[0][1] if isinstance(chain[0], tuple) else {})


def runtime_version() -> str:
    """The version of the ORT that is installed."""
    return str(_onnxruntime().__version__)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise MissingDependency(f"ONNX Runtime cannot be imported: {error}") from error
        raise MissingDependency(
            'verification and latency need ONNX Runtime: pip install "bnfold[cpu]", or "bnfold[gpu]" for NVIDIA GPUs'
        ) from None
    except ImportError as error:
        raise MissingDependency(f"ONNX Runtime cannot be imported: {one_line_reason(error)}") from error
    return onnxruntime


def _short_name(provider: str) -> str:
    return provider.lower().removesuffix("executionprovider")


def _provider_chain(provider: str, tf32: bool, deterministic: bool, own: Mapping[str, str]) -> list[Any]:
    """The provider with its options, of which `own` win, then those that take the nodes that it does not know."""
    # Both are set although they may be ORT's defaults, so that they can be recorded. Exhaustive search picks the
    # algorithm of a convolution by the clock.
    search = "HEURISTIC" if deterministic else "EXHAUSTIVE"
    cuda = {"use_tf32": str(int(tf32)), "cudnn_conv_algo_search": search}
    if provider == CPU:
        return [CPU]
    if provider == _CUDA:
        return [(_CUDA, {**cuda, **own}), CPU]
    first = (provider, dict(own)) if own else provider
    return [first, (_CUDA, cuda), CPU] if provider == _TENSORRT else [first, CPU]


def _copies(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays that ORT may write into: a BatchNormalization in training mode does so with its mean and var."""
    return {name: array.copy() for name, array in feeds.items()}


def _tensor_info(value: Any) -> TensorInfo:
    match = _TENSOR_TYPE.fullmatch(value.type)
    dtype = value.type if match is None else _NUMPY_NAME.get(match[1], match[1])
    return TensorInfo(value.name, dtype, tuple(declared_size(size) for size in value.shape))


def _from_ort_value(value: Any) -> Any:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    shape = tuple(value.shape())
    size = math.prod(shape)
    if size == 0:
        return np.zeros(shape, np.float32)
    bits = np.array((ctypes.c_uint16 * size).from_address(value.data_ptr()), np.uint16)
    return bfloat16.from_bits(bits.reshape(shape))
