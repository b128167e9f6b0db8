"""Every family against transformers itself; the unit tests hold it against what that once computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.golden import Golden, make_golden
from support.tiny_families import PROMPTS, VARIANTS, make_variant
from tunix_rt_kit.models.pretrained import verify

GOLDENS = Path(__file__).parents[1] / "goldens" / "families"


@pytest.mark.parametrize("name", VARIANTS)
def test_the_golden_is_what_transformers_computes_today(name: str, tmp_path: Path) -> None:
    kept = Golden.model_validate_json((GOLDENS / f"{name}.json").read_text("utf-8"))
    fresh = make_golden(make_variant(name, tmp_path), prompts=PROMPTS)
    assert fresh.weights == kept.weights
    for old, new in zip(kept.prompts, fresh.prompts, strict=True):
        assert new.tokens == old.tokens
        for old_row, new_row in zip(old.rows, new.rows, strict=True):
            assert (new_row.position, new_row.ids) == (old_row.position, old_row.ids)
            np.testing.assert_allclose(new_row.logits, old_row.logits, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_tunix_computes_what_transformers_computes(name: str, tmp_path: Path) -> None:
    report = verify(make_variant(name, tmp_path), prompts=PROMPTS)
    # Measured: below 2e-5.
    assert report.passed, report
    assert all(prompt.top1_agreement == 1.0 for prompt in report.prompts)
