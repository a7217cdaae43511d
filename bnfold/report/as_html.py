"""A report as one HTML page that needs nothing else: no network, no other file, and, but for its filters, no script.

Decisions. Names come from the model and are hostile until escaped: every value that the template puts out goes through
`printable` and through Jinja's escaping; what is not escaped is what this package drew itself, which holds no name. A
Content-Security-Policy lets nothing be loaded and no script run but the page's own, which it names by its hash.
Drawings of the same shape stand in the page once. More than `MOST_DRAWN` sites are listed without drawings.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bnfold.report import charts, drawing, measures, tables, tiles, words
from bnfold.results import Border, Comparison, Latency, Report, Site, Verification

MOST_DRAWN = 500
_MOST_OPEN = 12  # operators in a drawing that is shown at once

_BEFORE_UNIT = re.compile(r"(\d) (%|ms|MB|kB)")
_ROLES = {"absorbs": "takes it in: its constants change", "crossed": "is crossed and does not change"}
_ROLES |= {"blocks": "is in the way", "beside": "between them"}


def dumps(result: Report | Comparison) -> str:
    """The page, with a line break at the end."""
    environment = Environment(
        loader=PackageLoader("bnfold.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sentence"] = _sentence
    script = _resource("script.js")
    return environment.get_template("page.html").render(
        style=Markup(_resource("style.css")),  # noqa: S704 - the package's own
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        version=result.version,
        tiles=tiles.of(result),
        words=words,
        **(_of_report(result) if isinstance(result, Report) else _of_comparison(result)),
    )


def _resource(name: str) -> str:
    return files("bnfold.report").joinpath("templates", name).read_text("utf-8")


def _sentence(text: str) -> Markup:
    """A sentence of this package's: with a capital, a full stop, and no line break before a unit."""
    text = words.printable(text[:1].upper() + text[1:]).rstrip(".") + "."
    return Markup(_BEFORE_UNIT.sub("\\1&nbsp;\\2", str(escape(text))))  # noqa: S704 - escaped here


def _finalized(value: Any) -> Any:
    return words.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _of_report(report: Report) -> dict[str, Any]:
    source, plan = report.source, words.is_plan(report)
    gallery = _Gallery()
    facts = [("Model", source.path or "given in memory"), ("Written to", report.output_path or "")]
    facts += [("Opset", str(source.opset or "")), ("IR version", str(source.ir_version or ""))]
    facts += [("SHA-256", source.sha256 or "")]
    return {
        "models": ("original", "folded"),
        "title": PurePath(source.path).name if source.path else "model in memory",
        "command": "inspect" if plan else "convert",
        "plan": plan,
        "failed": report.verification is not None and not report.verification.passed,
        "facts": _facts(facts, report),
        "graph": measures.of_graph(report),
        "has_after": report.after is not None,
        "notes": report.notes,
        "verification": _verification(report.verification, "the folded model is"),
        "latency": _latency(report.latency, ("original", "folded")),
        "disturbance": words.disturbance(report.latency),
        "sites": [gallery.row(site) for site in report.sites],
        "reasons": report.reasons,
        "explained": {item.reason for item in report.reasons},
        "symbols": gallery.symbols,
    }


def _of_comparison(comparison: Comparison) -> dict[str, Any]:
    names = PurePath(comparison.original).name, PurePath(comparison.other).name
    return {
        "models": ("first", "second"),
        "title": f"{names[0]} and {names[1]}",
        "command": "verify" if comparison.verification else "bench",
        "plan": False,
        "failed": False,
        "facts": _facts([("First model", comparison.original), ("Second model", comparison.other)], comparison),
        "graph": measures.of_files(comparison.latency),
        "has_after": True,
        "notes": (),
        "verification": _verification(comparison.verification, "the two models are"),
        "latency": _latency(comparison.latency, ("first", "second")),
        "disturbance": words.disturbance(comparison.latency),
        "sites": [],
        "reasons": (),
        "explained": set(),
        "symbols": [],
    }


def _facts(pairs: list[tuple[str, str]], result: Report | Comparison) -> list[tuple[str, str]]:
    """What stands at the foot of the page: files, versions, machine; what is empty is left out."""
    where = result.environment
    if where:
        load = "" if where.load is None else f"{where.load:.2f} before the run"
        pairs += [("Machine", f"{where.cpu}, {words.counted(where.cores, 'core')}"), ("System", where.os)]
        pairs += [("Load", load), ("Python", where.python), ("NumPy", where.numpy), ("ONNX Runtime", where.onnxruntime)]
    took = words.duration(result) if isinstance(result, Report) else ""
    return [(label, text) for label, text in [*pairs, ("Time", took), ("bnfold", result.version)] if text]


