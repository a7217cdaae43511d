"""Fold real exports: models of the transformers library, built from small configurations, through PyTorch's exporters.

    python scripts/transformers_models.py [--only NAME] [--keep FOLDER] [--json FILE]

Nothing is downloaded: weights are random, also those that a configuration leaves at zeros or ones. BatchNorms get
random gammas, some of them negative or zero, and the statistics of random data; frozen ones (constants in a module of
their own) get random statistics. Each model is exported in inference mode with a symbolic batch size by

    dynamo         torch.onnx.export(dynamo=True, optimize=False)
    dynamo, opt.   torch.onnx.export(dynamo=True, optimize=True), which folds some BatchNorms itself
    torchscript    torch.onnx.export(dynamo=False, training=PRESERVE, do_constant_folding=False)

where that exporter can, and goes through `bnfold.convert` with verification on ONNX Runtime. Prints a Markdown table:
the BatchNorms in the file, how many folded, how many stay for which reason, chains of other operators that spell a
BatchNorm (folded of found), the largest error of an output relative to its largest element, and the seconds that all
of it took. Below it, every BatchNorm that stays. Exits with 1 where an export fails, verification fails, or more
BatchNorms stay than the network itself asks for, with 0 otherwise. A few minutes on two cores.

Needs the extras `cpu` and `torch` and the dependency group `zoo`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers_cases import CASES, Case

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import bnfold

SEED = 8
BATCH, CALIBRATION_BATCH, CALIBRATION_BATCHES = 2, 16, 2
OPSET = 20
TOKENS = (3, 20)  # the range of token ids: no special token, in every vocabulary
EXPORTERS = ("dynamo", "dynamo, opt.", "torchscript")


@dataclass(frozen=True)
class Row:
    """What became of one export. `kept` counts BatchNorms by reason; `error` is empty where all is well."""

    model: str
    exporter: str
    found: int = 0
    folded: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)
    chains_found: int = 0
    chains_folded: int = 0
    max_rel: float = 0.0
    verified: bool = False
    seconds: float = 0.0
    details: tuple[str, ...] = ()
    error: str = ""


class Named(nn.Module):
    """A model with positional inputs and a tuple of the outputs of these names."""

    def __init__(self, model: nn.Module, inputs: Iterable[str], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, tuple(inputs), outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        result = self.model(**dict(zip(self.inputs, tensors, strict=True)), return_dict=True)
        return tuple(result[name] for name in self.outputs)


def prepared(case: Case) -> Named:
    """The model in inference mode, its BatchNorms as after a training."""
    torch.manual_seed(SEED)
    network = Named(case.build().eval(), case.inputs, case.outputs)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    with torch.no_grad():
        for parameter in network.parameters():
            if (parameter == parameter.flatten()[0]).all():
                parameter += torch.randn_like(parameter) / 8
        for number, norm in enumerate(norms):
            norm.weight.uniform_(0.5, 1.5)
            norm.weight[0] *= -1 if number % 3 == 0 else 1
            norm.weight[-1] *= 0 if number % 5 == 0 else 1
            norm.reset_running_stats()
            norm.momentum = None  # running statistics become the plain average over all batches
            norm.train()
        if norms:
            for _ in range(CALIBRATION_BATCHES):
                network(*drawn(case, CALIBRATION_BATCH))
        for module in network.modules():
            if "FrozenBatchNorm" in type(module).__name__:
                module.weight.uniform_(-0.5, 1.5)
                module.bias.normal_(0.0, 0.1)
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def drawn(case: Case, batch: int) -> tuple[Tensor, ...]:
    """Random inputs: token ids for `input_ids`, else numbers of the normal distribution."""
    return tuple(
        torch.randint(*TOKENS, (batch, *shape)) if name == "input_ids" else torch.randn(batch, *shape)
        for name, shape in case.inputs.items()
    )


def export(case: Case, exporter: str, path: Path, network: Named | None = None) -> None:
    """Write a case as one of the exporters leaves it; raises whatever the exporter raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters and of models that trace Python branches
        network = network or prepared(case)
        args, names = drawn(case, BATCH), list(case.inputs)
        if exporter == "torchscript":
            torch.onnx.export(
                network,
                args,
                path,
                dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                opset_version=OPSET,
                input_names=names,
                dynamic_axes={name: {0: "batch"} for name in names},
            )
            return
        program = torch.onnx.export(
            network,
            args,
            dynamo=True,
            optimize=exporter == "dynamo, opt.",
            opset_version=OPSET,
            verbose=False,
            input_names=names,
            dynamic_shapes=(tuple({0: torch.export.Dim.DYNAMIC} for _ in names),),
        )
        program.save(path)


