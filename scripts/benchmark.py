"""bnfold against its neighbours on a folder of models: what is left, what is wrong, what it costs, what it buys.

    python scripts/benchmark.py FOLDER_OR_FILE... [--out docs] [--rounds N] [--seconds S] [--no-latency]

Per model, every tool that is installed converts it, each run a process of its own, in an order that is drawn anew in
each of several rounds: time and peak memory are medians. A tool that has had `--seconds-a-model` is not asked again;
one that fails or passes `--limit` is not, either, and its row says so. Then, on the outputs:

- BatchNorms left are counted by one function for all, `bnfold.inspect`, and so are chains of operators that spell one;
- `bnfold verify ORIGINAL OUTPUT`, with its defaults, says whether the answers are right;
- `bnfold bench OURS OUTPUT` times bnfold's output against that of each rival, and against the original, in turns, with
  ONNX Runtime's optimisations off and on. A contest is longer than `--seconds` where the model is so slow that there
  would be too few rounds to tell anything.

Prints a Markdown page; `--out` also writes it, as benchmark.md, with benchmark.json and pictures (for which it needs
matplotlib); `--name` gives the files another name. Tools that are not installed are named and left out:
`pip install --group bench` brings them all. The tables and pictures of the README are

    python scripts/benchmark.py FOLDER --out docs
    python scripts/tricky_models.py TRICKY
    python scripts/benchmark.py TRICKY --out docs --name answers --no-latency --rounds 1
    python scripts/readme.py

The torch exporter needs the network's source: it has a row for NAME.onnx where NAME.safetensors and networks.py lie
beside it, as in models/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import benchmark_page
import benchmark_plots
from benchmark_rows import ORIGINAL, OURS, OURS_TOO, Result, Row, Speed, row_to_json
from programs import (
    BNFOLD,
    BNFOLD_SIMPLIFY,
    ONNXOPTIMIZER,
    ONNXSCRIPT,
    ONNXSIM,
    ONNXSLIM,
    ORT_ALL,
    ORT_EXTENDED,
    TORCH_EXPORTER,
    Program,
    Run,
    installed,
    run,
    run_python,
)

TOOLS = {
    OURS: BNFOLD,
    OURS_TOO: BNFOLD_SIMPLIFY,
    "onnxsim": ONNXSIM,
    "OnnxSlim": ONNXSLIM,
    "onnxoptimizer": ONNXOPTIMIZER,
    "onnxscript": ONNXSCRIPT,
    "ORT extended": ORT_EXTENDED,
    "ORT all": ORT_ALL,
    "torch exporter": TORCH_EXPORTER,
}
# Rounds of a contest below which nothing could be claimed twice over; three runs each.
_ROUNDS_TO_TELL = 12
_LONGEST_CONTEST_S = 5.0
_CHECK_LIMIT_S = 600.0
_NOT_SAME, _INVALID = 1, 2


@dataclass(frozen=True)
class Settings:
    """How much to measure. Times in seconds; see the options of the same names."""

    name: str
    rounds: int
    seconds: float
    seconds_a_model: float
    limit: float
    seed: int
    latency: bool


def main() -> int:
    if sys.argv[1:2] == ["--facts"]:
        write_facts(*map(Path, sys.argv[2:]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="FOLDER_OR_FILE")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the page as Markdown and JSON, and pictures")
    parser.add_argument("--name", default="benchmark", help="of these files (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each conversion (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of each contest and level, at least (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds-a-model",
        type=float,
        default=6.0,
        metavar="S",
        help="conversions of a model by a tool end when they have taken that long (default: %(default)s)",
    )
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one conversion (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of every order (default: %(default)s)")
    parser.add_argument("--no-latency", action="store_true", help="do not time the outputs")
    parser.add_argument("--only", action="append", choices=TOOLS, metavar="TOOL", help=f"one of {', '.join(TOOLS)}")
    args = parser.parse_args()
    paths = model_files(args.models)
    settings = Settings(
        args.name, args.rounds, args.seconds, args.seconds_a_model, args.limit, args.seed, not args.no_latency
    )
    wanted = {name: program for name, program in TOOLS.items() if name == OURS or name in (args.only or TOOLS)}
    here, _ = installed(wanted.values())
    tools = {name: program for name, program in wanted.items() if program in here}
    page: dict[str, Any] = {
        "about": about(tools, wanted, settings),
        "rows": [],
    }
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    for row in rows(paths, tools, settings):
        page["rows"].append(row_to_json(row))
        if args.out:  # after every model: what has been measured is not lost
            (args.out / f"{args.name}.json").write_text(json.dumps(page, indent=1) + "\n")
    text = benchmark_page.page(page)
    print(text)
    if args.out:
        (args.out / f"{args.name}.md").write_text(text)
        if not benchmark_plots.draw(page, args.out):
            say("no pictures: matplotlib is not installed")
    return 0


def model_files(given: Sequence[Path]) -> list[Path]:
    """The .onnx files that are given or lie in the folders given; ends the script without any."""
    paths = [path for item in given for path in (sorted(item.glob("*.onnx")) if item.is_dir() else [item])]
    for path in paths:
        if not path.is_file():
            sys.exit(f"{path}: no such file")
    if not paths:
        sys.exit(f"no .onnx file in {', '.join(map(str, given))}")
    names = [path.stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            sys.exit(f"two models are called '{name}': rename one")
    return paths


def about(tools: dict[str, Program], wanted: dict[str, Program], settings: Settings) -> dict[str, Any]:
    """What was measured with what."""
    import bnfold

    versions = {name: metadata.version(program.needs[0]) for name, program in tools.items()}
    versions |= {name: bnfold.__version__ for name in versions if name in (OURS, OURS_TOO)}
    return {
        "tools": versions,
        "missing": [name for name in wanted if name not in tools],
        "runtime": metadata.version("onnxruntime"),
        "python": platform.python_version(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "settings": asdict(settings),
    }


def processor() -> str:
    """The name of the processor, where Linux tells it, or of its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def rows(paths: Sequence[Path], tools: dict[str, Program], settings: Settings) -> Iterator[Row]:
    """One row per model, as it is done."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        for program in tools.values():  # compiles and caches what each of them imports
            warm = Path(scratch) / "warm.onnx"
            run(program, min(paths, key=lambda path: path.stat().st_size), warm, settings.limit)
            warm.unlink(missing_ok=True)
        for number, path in enumerate(paths):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            say(f"[{number + 1} of {len(paths)}] {path.stem}")
            yield Model(path, folder, tools, settings).row()
            for file in folder.iterdir():
                file.unlink()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Model:
    """One model on its way through the tools; `folder` is empty and its own."""

    path: Path
    folder: Path
    tools: dict[str, Program]
    settings: Settings

    def row(self) -> Row:
        order = random.Random(f"{self.settings.seed} {self.path.stem}")  # noqa: S311 - an order, no secret
        tools = {name: program for name, program in self.tools.items() if name != "torch exporter" or self.has_source}
        results = {name: summary(runs) for name, runs in self.convert(tools, order).items()}
        for name, result in results.items():
            if result.problem is not None:
                results[name] = replace(result, problem=self.without_folders(result.problem))
        outputs = {name: self.out(name) for name, result in results.items() if result.problem is None}
        facts = self.facts([self.path, *outputs.values()])
        original = facts[str(self.path)]
        if "problem" in original:
            return Row(self.path.stem, 0, 0, {}, unjudged=original["problem"])
        for name, output in outputs.items():
            results[name] = with_facts(results[name], facts[str(output)], original["domains"])
        sites = original["batch_norms"], original["chains"]
        itself = self.verified(Result(batch_norms=sites[0], chains=sites[1]), self.path)
        results = {ORIGINAL: itself, **results}
        if itself.passed:
            for name, output in outputs.items():
                say(f"  verify {name}")
                results[name] = self.verified(results[name], output)
            if self.settings.latency and results[OURS].passed:
                results = self.timed(results, order)
        unjudged = None if itself.passed else itself.detail
        not_for = tuple(name for name in self.tools if name not in tools)
        return Row(self.path.stem, *sites, results, unjudged=unjudged, not_for=not_for)

    @property
    def has_source(self) -> bool:
        """Whether the PyTorch network is at hand, with its weights."""
        return self.path.with_suffix(".safetensors").exists() and self.path.with_name("networks.py").exists()

    def out(self, tool: str) -> Path:
        """Where a tool's output is kept."""
        return self.folder / f"{tool.replace(' ', '_')}.onnx"

    def convert(self, tools: dict[str, Program], order: random.Random) -> dict[str, list[Run]]:
        """All runs of every tool; the output of the first is kept."""
        runs: dict[str, list[Run]] = {name: [] for name in tools}
        for _ in range(self.settings.rounds):
            for name in order.sample(list(tools), len(tools)):
                mine = runs[name]
                spent = sum(one.seconds for one in mine)
                if mine and (mine[0].problem is not None or spent >= self.settings.seconds_a_model):
                    continue
                say(f"  convert {name}")
                target = self.folder / "again.onnx" if mine else self.out(name)
                mine.append(run(tools[name], self.path, target, self.settings.limit))
                (self.folder / "again.onnx").unlink(missing_ok=True)
        return runs

    def facts(self, models: list[Path]) -> dict[str, Any]:
        """What `write_facts` says of these files, from a process of its own: this one is to stay small."""
        target = self.folder / "facts.json"
        arguments = [str(Path(__file__)), "--facts", str(target), *map(str, models)]
        done = run_python(arguments, _CHECK_LIMIT_S)
        if done.problem is not None:
            return {str(model): {"problem": done.problem} for model in models}
        return dict(json.loads(target.read_text()))

    def verified(self, result: Result, output: Path) -> Result:
        """The result with the verdict on its output."""
        answer, done = self.ask("verify", self.path, output)
        if answer is None:
            what = "" if done.exit_code == _INVALID else "bnfold verify fails: "
            return replace(result, passed=False, detail=self.without_folders(f"{what}{done.problem}"))
        outputs = answer["verification"]["outputs"]
        bad = [item for item in outputs if not item["passed"]]
        errors = [
            item["max_rel"]
            for item in bad or outputs
            if item["max_rel"] is not None and (item["passed"] or item["max_abs"] > item["tolerance"])
        ]
        detail = next((self.without_folders(item["detail"]) for item in bad if item["detail"]), None)
        passed = bool(answer["verification"]["passed"])
        return replace(result, passed=passed, max_rel=max(errors, default=None), detail=detail)

    def without_folders(self, text: str) -> str:
        """What a tool said, without the places of the files on this machine."""
        return text.replace(f"{self.folder}{os.sep}", "").replace(f"{self.path.parent}{os.sep}", "")

    def timed(self, results: dict[str, Result], order: random.Random) -> dict[str, Result]:
        """The results with the times of all outputs that are right, against bnfold's; the original comes first."""
        results = dict(results)
        names = [name for name, result in results.items() if result.passed and name not in (OURS, ORIGINAL)]
        seconds = 4 * self.settings.seconds
        for name in (ORIGINAL, *order.sample(names, len(names))):
            say(f"  bench {name}")
            output = self.path if name == ORIGINAL else self.out(name)
            answer, done = self.ask(
                "bench", self.out(OURS), output, "--bench-seconds", f"{seconds:g}", "--seed", str(self.settings.seed)
            )
            if answer is None:
                results[name] = replace(results[name], speed_problem=done.problem)
                continue
            speeds = {item["opt_level"]: speed(item) for item in answer["latency"]}
            results[name] = replace(results[name], speeds=speeds)
            if name == ORIGINAL:
                needed = _ROUNDS_TO_TELL * 3 * max(item.ours_ms for item in speeds.values()) / 1e3
                seconds = min(max(self.settings.seconds, needed), max(_LONGEST_CONTEST_S, self.settings.seconds))
        return results

    def ask(self, command: str, a: Path, b: Path, *options: str) -> tuple[dict[str, Any] | None, Run]:
        """The JSON report of a command of bnfold on two models, or None where it fails."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        arguments = ["-m", "bnfold", command, str(a), str(b), *options, "--quiet", "--report", str(report)]
        done = run_python(arguments, _CHECK_LIMIT_S)
        if done.exit_code not in (0, _NOT_SAME) or not report.exists():
            return None, done
        return json.loads(report.read_text()), done


def summary(runs: list[Run]) -> Result:
    """Medians over the runs of a tool; a tool that fails once has failed."""
    problem = next((one.problem for one in runs if one.problem is not None), None)
    if problem is not None:
        return Result(problem=problem, runs=len(runs))
    return Result(
        seconds=statistics.median(one.seconds for one in runs),
        peak_mib=statistics.median(one.peak_mib for one in runs),
        runs=len(runs),
    )


def with_facts(result: Result, facts: dict[str, Any], original_domains: list[str]) -> Result:
    if "problem" in facts:
        return replace(result, detail=facts["problem"])
    foreign = tuple(domain for domain in facts["domains"] if domain not in original_domains)
    return replace(result, batch_norms=facts["batch_norms"], chains=facts["chains"], domains=foreign)


def speed(item: dict[str, Any]) -> Speed:
    """One entry of `latency` of a bench of bnfold's output and a rival's, seen from the rival."""
    low, high = item["ci95"]
    return Speed(
        ours_ms=item["before_ms"],
        ms=item["after_ms"],
        ratio=1 / item["ratio"],
        ci95=(1 / high, 1 / low),
        verdict=item["verdict"],
    )


def write_facts(target: Path, *models: Path) -> None:
    """Write, as JSON, by file: sites left and domains of operators, or what is wrong with the file."""
    import onnx

    import bnfold
    from bnfold.graphs.onnx.fold import all_nodes

    found: dict[str, Any] = {}
    for path in models:
        try:
            report = bnfold.inspect(path)
            proto = onnx.load(path, load_external_data=False)
        except bnfold.BnfoldError as error:
            found[str(path)] = {"problem": str(error)}
            continue
        own = {function.domain for function in proto.functions}
        domains = {node.domain for node in all_nodes(proto) if node.domain not in ("", "ai.onnx")}
        found[str(path)] = {
            "batch_norms": report.before.batch_norms,
            "chains": sum(site.op == "affine" for site in report.sites),
            "domains": sorted(domains - own),
        }
    target.write_text(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
