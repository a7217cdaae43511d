"""The laws of the module form: a module in, a module of the same class out."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import bnfold
from generators.modules.cases import cloned
from generators.modules.court import Court, can, exported, told
from generators.modules.values import changes, copied, difference, digest, state


def module_laws(court: Court, may_fail: bool, thorough: bool) -> Any:
    """Fold the module of a case, and hold the result to the original; the result, if there is one."""
    case, model = court.case, court.model
    inputs = court.arguments()
    if inputs is None:
        return None
    before, given = digest(model), cloned(inputs)
    result = court.told(lambda: bnfold.fold(model, example_inputs=inputs), "fold", may_fail)
    if moved := changes(before, digest(model)):
        court.fail("module unchanged", "; ".join(moved[:4]))
    if text := difference(pytree.tree_leaves(inputs), pytree.tree_leaves(given), 0.0):
        court.fail("example inputs", text)
    if result is None:
        return None
    folded = result.model
    court.out.sites = result.sites
    account(court, result)
    if type(folded).__name__ not in (type(model).__name__, type(copied(model)).__name__):
        court.fail("module class", f"{type(folded).__name__} instead of {type(model).__name__}")
    if folded is model:
        court.fail("module copy", "the result is the module that was given")
    if any(module.training for module in folded.modules()) and not any(m.training for m in model.modules()):
        court.fail("module flags", "something is in training mode")
    if court.same("module outputs", folded):  # what follows from a wrong result is not told once more
        for law, batch in zip(("batch", "sizes"), case.batches, strict=False):
            if batch is not None:
                court.same(f"module outputs, other {law}", folded, [batch])
        _fidelity(court, folded)
        _gradients(court, folded)
        _carried(court, folded)
        if thorough or any(site.folded for site in result.sites):
            _second(court, folded, inputs, may_fail)
        elif not result.sites and changes(state(copied(model)), state(folded)):
            court.fail("module outputs", "nothing is folded, and yet the state has changed")
        if thorough:
            _exported(court, folded, may_fail)
            _in_place(court, result, inputs)
            _selected(court, result, inputs)
    if changes(before, digest(model)):
        court.fail("module unchanged", "after the result was used")
    return result


def account(court: Court, result: Any) -> None:
    """Every site has a name of its own, and a reason exactly if it is kept."""
    names = [site.name for site in result.sites]
    if len(set(names)) != len(names):
        court.fail("account", f"names twice: {names}")
    for site in result.sites:
        if (site.status == "kept") != bool(site.reason) or (site.reason and not site.detail):
            court.fail("account", f"a site without a reason or with one too many: {site.name}")


def _fidelity(court: Court, folded: nn.Module) -> None:
    """What is left of the tree is as it was: types, layouts, flags, ties."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in court.model.modules()):
        return  # whose tables of parameters are of another kind
    # A copy of a graph module is not in every trait as the graph module, and a copy is what can be had.
    mine, theirs = dict(copied(court.model).named_modules()), dict(folded.named_modules())
    if extra := set(theirs) - set(mine):
        court.fail("module tree", f"new modules: {sorted(extra)[:3]}")
    for name, old in mine.items():
        new = theirs.get(name)
        if new is None or (type(new) is nn.Identity and type(old) is not nn.Identity):
            continue
        if type(new) is nn.Sequential and isinstance(old, nn.modules.batchnorm._NormBase):
            continue  # a normalisation with layers of its own, of which the layers are left
        if type(new).__name__ != type(copied(old)).__name__:
            court.fail("module tree", f"{name} is a {type(new).__name__} and was a {type(old).__name__}")
            continue
        if list(vars(old)) != list(vars(new)) and set(vars(old)) != set(vars(new)):
            court.fail("module tree", f"{name} has other attributes: {sorted(set(vars(old)) ^ set(vars(new)))}")
        if old._non_persistent_buffers_set != new._non_persistent_buffers_set:
            court.fail("module tree", f"{name} has other buffers that are not persistent")
        for key, value in [*old._parameters.items(), *old._buffers.items()]:
            other = new._parameters.get(key, new._buffers.get(key))
            if value is None or other is None:
                if value is not None:
                    court.fail("module tree", f"{name}.{key} is gone")
                continue
            traits = [(type(t).__name__, t.dtype, tuple(t.shape), t.device, t.requires_grad) for t in (value, other)]
            if traits[0] != traits[1]:
                court.fail("module tree", f"{name}.{key} was {traits[0]} and is {traits[1]}")
            if value.dim() == 4 and _last(value) and not _last(other):
                court.fail("module tree", f"{name}.{key} has lost its memory format")


