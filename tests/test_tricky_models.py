"""The tricky models of the benchmark are what they say, and bnfold answers them right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import bnfold

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from tricky_models import MODELS, model

STAY = {
    "before-padded-conv": "padded-shift",
    "half-overflow": "range-overflow",
    "last-axis-constant": "off-channel",
    "linear-over-tokens": "off-channel",
    "linear-reshape-rows": "off-channel",
    "linear-transpose-rows": "off-channel",
    "max-pool-negative": "not-equivariant",
    "not-spatial-opset-7": "unsupported",
    "read-twice": "shared-value",
    "training-mode": "training-mode",
    "zero-pad": "not-equivariant",
}


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_is_right_and_what_stays_has_its_reason(name: str) -> None:
    original = model(name)
    assert original == model(name)
    result = bnfold.fold(original)
    assert [site.reason for site in result.sites] == [STAY.get(name)]
    verdict = bnfold.verify(original, result.model)
    assert verdict.passed, [output.detail for output in verdict.outputs]
