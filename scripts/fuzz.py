"""Fold random ONNX models and check everything that must hold of the results.

    python scripts/fuzz.py --count 20000 --jobs 2

Prints the seed of every model that fails, with what is wrong; then how many sites folded, in which direction, and why
the others stayed. Exits with 1 if any model failed. One seed and one type make one model:

    python scripts/fuzz.py --seed 4711 --count 1 --type float16 --save /tmp

Needs the dependency group `test`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzzing import Verdict, judge  # noqa: E402 (the folder of the tests has to be known first)
from graph_builder import BFLOAT, DOUBLE, FLOAT, HALF  # noqa: E402
from random_graphs import random_model  # noqa: E402

TYPES = {"float64": DOUBLE, "float32": FLOAT, "float16": HALF, "bfloat16": BFLOAT}
NAMES = {value: name for name, value in TYPES.items()}
MIX = (DOUBLE, DOUBLE, DOUBLE, DOUBLE, FLOAT, FLOAT, HALF, BFLOAT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="how many models (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--type", choices=("mixed", *TYPES), default="mixed", help="of the weights; mixed: half of them float64"
    )
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="where to write the models that fail")
    arguments = parser.parse_args()

    start, models, failed = time.perf_counter(), 0, 0
    sites: Counter[str] = Counter()
    directions: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for verdict in verdicts(arguments.seed, arguments.count, arguments.jobs, arguments.type):
        models += 1
        for site in verdict.sites:
            sites[f"{site.op} {site.status}"] += 1
            if site.folded:
                directions[str(site.direction)] += 1
            else:
                reasons[str(site.reason)] += 1
        if verdict.failures:
            failed += 1
            tell(verdict, arguments.save)
        if models % 1000 == 0:
            print(f"{models} models, {failed} failed, {time.perf_counter() - start:.0f} s", flush=True)

    folded, total = directions.total(), sites.total()
    print(f"{models} models, {failed} failed, {time.perf_counter() - start:.0f} s")
    print(f"{folded} of {total} sites folded: {folded / max(models, 1):.2f} per model")
    for title, counts in (("sites", sites), ("folded", directions), ("kept", reasons)):
        print(f"{title}: " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    return 1 if failed else 0


def verdicts(seed: int, count: int, jobs: int, type_name: str) -> Iterator[Verdict]:
    """The verdicts on the models of `count` seeds, in their order."""
    seeds = range(seed, seed + count)
    types = [TYPES.get(type_name, MIX[at % len(MIX)]) for at in seeds]
    if jobs == 1:
        yield from map(judge, seeds, types)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(judge, seeds, types, chunksize=50)


def tell(verdict: Verdict, folder: Path | None) -> None:
    name = NAMES[verdict.elem_type]
    print(f"seed {verdict.seed}, {name}:", flush=True)
    for failure in verdict.failures:
        print(f"  {failure}", flush=True)
    if folder is not None and verdict.made:
        onnx.save(random_model(verdict.seed, verdict.elem_type).model, folder / f"fuzz_{verdict.seed}_{name}.onnx")


if __name__ == "__main__":
    sys.exit(main())
