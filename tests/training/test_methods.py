"""What jobs of other methods and families leave, and that they go on to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.job_folder import JobFolder, Killed
from support.tiny_families import make_variant
from support.tiny_model import ONE_LAYER, make_tiny_model

STEPS = 4
JOBS: dict[str, dict[str, Any]] = {
    "full in bfloat16": {"method": "full", "lora": None, "dtype": "bfloat16"},
    "qwen2": {"base_model": "qwen2_tied_float16"},
    "gemma3": {"base_model": "gemma3_scaled", "dtype": "bfloat16"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny", config=ONE_LAYER)
    # Gemma has two kinds of layers.
    for name, layers in (("qwen2_tied_float16", 1), ("gemma3_scaled", 2)):
        make_variant(name, folder / name, layers=layers)
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
