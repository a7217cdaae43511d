"""Faults planted in folded models, and what verification makes of them.

A fault changes one constant that a fold made, and does so again whenever that constant is made: so it goes only with
the folds that made it. How much it changes the outputs is measured in float64 on the inputs that verification uses;
whose fault it is is read from the account of the sites.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx

import bnfold
from bnfold import conversion
from bnfold.checks.baseline import Baseline
from bnfold.checks.compare import tolerance_for
from bnfold.checks.options import CheckOptions
from bnfold.checks.session import open_session
from bnfold.conversion import Conversion, Target
from bnfold.exactly import ExactSource
from bnfold.graphs.account import FoldOptions
from bnfold.graphs.onnx.document import Computed, Document, Ledger
from bnfold.graphs.onnx.exact.certify import Certifier
from bnfold.graphs.onnx.exact.engine import Engine, bodies
from bnfold.graphs.onnx.exact.findings import Finding
from bnfold.graphs.onnx.exact.samples import Samples
from bnfold.graphs.onnx.fold import fold_document
from bnfold.results import Culprit, Verification

Array = np.ndarray[Any, Any]
KINDS = ("scale", "bias", "swap", "stale")


@dataclass(frozen=True)
class Fault:
    """A fault in a folded constant: an entry of the first axis scaled by 1 % or moved by 1e-3 of the constant's range,
    two swapped, or the constant as it was before it was folded (`old`).
    """

    kind: str
    constant: str
    at: tuple[int, int]
    owners: tuple[str, ...]
    old: Array | None = None

    def applied(self, array: Array) -> Array:
        wrong = array.copy()
        first, second = (at % max(len(wrong), 1) for at in self.at)
        if self.kind == "scale":
            wrong[first] = (wrong[first].astype(np.float64) * 1.01).astype(wrong.dtype)
        elif self.kind == "bias":
            span = float(wrong.max()) - float(wrong.min())
            wrong[first] = (wrong[first].astype(np.float64) + 1e-3 * span).astype(wrong.dtype)
        elif self.kind == "swap":
            wrong[[first, second]] = wrong[[second, first]]
        elif self.old is not None and self.old.shape == wrong.shape:
            wrong = self.old.astype(wrong.dtype)
        return wrong


@dataclass(frozen=True)
class Trial:
    """One fault: its largest effect in units of the tolerance, and what was made of it."""

    fault: Fault
    effect: float
    caught: bool
    blamed: tuple[str, ...]
    passed: bool
    culprits: tuple[Culprit, ...]

    @property
    def missed(self) -> bool:
        return self.effect > 1 and not self.caught

    @property
    def misnamed(self) -> bool:
        """Whether anything but the fold was taken back; where several folds made the constant, one may be enough."""
        blamed = set(self.blamed)
        return self.caught and not (blamed and blamed <= set(self.fault.owners) and self.passed)


RTOL = {"float32": 1e-4, "float16": 1e-2}


class Sabotage:
    """A model, to be folded with faults in `folder`, and verified with these options."""

    def __init__(self, path: Path, folder: Path, options: CheckOptions) -> None:
        self.options = options
        self.job = Conversion(path, path, Target(folder / "out.onnx", folder, FoldOptions()))
        session = open_session(path)
        self._tolerances = {info.name: tolerance_for(info.name, info.dtype, options) for info in session.outputs}
        self._baseline = Baseline(session, self._tolerances, options, lambda done, of: None)
        source = ExactSource(path)
        self._exact = [source.run(feed.values, math.inf) for feed in self._baseline.feeds]
        attempt = self.job.attempt()
        self.sites = attempt.sites
        self._made = dict(_made(onnx.load(attempt.staged.model), onnx.load(path), self.sites))

    def faults(self, count: int, seed: int) -> Iterator[Fault]:
        """Random faults that change something, each of a random kind in a random constant."""
        rng = np.random.default_rng(seed)
        names = sorted(self._made)
        while count:
            name, kind = names[rng.integers(len(names))], KINDS[rng.integers(len(KINDS))]
            array, old, owners = self._made[name]
            if kind == "bias" and array.ndim != 1:
                continue
            fault = Fault(kind, name, (int(rng.integers(2**31)), int(rng.integers(2**31))), owners, old)
            if not np.array_equal(fault.applied(array), array):
                count -= 1
                yield fault

    def trial(self, fault: Fault) -> Trial:
        """Convert with a fault in it."""
        with planted(fault):
            attempt = self.job.attempt()
            effect = self._effect(attempt.staged.model)
            attempt.staged.discard()
            _, verdict = self.job.verified(self.options, None)
        caught = not verdict.passed or bool(verdict.taken_back)
        return Trial(fault, effect, caught, _blamed(verdict), verdict.passed, verdict.culprits)

    def _effect(self, path: Path) -> float:
        wrong = ExactSource(path)
        largest = 0.0
        for feed, exact in zip(self._baseline.feeds, self._exact, strict=True):
            answers, found = self._baseline.answers(feed), wrong.run(feed.values, math.inf)
            assert not isinstance(exact, str), exact
            assert not isinstance(found, str), found
            for name, array in answers.items():
                bound = self._tolerances[name].bound(float(np.abs(array).max()))
                largest = max(largest, float(np.abs(found[name] - exact[name]).max()) / bound)
        return largest


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """While this lasts, every conversion has the fault wherever the constant is made."""

    def wrong(document: Document, where: str, options: FoldOptions) -> tuple[bnfold.Site, ...]:
        sites = fold_document(document, where, options)
        payload = document.payloads.get(fault.constant)
        if isinstance(payload, Computed):
            array = fault.applied(np.asarray(payload.array()))
            document.payloads[fault.constant] = Computed(payload.nbytes, lambda: array)
            return sites
        main = document.model.graph
        for tensor in (tensor for graph in (main, *bodies(main.node)) for tensor in graph.initializer):
            if tensor.name == fault.constant:
                tensor.CopyFrom(
                    onnx.numpy_helper.from_array(fault.applied(onnx.numpy_helper.to_array(tensor)), tensor.name)
                )
        return sites

    with mock.patch.object(conversion, "fold_document", wrong):
        yield


def found_by(original: Engine, folded: Engine, ledger: Ledger, feeds: Mapping[str, Array]) -> dict[int, Finding]:
    """What is found of every site, on inputs of these sizes."""
    samples = Samples.of(feeds)
    original.run(feeds, watch=samples.note, inside=True)
    certifier = Certifier(original, folded, ledger, samples, RTOL)
    return certifier.findings(certifier.parts(math.inf))


def _made(
    folded: onnx.ModelProto, original: onnx.ModelProto, sites: Sequence[bnfold.Site]
) -> Iterator[tuple[str, tuple[Array, Array | None, tuple[str, ...]]]]:
    """The constants that folds made, what was there before, and the sites whose folds are in them."""
    before = {tensor.name: tensor for tensor in original.graph.initializer}
    graphs = [folded.graph, *bodies(folded.graph.node)]
    nodes = [node for graph in graphs for node in graph.node]
    for tensor in (tensor for graph in graphs for tensor in graph.initializer):
        if tensor.name in before:
            continue
        readers = {node.name or node.output[0] for node in nodes if tensor.name in node.input}
        owners = tuple(site.name for site in sites if site.folded and readers & set(site.into))
        old = tensor.name.partition(".folded")[0]
        known = onnx.numpy_helper.to_array(before[old]) if old in before else None
        array = onnx.numpy_helper.to_array(tensor)
        if owners and array.ndim:
            yield tensor.name, (array, known, owners)


def _blamed(verdict: Verification) -> tuple[str, ...]:
    return verdict.taken_back or tuple(culprit.site for culprit in verdict.culprits)