def fold(name: str, exporter: str, path: Path, stay: int) -> Row:
    """Fold a file and have the result verified."""
    target = path.with_suffix(".folded.onnx")
    try:
        report = bnfold.convert(path, target, bench=False, force=True)
    except bnfold.BnfoldError as error:
        return Row(name, exporter, error=f"{type(error).__name__}: {error}")
    norms = report.batch_norms
    chains = [site for site in report.sites if site.op == "affine"]
    kept = [site for site in norms if not site.folded]
    verification = report.verification
    verified = verification is not None and verification.passed
    if not verified:
        error = "not verified"
    elif verification and verification.taken_back:
        error = f"{len(verification.taken_back)} folds were taken back"
    else:
        error = f"{len(kept)} BatchNorms stay, of {stay} that must" if len(kept) > stay else ""
    return Row(
        name,
        exporter,
        found=len(norms),
        folded=len(norms) - len(kept),
        kept=dict(Counter(site.reason or "" for site in kept)),
        chains_found=len(chains),
        chains_folded=sum(site.folded for site in chains),
        max_rel=max((output.max_rel for output in verification.outputs), default=0.0) if verification else 0.0,
        verified=verified,
        details=tuple(f"'{site.name}': {site.reason} at '{site.blocker}': {site.detail}" for site in kept),
        error=error,
    )


def rows(name: str, case: Case, folder: Path) -> Iterator[Row]:
    """One row per exporter that can export the case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = prepared(case)
    for exporter in EXPORTERS:
        if exporter in case.without:
            continue
        path = folder / f"{name}.{exporter.replace(', opt.', '_opt')}.onnx"
        start = time.perf_counter()
        try:
            export(case, exporter, path, network)
        except Exception as error:  # exporters raise what they like; it becomes a row of the table
            first = str(error).strip().splitlines()
            yield Row(name, exporter, error=f"export: {type(error).__name__}: {first[0] if first else ''}")
            continue
        row = fold(name, exporter, path, case.stay)
        yield replace(row, seconds=time.perf_counter() - start)


def line(row: Row) -> str:
    """A row of the Markdown table."""
    kept = ", ".join(f"{count} {reason}" for reason, count in row.kept.items())
    chains = f"{row.chains_folded} of {row.chains_found}" if row.chains_found else ""
    verdict = row.error or (f"{row.max_rel:.1e}" if row.folded or row.chains_folded else "unchanged")
    counts = f"{row.found} | {row.folded} | {kept} | {chains}"
    return f"| {row.model} | {row.exporter} | {counts} | {verdict} | {row.seconds:.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=CASES, metavar="NAME", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the exported and folded files here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # the exporters report what is not installed
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, bnfold {bnfold.__version__}\n")
    print("| model | exporter | BN | folded | kept | chains | max. relative error | s |")
    print("| --- | --- | ---: | ---: | --- | ---: | --- | ---: |")
    done: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.only or CASES:
            for row in rows(name, CASES[name], folder):
                print(line(row), flush=True)
                done.append(row)
    print()
    for row in done:
        for detail in row.details:
            print(f"- {row.model}, {row.exporter}, {detail}")
    for name in args.only or CASES:
        if CASES[name].stay:
            print(f"- {name}, {CASES[name].stay} must stay: {CASES[name].why}")
        for exporter, why in CASES[name].without.items():
            print(f"- {name}, {exporter}: not exported: {why}")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in done], indent=1) + "\n")
    failed = sum(bool(row.error) for row in done)
    found, folded = sum(row.found for row in done), sum(row.folded for row in done)
    print(f"\n{len(done)} exports, {folded} of {found} BatchNorms folded, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
