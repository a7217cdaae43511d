"""What a user may ask of verification and measurement, and how it is spelled on the command line."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bnfold.errors import UsageError

_DIMS = re.compile(r"\d+(?:(?:,\d+)*|(?:x\d+)*)", re.IGNORECASE)
_TYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
_LIKE_A_TYPE = re.compile(r"(?:u?int|b?float|complex|long|half|double|byte|short|string)\d*", re.IGNORECASE)

# What stands for None as `bench_seconds`.
BENCH_SECONDS = 20.0
BENCH_SECONDS_IN_CONVERSION = 4.0

MOST_ELEMENTS = 2**40


@dataclass(frozen=True)
class CheckOptions:
    """How to verify and how to measure.

    Attributes:
        input_shapes: sizes of test inputs by input name; the key "" stands for the only input, the size None for one
            that is drawn. They never change an ONNX model or a program; a PyTorch module is traced on inputs of these
            shapes.
        input_types: their types, by name as the shapes are: what a PyTorch module is traced on. An ONNX model or a
            program has its own, which they cannot change.
        input_data: a `.npy` (the only input) or `.npz` file (one array per input, optionally class labels), or a folder
            of pictures. A PyTorch module is traced on these arrays.
        mean, std: of pictures, one number or one per channel: inputs are `(x / 255 - mean) / std`.
        val_range: lowest and highest value of generated floating-point inputs, or of generated integers in a model
            that has no floating-point input.
        index_limits: highest generated integer by input, for those that are indices; what is not named here is looked
            for in the model.
        input_scales: mean and standard deviation of generated values by floating-point input; what is not named here is
            looked for in the model (its first normalisation), and is 0 and 1 else. A `val_range` wins over it.
        seed: of everything random: test inputs, the order of runs, the bootstrap.
        check_n: number of generated inputs; 0 is allowed beside `input_data`.
        rtol, atol: tolerance of every output; None takes the default of the output's type.
        output_rtol, output_atol: the same for single outputs, by name; they win over `rtol` and `atol`.
        providers: execution providers, by short name ("cpu", "cuda") or by ONNX Runtime's own name.
        provider_options: for the measurement only: ONNX Runtime's options of a provider, by the provider's name.
        intra_op_num_threads: threads per operator; None leaves the choice to ONNX Runtime.
        exact_seconds: time to spend on running both models in float64, eight times as much on inputs that decide; zero
            for none of it.
        bench_seconds: longest time to spend on running models, per provider, optimisation level and batch size; a
            measurement that can tell 5 % stops earlier. None is 20 s, and 4 s within a conversion, which is not to take
            much longer than its verification.
        bench_threads: numbers of threads per operator to measure with, each on its own, instead of
            `intra_op_num_threads`.
        batch_sizes: to measure with, each on its own; none leaves it at 1, or what the model or the user fixes.
        seconds: longest time of a conversion, or of a verification: what is not done by then is left out, and told. One
            input is always run, and a run is never broken off.
        ends: the time of `time.monotonic()` at which that is over; set when it begins.

    Raises:
        UsageError: if a value makes no sense.
    """

    input_shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    input_types: Mapping[str, str] = field(default_factory=dict)
    input_data: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    val_range: tuple[float, float] | None = None
    index_limits: Mapping[str, int] = field(default_factory=dict)
    input_scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seed: int = 0
    check_n: int = 6
    rtol: float | None = None
    atol: float | None = None
    output_rtol: Mapping[str, float] = field(default_factory=dict)
    output_atol: Mapping[str, float] = field(default_factory=dict)
    providers: tuple[str, ...] = ("cpu",)
    provider_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    intra_op_num_threads: int | None = None
    exact_seconds: float = 5.0
    bench_seconds: float | None = None
    bench_threads: tuple[int, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    seconds: float = 120.0
    ends: float = math.inf

    def __post_init__(self) -> None:
        for name, shape in self.input_shapes.items():
            if any(size is not None and size < 1 for size in shape):
                raise UsageError(f"input shape {_shape_text(name, shape)}: every size must be at least 1")
            if math.prod(size or 1 for size in shape) > MOST_ELEMENTS:
                raise UsageError(f"input shape {_shape_text(name, shape)}: no memory holds an input of that size")
        if "" in self.input_shapes and len(self.input_shapes) > 1:
            raise UsageError(
                "an input shape without a name stands for the only input: name each of them, as in x:1,3,8,8"
            )
        if self.val_range is not None:
            low, high = self.val_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(f"value range {low:g},{high:g}: give two finite numbers, the lower one first")
        for what, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and (not numbers or not all(map(math.isfinite, numbers))):
                raise UsageError(f"{what}: give one finite number, or one per channel")
        if self.std is not None and not all(number > 0 for number in self.std):
            raise UsageError("std: every number must be above zero")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: must not be negative")
        if self.check_n < 0 or (self.check_n == 0 and self.input_data is None):
            raise UsageError(f"check-n {self.check_n}: verification needs at least one input")
        tolerances = [("rtol", self.rtol), ("atol", self.atol)]
        tolerances += [(f"rtol of output '{name}'", value) for name, value in self.output_rtol.items()]
        tolerances += [(f"atol of output '{name}'", value) for name, value in self.output_atol.items()]
        for what, tolerance in tolerances:
            if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
                raise UsageError(f"{what} is {tolerance:g}: a tolerance is a finite number, zero or above")
        if not self.providers or not all(self.providers):
            raise UsageError("name at least one execution provider, for example cpu")
        for threads in (self.intra_op_num_threads, *self.bench_threads):
            if threads is not None and threads < 1:
                raise UsageError(f"intra-op-num-threads {threads}: must be at least 1")
        if not (math.isfinite(self.exact_seconds) and self.exact_seconds >= 0):
            raise UsageError(f"time in float64 of {self.exact_seconds:g} s: must be a finite time, zero or above")
        if self.bench_seconds is not None and not (math.isfinite(self.bench_seconds) and self.bench_seconds > 0):
            raise UsageError(f"bench time of {self.bench_seconds:g} s: must be a finite time above zero")
        for size in self.batch_sizes:
            if size < 1:
                raise UsageError(f"batch size {size}: must be at least 1")
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise UsageError(f"{self.seconds:g} s in all: must be a finite time above zero")

    def begun(self) -> CheckOptions:
        """The options of a conversion or verification that begins now."""
        return replace(self, ends=time.monotonic() + self.seconds)

    def until(self, share: float) -> float:
        """The time of `time.monotonic()` at which this share of what is left is over."""
        now = time.monotonic()
        return now + share * max(self.ends - now, 0.0)


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...], str | None]:
    """Read `name:1,3,224,224`, `name:uint8:1x3x224x224`, or either without the name (which is then "").

    Only what follows the last colon is the shape: `input:0:1,3,8,8` is of the input `input:0`. A type before it is one
    of `_TYPES`, or None where there is none.

    Raises:
        UsageError: if the text is neither.
    """
    before, _, dims = text.strip().rpartition(":")
    name, _, dtype = before.rpartition(":")
    if dtype not in _TYPES:
        if _LIKE_A_TYPE.fullmatch(dtype):
            raise UsageError(f"cannot read the type in '{text}': there are {', '.join(_TYPES)}")
        name, dtype = before, ""
    dims = dims.replace(" ", "")
    if not _DIMS.fullmatch(dims):
        raise UsageError(f"cannot read the input shape '{text}': write it as x:1,3,224,224 or 1x3x224x224")
    shape = tuple(int(size) for size in re.split("[,xX]", dims))
    if 0 in shape:
        raise UsageError(f"input shape '{text}': every size must be at least 1")
    return name, shape, dtype or None


def parse_range(text: str) -> tuple[float, float]:
    """Read `low,high`.

    Raises:
        UsageError: if these are not two finite numbers, the lower one first.
    """
    parts = text.split(",")
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise UsageError(f"cannot read the value range '{text}': write it as 0,1") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"value range '{text}': give two finite numbers, the lower one first")
    return low, high


def parse_numbers(text: str) -> tuple[float, ...]:
    """Read `0.485,0.456,0.406`. Raises UsageError if that is no list of numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"cannot read the numbers '{text}': write them as 0.485,0.456,0.406") from None


