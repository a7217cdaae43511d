"""`python -m bnfold` is the command `bnfold`."""

from __future__ import annotations

from bnfold.cli import main

if __name__ == "__main__":
    main(prog_name="bnfold")
