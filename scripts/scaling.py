"""How the cost of folding grows, and what it is beside that of loading and saving.

    python scripts/scaling.py [FOLDER] [--rounds N]

First: planning and applying on chains of Conv and BatchNorm, 10,000 and 20,000 nodes, in turns; the ratio is to stay
below 2.3. Then, for every .onnx file in FOLDER: planning and applying, on a model that is open and not yet written,
beside loading and saving the same model unchanged, which is measured in three ways:

bnfold   what `bnfold convert` does around a fold: the file is mapped and checked, written beside its target, flushed
         (fsync) and renamed.
disk     `onnx.save(onnx.load(path))`, then a flush of the file: the model is read, and is safe where it lies.
memory   `onnx.save(onnx.load(path))` alone: the new file is in the page cache, and a machine that stops has lost it.

The claim is about the first: of a conversion, planning and applying takes less than loading and saving. The others say
what that means: protobuf's C code, which checks nothing, takes a few milliseconds for models of a few megabytes, and
planning, in Python, takes longer than that on some of them (a column is above 1 there). The file that is read is in the
page cache each time, so that no disk is waited for but for what is written. In every round all of them run, in an order
drawn anew; a ratio is the median over the rounds. As the standard library's timeit does it, nobody searches for garbage
while the clock runs, and here none is left from before. Exits with 1 where a limit is passed. Times are this machine's
and mean nothing elsewhere; on a machine with other work they mean little even there.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bnfold.graphs.account import FoldOptions
from bnfold.graphs.onnx.document import Document, from_proto
from bnfold.graphs.onnx.files import load
from bnfold.graphs.onnx.fold import fold_document
from bnfold.graphs.onnx.staging import folder_beside, stage

MOST_GROWTH = 2.3


def chain(nodes: int) -> onnx.ModelProto:
    """A chain of `nodes` nodes, Conv and BatchNormalization in turn, each with weights of its own."""
    made, initializers, value = [], [], "x"
    rng = np.random.default_rng(0)
    for i in range(nodes // 2):
        names = [f"{name}{i}" for name in ("gamma", "beta", "mean", "var")]
        initializers.append(numpy_helper.from_array(rng.normal(size=(2, 2, 1, 1)).astype(np.float32), f"w{i}"))
        initializers += [numpy_helper.from_array(rng.uniform(0.5, 1, 2).astype(np.float32), name) for name in names]
        made.append(helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"], name=f"conv{i}"))
        made.append(helper.make_node("BatchNormalization", [f"c{i}", *names], [f"y{i}"], name=f"bn{i}"))
        value = f"y{i}"
    shape = ["N", 2, 4, 4]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", value))
    graph = helper.make_graph(made, "chain", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    work()
    taken = time.perf_counter() - start
    gc.enable()
    return taken


def fold_seconds(document: Document) -> float:
    """Planning and applying on a document that is open."""
    return seconds(lambda: fold_document(document, "the model", FoldOptions()))


def grown(rounds: int) -> bool:
    """Print how much longer a chain of twice the length takes; whether that is within the limit."""
    small, large = chain(10_000), chain(20_000)
    pairs = [(fold_seconds(from_proto(small)), fold_seconds(from_proto(large))) for _ in range(rounds)]
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"chain of 20,000 nodes against 10,000: {ratio:.2f} times the time, at most {MOST_GROWTH}")
    return ratio <= MOST_GROWTH


class Round(NamedTuple):
    """Seconds of one round."""

    fold: float
    bnfold: float
    disk: float
    memory: float


def one_round(path: Path, target: Path, order: random.Random) -> Round:
    """Each of the four once, in an order drawn anew; what one has written is gone when the next begins."""
    runs: dict[str, Callable[[], float]] = {
        "fold": lambda: fold_seconds(load(path)),
        "bnfold": lambda: seconds(lambda: save_as_bnfold_does(load(path), target)),
        "disk": lambda: seconds(lambda: save_on_disk(path, target)),
        "memory": lambda: seconds(lambda: onnx.save(onnx.load(path), target)),
    }
    taken: dict[str, float] = {}
    for name in order.sample(list(runs), len(runs)):
        taken[name] = runs[name]()
        target.unlink(missing_ok=True)
    return Round(**taken)


def save_on_disk(path: Path, target: Path) -> None:
    onnx.save(onnx.load(path), target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def save_as_bnfold_does(document: Document, target: Path) -> None:
    with folder_beside(target) as folder:
        stage(document, target, folder).commit()


def beside_loading(models: Path, rounds: int) -> bool:
    """Print a line for every model; whether all are within the limits."""
    print("| model | nodes | fold, ms | fold / bnfold | fold / disk | fold / memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    kept = True
    order = random.Random(0)  # noqa: S311 - an order, no secret
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:  # a folder for temporary files may be no disk
        target = Path(scratch, "model.onnx")
        for path in sorted(models.glob("*.onnx")):
            one_round(path, target, order)  # the first run of a process imports what it needs
            gc.freeze()
            measured = [one_round(path, target, order) for _ in range(rounds)]
            median_ms = 1000 * statistics.median(one.fold for one in measured)
            own, disk, memory = (
                statistics.median(one.fold / other(one) for one in measured)
                for other in (attrgetter("bnfold"), attrgetter("disk"), attrgetter("memory"))
            )
            nodes = len(onnx.load(path).graph.node)
            print(f"| {path.stem} | {nodes} | {median_ms:.1f} | {own:.2f} | {disk:.2f} | {memory:.2f} |", flush=True)
            kept &= own < 1
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of .onnx files")
    parser.add_argument("--rounds", type=int, default=9, help="(default: %(default)s)")
    arguments = parser.parse_args()
    kept = grown(arguments.rounds)
    if arguments.folder is not None:
        kept &= beside_loading(arguments.folder, arguments.rounds)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