def parse_tolerance(text: str) -> tuple[str, float]:
    """Read `1e-3`, for every output (the name is then ""), or `name:1e-3`, for one.

    Raises:
        UsageError: if there is no finite number, zero or above, after the last colon.
    """
    name, _, number = text.strip().rpartition(":")
    try:
        value = float(number)
    except ValueError:
        raise UsageError(f"cannot read the tolerance '{text}': write it as 1e-3 or name:1e-3") from None
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"tolerance '{text}': must be a finite number, zero or above")
    return name, value


def parse_counts(text: str, what: str) -> tuple[int, ...]:
    """Read `1,8,32`, each once; `what` these are stands in the error.

    Raises:
        UsageError: if these are no whole numbers of 1 and above.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"cannot read the {what} '{text}': write whole numbers above zero, as in 1,8")
    return tuple(dict.fromkeys(map(int, parts)))


def parse_provider_option(text: str) -> tuple[str, str, str]:
    """Read `provider:key=value`.

    Raises:
        UsageError: if it is not written so.
    """
    left, equals, value = text.partition("=")
    provider, colon, key = (part.strip() for part in left.partition(":"))
    if not (equals and colon and provider and key):
        raise UsageError(f"cannot read the provider option '{text}': write it as cuda:use_tf32=0")
    return provider, key, value.strip()


def _shape_text(name: str, shape: tuple[int | None, ...]) -> str:
    sizes = ",".join("?" if size is None else str(size) for size in shape)
    return f"{name}:{sizes}" if name else sizes
