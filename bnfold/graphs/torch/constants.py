"""Values that are known before the program runs: parameters, buffers, constants, and what is computed from them alone.

Subgraphs over constants (a reshaped parameter, `sqrt(var + eps)`, a normalised weight) are evaluated by PyTorch, as
far as they are small enough to hold; the result of a fold is computed when it is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from bnfold.algebra.affine import Affine, Array, Refusal
from bnfold.graphs.rounding import norm, unfit
from bnfold.graphs.torch.index import Node, Value
from bnfold.graphs.torch.schemas import schema_of

MOST_ELEMENTS = 2**24
_PIECE = 2**15
_BUFFER = 512
_PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
# The types of floating point numbers that PyTorch calculates with; it has others that it only stores.
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_QUANTIZED = ("quantized", "quantized_decomposed", "torchao")


@dataclass(eq=False)
class Known:
    """A constant: its name, type and shape, a way to read it, and the affine that folds have put on it since.

    `read` gives the tensor before any fold. `float64` and `rounded` are `affine(tensor)`, the latter in the constant's
    type, computed in float64; `plain64` and `stored64` are the tensor and `rounded` in float64. A Python number has the
    type of what it meets (`dtype`), not one of its own. `like` is the tensor whose device, memory format and
    `requires_grad` a folded one takes over.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]
    like: torch.Tensor
    affine: Affine | None = None
    _extent: list[float] = field(default_factory=list)

    @property
    def is_floating(self) -> bool:
        return self.dtype in _FLOATING

    @property
    def folded_shape(self) -> tuple[int, ...]:
        if self.affine is None:
            return self.shape
        return np.broadcast_shapes(self.shape, self.affine.scale.shape, self.affine.shift.shape)

    @property
    def step(self) -> float:
        """The distance between 1 and the next larger number of its type."""
        return torch.finfo(self.dtype).eps

    @property
    def nbytes(self) -> int:
        return math.prod(self.folded_shape) * self.dtype.itemsize

    def plain64(self) -> Array:
        array: Array = self.read().detach().to("cpu", torch.float64).numpy()
        return array

    def float64(self) -> Array:
        return self.plain64() if self.affine is None else self.affine(self.plain64())

    def stored64(self) -> Array:
        array: Array = self.rounded().to(torch.float64).numpy()
        return array

    def rounded(self) -> torch.Tensor:
        """The folded constant in its own type, on the CPU."""
        out = torch.empty(self.folded_shape, dtype=self.dtype)
        self.fill(out)
        return out

    def fill(self, out: torch.Tensor) -> None:
        """Write the folded constant into a tensor of its type and shape, wherever that is."""
        tensor = self.read().detach()
        with torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
            if self.affine is None:
                out.copy_(tensor)
            elif not self.affine.has_shift and {tensor.dtype, out.dtype} == {torch.float32} and _on_cpu(tensor, out):
                _scale(tensor, self.affine.scale, out)
            elif self.dtype is torch.float16:  # PyTorch would round to float32 in between
                out.copy_(torch.from_numpy(np.asarray(self.float64(), np.float16)))
            else:
                out.copy_(torch.from_numpy(np.asarray(self.float64(), order="C")).to(self.dtype))

    def tensor(self) -> torch.Tensor:
        """The folded constant as a tensor in place of `like`: a Parameter if that is one."""
        same = self.folded_shape == tuple(self.like.shape)
        like = self.like.detach() if same else self.like.detach().new_empty(self.folded_shape)
        folded = torch.empty_like(like, dtype=self.dtype)
        self.fill(folded)
        if not isinstance(self.like, torch.nn.Parameter):
            return folded
        return torch.nn.Parameter(folded, requires_grad=self.like.requires_grad)

    def then(self, affine: Affine) -> Known:
        """This constant after one more affine, which is composed with earlier ones and not rounded in between."""
        surplus = affine.rank - len(self.shape)
        if surplus > 0 and not any(axis < surplus for axis in affine.axes):
            affine = affine.aligned(len(self.shape))
        whole = affine if self.affine is None else affine.after(self.affine.aligned(affine.rank))
        return replace(self, affine=whole)

    def refusal(self) -> Refusal | None:
        """Why the folded constant is not a finite number in its own type, where it is not."""
        if self.affine is None:
            return None
        kind, limit = str(self.dtype).removeprefix("torch."), torch.finfo(self.dtype).max
        return unfit(self.name, kind, limit, self.affine, lambda: self.extent, self.float64, self._is_finite)

    def _is_finite(self) -> bool:
        return bool(self.rounded().isfinite().all())

    @property
    def extent(self) -> float:
        """The largest magnitude in the original constant, or a larger number; NaN where it holds one."""
        if not self._extent:
            tensor = self.read().detach()
            if tensor.dtype in (torch.float32, torch.float64) and _on_cpu(tensor):
                self._extent.append(norm(tensor.numpy(force=True)))
            else:
                ends = [torch.stack(piece.aminmax()) for piece in _pieces(tensor)] if tensor.numel() else []
                self._extent.append(float(torch.stack(ends).abs().max()) if ends else 0.0)
        return self._extent[0]


