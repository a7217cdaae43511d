"""Writing in place and layouts in memory: what an Identity in place of a BatchNorm would change in either."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from torch import Tensor, nn
from torch_networks import Code, calibrated, difference, verdicts

from bnfold.graphs.account import FoldOptions
from bnfold.graphs.torch.exported import fold_exported
from bnfold.graphs.torch.module import fold_module

ALL = FoldOptions()
MAPS = (2, 4, 7, 6)


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3)


def sum_with_its_input(m: Code, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.c(m.b(h).relu_()) + h[:, :, 1:-1, 1:-1]


def input_overwritten_later(m: Code, x: Tensor) -> Tensor:
    h = m.a(x)
    y = m.b(h)
    h.relu_()
    return m.c(y) + h[:, :, 1:-1, 1:-1]


def half_overwritten(m: Code, x: Tensor) -> Tensor:
    first, second = m.a(x).chunk(2, 1)
    return m.b(first).relu_() + second


def view_overwritten(m: Code, x: Tensor) -> Tensor:
    h = m.a(x)
    h[:, 0] += 1.0
    return m.b(h)


def input_overwritten(m: Code, x: Tensor) -> Tensor:
    return m.b(m.a(x.add_(1.0)))


BACK, FORTH, STAYS = ["backward"], ["forward"], ["structure"]
# Every row: the code, whether its norm shifts, and what becomes of it in a module and in a program.
IN_PLACE: dict[str, tuple[Callable[[Code, Tensor], Tensor], bool, list[str], list[str]]] = {
    "ReLU behind the norm": (lambda m, x: m.c(m.b(m.a(x)).relu_()), True, BACK, BACK),
    "two of them": (lambda m, x: m.b(m.a(x)).add_(1.0).relu_(), True, BACK, BACK),
    "ReLU behind dropout": (lambda m, x: m.c(m.drop(m.b(m.a(x))).relu_()), True, BACK, BACK),
    "sum": (lambda m, x: m.b(m.a(x)).add_(m.c(x)), True, BACK, BACK),
    "ReLU before the norm": (lambda m, x: m.c(m.b(m.a(x).relu_())), True, FORTH, FORTH),
    "ReLU behind views": (lambda m, x: m.b(m.a(x).transpose(2, 3)).relu_(), True, BACK, BACK),
    "norm of the input": (lambda m, x: m.c(m.b(x).relu_()), False, STAYS, FORTH),
    "value that others read": (sum_with_its_input, False, STAYS, FORTH),
    "result that a gradient needs": (lambda m, x: m.c(m.b(torch.sigmoid(m.a(x))).relu_()), False, STAYS, FORTH),
    "value overwritten later": (input_overwritten_later, True, STAYS, FORTH),
    "one of several views": (half_overwritten, True, STAYS, BACK),
    "value overwritten through a view": (view_overwritten, True, ["shared-value"], ["not-equivariant"]),
    "input overwritten": (input_overwritten, True, BACK, BACK),
}


def drawn(body: Callable[[Code, Tensor], Tensor], shift: bool) -> nn.Module:
    torch.manual_seed(0)
    width = 2 if body is half_overwritten else 4
    module = calibrated(Code(body, a=conv(), b=nn.BatchNorm2d(width), c=conv(), drop=nn.Dropout())).double()
    if not shift:
        with torch.no_grad():
            module.b.running_mean.zero_()
            module.b.bias.zero_()
    return module


def has_gradients(module: nn.Module, x: Tensor) -> bool:
    try:
        module(x).sum().backward()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("case", IN_PLACE)
def test_in_place(case: str) -> None:
    body, shift, expected, _ = IN_PLACE[case]
    module, x = drawn(body, shift), torch.randn(MAPS, dtype=torch.float64)
    folded = fold_module(module, x.clone(), ALL)
    assert verdicts(folded.sites) == expected
    mine, theirs = x.clone(), x.clone()
    assert difference(module(theirs), folded.model(mine)) < 1e-9
    assert torch.equal(mine, theirs)
    assert has_gradients(folded.model, x.clone()) == has_gradients(module, x.clone())


@pytest.mark.parametrize("case", IN_PLACE)
def test_in_place_in_a_program(case: str) -> None:
    body, shift, _, expected = IN_PLACE[case]
    module, x = drawn(body, shift), torch.randn(MAPS, dtype=torch.float64)
    folded = fold_exported(torch.export.export(module, (x.clone(),)), ALL)
    assert verdicts(folded.sites) == expected
    mine, theirs = x.clone(), x.clone()
    assert difference(module(theirs), folded.model.module()(mine)) < 1e-9
    assert torch.equal(mine, theirs)


def half(body: Callable[[Tensor], Tensor]) -> nn.Module:
    """The norm of the first half of a value, which lies in its memory with gaps; the norm's result has none."""
    torch.manual_seed(0)
    code = Code(lambda m, x: body(m.norm(m.conv(x).chunk(2, 1)[0])), conv=conv(), norm=nn.BatchNorm2d(2))
    return calibrated(code).double()


# Every row: what is made of the result of the norm, and what becomes of it in a module and in a program.
LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], list[str], list[str]]] = {
    "view": (lambda y: y.view(80), STAYS, BACK),
    "view behind an activation": (lambda y: torch.sigmoid(y).view(80), BACK, BACK),
    "view behind views": (lambda y: y.unsqueeze(0).squeeze(0).view(80), STAYS, BACK),
    "view behind a copy": (lambda y: (y.clone(memory_format=torch.contiguous_format) * 2).view(80), BACK, BACK),
    "reshape": (lambda y: y.reshape(80), BACK, BACK),
    "as_strided": (lambda y: y.as_strided((2, 3), (40, 1)), STAYS, ["unsupported"]),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts(case: str) -> None:
    body, expected, _ = LAYOUTS[case]
    module, x = half(body), torch.randn(MAPS, dtype=torch.float64)
    folded = fold_module(module, x, ALL)
    assert verdicts(folded.sites) == expected
    assert difference(module(x), folded.model(x)) < 1e-9


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts_in_a_program(case: str) -> None:
    body, _, expected = LAYOUTS[case]
    module, x = half(body), torch.randn(MAPS, dtype=torch.float64)
    folded = fold_exported(torch.export.export(module, (x,)), ALL)
    assert verdicts(folded.sites) == expected
    for program in (folded.model, folded.model.run_decompositions()):
        assert difference(module(x), program.module()(x)) < 1e-9


def test_channels_last_stays() -> None:
    module = calibrated(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU())).to(memory_format=torch.channels_last)
    x = torch.randn(MAPS).to(memory_format=torch.channels_last)
    folded = fold_module(module, x, ALL)
    assert verdicts(folded.sites) == BACK
    assert folded.model(x).is_contiguous(memory_format=torch.channels_last)
