"""What a conversion costs: bnfold and its neighbours as whole processes on one model of 100 MB.

    python scripts/cost.py [--rounds N] [--constants]

Builds a model with the layer shapes of ResNet-50 as an exporter leaves it (53 Conv, each with a BatchNormalization
behind it), then runs every program once per round, in an order that is drawn anew, and prints a Markdown table: wall
time and peak memory as medians, and both as ratios to the process that only does `onnx.save(onnx.load(...))`, a ratio
being the median over the rounds. Times include starting Python and all imports; nothing is fetched, and every run
starts with the model in the page cache and nothing left to write back. Exits with 1 where a limit is passed, with 0
otherwise; a program that is not installed is named and left out.

The baseline and the neighbours leave their file in the page cache; bnfold waits until it is on the disk before the file
gets its name, without which a machine that loses power could be left with half a file under a good name. That is part
of what is measured; the line below the table says how much of it.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from programs import BNFOLD, LOAD_AND_SAVE, ONNXSCRIPT, ONNXSIM, ONNXSLIM, Program, Run, installed, run

OPSET = 17
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
EXPANSION = 4


@dataclass(frozen=True)
class Limits:
    """What is asked of a program: its ratios to the baseline, and how many times bnfold's time it takes at least."""

    most_time: float | None = None
    most_memory: float | None = None
    times_ours: float | None = None


