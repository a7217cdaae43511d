"""Side by side: what PyTorch's own tools and bnfold make of BatchNorms, and whether the answers are still right.

    python scripts/torch_rivals.py [--only PATTERN] [--brief]

The networks are those of the tests (tests/torch_literature.py), and a few in which a fold is easily wrong. All have
drawn statistics, are in evaluation mode, and go in float32 through

    fx          torch.fx.experimental.optimization.fuse
    ao          torch.ao.quantization.quantize_fx.fuse_fx, the automatic form of fuse_modules
    exporter    torch.onnx.export(dynamo=True, optimize=True), run on ONNX Runtime
    module      bnfold.fold of the module
    program     bnfold.fold of what torch.export makes of it
    ONNX        bnfold.fold of torch.onnx.export(dynamo=True, optimize=False), run on ONNX Runtime

ONNX Runtime runs without optimisations of its own. Prints a Markdown table: how many normalisations are left,
BatchNorms or chains of operators that spell one, of how many ("0 of 4"); in bold "wrong" with the error where the
answers differ from those of the eager module in float64 by more than a thousandth of their largest element, and "crash"
with the name of the exception; with `--brief` only the networks on which the tools differ. Below it, totals and the
largest error of each tool where it is right. Normalisations are counted by bnfold on the graph that a tool leaves.

Needs the extras `cpu` and `torch`, and onnxscript.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from graphs import runtime  # noqa: E402 (the folder of the tests has to be known first)
from torch_literature import MAPS, NETWORKS, norm  # noqa: E402
from torch_networks import Code, calibrated  # noqa: E402

import bnfold  # noqa: E402

RIGHT = 1e-3

Case = tuple[Callable[[], nn.Module], tuple[int, ...]]


def twice() -> nn.Module:
    """One convolution, called twice, with a norm of its own behind each call."""
    return Code(lambda m, x: m.b(m.c(m.a(m.c(x)))), c=nn.Conv2d(3, 3, 1), a=norm(4, 3), b=norm(4, 3))


def shared_norm() -> nn.Module:
    """Two convolutions and one norm."""
    return Code(lambda m, x: m.b(m.c(x)) + m.b(m.d(x)), c=nn.Conv2d(3, 4, 3), d=nn.Conv2d(3, 4, 3), b=norm(4))


def tied() -> nn.Module:
    """Two convolutions of one weight, one with a norm."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1), norm(4, 3), nn.Conv2d(3, 3, 1))
    network[2].weight = network[0].weight
    return network


def read_twice() -> nn.Module:
    """A convolution whose result is read beside the norm, too."""
    return Code(lambda m, x: (lambda y: m.b(y) + y)(m.c(x)), c=nn.Conv2d(3, 4, 3), b=norm(4))


TRAPS: dict[str, Case] = {
    "Linear, BN over the other axis, L = F": (
        lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)),
        (3, 4, 5),
    ),
    "Linear, transpose, BN": (
        lambda: Code(lambda m, x: m.b(m.l(x).transpose(1, 2)), l=nn.Linear(5, 4), b=nn.BatchNorm1d(4)),
        (3, 7, 5),
    ),
    "one conv twice, two norms": (twice, MAPS),
    "two convs, one norm": (shared_norm, MAPS),
    "tied weights": (tied, MAPS),
    "conv read twice": (read_twice, MAPS),
    "sum of convs, BN": (
        lambda: Code(lambda m, x: m.b(m.c(x) + m.d(x)), c=nn.Conv2d(3, 4, 3), d=nn.Conv2d(3, 4, 3), b=norm(4)),
        MAPS,
    ),
    "weight_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), norm(4)),
        MAPS,
    ),
}
CASES: dict[str, Case] = {**{name: (make, shape) for name, (make, shape, sites) in NETWORKS.items() if sites}, **TRAPS}


