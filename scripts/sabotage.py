"""Plant random faults in folded models and see whether verification catches them, and names and takes back the fold.

    python scripts/sabotage.py models --count 200
    python scripts/sabotage.py a.onnx b.onnx --count 50 --check-n 3 --seed 7

A fault is a channel scaled by 1 %, a bias off by 1e-3 of its range, two channels swapped, or a stale weight, in one
constant that a fold made. Its effect is the largest change of an output in float64, in units of the tolerance, over the
inputs that verification tries. Exits with 1 if a fault with an effect above 1 passes, or another fold is blamed.

Needs the dependency group `test`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from sabotaging import Sabotage, Trial  # noqa: E402 (the folder of the tests has to be known first)

from bnfold.checks.options import CheckOptions, parse_input_shape  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="model files, or folders of them")
    parser.add_argument("--count", type=int, default=50, help="faults per model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default: %(default)s)")
    parser.add_argument("--input-shape", action="append", default=[], help="as of bnfold verify")
    parser.add_argument("--check-n", type=int, default=6, help="inputs per verification (default: %(default)s)")
    arguments = parser.parse_args()

    shapes = dict(parse_input_shape(text) for text in arguments.input_shape)
    options = CheckOptions(input_shapes=shapes, check_n=arguments.check_n, exact_seconds=60.0)
    bad = 0
    for path in (path for given in arguments.models for path in _files(given)):
        start = time.perf_counter()
        counts: Counter[str] = Counter()
        with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
            sabotage = Sabotage(path, Path(folder), options)
            for fault in sabotage.faults(arguments.count, arguments.seed):
                trial = sabotage.trial(fault)
                counts += _counted(trial)
                if counts["planted"] % 10 == 0:
                    print(f"{path.name}: {_listed(counts)} ({time.perf_counter() - start:.0f} s)", flush=True)
                if trial.missed or trial.misnamed:
                    bad += 1
                    _tell(path, trial)
        print(f"{path.name}, all: {_listed(counts)} ({time.perf_counter() - start:.0f} s)", flush=True)
    return 1 if bad else 0


def _files(given: Path) -> list[Path]:
    return sorted(given.glob("*.onnx")) if given.is_dir() else [given]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _counted(trial: Trial) -> Counter[str]:
    counts = Counter({"planted": 1})
    counts["above the tolerance"] += trial.effect > 1
    counts["above the tolerance and caught"] += trial.effect > 1 and trial.caught
    counts["caught below it"] += trial.effect <= 1 and trial.caught
    counts["caught, named and taken back alone"] += trial.caught and not trial.misnamed
    counts["MISSED"] += trial.missed
    counts["MISNAMED"] += trial.misnamed
    return +counts


def _tell(path: Path, trial: Trial) -> None:
    what = "MISSED" if trial.missed else "MISNAMED"
    fault = trial.fault
    print(
        f"{path.name}: {what}: {fault.kind} in '{fault.constant}' of {', '.join(fault.owners)}, effect "
        f"{trial.effect:.3g} of the tolerance; blamed: {', '.join(trial.blamed) or 'nobody'}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