BASELINE, OURS = LOAD_AND_SAVE.name, BNFOLD.name
LIMITS = {
    LOAD_AND_SAVE: Limits(),
    BNFOLD: Limits(most_time=1.4, most_memory=1.3),
    ONNXSCRIPT: Limits(times_ours=2.0),
    ONNXSLIM: Limits(times_ours=2.0),
    ONNXSIM: Limits(times_ours=3.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each program runs (default: 7)")
    parser.add_argument("--constants", action="store_true", help="weights in Constant nodes, as onnxscript writes them")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        build(args.build, constants=args.constants)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "resnet50.onnx"
        # In a process of its own: the peak memory of a child counts from what its parent held when it was started.
        how = ["--constants"] if args.constants else []
        subprocess.run([sys.executable, __file__, "--build", str(source), *how], check=True)
        programs, missing = installed(LIMITS)
        print(f"{source.stat().st_size / 1e6:.0f} MB, {args.rounds} rounds, Python {sys.version.split()[0]}")
        if missing:
            print(f"not installed, left out: {', '.join(missing)}")
        runs = measure(programs, source, args.rounds)
        code = report(programs, runs)
        flush = statistics.median(flush_seconds(source) for _ in range(args.rounds))
        print(f"waiting for the disk, which is part of bnfold's time alone: {flush:.2f} s")
    return code


def measure(programs: Sequence[Program], source: Path, rounds: int) -> dict[str, list[Run]]:
    """One warming run of each program, then `rounds` that count, all in random order."""
    order = random.Random(0)  # noqa: S311 - an order, no secret
    runs: dict[str, list[Run]] = {program.name: [] for program in programs}
    for number in range(rounds + 1):
        for program in order.sample(programs, len(programs)):
            done = timed(program, source)
            if number > 0:
                runs[program.name].append(done)
    return runs


def timed(program: Program, source: Path) -> Run:
    """Run a program on the model; it has to succeed."""
    out = source.with_name("out.onnx")
    done = run(program, source, out)
    if done.problem is not None:
        raise SystemExit(f"{program.name} failed: {done.problem}")
    out.unlink()
    return done


def flush_seconds(source: Path) -> float:
    """How long a new file of the model's size takes to get from the page cache to the disk."""
    copy = source.with_name("copy.onnx")
    os.sync()
    with copy.open("wb") as file:
        file.write(source.read_bytes())
        file.flush()
        start = time.perf_counter()
        os.fsync(file.fileno())
        seconds = time.perf_counter() - start
    copy.unlink()
    return seconds


def report(programs: Sequence[Program], runs: dict[str, list[Run]]) -> int:
    """Print the table and what passes a limit; returns the exit code."""
    print("\n| program | time, s | ratio | peak memory, MiB | ratio | time / bnfold's |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    failures = []
    for program in programs:
        limits, own, base, ours = LIMITS[program], runs[program.name], runs[BASELINE], runs[OURS]
        seconds = statistics.median(run.seconds for run in own)
        memory = statistics.median(run.peak_mib for run in own)
        time_ratio = statistics.median(a.seconds / b.seconds for a, b in zip(own, base, strict=True))
        memory_ratio = statistics.median(a.peak_mib / b.peak_mib for a, b in zip(own, base, strict=True))
        to_ours = statistics.median(a.seconds / b.seconds for a, b in zip(own, ours, strict=True))
        print(
            f"| {program.name} | {seconds:.2f} | {time_ratio:.2f} | {memory:.0f} | {memory_ratio:.2f} | {to_ours:.2f} |"
        )
        for what, value, limit in (
            ("time", time_ratio, limits.most_time),
            ("memory", memory_ratio, limits.most_memory),
        ):
            if limit is not None and value > limit:
                failures.append(f"{program.name}: {what} ratio {value:.2f}, at most {limit} wanted")
        if limits.times_ours is not None and to_ours < limits.times_ours:
            failures.append(
                f"{program.name} takes {to_ours:.2f} times bnfold's time, at least {limits.times_ours} wanted"
            )
    print()
    for failure in failures:
        print(f"MISSED: {failure}")
    return 1 if failures else 0


def build(path: Path, *, constants: bool) -> None:
    """Write the model: ResNet-50 on 224 x 224 images, batch size symbolic, random weights, BatchNorms intact."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def parameter(name: str, array: np.ndarray) -> str:
        tensor = numpy_helper.from_array(array.astype(np.float32), name)
        if constants:
            nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            tensors.append(tensor)
        return name

    def conv_bn(x: str, name: str, c_in: int, c_out: int, kernel: int, stride: int = 1) -> str:
        weight = rng.standard_normal((c_out, c_in, kernel, kernel)) * (2 / (c_in * kernel**2)) ** 0.5
        pad = kernel // 2
        nodes.append(
            helper.make_node(
                "Conv",
                [x, parameter(f"{name}.weight", weight)],
                [f"{name}.out"],
                name,
                kernel_shape=[kernel, kernel],
                strides=[stride, stride],
                pads=[pad] * 4,
                dilations=[1, 1],
                group=1,
            )
        )
        statistics_of = {
            "gamma": rng.uniform(0.5, 1.5, c_out),
            "beta": rng.standard_normal(c_out) * 0.1,
            "mean": rng.standard_normal(c_out) * 0.1,
            "var": rng.uniform(0.5, 1.5, c_out),
        }
        inputs = [f"{name}.out"] + [parameter(f"{name}.bn.{key}", value) for key, value in statistics_of.items()]
        nodes.append(helper.make_node("BatchNormalization", inputs, [f"{name}.bn.out"], f"{name}.bn", epsilon=1e-5))
        return f"{name}.bn.out"

    def plain(op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{name}.out"], name, **attributes))
        return f"{name}.out"

    x = plain("Relu", [conv_bn("x", "stem", 3, 64, 7, 2)], "stem.relu")
    x = plain("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    c_in = 64
    for stage, (blocks, width) in enumerate(STAGES):
        for block in range(blocks):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage > 0 and block == 0 else 1
            skip = conv_bn(x, f"{name}.down", c_in, width * EXPANSION, 1, stride) if block == 0 else x
            y = plain("Relu", [conv_bn(x, f"{name}.conv1", c_in, width, 1)], f"{name}.relu1")
            y = plain("Relu", [conv_bn(y, f"{name}.conv2", width, width, 3, stride)], f"{name}.relu2")
            y = conv_bn(y, f"{name}.conv3", width, width * EXPANSION, 1)
            x = plain("Relu", [plain("Add", [y, skip], f"{name}.add")], f"{name}.relu3")
            c_in = width * EXPANSION
    x = plain("Flatten", [plain("GlobalAveragePool", [x], "pool")], "flatten", axis=1)
    weight, bias = rng.standard_normal((1000, c_in)) * 0.01, np.zeros(1000)
    nodes.append(
        helper.make_node("Gemm", [x, parameter("fc.weight", weight), parameter("fc.bias", bias)], ["y"], "fc", transB=1)
    )
    graph = helper.make_graph(
        nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 1000])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    sys.exit(main())
