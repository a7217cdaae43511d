"""ONNX Runtime's error messages, made fit for a user."""

from __future__ import annotations

import re

_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: ")
_SOURCE_LINE = re.compile(r"\S+\.(?:h|cc|cpp|cu|cuh):\d+ (?:[^()]*\([^()]*\)(?: const)? )?")
_LONGEST_REASON = 300


def one_line_reason(error: Exception) -> str:
    """The message as one line: the node in front where ORT names one, no status code, no C++ source positions."""
    text = " ".join(_STATUS.sub("", str(error)).split())
    node = _NODE.search(text)
    if node is not None:
        operator, name = node.groups()
        text = (f"node '{name}' ({operator}): " if name else f"a {operator} node: ") + text[node.end() :]
    text = _SOURCE_LINE.sub("", text).strip()
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON] + "…"
    return text or type(error).__name__
