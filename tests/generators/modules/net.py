"""A module whose forward runs a list of steps on registers, and the table of what a step can do.

torch.export traces the loop like any Python. So a step is code of the network itself, as if it were written out there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Path = tuple[str | int, ...]
Function = Callable[["Net", list[Any], dict[str, Any]], Any]

STEPS: dict[str, Function] = {}


def step(function: Function) -> Function:
    """Enter a function into the table of steps, by its name."""
    STEPS[function.__name__] = function
    return function


@dataclass
class Step:
    """One line of a network: a function, the registers it reads, and its constants. The result is a new register."""

    name: str
    args: tuple[int, ...]
    constants: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        constants = "".join(f", {key}={value!r}" for key, value in self.constants.items())
        return f"{self.name}({', '.join(f'r{i}' for i in self.args)}{constants})"


@dataclass
class Answer:
    """A result of a class of its own, as detection networks have them; registered as a pytree."""

    first: Any
    rest: Any = None


torch.export.register_dataclass(Answer, serialized_type_name="generators.Answer")


class Net(nn.Module):
    """A network of steps; `parts` and the like hold its modules, and `outputs` says what it returns and how."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.outputs: tuple[int, ...] = ()
        self.structure = "single"

    def at(self, path: Path) -> Any:
        """The module, parameter or constant at a path of attribute names, keys and indices."""
        found: Any = self
        for key in path:
            if isinstance(key, int) or isinstance(found, (nn.ModuleDict, nn.ParameterDict, dict)):
                found = found[key]
            else:
                found = getattr(found, key)
        return found

    def forward(self, x: Any, y: Any = None, z: Any = None) -> Any:
        registers = [value for value in (x, y, z) if value is not None]
        for line in self.steps:
            registers.append(STEPS[line.name](self, [registers[i] for i in line.args], line.constants))
        return structured([registers[i] for i in self.outputs], self.structure)

    def listing(self) -> str:
        """The program as text, one step a line."""
        inputs = min((min(line.args, default=0) for line in self.steps), default=0)
        first = getattr(self, "inputs", inputs + 1)
        lines = [f"r{first + number} = {line}" for number, line in enumerate(self.steps)]
        return "\n".join([*lines, f"return {self.structure} {self.outputs}"])


def structured(values: Sequence[Any], structure: str) -> Any:
    """Outputs as a tensor, a tuple, a list, a dict, something nested, or a dataclass."""
    if structure == "single" and len(values) == 1:
        return values[0]
    if structure == "list":
        return list(values)
    if structure == "dict":
        return {f"out-{number}": value for number, value in enumerate(values)}
    if structure == "nested":
        return {"a": values[0], "b": (None, list(values[1:])), "c": 3}
    if structure == "dataclass":
        return Answer(values[0], tuple(values[1:]))
    return tuple(values)


class Single(Net):
    """A network of one tensor, by an input name of its own."""

    def forward(self, image: Any) -> Any:
        return super().forward(image)


class Keyword(Net):
    """A network whose second input can only be given by name."""

    def forward(self, x: Any, *, scale: Any) -> Any:
        return super().forward(x, scale)


class Variadic(Net):
    """A network of any number of inputs."""

    def forward(self, *tensors: Any) -> Any:
        return super().forward(*tensors)
