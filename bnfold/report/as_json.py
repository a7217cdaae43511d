"""A report as JSON: the result types field by field, with the counts of BatchNorms that a script asks for first.

Every number is finite; NaN and infinities, which JSON does not have, are null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from bnfold.results import Comparison, Report, Site

_OF_KEPT = frozenset({"reason", "blocker", "detail"})
_OF_FOLDED = frozenset({"direction", "into", "through", "added_bytes", "certificate"})
_ON_REQUEST = frozenset({"certificate"})


def dumps(result: Report | Comparison) -> str:
    """JSON text, indented, in ASCII, with a line break at the end."""
    return json.dumps(_plain(_document(result)), indent=2, allow_nan=False) + "\n"


def _document(result: Report | Comparison) -> dict[str, Any]:
    fields = asdict(result)
    document = {"bnfold": fields.pop("version"), **fields}
    if isinstance(result, Comparison):
        return document
    chains = [site for site in result.sites if site.op == "affine"]
    counts = {"batch_norms": _tally(result.batch_norms), "affine_chains": _tally(chains)}
    sites = [_site(site) for site in result.sites]
    return {"bnfold": document["bnfold"], "source": document["source"], **counts, **document, "sites": sites}


def _tally(sites: Iterable[Site]) -> dict[str, int]:
    folded = [site.folded for site in sites]
    return {"found": len(folded), "folded": sum(folded), "kept": len(folded) - sum(folded)}


def _site(site: Site) -> dict[str, Any]:
    foreign = _OF_KEPT if site.folded else _OF_FOLDED
    return {
        key: value
        for key, value in asdict(site).items()
        if key not in foreign and not (value is None and key in _ON_REQUEST)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
