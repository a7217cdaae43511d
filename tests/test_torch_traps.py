"""What the code or the tree of a module cannot carry is refused, with a reason, and folds in its exported program."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch_networks import Code, calibrated, difference, verdicts

from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.exported import fold_exported
from bnfold.graphs.torch.module import fold_module
from models.networks import HandwrittenBatchNorm

ALL = FoldOptions()
MAPS = (2, 4, 7, 6)


def conv(inner: int = 4, outer: int = 4, kernel: int = 3, **options: int | bool | str) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, kernel, **options)


def norm(channels: int = 4, **options: bool) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, **options)


@dataclass(frozen=True, eq=False)
class Trap:
    """A module, what becomes of its sites, and words of the first one's detail. In a program all of them fold upward.

    That is but for those whose reason lies in the graph.
    """

    id: str
    make: Callable[[], nn.Module]
    expected: list[str]
    detail: str = ""
    shape: tuple[int, ...] = MAPS
    dtype: torch.dtype = torch.float64


def tied() -> nn.Module:
    module = nn.Sequential(conv(), norm(), conv())
    module[2].weight = module[0].weight
    return module


def code(body: Callable[[Code, Tensor], object], **parts: object) -> Callable[[], nn.Module]:
    return lambda: Code(body, **{name: copy.deepcopy(part) for name, part in parts.items()})


def hooked(name: str, kind: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module = Code(lambda m, x: m.norm(m.conv(x)), conv=conv(), norm=norm())
        getattr(getattr(module, name), f"register_{kind}")(lambda *_: None)
        return module

    return make


class Branches(nn.Module):
    """A convolution and a norm of a class of its own, beside others of the same objects."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(), norm()
        self.alias = self.norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Padding(nn.Conv2d):
    """A convolution that pads its input itself."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class Unbiased(nn.Conv2d):
    """A convolution that has no use for a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


