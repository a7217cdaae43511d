"""Writes the generated parts of README.md: the table of reasons, from the code; the cost, from a run of cost.py.

usage: python scripts/readme.py                 the reasons
       python scripts/readme.py --check         the same, but exit code 1 if README.md would change
       python scripts/readme.py --cost FILE     what `python scripts/cost.py > FILE` printed
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bnfold.algebra.reasons import REASONS

README = Path(__file__).resolve().parent.parent / "README.md"


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
    wanted = with_section(text, "reasons", reasons_table())
    if "--cost" in sys.argv:
        wanted = with_section(wanted, "cost", Path(sys.argv[sys.argv.index("--cost") + 1]).read_text().strip())
    if "--check" in sys.argv:
        sys.exit(text != wanted)
    README.write_text(wanted)


if __name__ == "__main__":
    main()
