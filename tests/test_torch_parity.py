"""One engine: a case has the same verdict as an ONNX model, as a program and, where it can carry it, as a module."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_networks import Code, Formula, calibrated, verdicts

import bnfold
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.exported import fold_exported
from bnfold.graphs.torch.module import fold_module
from models.networks import HandwrittenBatchNorm

pytest.importorskip("onnxscript", reason="the exporter of PyTorch needs it")

SHAPES = {"maps": (2, 3, 8, 7), "rows": (3, 5), "steps": (3, 4, 5)}
BACK, FORTH, NOT = "backward", "forward", "not-equivariant"


@dataclass(frozen=True, eq=False)
class Case:
    """A module, what it reads, and what becomes of its sites; `module` where the module cannot carry as much."""

    id: str
    make: Callable[[], nn.Module]
    verdicts: tuple[str, ...]
    reads: str = "maps"
    module: tuple[str, ...] | None = None


def row(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


def code(body: Callable[[Any, Tensor], Any], **parts: Any) -> Callable[[], nn.Module]:
    return lambda: Code(body, **copy.deepcopy(parts))


def conv(inner: int = 3, outer: int = 4, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, **options)


def norm(channels: int = 4, **options: Any) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, **options)


def read_twice(m: Code, x: Tensor) -> Tensor:
    y = m.c(x)
    return m.b(y) + y


def handed_out(m: Code, x: Tensor) -> tuple[Tensor, Tensor]:
    y = m.c(x)
    return y, m.b(y)


PRODUCTS = {"w": torch.rand(5, 4), "v": torch.rand(4), "u": torch.rand(4, 2), "b": nn.BatchNorm1d(4)}
CASES = [
    Case("conv, BN", row(conv(), norm()), (BACK,)),
    Case("conv without bias, BN", row(conv(bias=False), norm()), (BACK,)),
    Case("conv, BN without parameters", row(conv(), norm(affine=False)), (BACK,)),
    Case("conv, dropout, BN", row(conv(), nn.Dropout(), norm()), (BACK,)),
    Case("conv, average, BN", row(conv(), nn.AvgPool2d(2), norm()), (BACK,)),
    Case("conv, maximum, BN", row(conv(), nn.MaxPool2d(2), norm()), (BACK,)),
    Case("conv, upsampling, BN", row(conv(), nn.Upsample(scale_factor=2), norm()), (BACK,)),
    Case("conv, pixel shuffle, BN", row(conv(3, 8), nn.PixelShuffle(2), norm(2)), (BACK,)),
    Case("transposed conv in groups, BN", row(conv(), nn.ConvTranspose2d(4, 4, 3, groups=2), norm()), (BACK,)),
    Case("conv, ReLU, BN, conv", row(conv(), nn.ReLU(), norm(), conv(4, 2)), (FORTH,)),
    Case("conv, ReLU, BN, padded conv", row(conv(), nn.ReLU(), norm(), conv(4, 2, padding=1)), (NOT,)),
    Case("conv, sigmoid, BN", row(conv(), nn.Sigmoid(), norm()), (NOT,)),
    Case("conv, InstanceNorm, BN", row(conv(), nn.InstanceNorm2d(4, affine=True), norm()), (BACK,)),
    Case("LayerNorm, BN", row(nn.LayerNorm(5), nn.BatchNorm1d(5)), (BACK,), "rows"),
    Case(
        "sigmoid, handwritten BN, sigmoid",
        row(nn.Sigmoid(), HandwrittenBatchNorm(3, 4), nn.Sigmoid()),
        ("shortened",),
        module=(NOT,),
    ),
    Case("BN, conv", row(norm(3), conv()), (FORTH,)),
    Case("BN, BN", row(nn.Sigmoid(), norm(3), norm(3)), (NOT, "merged")),
    Case("conv, handwritten BN", row(conv(), HandwrittenBatchNorm(4, 4)), (BACK,)),
    Case("conv, formula of a BN", row(conv(), Formula(4)), (BACK,)),
    Case("sum of convs, BN", code(lambda m, x: m.b(m.c(x) + m.d(x)), c=conv(), d=conv(), b=norm()), (BACK,)),
    Case("residual, BN", code(lambda m, x: m.b(m.c(x) + x), c=nn.Conv2d(3, 3, 1), b=norm(3)), ("shared-value",)),
    Case(
        "concatenated convs, BN",
        code(lambda m, x: m.b(torch.cat([m.c(x), m.d(x)], 1)), c=conv(), d=conv(3, 2), b=norm(6)),
        (BACK,),
    ),
    Case("value read twice", code(read_twice, c=conv(), b=norm()), ("shared-value",)),
    Case("value handed out", code(handed_out, c=conv(), b=norm()), ("graph-output",)),
    Case("linear, BN", row(nn.Linear(5, 4), nn.BatchNorm1d(4)), (BACK,), "rows"),
    Case("linear without bias, BN", row(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4)), (BACK,), "rows"),
    Case("sigmoid, BN, ReLU, linear", row(nn.Sigmoid(), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)), (NOT,), "rows"),
    Case("linear, BN over the wrong axis", row(nn.Linear(5, 4), nn.BatchNorm1d(4)), ("off-channel",), "steps"),
    Case(
        "linear, transpose, BN",
        code(lambda m, x: m.b(m.l(x).transpose(1, 2)), l=nn.Linear(5, 4), b=nn.BatchNorm1d(4)),
        (BACK,),
        "steps",
    ),
    Case(
        "linear, flatten, BN",
        code(lambda m, x: m.b(m.l(x).flatten(0, 1)), l=nn.Linear(5, 4), b=nn.BatchNorm1d(4)),
        (BACK,),
        "steps",
    ),
    Case(
        "product, bias, BN, product",
        code(lambda m, x: torch.sigmoid(m.b(x @ m.w + m.v)) @ m.u, **PRODUCTS),
        (BACK,),
        "rows",
    ),
    Case(
        "product without bias, BN",
        code(lambda m, x: m.b(x @ m.w), **PRODUCTS),
        (BACK,),
        "rows",
        module=("structure",),
    ),
    Case(
        "one conv twice, BN",
        code(lambda m, x: m.b(m.c(m.c(x))), c=nn.Conv2d(3, 3, 1), b=norm(3)),
        (BACK,),
        module=("structure",),
    ),
    Case(
        "functional conv without bias, BN",
        code(lambda m, x: m.b(F.conv2d(x, m.w)), w=torch.rand(4, 3, 3, 3), b=norm()),
        (BACK,),
        module=("structure",),
    ),
]


class Everything(nn.Module):
    """All cases side by side, because an export takes its time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cases = nn.ModuleList(calibrated(case.make()) for case in CASES)

    def forward(self, maps: Tensor, rows: Tensor, steps: Tensor) -> list[Any]:
        given = {"maps": maps, "rows": rows, "steps": steps}
        return [module(given[case.reads]) for case, module in zip(CASES, self.cases, strict=True)]


