"""Tunix against transformers itself; the other tests hold it against what transformers once computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.golden import Golden, make_golden
from support.tiny_model import make_tiny_model
from tunix_rt_kit.models.pretrained import verify

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of which `tiny_untied_logits.json` is the golden."""
    config = {"tie_word_embeddings": False, "rope_theta": 500000.0, "num_key_value_heads": 1, "head_dim": 32}
    return make_tiny_model(
        tmp_path_factory.mktemp("models") / "untied", seed=7, config=config, shards=3, scale=0.2
    )


def test_the_golden_is_what_transformers_computes_today(untied: Path) -> None:
    kept = Golden.model_validate_json((GOLDENS / "tiny_untied_logits.json").read_text("utf-8"))
    fresh = make_golden(untied, prompts=[prompt.text for prompt in kept.prompts])
    assert fresh.weights == kept.weights
    for old, new in zip(kept.prompts, fresh.prompts, strict=True):
        assert new.tokens == old.tokens
        for old_row, new_row in zip(old.rows, new.rows, strict=True):
            assert (new_row.position, new_row.ids) == (old_row.position, old_row.ids)
            np.testing.assert_allclose(new_row.logits, old_row.logits, atol=1e-4)


def test_tunix_computes_what_transformers_computes(untied: Path) -> None:
    report = verify(untied)
    assert report.passed, report
    assert all(prompt.top1_agreement == 1.0 for prompt in report.prompts)
