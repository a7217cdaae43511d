"""Folds and verifies every model in a folder, and prints the account: found, folded, kept by reason, verified.

usage: python scripts/account.py FOLDER [--keep NAME=COUNT ...] [--bench]

Exit code 1 if a model fails, does not pass verification, is refused by onnx.checker, or keeps another number of sites
than `--keep` says (NAME is a file name without .onnx; other models are to keep none).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import onnx

import bnfold


def account(path: Path, folder: Path, bench: bool) -> bnfold.Report:
    """Convert one model into the folder and check the result."""
    output = folder / path.name
    report = bnfold.convert(path, output, bench=bench)
    onnx.checker.check_model(output)
    output.unlink()
    return report


def row(report: bnfold.Report) -> str:
    """One line of the table."""
    norms = [site for site in report.sites if site.op == "BatchNormalization"]
    chains = [site for site in report.sites if site.op == "affine"]
    reasons = Counter(site.reason for site in report.kept)
    worst = max((output.max_rel for output in report.verification.outputs), default=0.0) if report.verification else 0.0
    cells = [
        f"{sum(site.folded for site in norms)} of {len(norms)}",
        f"{sum(site.folded for site in chains)} of {len(chains)}",
        ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none",
        f"{worst:.1e}",
        *(f"{latency.ratio:.2f} ({latency.ci95[0]:.2f} to {latency.ci95[1]:.2f})" for latency in report.latency),
    ]
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", action="append", default=[], metavar="NAME=COUNT")
    parser.add_argument("--bench", action="store_true")
    arguments = parser.parse_args()
    expected = {name: int(count) for name, _, count in (item.rpartition("=") for item in arguments.keep)}
    paths = sorted(arguments.folder.glob("*.onnx"))
    if not paths:
        sys.exit(f"{arguments.folder}: no .onnx file there")
    speed = " | before/after, not optimised | before/after, optimised" if arguments.bench else ""
    print(f"| model | BatchNorms folded | chains folded | kept | largest relative error{speed} |")
    print("| --- " * (5 + 2 * arguments.bench) + "|")
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            try:
                report = account(path, Path(folder), arguments.bench)
            except (bnfold.BnfoldError, onnx.checker.ValidationError) as error:
                failures.append(f"{path.name}: {error}")
                continue
            print(f"| {path.stem} | {row(report)} |", flush=True)
            wanted = expected.get(path.stem, 0)
            if len(report.kept) != wanted:
                failures.append(f"{path.name}: {len(report.kept)} sites stay, {wanted} expected")
    for failure in failures:
        print(f"FAILED {failure}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
