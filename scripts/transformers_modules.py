"""Fold real modules: the models of `transformers_models.py`, as modules, with what people do to a module afterwards.

    python scripts/transformers_modules.py [--only NAME] [--backend BACKEND] [--json FILE]

Nothing is downloaded: weights are random, BatchNorms have the statistics of random data. Every model goes through
`bnfold.fold(module, example_inputs=...)` in float64 and in float32 and is compared with the original, eager. The folded
one of float32 then has to

- survive `pickle`, or `copy.deepcopy` where the original cannot be pickled either, and load its own state dict into
  what came back, with the same answers to the bit,
- be compiled by `torch.compile`, with a backend that needs no compiler on the machine ("aot_eager") unless
  `--backend` names another one,
- be exported by `torch.export`.

Prints a Markdown table: the BatchNorms found and folded, those that stay by reason, chains of other operators that
spell a BatchNorm (folded of found), the largest error relative to the largest element of an output, and the three
checks. Below it, every BatchNorm that stays. Exits with 1 where anything of this fails or an error is too large, with 0
otherwise. A few minutes on two cores.

Needs the extra `torch` and the dependency group `zoo`.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import pickle
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers_cases import CASES, Case
from transformers_models import BATCH, drawn, prepared

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import bnfold

RTOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Row:
    """What became of one model. `kept` counts BatchNorms by reason; `failed` says what went wrong, if anything did."""

    model: str
    found: int = 0
    folded: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)
    chains_found: int = 0
    chains_folded: int = 0
    error_64: float = 0.0
    error_32: float = 0.0
    details: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def row(name: str, case: Case, backend: str) -> Row:
    """Fold a model in both types and put the result to use."""
    network, inputs = prepared(case), drawn(case, BATCH)
    failed: list[str] = []
    errors = {}
    for dtype in (torch.float64, torch.float32):
        module = copy.deepcopy(network).to(dtype)
        given = tuple(item.to(dtype) if item.is_floating_point() else item for item in inputs)
        result = bnfold.fold(module, example_inputs=given)
        with torch.no_grad():
            errors[dtype] = difference(module(*given), result.model(*given))
        if not errors[dtype] <= RTOL[dtype]:
            failed.append(f"{dtype}: error {errors[dtype]:.1e}, {RTOL[dtype]:.0e} allowed")
        if type(result.model) is not type(module):
            failed.append(f"{dtype}: a {type(result.model).__name__} came back")
    checks: dict[str, Callable[[nn.Module, tuple[Tensor, ...]], bool]] = {
        "pickle and load_state_dict": lambda folded, given: loads(folded, given, picklable(network)),
        f"torch.compile, {backend}": lambda folded, given: compiles(folded, given, backend),
        "torch.export": exports,
    }
    for what, check in checks.items():
        try:
            right = check(result.model, inputs)
        except Exception as error:  # whatever they raise; it becomes a row of the table
            failed.append(f"{what}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
        else:
            failed += [] if right else [f"{what}: other answers"]
    norms = [site for site in result.sites if site.op == "BatchNormalization"]
    chains = [site for site in result.sites if site.op != "BatchNormalization"]
    kept = [site for site in norms if not site.folded]
    return Row(
        name,
        found=len(norms),
        folded=len(norms) - len(kept),
        kept=dict(Counter(str(site.reason) for site in kept)),
        chains_found=len(chains),
        chains_folded=sum(site.folded for site in chains),
        error_64=errors[torch.float64],
        error_32=errors[torch.float32],
        details=tuple(f"'{site.name}': {site.reason} at '{site.blocker}': {site.detail}" for site in kept),
        failed=tuple(failed),
    )


def picklable(module: nn.Module) -> bool:
    try:
        pickle.dumps(module)
    except (AttributeError, RuntimeError):  # local functions as hooks; parametrizations
        return False
    return True


def loads(module: nn.Module, inputs: tuple[Tensor, ...], pickled: bool) -> bool:
    """Whether a module survives pickle, or a copy, and takes its own state dict."""
    again = pickle.loads(pickle.dumps(module)) if pickled else copy.deepcopy(module)  # noqa: S301 - pickled right here
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
        again.load_state_dict(module.state_dict())
        return all(torch.equal(a, b) for a, b in zip(module(*inputs), again(*inputs), strict=True))


def compiles(module: nn.Module, inputs: tuple[Tensor, ...], backend: str) -> bool:
    """Whether torch.compile takes a module."""
    torch.compiler.reset()
    with torch.no_grad():
        return difference(module(*inputs), torch.compile(module, backend=backend)(*inputs)) < RTOL[torch.float32]


def exports(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether torch.export takes a module."""
    program = torch.export.export(module, inputs, strict=False)
    with torch.no_grad():
        return difference(module(*inputs), program.module()(*inputs)) < RTOL[torch.float32]


def difference(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    """The largest error of an output relative to its largest element."""
    return max(float((x - y).abs().max() / x.abs().max()) for x, y in zip(a, b, strict=True))


def line(row: Row) -> str:
    """A row of the Markdown table."""
    kept = ", ".join(f"{count} {reason}" for reason, count in row.kept.items())
    chains = f"{row.chains_folded} of {row.chains_found}" if row.chains_found else ""
    verdict = "; ".join(row.failed) or "all"
    return (
        f"| {row.model} | {row.found} | {row.folded} | {kept} | {chains} | {row.error_64:.1e} | {row.error_32:.1e} "
        f"| {verdict} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=CASES, metavar="NAME", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--backend", default="aot_eager", help="of torch.compile (default: aot_eager)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, bnfold {bnfold.__version__}\n")
    print(
        f"| module | BN | folded | kept | chains | float64 | float32 | pickled, compiled ({args.backend}), exported |"
    )
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | --- |")
    done = []
    for name in args.only or CASES:
        try:
            done.append(row(name, CASES[name], args.backend))
        except Exception as error:  # a model that cannot be built or folded becomes a row, too
            done.append(Row(name, failed=(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",)))
        print(line(done[-1]), flush=True)
    print()
    for item in done:
        for detail in item.details:
            print(f"- {item.model}, {detail}")
    if args.json:
        args.json.write_text(json.dumps([asdict(item) for item in done], indent=1) + "\n")
    found, folded = sum(item.found for item in done), sum(item.folded for item in done)
    failed = sum(bool(item.failed) for item in done)
    print(f"\n{len(done)} modules, {folded} of {found} BatchNorms folded, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
