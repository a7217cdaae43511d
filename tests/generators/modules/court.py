"""What the laws share: the case, what the original answers, how a result is held to it, and how errors are told."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import bnfold
from generators.modules.cases import TorchCase, cloned
from generators.modules.dice import Arguments
from generators.modules.values import RTOL, answers, copied, difference, noise, widened
from generators.verdict import Verdict

# What bnfold says that it does not take.
REFUSED = ("cannot be copied", "is compiled", "on the meta device", "wraps the module to fold")


class Court:
    """One case, and what is noted of it."""

    def __init__(self, case: TorchCase, out: Verdict) -> None:
        self.case, self.out, self.model = case, out, case.model
        self.inputs = [case.example, *case.more]
        self.dtype = dtype_of(case)
        self.named = bool(case.example[0]) and bool(case.example[1])
        self.wanted: list[Any] = []
        self.moved: list[Any] | None = None
        self.agrees = True  # whether torch's program is the module

    def hear(self) -> None:
        """Let the original answer, and once more with parameters that are off by a rounding."""
        self.wanted = answers(self.model, self.inputs)
        self.moved = noise(self.model, self.inputs, self.dtype)

    def fail(self, law: str, text: str) -> None:
        self.out.failures.append(f"{law}: {text}")

    def arguments(self) -> Any:
        """The example inputs as bnfold takes them, or None where there is no way to give them."""
        args, kwargs = cloned(self.case.example)
        if not self.named:
            return kwargs if kwargs and not args else args
        parameters = inspect.signature(self.model.forward).parameters.values()
        names = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        if len(names) < len(args):
            return None
        return dict(zip(names, args, strict=False)) | kwargs

    def told(self, function: Callable[[], Any], law: str, may_fail: bool = False) -> Any:
        """The result of a call of bnfold; its errors must be its own and of one line."""
        try:
            return function()
        except bnfold.BnfoldError as error:
            text = str(error).strip()
            if "\n" in text or not text:
                self.fail(law, f"of several lines or none: {text[:200]!r}")
            if not may_fail and not any(words in text for words in REFUSED):
                self.fail(law, f"refused: {type(error).__name__}: {text[:300]}")
        except Exception as error:
            self.fail(law, f"crash: {told(error)}")
        return None

    def same(self, law: str, function: Any, inputs: list[Arguments] | None = None) -> bool:
        """Whether a callable gives the outputs of the original, and leaves the arguments as the original does."""
        own = inputs is None
        inputs = self.inputs if inputs is None else inputs
        wanted = self.wanted if own else answers(self.model, inputs)
        moved = self.moved if own else noise(self.model, inputs, self.dtype)
        try:
            found = answers(function, inputs)
        except Exception as error:
            self.fail(law, f"the result does not run: {told(error)}")
            return False
        for number, ((outs, left), (outs2, left2)) in enumerate(zip(found, wanted, strict=True)):
            off = moved[number] if moved is not None else None
            text = difference(outs, outs2, self.rtol(), off)
            if text and self.dtype is not torch.float64 and self.excused(function, inputs, number):
                text = ""
            if text:
                self.fail(law, f"on input {number} {text}")
                return False
            if text := difference(left, left2, self.rtol()):
                self.fail(law, f"the arguments are left otherwise: {text.replace('output', 'argument')}")
                return False
        return True

    def rtol(self) -> float:
        return max(RTOL[self.dtype], 3e-2 if self.case.coarse else 0.0)

    def excused(self, function: Any, inputs: list[Arguments], number: int) -> bool:
        """Whether the two are the same in double, apart from the rounding of the weights."""
        if not isinstance(function, nn.Module):
            return False
        a, b = widened(function, inputs), widened(self.model, inputs)
        if a is None or b is None:
            return False
        try:
            outs, wanted = (answers(model, given)[number][0] for model, given in (a, b))
            return not difference(outs, wanted, 10 * self.rtol())
        except Exception:
            return False

    def torch_agrees(self, program: Any, inputs: list[Arguments] | None = None) -> bool:
        """Whether a program of torch is the module that it was made of."""
        quiet = Court(self.case, Verdict(0))
        quiet.wanted, quiet.moved = self.wanted, self.moved
        try:
            return quiet.same("torch", program.module(), inputs)
        except Exception:
            return False


def exported(model: nn.Module, arguments: Arguments, dynamic: str = "") -> torch.export.ExportedProgram:
    """The program of a module on copies of its arguments, with symbolic sizes of the first axis or of all."""
    args, kwargs = cloned(arguments)
    shapes: Any = None
    if dynamic:
        dim = torch.export.Dim.AUTO

        def shape(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not value.dim():
                return None
            return dict.fromkeys(range(1 if dynamic == "batch" else value.dim()), dim)

        if kwargs:
            raise ValueError("named arguments are not tried with symbolic sizes")
        shapes = pytree.tree_map(shape, args)
        parameters = inspect.signature(model.forward).parameters.values()
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
            shapes = (shapes,)
    return torch.export.export(model, args, kwargs or None, dynamic_shapes=shapes, strict=False)


def dtype_of(case: TorchCase) -> torch.dtype:
    """The least exact type that takes part."""
    leaves = [t for t in pytree.tree_leaves(case.example) if isinstance(t, torch.Tensor)]
    leaves += [*case.model.parameters(), *case.model.buffers()]
    kinds = {t.dtype for t in leaves if t.is_floating_point()} or {torch.float64}
    return max(kinds, key=lambda kind: RTOL.get(kind, 1.0))


def again(model: nn.Module, arguments: Arguments) -> torch.export.ExportedProgram:
    return exported(copied(model), arguments)


def told(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"


def can(function: Callable[[], Any]) -> bool:
    """Whether something works, whatever it says when it does not."""
    try:
        function()
    except Exception:
        return False
    return True