def _verification(verification: Verification | None, subject: str) -> dict[str, Any] | None:
    if verification is None:
        return None
    limits = charts.error_limits(verification.outputs)
    named, proof = len(verification.accuracy) > 1, verification.proof
    return {
        "of": verification,
        "sentence": words.verdict(verification, subject),
        "proof": (words.proof(proof), *words.wrong_parts(proof), *words.open_parts(proof)) if proof else (),
        "taken_back": words.taken_back(verification) if verification.taken_back else "",
        "accuracy": [words.accuracy(score, named=named) for score in verification.accuracy],
        "outputs": [
            (output, _chart(charts.errors(output, limits), f"e{at}") if limits else "")
            for at, output in enumerate(verification.outputs)
        ],
        "border": _border(verification.border),
        "depth": _chart(charts.growth([error for _, error in verification.depth]), "depth"),
        "culprits": [
            (culprit, _chart(charts.growth([error for _, error in culprit.growth]), f"c{at}"))
            for at, culprit in enumerate(verification.culprits)
        ],
    }


def _border(border: Border | None) -> dict[str, Any] | None:
    if border is None:
        return None
    sentences = (words.border(border), *words.border_failures(border), f"largest errors, against {border.reference}")
    return {"sentences": sentences, "grid": tables.border_grid(border)}


def _latency(latency: tuple[Latency, ...], names: tuple[str, str]) -> list[dict[str, Any]]:
    before, after = (f"the {name} model" for name in names)
    return [
        {
            "of": row,
            "setting": words.setting(row),
            "sentence": words.latency(row, before, after).removeprefix(f"{words.setting(row)}: "),
            "names": names,
            "measures": measures.of_latency(row),
            "distribution": _chart(charts.distribution(row), f"d{at}"),
            "beyond": charts.percent_beyond(row) if row.before_quantiles_ms else 0,
            "ratio": _chart(charts.ratio(row), f"r{at}"),
        }
        for at, row in enumerate(latency)
    ]


def _chart(svg: str, prefix: str) -> Markup:
    return Markup(charts.with_ids(svg, prefix))  # noqa: S704 - drawn here, without names


@dataclass(frozen=True)
class _Picture:
    """One use of a drawing: its caption, the symbol it shows, and what it says to those who do not see it."""

    caption: str
    symbol: str
    width: int
    height: int
    spoken: str


@dataclass(frozen=True)
class _Symbol:
    """A drawing that stands in the page once."""

    name: str
    drawing: drawing.Drawing


def _role(site: Site, at: int) -> str:
    """What an operator of a site's drawing has to do with it, in words."""
    item = site.operators[at]
    if item.role == "site":
        return "goes" if site.folded else "stays"
    read_on = any(at in other.reads for other in site.operators)
    if item.role == "beside" and not read_on and any(site.operators[read].role == "blocks" for read in item.reads):
        return "reads the same value"
    more = f", and {words.counted(item.readers_outside, 'other')} read its value too" if item.readers_outside else ""
    return _ROLES[item.role] + (more if item.role == "blocks" else "")


class _Gallery:
    """The drawings of a page, each shape once."""

    def __init__(self) -> None:
        self._found: dict[tuple[drawing.Vertex, ...], _Symbol] = {}
        self._rows = count()

    @property
    def symbols(self) -> list[_Symbol]:
        return list(self._found.values())

    def row(self, site: Site) -> dict[str, Any]:
        """All that the page says of one site."""
        drawn = bool(site.operators) and next(self._rows) < MOST_DRAWN
        return {
            "site": site,
            "pictures": list(self._pictures(site)) if drawn else [],
            "open": len(site.operators) <= _MOST_OPEN,
            "operators": [(item, _role(site, at)) for at, item in enumerate(site.operators)],
            "later": self._later(site),
        }

    def _pictures(self, site: Site) -> Iterator[_Picture]:
        yield self._picture("before" if site.folded else "around it", drawing.before(site))
        if site.folded:
            left = drawing.after(site)
            if left:
                yield self._picture("after", left)

    def _picture(self, caption: str, vertices: tuple[drawing.Vertex, ...]) -> _Picture:
        if vertices not in self._found:
            self._found[vertices] = _Symbol(f"g{len(self._found)}", drawing.draw(vertices))
        symbol = self._found[vertices]
        spoken = f"{caption}: " + ", ".join(f"{vertex.number} {vertex.label}" for vertex in vertices)
        return _Picture(caption, symbol.name, symbol.drawing.width, symbol.drawing.height, spoken)

    @staticmethod
    def _later(site: Site) -> tuple[str, ...]:
        """Where the parameters ended up, if what took them in has been folded further."""
        took = {item.name for item in site.operators if item.role == "absorbs"}
        return site.into if took and not set(site.into) <= took else ()