INPUTS = tuple(torch.zeros(shape) for shape in SHAPES.values())
WORLDS: dict[str, Callable[[Any], Any]] = {
    "onnx": bnfold.fold,
    "program": lambda program: fold_exported(program, FoldOptions()),
    "module": lambda module: fold_module(module, INPUTS, FoldOptions()),
}


@pytest.fixture(scope="module")
def folded() -> dict[str, Any]:
    """What becomes of all cases in each world."""
    module = Everything().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(module, INPUTS, dynamo=True, optimize=False, verbose=False)
    given = {"onnx": exported.model_proto, "program": torch.export.export(module, INPUTS), "module": module}
    return {world: fold(given[world]) for world, fold in WORLDS.items()}


@pytest.mark.parametrize("at", range(len(CASES)), ids=[case.id for case in CASES])
def test_verdicts(at: int, folded: dict[str, Any]) -> None:
    case = CASES[at]
    mine = slice(start := sum(len(other.verdicts) for other in CASES[:at]), start + len(case.verdicts))
    found = {world: verdicts(result.sites)[mine] for world, result in folded.items()}
    assert found["onnx"] == list(case.verdicts)
    assert found["program"] == list(case.verdicts)
    assert found["module"] == list(case.module or case.verdicts)


@pytest.mark.parametrize("world", WORLDS)
def test_a_second_fold_changes_nothing(world: str, folded: dict[str, Any]) -> None:
    once = folded[world]
    twice = WORLDS[world](once.model)
    assert [site.name for site in twice.sites if site.folded] == []
    assert spelled(twice.model) == spelled(once.model)


def spelled(model: Any) -> str | bytes:
    """A model as text, or as bytes: its operators and what they read, and the elements of its weights."""
    if isinstance(model, onnx.ModelProto):
        return model.SerializeToString(deterministic=True)
    program = isinstance(model, torch.export.ExportedProgram)
    weights = model.state_dict if program else model.state_dict()
    held = {name: tensor.tolist() for name, tensor in weights.items()}
    return f"{model.graph_module.code if program else model} {held}"
