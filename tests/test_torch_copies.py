"""The copy that a fold works on is what copy.deepcopy would make, whatever a class says of its own copying."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch
from torch import Tensor, nn
from torch_networks import IMAGES, calibrated, lenet

from bnfold.graphs.torch.copies import copied


class Cyclic(nn.Module):
    """A module that its child and a list know, too, without being registered there."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.ReLU()
        object.__setattr__(self.child, "parent", self)
        self.notes: list[Any] = [self, {"child": self.child}]

    def forward(self, x: Tensor) -> Tensor:
        return self.child(x)


class Counted(nn.Module):
    """A module that says itself how it is copied."""

    def __init__(self, copies: int = 0) -> None:
        super().__init__()
        self.copies = copies

    def __deepcopy__(self, memo: dict[int, Any]) -> Counted:
        return Counted(self.copies + 1)


class Restored(nn.Module):
    """A module that notes how it came to its state."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.restored = True


def test_values_are_copied_and_weights_blank_until_they_are_filled() -> None:
    module = calibrated(lenet())
    result, blanks = copied(module)
    assert len(blanks.pairs) == 2  # the weights of linear1 and linear2 are large
    blanks.fill_rest()
    for (name, a), (other, b) in zip(module.state_dict().items(), result.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()
    x = torch.randn(IMAGES)
    assert torch.equal(module(x), result(x))


def test_what_knows_each_other_still_does() -> None:
    module = nn.Sequential(Cyclic(), nn.Linear(3, 3))
    result, _ = copied(module)
    cyclic: Any = result[0]
    assert cyclic is not module[0]
    assert cyclic.child.parent is cyclic
    assert cyclic.notes == [cyclic, {"child": cyclic.child}]


def test_classes_that_say_how_they_are_copied() -> None:
    module = nn.Sequential(Counted(), Restored(), nn.RNN(2, 3))
    result, blanks = copied(module)
    blanks.fill_rest()
    expected = copy.deepcopy(module)
    assert result[0].copies == expected[0].copies == 1
    assert result[1].restored
    x = torch.randn(4, 2)
    assert torch.equal(result[2](x)[0], module[2](x)[0])


class Wrapper(nn.Module):
    """A module that looks at the module in it when it comes to its state."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.mode = self.inner.training


def test_a_wrapper_that_looks_inside_while_it_is_copied() -> None:
    result, _ = copied(nn.Sequential(Wrapper(nn.Linear(3, 3))).eval())
    assert result[0].mode is False
    assert isinstance(result[0].inner.weight, nn.Parameter)


def test_hooks_and_shared_layers() -> None:
    seen: list[nn.Module] = []
    shared = nn.Linear(3, 3)
    module = nn.Sequential(shared, nn.ReLU(), shared)
    module[1].register_forward_hook(lambda layer, args, y: seen.append(layer))
    result, _ = copied(module)
    assert result[0] is result[2]
    result(torch.randn(2, 3))
    assert seen == [result[1]]
    assert type(result[0]._forward_hooks) is OrderedDict
    result[0].register_forward_hook(lambda layer, args, y: None)
    assert not shared._forward_hooks


def test_a_compiled_call_is_left_behind() -> None:
    module = nn.Sequential(nn.ReLU())
    module.compile(backend="eager")
    result, _ = copied(module)
    assert result._compiled_call_impl is None
    assert module._compiled_call_impl is not None


def test_tensors_that_share_memory_still_do() -> None:
    module = nn.BatchNorm1d(4)
    module.register_buffer("first", torch.arange(6.0))
    module.register_buffer("same", module.first.view(2, 3))
    module.views = [module.first[1:3], {"mean": module.running_mean}]  # type: ignore[assignment]
    result: Any = copied(module)[0]
    assert result.first.data_ptr() == result.same.data_ptr() != module.first.data_ptr()
    assert result.views[0].data_ptr() == result.first[1:3].data_ptr()
    assert result.views[1]["mean"] is result.running_mean
    assert torch.equal(result.same, module.same)


def test_buffers_that_are_more_than_their_elements() -> None:
    module = nn.Module()
    module.register_buffer("row", torch.arange(8.0)[2:4])
    module.register_buffer("weight", torch.ones(3, requires_grad=True))
    module.weight.sum().backward()
    module.register_buffer("noted", torch.ones(2))
    module.noted.note = ["kept"]
    result, expected = copied(module)[0], copy.deepcopy(module)
    assert result.weight.requires_grad
    assert torch.equal(result.weight.grad, torch.ones(3))
    assert result.noted.note == ["kept"]
    assert result.row.untyped_storage().nbytes() == expected.row.untyped_storage().nbytes()


def test_attributes_that_are_one_object_stay_one() -> None:
    module = nn.Sequential(nn.ReLU(), nn.ReLU())
    table: dict[str, Any] = {"list": []}
    table["self"] = table
    module[0].table, module[1].table, module[1].inner = table, table, table["list"]
    result: Any = copied(module)[0]
    assert result[0].table is result[1].table is result[1].table["self"] is not table
    assert result[0].table["list"] is result[1].inner is not table["list"]
