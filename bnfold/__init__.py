"""bnfold: folds eval-mode BatchNorms into the linear operators around them, proves it and measures it.

The public names are imported when first used, so that `bnfold --help` stays instant and a program that
only folds an ONNX file never pays for ONNX Runtime or PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bnfold.version import __version__

if TYPE_CHECKING:
    from bnfold.api import FoldResult, bench, convert, fold, inspect, verify
    from bnfold.checks.environment import environment
    from bnfold.checks.options import CheckOptions
    from bnfold.errors import (
        BnfoldError,
        EquivalenceError,
        MissingDependency,
        ModelError,
        OutputError,
        UsageError,
    )
    from bnfold.results import (
        Accuracy,
        Border,
        BorderOutput,
        Certificate,
        Counts,
        Culprit,
        Environment,
        Explanation,
        Latency,
        Operator,
        OutputDifference,
        Proof,
        Quantiles,
        Report,
        Site,
        Source,
        Verification,
    )

_HOME = {
    "bnfold.api": ("FoldResult", "bench", "convert", "fold", "inspect", "verify"),
    "bnfold.checks.environment": ("environment",),
    "bnfold.checks.options": ("CheckOptions",),
    "bnfold.errors": (
        "BnfoldError",
        "EquivalenceError",
        "MissingDependency",
        "ModelError",
        "OutputError",
        "UsageError",
    ),
    "bnfold.results": (
        "Accuracy",
        "Border",
        "BorderOutput",
        "Certificate",
        "Counts",
        "Culprit",
        "Environment",
        "Explanation",
        "Latency",
        "Operator",
        "OutputDifference",
        "Proof",
        "Quantiles",
        "Report",
        "Site",
        "Source",
        "Verification",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Accuracy",
    "BnfoldError",
    "Border",
    "BorderOutput",
    "Certificate",
    "CheckOptions",
    "Counts",
    "Culprit",
    "Environment",
    "EquivalenceError",
    "Explanation",
    "FoldResult",
    "Latency",
    "MissingDependency",
    "ModelError",
    "Operator",
    "OutputDifference",
    "OutputError",
    "Proof",
    "Quantiles",
    "Report",
    "Site",
    "Source",
    "UsageError",
    "Verification",
    "__version__",
    "bench",
    "convert",
    "environment",
    "fold",
    "inspect",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'bnfold' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
