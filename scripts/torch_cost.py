"""What folding a module costs beyond the torch.export that it takes: ResNet-50, in time and in memory.

    python scripts/torch_cost.py [--rounds N]

Builds the ResNet-50 of the transformers library from its configuration (random weights, nothing is downloaded) and
takes turns, in an order drawn anew for every round: `torch.export.export(module, ...)` alone, `bnfold.fold` of the
module, `bnfold.fold(..., inplace=True)`, and, as a yardstick for what a second module in memory costs at least,
`copy.deepcopy(module)`. Each runs on a copy made beforehand, which no other has seen. Python's garbage is collected
before each, outside of the clock: an export leaves a graph behind, and whose turn it is to clear it away is chance.
What a run gives is let go after it.

Prints a Markdown table of medians, and how much of an export comes on top of one: the median over the rounds of
(fold - export) / export, and of copy / export. A fold traces without noting lines of code, where PyTorch can be told
so, and that takes less than an export as users run it; so the next column has what a fold spends outside of its own
trace, as a part of an export of the user's. The one after it sets the time on top against an export with
`strict=True`, which reads the code by way of Dynamo; folds take the other one, as it traces more models.

Memory is the peak of a process of its own, above what it held before, after it has folded the module once: less that
of an export, and in terms of the module's weights. It is read where the system is Linux.

Needs the extra `torch` and the dependency group `zoo`.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers as hf
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import bnfold

INPUTS = {"pixel_values": torch.zeros(1, 3, 224, 224)}


def network() -> nn.Module:
    """ResNet-50 in evaluation mode."""
    torch.manual_seed(0)
    return hf.ResNetForImageClassification(hf.ResNetConfig()).eval()


def export(module: nn.Module) -> object:
    return torch.export.export(module, (), INPUTS, strict=False)


def fold(module: nn.Module) -> object:
    return bnfold.fold(module, example_inputs=INPUTS)


def fold_inplace(module: nn.Module) -> object:
    return bnfold.fold(module, example_inputs=INPUTS, inplace=True)


RUNS: dict[str, Callable[[nn.Module], object]] = {
    "torch.export": export,
    "bnfold.fold": fold,
    "bnfold.fold, inplace": fold_inplace,
    "copy.deepcopy": copy.deepcopy,
}


class Timed(NamedTuple):
    """Seconds that a run takes, and those of them that pass within torch.export."""

    seconds: float
    traced: float


def timed(name: str, module: nn.Module) -> Timed:
    """One run, on a copy of the module."""
    subject = copy.deepcopy(module)
    gc.collect()
    gc.disable()
    with traces_timed() as traces:
        start = time.perf_counter()
        result = RUNS[name](subject)
        seconds = time.perf_counter() - start
    gc.enable()
    del result
    return Timed(seconds, sum(traces))


@contextmanager
def traces_timed() -> Iterator[list[float]]:
    """The seconds of every call of torch.export while the context lasts."""
    seconds: list[float] = []
    usual = torch.export.export

    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return usual(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    torch.export.export = measured
    try:
        yield seconds
    finally:
        torch.export.export = usual


def timed_strictly(module: nn.Module) -> float:
    """Seconds that an export through Dynamo takes, which starts anew."""
    torch.compiler.reset()
    start = time.perf_counter()
    torch.export.export(module, (), INPUTS, strict=True)
    return time.perf_counter() - start


def memory_mib(field: str) -> float:
    """What this process holds ("VmRSS"), or the most that it has held since the peak was reset ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{field}:"))


def growth(name: str) -> None:
    """Print by how many MiB the peak of a run lies above what was held before."""
    module = network()
    fold(module)  # imports, too, are made once
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory_mib("VmRSS")
    result = RUNS[name](module)
    del result
    print(memory_mib("VmHWM") - before)


def measured_growth(name: str) -> float:
    done = subprocess.run([sys.executable, __file__, "--growth", name], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="how often each runs (default: 15)")
    parser.add_argument("--growth", choices=RUNS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.growth:
        growth(args.growth)
        return
    module = network()
    weights = sum(item.numel() * item.element_size() for item in module.parameters()) / 2**20
    print(f"{weights:.0f} MiB of weights, {args.rounds} rounds, torch {torch.__version__}\n")
    for name in RUNS:
        timed(name, module)
    order = random.Random(0)  # noqa: S311 - an order, no secret
    runs: dict[str, list[Timed]] = {name: [] for name in RUNS}
    for _ in range(args.rounds):
        for name in order.sample(list(RUNS), len(RUNS)):
            runs[name].append(timed(name, module))
    strict_s = statistics.median(timed_strictly(module) for _ in range(3))
    print(f"torch.export with strict=True: {strict_s:.2f} s\n")
    print(
        "| run | time, s | beyond torch.export | outside of its own trace | beyond, of one with strict=True "
        "| peak memory beyond it, in weights |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    base = measured_growth("torch.export") if sys.platform == "linux" else None
    exports = [run.seconds for run in runs["torch.export"]]
    for name, own in runs.items():
        alone = name == "copy.deepcopy"  # a copy does not include an export
        beyond_s = [run.seconds - (0 if alone else export) for run, export in zip(own, exports, strict=True)]
        beyond = percent(part / export for part, export in zip(beyond_s, exports, strict=True))
        outside = percent((run.seconds - run.traced) / export for run, export in zip(own, exports, strict=True))
        strictly = percent(part / strict_s for part in beyond_s)
        memory = "" if base is None else f"{(measured_growth(name) - (0 if alone else base)) / weights:.2f}"
        median_s = statistics.median(run.seconds for run in own)
        print(f"| {name} | {median_s:.2f} | {beyond} | {outside} | {strictly} | {memory} |")


def percent(parts: Iterable[float]) -> str:
    """The median of parts of something."""
    return f"{100 * statistics.median(parts):.1f} %"


if __name__ == "__main__":
    main()
