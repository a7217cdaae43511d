"""How often the measurement claims a difference that is not there, and finds one that is.

    python scripts/calibrate.py FOLDER_OR_MODEL... [--runs N] [--seconds S] [--slow-down X] [--level all|disable]

For every ONNX model with a floating-point input, N times: the model is measured against itself, and against a copy that
does more work; both as `bnfold bench` does it. The copy has a chain of MatMul beside the network, fed by the input and
ending in an output of its own, so that no optimiser can drop it. How long a chain takes X of the model's time (10 %) is
found, and then confirmed, by another measurement than the one that is tried: the processor time of both, in turns,
with sleeping threads, medians of three openings of the sessions. Prints every run with the load of the machine at that
time, and both counts. Exits with 1 where more than one in twenty runs of a model against itself claims a difference, or
fewer than nineteen in twenty find the planted one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnfold.checks.bench import bench
from bnfold.checks.bench_feed import bench_feed
from bnfold.checks.environment import environment
from bnfold.checks.options import BENCH_SECONDS, CheckOptions
from bnfold.checks.session import open_session
from bnfold.results import Latency

WIDTH = 128
MOST_ROWS = 512
FIRST_ROWS = 64
MOST_ATTEMPTS = 6
SHORTEST_TURN_NS = 1_000_000
NEAR = 0.1  # of the slow-down that is wanted
MOST_FALSE_CLAIMS = 1 / 20
LEAST_FOUND = 19 / 20


@dataclass(frozen=True)
class Plant:
    """A copy of a model that does more work, and how much more: measured / original - 1."""

    path: Path
    slow_down: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help="ONNX files, or folders of them")
    parser.add_argument("--runs", type=int, default=4, help="runs of either kind per model (default: 4)")
    parser.add_argument("--seconds", type=float, default=BENCH_SECONDS, help="as --bench-seconds")
    parser.add_argument("--slow-down", type=float, default=0.1, help="the planted difference (default: 0.1)")
    parser.add_argument("--level", choices=("disable", "all"), default="all", help="optimisation level (default: all)")
    parser.add_argument("--intra-op-num-threads", type=int)
    args = parser.parse_args()
    where = environment()
    print(f"{where.cpu}, {where.cores} cores, load {where.load}, {where.os}, ONNX Runtime {where.onnxruntime}")
    claimed: list[bool] = []
    found: list[bool] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in files(args.models):
            options = CheckOptions(bench_seconds=args.seconds, intra_op_num_threads=args.intra_op_num_threads)
            plant = planted(model, Path(folder) / model.name, args.slow_down, args.level, options)
            if plant is None:
                print(f"{model.name}: no floating-point input, left out")
                continue
            print(f"{model.name}: planted {plant.slow_down:+.1%} of processor time", flush=True)
            for run in range(args.runs):
                for other in (model, plant.path):
                    load = os.getloadavg()[0]
                    seeded = CheckOptions(
                        bench_seconds=args.seconds, intra_op_num_threads=args.intra_op_num_threads, seed=run
                    )
                    (row,) = bench(model, other, seeded, levels=(args.level,))
                    (claimed if other == model else found).append(
                        row.verdict != "no measurable difference" if other == model else row.verdict == "slower"
                    )
                    print(f"  {'A/A    ' if other == model else 'planted'} {line(row)}, load {load:.1f}", flush=True)
    return report(claimed, found, args.slow_down)


def files(paths: Iterable[Path]) -> list[Path]:
    return [file for path in paths for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]


def line(row: Latency) -> str:
    effect = "unknown" if row.minimum_effect is None else f"{row.minimum_effect:.1%}"
    return (
        f"{row.verdict}: {row.before_ms:.2f} and {row.after_ms:.2f} ms by {row.clock} time, ratio {row.ratio:.3f} "
        f"({row.ci95[0]:.3f} to {row.ci95[1]:.3f}), control {row.control_ratio:.3f}, minimum effect {effect}, "
        f"{row.openings} openings, {row.seconds:.1f} s, {row.disturbed_segments} of {row.segments} segments disturbed"
    )


def report(claimed: list[bool], found: list[bool], slow_down: float) -> int:
    """Print the counts; returns the exit code."""
    print(f"\nA/A: a difference claimed in {sum(claimed)} of {len(claimed)} runs")
    print(f"planted {slow_down:.0%}: found in {sum(found)} of {len(found)} runs")
    good = sum(claimed) <= MOST_FALSE_CLAIMS * len(claimed) and sum(found) >= LEAST_FOUND * len(found)
    return 0 if good and claimed else 1


def planted(model: Path, target: Path, slow_down: float, level: str, options: CheckOptions) -> Plant | None:
    """A copy that is slower by `slow_down`, as near as can be; None where the model has no input to feed a chain."""
    rows = FIRST_ROWS
    for attempt in range(MOST_ATTEMPTS):
        if not plant(model, target, rows):
            return None
        effect = slow_down_of(model, target, level, options, seconds=2.0 + 2 * attempt)
        if abs(effect - slow_down) < NEAR * slow_down:
            break
        rows = max(1, round(rows * min(8.0, max(1 / 8, slow_down / max(effect, 0.005)))))
    plant(model, target, rows)
    return Plant(target, slow_down_of(model, target, level, options, seconds=12.0))


def plant(model: Path, target: Path, rows: int) -> bool:
    """Write the model with a chain beside it that multiplies `rows` rows in all by a square matrix."""
    proto = onnx.load(model)
    constants = {tensor.name for tensor in proto.graph.initializer}
    source = next(
        (
            value.name
            for value in proto.graph.input
            if value.name not in constants and value.type.tensor_type.elem_type == TensorProto.FLOAT
        ),
        None,
    )
    if source is None:
        return False
    steps = -(-rows // MOST_ROWS)
    height = max(1, round(rows / steps))
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))  # values neither grow nor fade
    for name, array in {
        "flat": np.array([-1]),
        "first": np.array([0]),
        "second": np.array([1]),
        "shape": np.array([height, WIDTH]),
        "rotation": rotation.astype(np.float32),
    }.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, f"planted_{name}"))
    proto.graph.node.extend(
        [
            helper.make_node("Reshape", [source, "planted_flat"], ["planted_values"]),
            helper.make_node("Slice", ["planted_values", "planted_first", "planted_second"], ["planted_head"]),
            helper.make_node("Expand", ["planted_head", "planted_shape"], ["planted_0"]),
        ]
    )
    for step in range(steps):
        proto.graph.node.append(
            helper.make_node("MatMul", [f"planted_{step}", "planted_rotation"], [f"planted_{step + 1}"])
        )
    proto.graph.output.append(helper.make_tensor_value_info(f"planted_{steps}", TensorProto.FLOAT, [height, WIDTH]))
    onnx.save(proto, target)
    return True


def slow_down_of(model: Path, other: Path, level: str, options: CheckOptions, seconds: float) -> float:
    """How much more processor time `other` takes, by sessions whose idle threads sleep, opened three times."""
    logs = []
    for _ in range(3):
        sessions = [
            open_session(
                path,
                opt_level=level,
                deterministic=False,
                spinning=False,
                intra_op_num_threads=options.intra_op_num_threads,
            )
            for path in (model, other)
        ]
        feed = bench_feed(sessions[0], options, None)
        runners = [session.runner(feed.values) for session in sessions]
        runs = 1 + int(SHORTEST_TURN_NS / min(processor_ns(runners[0], 1) for _ in range(3)))
        ratios = []
        end = time.perf_counter() + seconds / 3
        while time.perf_counter() < end or len(ratios) < 10:
            ours, theirs = (processor_ns(run, runs) for run in runners)
            ratios.append(np.log(theirs / ours))
            theirs, ours = (processor_ns(run, runs) for run in reversed(runners))
            ratios.append(np.log(theirs / ours))
        logs.append(statistics.median(ratios[2:]))
    return float(np.expm1(statistics.mean(logs)))


def processor_ns(run: Callable[[], object], runs: int) -> float:
    """Median of so many runs; of several, the first does not count, which finds the caches full of another model."""
    times = []
    for _ in range(runs):
        start = time.process_time_ns()
        run()
        times.append(time.process_time_ns() - start)
    return max(1, statistics.median(times[1:] or times))


if __name__ == "__main__":
    sys.exit(main())
