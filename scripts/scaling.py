"""How the cost of folding grows, and what it is beside that of loading and saving.

usage: python scripts/scaling.py [FOLDER]

First: planning and applying on chains of Conv and BatchNorm, 10,000 and 20,000 nodes, in turns; the ratio is to stay
near 2. Then, for every .onnx file in FOLDER: planning and applying against `onnx.save(onnx.load(path))`, in turns, as
a ratio of medians of one run. Times are this machine's and mean nothing elsewhere.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bnfold.graphs.account import FoldOptions
from bnfold.graphs.onnx.document import Document, from_proto
from bnfold.graphs.onnx.files import load
from bnfold.graphs.onnx.fold import fold_document

ROUNDS = 5


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
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def fold_seconds(document: Document) -> float:
    """Planning and applying on a document that is open."""
    return seconds(lambda: fold_document(document, "the model", FoldOptions()))


def grown() -> None:
    small, large = chain(10_000), chain(20_000)
    pairs = [(fold_seconds(from_proto(small)), fold_seconds(from_proto(large))) for _ in range(ROUNDS)]
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"chain of 20,000 nodes against 10,000: {ratio:.2f} times the time")


def beside_loading(folder: Path) -> None:
    print("| model | nodes | fold / (load + save) |")
    print("| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "model.onnx"
        for path in sorted(folder.glob("*.onnx")):
            fold_seconds(load(path))  # the first run of a process imports what it needs
            pairs = [
                (seconds(lambda path=path: onnx.save(onnx.load(path), target)), fold_seconds(load(path)))
                for _ in range(ROUNDS)
            ]
            ratio = statistics.median(fold for _, fold in pairs) / statistics.median(io for io, _ in pairs)
            print(f"| {path.stem} | {len(onnx.load(path).graph.node)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    grown()
    if len(sys.argv) > 1:
        beside_loading(Path(sys.argv[1]))
