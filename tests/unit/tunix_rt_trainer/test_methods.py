"""What jobs of other methods and families leave, and that they go on to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.job_folder import JobFolder, Killed
from support.tiny_families import make_variant
from support.tiny_model import make_tiny_model
from tunix_rt_kit.models.loader import load_model, logits, make_mesh
from tunix_rt_kit.models.lora import load_adapter

STEPS = 4
FULL: dict[str, Any] = {"method": "full", "lora": None, "base_model": "tiny"}
JOBS: dict[str, dict[str, Any]] = {
    "full in bfloat16": {**FULL, "dtype": "bfloat16"},
    "qwen2": {"base_model": "qwen2_tied_float16"},
    "gemma3": {"base_model": "gemma3_scaled", "dtype": "bfloat16"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny")
    for name in ("qwen2_tied_float16", "gemma3_scaled"):
        make_variant(name, folder / name)
    return folder


def killed_at_step(step: int) -> Any:
    def seen(kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics" and fields["step"] == step:
            raise Killed

    return seen


@pytest.mark.parametrize("changed", JOBS.values(), ids=JOBS)
def test_a_job_learns_and_goes_on_to_the_same_bytes(
    tmp_path: Path, models: Path, changed: dict[str, Any]
) -> None:
    values = {"max_steps": STEPS, "checkpoint_interval_steps": 2, "max_length": 128, **changed}
    whole = JobFolder(tmp_path / "whole", models, **values)
    whole.train()
    losses = [event["loss"] for event in whole.events("metrics")]
    assert losses[-1] < losses[0]
    ended = JobFolder(tmp_path / "ended", models, **values)
    with pytest.raises(Killed):
        ended.train(killed_at_step(4))
    ended.next_attempt()
    ended.train()
    assert [event["step"] for event in ended.events("resumed")] == [2]
    assert ended.contents() == whole.contents()


def test_all_weights_are_a_model_that_computes_otherwise_than_its_base(tmp_path: Path, models: Path) -> None:
    job = JobFolder(tmp_path / "job", models, max_steps=2, **FULL)
    job.train()
    assert {"config.json", "model.safetensors", "tokenizer.json", "ledger.jsonl"} <= set(job.contents())
    tokens = np.asarray([[5, 6, 7, 8]], np.int32)
    mesh = make_mesh()
    with mesh:
        base, tuned = (
            np.asarray(logits(load_model(folder, dtype="float32", mesh=mesh), tokens, tokens > 0))
            for folder in (models / "tiny", job.checkpoint)
        )
    assert np.abs(base - tuned).max() > 1e-3


def test_an_adapter_beside_four_bits_fits_the_base_model(tmp_path: Path, models: Path) -> None:
    job = JobFolder(tmp_path / "job", models, max_steps=2, method="qlora")
    job.train()
    mesh = make_mesh()
    with mesh:
        load_adapter(load_model(models / "tiny", dtype="float32", mesh=mesh), job.checkpoint)