def _last(value: torch.Tensor) -> bool:
    return value.is_contiguous(memory_format=torch.channels_last)


def _gradients(court: Court, folded: nn.Module) -> None:
    """The same function has the same derivative by its input."""
    found: list[Any] = []
    for model in (court.model, folded):
        args, kwargs = cloned(court.case.example)
        leaves = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        leaves = [t.requires_grad_() for t in leaves if t.is_floating_point()]
        try:
            outs = [t for t in pytree.tree_leaves(copied(model)(*args, **kwargs)) if isinstance(t, torch.Tensor)]
            total: Any = sum(t.double().sin().sum() for t in outs if t.is_floating_point())
            grads = torch.autograd.grad(total, leaves, allow_unused=True)
            found.append([torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves, strict=True)])
        except Exception as error:
            found.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    first, second = found
    if isinstance(first, str) or not any(g.any() for g in first) or any(not torch.isfinite(g).all() for g in first):
        return  # no derivative, or one that tells nothing
    if isinstance(second, str):
        court.fail("module gradients", f"the result has none: {second}")
    elif court.dtype is torch.float64 and max((float(g.abs().max()) for g in first if g.numel()), default=0) > 1e-8:
        text = difference(second, first, 1e-6)
        if text:
            court.fail("module gradients", text)


def _carried(court: Court, folded: nn.Module) -> None:
    """A copy, a pickle and a state dict of the result, where the original has them."""
    for law, function in (("copy", copy.deepcopy), ("pickle", lambda m: pickle.loads(pickle.dumps(m)))):  # noqa: S301
        if not can(lambda make=function: make(court.model)):
            continue
        try:
            carried = function(folded)
        except Exception as error:
            court.fail(f"module {law}", told(error))
            continue
        court.same(f"module {law}", carried)
    if can(lambda: copy.deepcopy(court.model).load_state_dict(copy.deepcopy(court.model).state_dict())):
        try:
            copy.deepcopy(folded).load_state_dict(folded.state_dict())
        except Exception as error:
            court.fail("module state dict", told(error))


def _exported(court: Court, folded: nn.Module, may_fail: bool) -> None:
    """The result can be exported where the original can, to a program that is the original."""
    if may_fail or not court.agrees:
        return
    try:
        program = exported(copied(folded), court.case.example)
    except Exception as error:
        court.fail("module export", told(error))
        return
    court.same("module export", program.module())


def _second(court: Court, folded: nn.Module, inputs: Any, may_fail: bool) -> None:
    before = state(folded)
    second = court.told(lambda: bnfold.fold(folded, example_inputs=cloned(inputs)), "second fold", may_fail)
    if second is None:
        return
    if moved := [site.name for site in second.sites if site.folded]:
        court.fail("second fold", f"folds what the first did not: {moved[:3]}")
    elif moved := changes(before, state(second.model)):
        court.fail("second fold", f"the state changes: {moved[:3]}")


def _in_place(court: Court, result: Any, inputs: Any) -> None:
    model = copied(court.model)
    if model is court.model:
        return
    other = court.told(lambda: bnfold.fold(model, example_inputs=cloned(inputs), inplace=True), "inplace")
    if other is None:
        return
    if other.model is not model:
        court.fail("inplace", "another module comes back")
    if moved := changes(state(result.model), state(other.model)):
        court.fail("inplace", f"other weights than out of place: {moved[:3]}")
    if [(s.name, s.status) for s in other.sites] != [(s.name, s.status) for s in result.sites]:
        court.fail("inplace", "other sites than out of place")
    court.same("inplace outputs", other.model)


def _selected(court: Court, result: Any, inputs: Any) -> None:
    """With one site left out the rest still is the same function."""
    names = [site.name for site in result.sites if site.folded]
    if len(names) < 2:
        return
    name = names[0].replace("[", "[[]")
    part = court.told(lambda: bnfold.fold(court.model, example_inputs=cloned(inputs), skip=[name]), "skip")
    if part is None:
        return
    left = [site for site in part.sites if site.name == names[0]]
    if left and left[0].folded:
        court.fail("skip", "the site that was left out has folded")
    court.same("skip outputs", part.model)