@dataclass(frozen=True)
class Outcome:
    """What a tool leaves: how many normalisations, how large an error, or the name of an exception."""

    left: int = 0
    error: float = 0.0
    crash: str = ""

    @property
    def is_right(self) -> bool:
        return not self.crash and self.error <= RIGHT

    def cell(self, found: int) -> str:
        if self.crash:
            return f"**crash** ({self.crash})"
        return f"{self.left} of {found}" if self.is_right else f"**wrong** ({self.error:.1g})"


def of_module(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """How many normalisations are left in a module, and its answer."""
    return len(bnfold.fold(torch.export.export(module, (x,))).sites), module(x)


def of_onnx(model: onnx.ModelProto, x: Tensor) -> tuple[int, Tensor]:
    (answer,) = runtime(model)({model.graph.input[0].name: x.numpy()})
    return len(bnfold.fold(model).sites), torch.from_numpy(answer)


def fx(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    from torch.fx.experimental.optimization import fuse

    return of_module(fuse(module), x)


def ao(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    from torch.ao.quantization.quantize_fx import fuse_fx

    return of_module(fuse_fx(module), x)


def exported(module: nn.Module, x: Tensor, *, optimize: bool) -> onnx.ModelProto:
    return torch.onnx.export(module, (x,), dynamo=True, optimize=optimize, verbose=False).model_proto


TOOLS: dict[str, Callable[[nn.Module, Tensor], tuple[int, Tensor]]] = {
    "fx": fx,
    "ao": ao,
    "exporter": lambda module, x: of_onnx(exported(module, x, optimize=True), x),
    "bnfold, module": lambda module, x: of_module(bnfold.fold(module, example_inputs=x).model, x),
    "bnfold, program": lambda module, x: of_module(bnfold.fold(torch.export.export(module, (x,))).model.module(), x),
    "bnfold, ONNX": lambda module, x: of_onnx(bnfold.fold(exported(module, x, optimize=False)).model, x),
}


def outcome(tool: Any, module: nn.Module, x: Tensor, exact: Tensor) -> Outcome:
    """What a tool makes of a copy of a module."""
    try:
        left, answer = tool(copy.deepcopy(module), x)
    except Exception as error:  # the tools raise what they like; it becomes a cell of the table
        return Outcome(crash=type(error).__name__)
    return Outcome(left, float((answer.double() - exact).abs().max() / exact.abs().max()))


@torch.no_grad()
def compared(name: str) -> tuple[int, dict[str, Outcome]]:
    """The normalisations of a network, and what becomes of them."""
    make, shape = CASES[name]
    torch.manual_seed(0)
    module, x = calibrated(make()), torch.randn(shape)
    exact = copy.deepcopy(module).double()(x.double())
    found, _ = of_module(module, x)
    return found, {tool: outcome(run, module, x, exact) for tool, run in TOOLS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="shell-style pattern on the names of networks")
    parser.add_argument("--brief", action="store_true", help="leave out the networks on which all tools do the same")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print(f"| network | {' | '.join(TOOLS)} |")
    print(f"| --- |{' --- |' * len(TOOLS)}")
    total, done = 0, []
    for name in fnmatch.filter(CASES, args.only):
        found, outcomes = compared(name)
        total += found
        done.append(outcomes)
        row = [item.cell(found) for item in outcomes.values()]
        if not args.brief or len(set(row)) > 1:
            print(f"| {name} | {' | '.join(row)} |", flush=True)
    cells = []
    for tool in TOOLS:
        mine = [outcomes[tool] for outcomes in done]
        wrong, crashed = (
            sum(not item.crash and not item.is_right for item in mine),
            sum(bool(item.crash) for item in mine),
        )
        cells.append(f"{sum(item.left for item in mine if item.is_right)} left, {wrong} wrong, {crashed} crashed")
    print(f"| **all: {total} in {len(done)} networks** | {' | '.join(cells)} |")
    print()
    for tool in TOOLS:
        errors = [outcomes[tool].error for outcomes in done if outcomes[tool].is_right]
        print(f"- largest error of {tool} where it is right: {max(errors, default=0.0):.1e}")


if __name__ == "__main__":
    main()
