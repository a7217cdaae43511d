"""What a file says of one size of a tensor: a number, a symbol, or nothing."""

from __future__ import annotations

import re

# Exporters write these for sizes that they do not know, several times in one model: they do not stand for one number.
_PLACEHOLDERS = {"none", "null", "unknown", "dynamic"}


def declared_size(value: int | str | None) -> int | str | None:
    """A size as a file has it, where that says something; else None.

    A number below zero is no size. A name is a symbol, which stands for the same number wherever it occurs, unless it
    is a placeholder such as "?" or "None".
    """
    if isinstance(value, str):
        is_symbol = re.search(r"[^\W\d_]", value) is not None and value.lower() not in _PLACEHOLDERS
        return value if is_symbol else None
    return value if value is not None and value >= 0 else None