def _pieces(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """A tensor, cut into rows that stay in the cache, and for which PyTorch starts no threads."""
    if not tensor.dim():
        return (tensor,)
    return tensor.chunk(math.ceil(len(tensor) / max(1, _PIECE * len(tensor) // tensor.numel())))


def _scale(tensor: torch.Tensor, scale: Array, out: torch.Tensor) -> None:
    """Write `tensor * scale`, computed in float64, into `out`, each on the CPU.

    NumPy widens and rounds buffer by buffer, in one pass, and with small ones, which stay in the cache next to the
    core, takes half of what PyTorch does.
    """
    usual = np.setbufsize(_BUFFER)
    try:
        factor, product = tensor.numpy(force=True), out.detach().numpy()
        np.multiply(factor, scale, out=product, dtype=np.float64, casting="unsafe")
    finally:
        np.setbufsize(usual)
    torch.autograd.graph.increment_version(out)  # what autograd has kept of it is no longer there


def _on_cpu(*tensors: torch.Tensor) -> bool:
    return all(tensor.device.type == "cpu" for tensor in tensors)


def made(array: Array, like: Known, name: str) -> Known:
    """A constant with these values in the type of another."""
    zeros, ones = np.zeros(array.shape), np.ones((1,) * array.ndim)
    return Known(name, like.dtype, array.shape, lambda: torch.from_numpy(zeros), like.like, Affine(ones, array))


class Constants:
    """Which values of a program are known, and what they are. `state` holds the tensors by their names."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        self._cache: dict[Value, Known | Refusal] = {}

    def get(self, value: Value) -> Known | Refusal:
        """The constant that a value is, or why it is none (reasons: computed-weight, quantized, unsupported)."""
        if value not in self._cache:
            self._cache[value] = self._resolve(value)
        return self._cache[value]

    def known(self, value: Value | None) -> Known | None:
        found = self.get(value) if value is not None else None
        return found if isinstance(found, Known) else None

    def put(self, value: Value, known: Known) -> None:
        """Say what a value is that is made here."""
        self._cache[value] = known

    def _resolve(self, value: Value) -> Known | Refusal:
        if value.changes:
            return Refusal("computed-weight", f"the memory of '{value.name}' may be written to in place")
        if value.number is not None:
            number, dtype, device = value.number, *_met(value)
            like = torch.empty((), dtype=dtype, device=device)
            return Known(value.name, dtype, (), lambda: torch.tensor(number, dtype=torch.float64), like)
        if value.target is not None:
            return self._held(value.target)
        node = value.producer
        if node is None:
            return Refusal("computed-weight", f"'{value.name}' is an input, or changes while the model runs")
        if node.space in _QUANTIZED or node.op.startswith("fake_quantize"):
            return Refusal("quantized", f"'{value.name}' is dequantized from integers")
        return self._evaluated(node, value)

    def _held(self, name: str) -> Known | Refusal:
        tensor = self._state.get(name)
        if not isinstance(tensor, torch.Tensor) or type(tensor) not in _PLAIN or tensor.is_complex():
            return Refusal("unsupported", f"'{name}' is a tensor of a kind that is not understood")
        if tensor.is_meta:
            return Refusal("unsupported", f"'{name}' is on the meta device and has no values")
        held = tensor
        return Known(name, held.dtype, tuple(held.shape), lambda: held, held)

    def _evaluated(self, node: Node, value: Value) -> Known | Refusal:
        """One operator over constants."""
        total = 0
        known: dict[Value, Known] = {}
        for source in node.inputs:
            if source is None:
                continue
            found = self.get(source)
            if isinstance(found, Refusal):
                told = found.reason == "computed-weight" or value.tensor is None or not _is_pure(node)
                return _computed(node, value) if told else found
            known[source] = found
            total += math.prod(found.shape)
        if value.tensor is None or not _is_pure(node):
            return _computed(node, value)
        sizes = [size for size in value.tensor.shape if isinstance(size, int)]
        if len(sizes) < value.tensor.dim() or max(total, math.prod(sizes)) > MOST_ELEMENTS:
            return Refusal("computed-weight", f"'{value.name}' is computed by '{node.name}' and too large to hold")
        result = _run(node, {source: item for source, item in known.items() if source.number is None}, value.port)
        if result is None or result.is_complex():
            return _computed(node, value)
        tensor = result
        return Known(value.name, tensor.dtype, tuple(tensor.shape), lambda: tensor, tensor)


def _computed(node: Node, value: Value) -> Refusal:
    return Refusal("computed-weight", f"'{value.name}' is computed by '{node.name}' ({node.op})")


def _met(value: Value) -> tuple[torch.dtype, torch.device]:
    """The type and device of what a number meets: those of the result of its operator."""
    for node, _ in value.readers:
        tensor = node.outputs[0].tensor if node.outputs and node.outputs[0] else None
        if tensor is not None:
            return tensor.dtype, tensor.device
    return torch.float64, torch.device("cpu")


def _is_pure(node: Node) -> bool:
    """Whether a node computes one and the same result every time, and nothing else."""
    if node.source is None or node.space != "aten" or node.op.startswith(("empty", "new_empty")):
        return False
    schema = schema_of(node.source.target)
    if schema is None or schema.is_random or schema.writes:
        return False
    return not node.source.name.startswith("sym_") and all(not isinstance(item, str) for item in _flat(node.arguments))


def _flat(arguments: Mapping[str, Any]) -> list[Any]:
    """The arguments that may be sizes, one by one; strings among them are symbols, or settings."""
    settings = ("mode", "padding", "rounding_mode", "equation", "approximate", "reduction")
    out: list[Any] = []
    for name, value in arguments.items():
        if name not in settings:
            out += value if isinstance(value, list) else [value]
    return out


def _run(node: Node, known: Mapping[Value, Known], port: int) -> torch.Tensor | None:
    """One output of one operator; None where it cannot be computed."""
    if node.source is None:
        return None
    args: dict[str, Any] = dict(node.arguments)
    for slot, value in zip(node.slots, node.inputs, strict=True):
        if slot.place is None:
            args[slot.argument] = _tensor(value, known)
        else:
            args.setdefault(slot.argument, []).append(_tensor(value, known))
    target: Any = node.source.target
    try:
        with torch.no_grad():
            result = target(**args)
    except Exception:  # it raises what it likes; an operator that cannot be run is no constant
        return None
    picked = result[port] if isinstance(result, list | tuple) else result
    return picked if isinstance(picked, torch.Tensor) else None


def _tensor(value: Value | None, known: Mapping[Value, Known]) -> Any:
    if value is None or value.number is not None:
        return None if value is None else value.number
    constant = known[value]
    return constant.read() if constant.affine is None else constant.rounded()
