"""Writes the generated parts of README.md: the table of reasons, from the code; the benchmarks, from the JSON that
benchmark.py has left in docs/, and their own pages beside it; the cost and the comparison with PyTorch's own tools,
from what their scripts have printed.

usage: python scripts/readme.py                 the reasons and the benchmarks
       python scripts/readme.py --check         writes nothing, and ends with 1 if a file would change
       python scripts/readme.py --cost FILE     what `python scripts/cost.py > FILE` printed
       python scripts/readme.py --rivals FILE   what `python scripts/torch_rivals.py --brief > FILE` printed
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from benchmark_page import page, section

from bnfold.algebra.reasons import REASONS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
BENCHMARKS = ("benchmark", "answers")
PRINTED = ("cost", "rivals")


def reasons_table() -> str:
    """One row per reason: code, meaning, remedy."""
    rows = ["| reason | what it means | what to do |", "| --- | --- | --- |"]
    rows += [f"| `{code}` | {reason.meaning} | {reason.remedy or 'Nothing.'} |" for code, reason in REASONS.items()]
    return "\n".join(rows)


def with_section(text: str, name: str, body: str) -> str:
    """The text with the part between the markers of this name replaced."""
    pattern = re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"README.md has no section '{name}'")
    return pattern.sub(lambda match: f"{match[1]}{body}\n{match[2]}", text)


def main() -> None:
    text = README.read_text()
    text = with_section(text, "reasons", reasons_table())
    pages = {}
    for name in BENCHMARKS:
        found = json.loads((DOCS / f"{name}.json").read_text())
        text = with_section(text, name, section(found, f"{DOCS.name}/"))
        pages[DOCS / f"{name}.md"] = page(found)
    for name in PRINTED:
        if f"--{name}" in sys.argv:
            text = with_section(text, name, Path(sys.argv[sys.argv.index(f"--{name}") + 1]).read_text().strip())
    pages[README] = text
    if "--check" in sys.argv:
        sys.exit(any(path.read_text() != wanted for path, wanted in pages.items()))
    for path, wanted in pages.items():
        path.write_text(wanted)


if __name__ == "__main__":
    main()
