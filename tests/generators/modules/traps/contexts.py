"""Traps: contexts and transforms of torch around parts of a network, and outputs of other kinds."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from generators.modules.dice import Arguments
from generators.modules.net import Answer
from generators.modules.traps import Parts, family

Corner = namedtuple("Corner", ["first", "second"])


class Stages(nn.Module):
    """Stages in a list, whose number Python knows, in contexts of every kind."""

    def __init__(self, parts: Parts, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.stages = nn.ModuleList([nn.Sequential(*parts.pair(), parts.activation()) for _ in range(3)])
        self.heads = nn.ModuleDict({"a-0": parts.norm(), "1x1": parts.linear()})
        self.count = parts.dice.between(1, 3)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(self.count):
            x = self.stages[i](x)
        return self.heads["a-0"](self.heads["1x1"](x))

    def forward(self, x: torch.Tensor) -> Any:
        return CONTEXTS[self.mode](self, x)


def _checkpoint(m: Stages, x: torch.Tensor) -> Any:
    return torch.utils.checkpoint.checkpoint_sequential(list(m.stages), 2, x, use_reentrant=False)


def _no_grad_half(m: Stages, x: torch.Tensor) -> Any:
    with torch.no_grad():
        h = m.stages[0](x)
    return m.run(h)


def _between(m: Stages, x: torch.Tensor) -> Any:
    h = m.stages[0][0](x)
    with torch.no_grad():
        h = m.stages[0][1](h)
    return m.stages[1](h)


def _inference(m: Stages, x: torch.Tensor) -> Any:
    with torch.inference_mode():
        return m.run(x)


def _grad_off(m: Stages, x: torch.Tensor) -> Any:
    with torch.set_grad_enabled(False):
        h = m.stages[0][0](x)
    return m.stages[0][1](h)


def _autocast(m: Stages, x: torch.Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = m.run(x)
    return h.to(x.dtype)


def _autocast_between(m: Stages, x: torch.Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = m.stages[0][0](x)
    return m.stages[0][1](h.to(x.dtype))


def _cond_norm(m: Stages, x: torch.Tensor) -> Any:
    h = m.heads["1x1"](x)
    return torch.cond(h.mean() > 0, m.heads["a-0"], lambda t: t * 2, (h,))


def _cond_both(m: Stages, x: torch.Tensor) -> Any:
    return torch.cond(x.mean() > 0, m.stages[0], m.stages[1], (x,))


def _cond_shared(m: Stages, x: torch.Tensor) -> Any:
    h = torch.cond(x.mean() > 0, m.stages[0], lambda t: m.stages[0](t) + 1, (x,))
    return m.stages[0][1](h)


def _cond_then_norm(m: Stages, x: torch.Tensor) -> Any:
    h = torch.cond(x.mean() > 0, m.heads["1x1"], m.stages[0][0], (x,))
    return m.heads["a-0"](h)


def _while(m: Stages, x: torch.Tensor) -> Any:
    from torch._higher_order_ops.while_loop import while_loop

    start = (torch.zeros((), dtype=torch.long), x)
    _, h = while_loop(lambda i, t: i < 2, lambda i, t: (i + 1, m.heads["a-0"](t)), start)
    return m.heads["1x1"](h)


def _vmap(m: Stages, x: torch.Tensor) -> Any:
    return torch.vmap(lambda t: m.run(t[None])[0])(x)


def _functional_call(m: Stages, x: torch.Tensor) -> Any:
    weights = {name: p * 0.5 for name, p in m.stages.named_parameters()}
    prefixed = {f"0.{name[2:]}": p for name, p in weights.items() if name.startswith("0.")}
    return torch.func.functional_call(nn.Sequential(m.stages[0]), prefixed, (x,))


def _functional_norm(m: Stages, x: torch.Tensor) -> Any:
    norm = m.heads["a-0"]
    h = m.heads["1x1"](x)
    return torch.func.functional_call(norm, {"running_mean": norm.running_mean + 1.0}, (h,)) + norm(h)


def _gradient(m: Stages, x: torch.Tensor) -> Any:
    return torch.func.grad(lambda t: m.run(t).square().sum())(x)


def _jvp(m: Stages, x: torch.Tensor) -> Any:
    return torch.func.jvp(m.run, (x,), (torch.ones_like(x),))[1]


def _map(m: Stages, x: torch.Tensor) -> Any:
    from torch._higher_order_ops.map import map as each

    return each(lambda t: m.heads["1x1"](m.heads["a-0"](t[None]))[0], x)


def _profiled(m: Stages, x: torch.Tensor) -> Any:
    with torch.profiler.record_function("stage"):
        return m.run(x)


def _reversed(m: Stages, x: torch.Tensor) -> Any:
    for stage in reversed(m.stages):
        x = stage(x)
    return x


def _sliced(m: Stages, x: torch.Tensor) -> Any:
    for stage in m.stages[1:]:
        x = stage[:2](x)
    return x


def _temporary(m: Stages, x: torch.Tensor) -> Any:
    return nn.Sequential(m.heads["1x1"], m.heads["a-0"])(x)


def _temporary_norm(m: Stages, x: torch.Tensor) -> Any:
    norm = nn.Identity() if m.count == 1 else m.heads["a-0"]
    return norm(m.stages[0][0](x))


def _copied(m: Stages, x: torch.Tensor) -> Any:
    return copy.copy(m.heads["a-0"])(m.heads["1x1"](x))


def _early_exit(m: Stages, x: torch.Tensor) -> Any:
    outs = []
    for i, stage in enumerate(m.stages):
        x = stage(x)
        if i + 1 == m.count:
            break
        outs.append(x)
    return outs, x


def _features(m: Stages, x: torch.Tensor) -> Any:
    outs: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name, stage in m.stages.named_children():
        outs[name] = x = stage(x)
    return outs


def _drop_path(m: Stages, x: torch.Tensor) -> Any:
    for stage in m.stages:
        x = x + F.dropout2d(stage(x), 0.3, m.training) if x.dim() == 4 else x + stage(x)
    return x


def _multi_sample(m: Stages, x: torch.Tensor) -> Any:
    return torch.stack([m.run(t) for t in (x, x.flip(0))]).mean(0)


def _dense(m: Stages, x: torch.Tensor) -> Any:
    feats = [x]
    for stage in m.stages:
        feats.append(stage(sum(feats)))
    return torch.cat(feats, 1)


def _answer(m: Stages, x: torch.Tensor) -> Any:
    return Answer(m.run(x), [m.stages[0](x)])


def _corner(m: Stages, x: torch.Tensor) -> Any:
    return Corner(m.run(x), x)


def _mixed_outputs(m: Stages, x: torch.Tensor) -> Any:
    return {"x": m.run(x), "n": 3, "none": None, "flag": True, "text": "a", "same": [x, x]}


def _half_outputs(m: Stages, x: torch.Tensor) -> Any:
    return m.run(x).half(), m.run(x).int(), m.run(x) > 0


CONTEXTS: dict[str, Callable[[Stages, torch.Tensor], Any]] = {
    function.__name__[1:]: function
    for function in (
        *(_checkpoint, _no_grad_half, _between, _inference, _grad_off, _autocast, _autocast_between, _cond_norm),
        *(_cond_both, _cond_shared, _cond_then_norm, _while, _vmap, _functional_call, _functional_norm, _gradient),
        *(_jvp, _map, _profiled, _reversed, _sliced, _temporary, _temporary_norm, _copied, _early_exit, _features),
        _drop_path,
        *(_multi_sample, _dense, _answer, _corner, _mixed_outputs, _half_outputs),
    )
}


def contexts(parts: Parts, mode: str) -> tuple[nn.Module, Arguments]:
    return parts.done(Stages(parts, mode))


family(list(CONTEXTS), contexts, "context")