class Lifted(nn.BatchNorm2d):
    """A norm that adds one to its result."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1.0


def features() -> nn.Sequential:
    return nn.Sequential(conv(padding=1), norm(), nn.ReLU())


def in_a_loop(m: Code, x: Tensor) -> Tensor:
    for layer in m.f:
        x = layer(x)
    return x


def by_mode(m: Code, x: Tensor) -> Tensor:
    return F.dropout(m.c(x)) if m.training else m.b(m.c(x))


def functional_norm(m: Code, x: Tensor) -> Tensor:
    return F.batch_norm(x, m.mean.detach(), m.var.detach(), m.gamma, m.beta)


def twice(x: Tensor) -> Tensor:
    return x + x.relu()


def without_gradients(m: Code, x: Tensor) -> Tensor:
    y = x * 2
    with torch.no_grad():
        y = m.b(m.c(y)).relu_()
    return y + 1


def spelled(m: Code, x: Tensor) -> Tensor:
    return x * m.s + m.t


STATISTICS = {
    "mean": torch.tensor([0.1, -0.2, 0.3, 0.4]),
    "var": torch.tensor([1.0, 2.0, 0.5, 1.5]),
    "gamma": torch.tensor([1.0, 0.5, 2.0, 1.5]),
    "beta": torch.tensor([0.0, 1.0, -1.0, 0.5]),
}
FACTORS = {"s": torch.rand(4, 1, 1), "t": torch.rand(4, 1, 1)}
WEIGHT = torch.randn((4, 4, 3, 3), generator=torch.Generator().manual_seed(0))
STAYS = ["structure"]
TRAPS = [
    Trap("one conv twice, one norm", code(lambda m, x: m.b(m.c(m.c(x))), c=conv(), b=norm()), STAYS, "used 2 times"),
    Trap(
        "one conv twice, one norm twice",
        code(lambda m, x: m.b(m.c(m.b(m.c(x)))), c=conv(), b=norm()),
        ["structure", "structure"],
        "'b' (BatchNorm2d) is called 2 times",
    ),
    Trap(
        "one conv twice, two norms",
        code(lambda m, x: m.b(m.c(m.a(m.c(x)))), c=conv(), a=norm(), b=norm()),
        ["structure", "structure"],
        "used 2 times",
    ),
    Trap(
        "two convs, one norm",
        code(lambda m, x: m.b(m.c(x)) + m.b(m.d(x)), c=conv(), d=conv(), b=norm()),
        ["structure", "structure"],
        "called 2 times",
    ),
    Trap("a norm read by two", code(lambda m, x: twice(m.b(m.c(x))), c=conv(), b=norm()), ["backward"]),
    Trap("under no_grad", code(without_gradients, c=conv(), b=norm()), ["backward"]),
    Trap("a conv read by two", code(lambda m, x: (lambda y: m.b(y) + y)(m.c(x)), c=conv(), b=norm()), ["shared-value"]),
    Trap(
        "Linear, BN1d on (N, L, F) with L = F",
        lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)),
        ["off-channel"],
        shape=(3, 4, 5),
    ),
    Trap(
        "functional conv of a parameter, with a bias",
        code(lambda m, x: m.b(F.conv2d(x, m.w, m.v)), w=WEIGHT, v=torch.zeros(4), b=norm()),
        ["backward"],
    ),
    Trap(
        "functional conv of a parameter, no bias",
        code(lambda m, x: m.b(F.conv2d(x, m.w)), w=WEIGHT, b=norm()),
        STAYS,
        "no bias that could take the shift",
    ),
    Trap(
        "functional conv of a layer's weight and missing bias",
        code(lambda m, x: m.b(F.conv2d(x, m.c.weight, m.c.bias)), c=conv(bias=False), b=norm()),
        ["backward"],
    ),
    Trap(
        "functional conv of a layer's weight alone",
        code(lambda m, x: m.b(F.conv2d(x, m.c.weight)), c=conv(bias=False), b=norm()),
        STAYS,
        "no bias that could take the shift",
    ),
    Trap(
        "conv with code of its own that reads its bias",
        code(lambda m, x: m.b(m.c(x)), c=Padding(4, 4, 3, bias=False), b=norm()),
        ["backward"],
    ),
    Trap(
        "conv with code of its own and of width 1",
        code(lambda m, x: m.b(m.c(x)), c=Padding(4, 1, 3, bias=False), b=norm(1)),
        ["backward"],
    ),
    Trap(
        "conv with code of its own that reads no bias",
        code(lambda m, x: m.b(m.c(x)), c=Unbiased(4, 4, 3, bias=False), b=norm()),
        STAYS,
        "no bias that could take the shift",
    ),
    Trap(
        "functional conv of a computed weight",
        code(lambda m, x: m.b(F.conv2d(x, m.w * 2, m.v)), w=WEIGHT, v=torch.zeros(4), b=norm()),
        STAYS,
        "is computed whenever the module runs",
    ),
    Trap(
        "functional conv of a tensor in the code",
        code(lambda m, x: m.b(F.conv2d(x, WEIGHT, m.v)), v=torch.zeros(4), b=norm()),
        STAYS,
        "neither a parameter nor a buffer",
        dtype=torch.float32,
    ),
    Trap(
        "functional norm",
        code(lambda m, x: functional_norm(m, m.c(x)), c=conv(), **STATISTICS),
        STAYS,
        "written out in the code of the model",
    ),
    Trap(
        "a norm spelled in the code of a larger module",
        lambda: nn.Sequential(Code(lambda m, x: functional_norm(m, m.c(x)), c=conv(), **STATISTICS), nn.ReLU()),
        STAYS,
        "written out in the code of '0' (Code), which does more",
    ),
    Trap("weight_norm", lambda: nn.Sequential(parametrizations.weight_norm(conv()), norm()), STAYS, "computed"),
    Trap("spectral_norm", lambda: nn.Sequential(parametrizations.spectral_norm(conv()), norm()), STAYS, "computed"),
    Trap("tied weights", tied, ["structure"], "are tied"),
    Trap("a norm under two names", Branches, STAYS, "registered under 2 names"),
    Trap(
        "a norm whose gamma is read elsewhere",
        code(lambda m, x: m.b(m.c(x)) * m.b.weight.sum(), c=conv(), b=norm()),
        STAYS,
        "'b.weight' is read outside of its module too",
    ),
    Trap("a hook on the conv", hooked("conv", "forward_hook"), ["shared-value"], "a hook of 'conv'"),
    Trap("a hook on the norm", hooked("norm", "forward_hook"), ["shared-value"], "a hook of 'norm'"),
    Trap("a hook before the norm", hooked("norm", "forward_pre_hook"), ["shared-value"], "a hook of 'norm'"),
    Trap(
        "a norm whose class does more",
        code(lambda m, x: m.b(m.c(x)), c=conv(), b=Lifted(4)),
        STAYS,
        "written out in the code of 'b' (Lifted), which does more",
    ),
    Trap("layers by their index", code(lambda m, x: m.f[1](m.f[0](x)), f=features()), ["backward"]),
    Trap("slices of a Sequential", code(lambda m, x: m.f[2:](m.f[:2](x)), f=features()), ["backward"]),
    Trap("a ModuleList in a loop", code(in_a_loop, f=nn.ModuleList([features(), features()])), ["backward"] * 2),
    Trap("code that depends on the mode", code(by_mode, c=conv(), b=norm()), ["backward"]),
    Trap(
        "a handwritten norm",
        code(lambda m, x: m.b(m.c(x)), c=conv(), b=Code(spelled, **FACTORS)),
        ["backward"],
    ),
    Trap(
        "a handwritten norm that gives two",
        code(lambda m, x: m.b(m.c(x))[0], c=conv(), b=Code(lambda m, x: (spelled(m, x), 0), **FACTORS)),
        STAYS,
        "takes or gives more than one tensor",
    ),
    Trap(
        "a handwritten norm that is called by name",
        code(lambda m, x: m.b(x=m.c(x)), c=conv(), b=HandwrittenBatchNorm(4, 4)),
        STAYS,
        "takes or gives more than one tensor",
    ),
]


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.id)
def test_traps(trap: Trap) -> None:
    torch.manual_seed(0)
    module = calibrated(trap.make()).to(trap.dtype)
    x = torch.randn(trap.shape, dtype=trap.dtype)
    folded = fold_module(module, x, ALL)
    assert verdicts(folded.sites) == trap.expected
    assert trap.detail in (folded.sites[0].detail or "")
    assert difference(module(x), folded.model(x)) < (1e-9 if trap.dtype is torch.float64 else 1e-5)
    if not any(site.folded for site in folded.sites):
        assert list(folded.model.state_dict()) == list(module.state_dict())


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.id)
def test_traps_in_a_program(trap: Trap) -> None:
    torch.manual_seed(0)
    module = calibrated(trap.make()).to(trap.dtype)
    x = torch.randn(trap.shape, dtype=trap.dtype)
    folded = fold_exported(torch.export.export(module, (x,)), ALL)
    in_graph = trap.expected if "hook" not in trap.id and "structure" not in trap.expected else ["backward"]
    assert verdicts(folded.sites) == in_graph * (len(trap.expected) // len(in_graph))
    assert difference(module(x), folded.model.module()(x)) < (1e-9 if trap.dtype is torch.float64 else 1e-5)
    gone = [site.name for site in folded.sites if site.folded and site.name in ("norm", "alias")]
    assert not any(name.startswith(("norm.", "alias.")) for name in folded.model.state_dict if gone)


def test_under_autocast() -> None:
    def mixed(m: Code, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.b(m.c(x)).float()

    module, x = calibrated(Code(mixed, c=conv(), b=norm())), torch.randn(MAPS)
    folded = fold_module(module, x, ALL)
    program = fold_exported(torch.export.export(module, (x,)), ALL)
    assert verdicts(folded.sites) == verdicts(program.sites) == ["backward"]
    assert [site.name for site in (*folded.sites, *program.sites)] == ["b", "b"]
    for run in (folded.model, program.model.module()):
        assert difference(module(x), run(x)) < 2e-2
