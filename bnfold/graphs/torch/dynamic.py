"""Axes of inputs that shall have any size, as a user names them and as torch.export takes them.

Decisions. An axis is named by a label or None, as in `{"x": {0: "batch"}}`; what is neither is torch.export's own and
handed on. A first axis, mostly the batch, is asked for from size 1 on; torch.export leaves out 1 where it is told less.
If the code does not bear that, the trace is tried again with whatever sizes the code allows, and other axes are asked
for so from the beginning. Axes that share a label are declared to have one size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch.export import Dim

from bnfold.errors import ModelError, UsageError

Traced = TypeVar("Traced")


@dataclass(frozen=True)
class DynamicAxes:
    """What to try with torch.export, in order, and the labels for the ONNX exporter."""

    attempts: tuple[Any, ...]
    labelled: Any

    def trace(self, run: Callable[[Any], Traced]) -> Traced:
        """What `run` gives for the first attempt that it bears. Raises what it raises for the last one."""
        for shapes in self.attempts[:-1]:
            try:
                return run(shapes)
            except ModelError:
                continue
        return run(self.attempts[-1])


def dynamic_axes(dynamic_shapes: Any, names: Sequence[str]) -> DynamicAxes:
    """The axes of the inputs of these names. Raises UsageError for another name; "" stands for the first."""
    if not isinstance(dynamic_shapes, Mapping):
        return DynamicAxes((dynamic_shapes,), dynamic_shapes)
    dynamic_shapes = {name or names[0]: axes for name, axes in dynamic_shapes.items()}
    unknown = next((name for name in dynamic_shapes if name not in names), None)
    if unknown is not None:
        raise UsageError(f"dynamic axes given for '{unknown}', which is no input: there are {', '.join(names)}")

    def mapped(change: Callable[[str, int, Any], Any]) -> dict[str, Any]:
        every = ((name, dynamic_shapes.get(name)) for name in names)
        return {
            name: {at: change(name, at, axis) for at, axis in axes.items()} if isinstance(axes, Mapping) else axes
            for name, axes in every
        }

    def from_one_on(name: str, at: int, axis: Any) -> Any:
        return Dim(axis or f"{name}_{at}", min=1) if at == 0 and _is_label(axis) else as_allowed(name, at, axis)

    def as_allowed(_: str, __: int, axis: Any) -> Any:
        return Dim.DYNAMIC if _is_label(axis) else axis

    attempts = (mapped(from_one_on), mapped(as_allowed))
    return DynamicAxes(attempts, mapped(lambda _, __, axis: Dim.DYNAMIC if axis is None else axis))


def _is_label(axis: Any) -> bool:
    return axis is None or isinstance(axis, str)
