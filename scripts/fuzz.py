"""Fold random models and check everything that must hold of the results.

    python scripts/fuzz.py --count 20000 --jobs 2

Prints the seed of every case that fails, with what is wrong; then how many sites folded, in which direction, and why
the others stayed. Exits with 1 if any case failed. One seed, one kind and one type make one case:

    python scripts/fuzz.py --seed 4711 --count 1 --type float16 --save /tmp

Needs the dependency group `test`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from generators.kinds import KINDS, verdicts  # noqa: E402 (the folder of the tests has to be known first)
from generators.verdict import Verdict  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="graphs", help="of cases (default: %(default)s)")
    parser.add_argument("--count", type=int, default=1000, help="how many cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40, help="the longest that a case may take (%(default)s)")
    parser.add_argument(
        "--type",
        choices=("mixed", "float64", "float32", "float16", "bfloat16"),
        help="of the weights of graphs (default: mixed, half of them float64)",
    )
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="where to write the models that fail")
    given = parser.parse_args()
    if given.type and given.kind != "graphs":
        parser.error("--type is for graphs alone")

    start, cases, failed = time.perf_counter(), 0, 0
    sites, directions, reasons, disputed, unjudged = (Counter[str]() for _ in range(5))
    seeds, arguments = range(given.seed, given.seed + given.count), (given.type,) if given.type else ()
    for verdict in verdicts(KINDS[given.kind], seeds, given.jobs, given.seconds, arguments):
        cases += 1
        disputed[verdict.disputed] += bool(verdict.disputed)
        unjudged[verdict.unjudged] += bool(verdict.unjudged)
        for site in verdict.sites:
            sites[f"{site.op} {site.status}"] += 1
            if site.folded:
                directions[str(site.direction)] += 1
            else:
                reasons[str(site.reason)] += 1
        if verdict.failures:
            failed += 1
            tell(verdict, given.save)
        if cases % 1000 == 0:
            print(f"{cases} models, {failed} failed, {time.perf_counter() - start:.0f} s", flush=True)

    folded, total = directions.total(), sites.total()
    print(f"{cases} models, {failed} failed, {time.perf_counter() - start:.0f} s")
    print(f"{folded} of {total} sites folded: {folded / max(cases, 1):.2f} per model")
    counted = {"sites": sites, "folded": directions, "kept": reasons, "disputed": +disputed, "not judged": +unjudged}
    for title, counts in counted.items():
        if counts or title in ("sites", "folded", "kept"):
            print(f"{title}: " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    return 1 if failed else 0


def tell(verdict: Verdict, folder: Path | None) -> None:
    print(f"seed {verdict.seed}{verdict.about and ', '}{verdict.about}:", flush=True)
    for failure in verdict.failures:
        print(f"  {failure}", flush=True)
    for name, content in verdict.files.items() if folder else ():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
