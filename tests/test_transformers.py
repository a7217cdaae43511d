"""Real exports: three of the models that `scripts/transformers_models.py` builds and folds, without a download."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of other people's imports
    pytest.importorskip("transformers", reason="needs the dependency group 'zoo'")
    pytest.importorskip("onnxscript", reason="needs the dependency group 'zoo'")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from transformers_cases import CASES
from transformers_models import export, fold

RTOL = 1e-4


@pytest.mark.parametrize(
    ("name", "exporter", "folded", "chains", "kept"),
    [
        ("levit", "torchscript", 40, 0, {}),
        ("swiftformer", "torchscript", 15, 13, {}),
        ("textnet", "torchscript", 20, 0, {"shared-value": 4}),
        ("patchtst", "dynamo", 4, 0, {}),
    ],
)
def test_a_real_export_is_folded_and_verified(
    tmp_path: Path, name: str, exporter: str, folded: int, chains: int, kept: dict[str, int]
) -> None:
    case = CASES[name]
    export(case, exporter, tmp_path / "model.onnx")
    row = fold(name, exporter, tmp_path / "model.onnx", case.stay)
    assert row.error == ""
    assert (row.folded, row.chains_folded, row.kept) == (folded, chains, kept)
    assert row.found == folded + sum(kept.values())
    assert row.verified
    assert 0 < row.max_rel < RTOL
