"""Folders that are no base models: a refusal that names file and problem, before any work."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from support.malformed_models import malformed
from support.serving import refused
from support.trainer_jobs import create
from tunix_rt import v1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_malformed_folder_is_refused_by_name_and_listed_nowhere(trainer: Any, tmp_path: Path) -> None:
    wrong: list[str] = []
    for name, folder, words in malformed(tmp_path / "models"):
        began = time.process_time()
        spec = v1.TrainingSpec(base_model=str(folder), dataset="datasets/sums@1")
        error = await refused(trainer.PlanTrainingJob(v1.PlanTrainingJobRequest(spec=spec)))
        took = time.process_time() - began
        right = (error.code, error.reason) == ("FAILED_PRECONDITION", "BASE_MODEL_UNSUPPORTED")
        if not right or str(folder) not in error.message or any(word not in error.message for word in words):
            wrong.append(f"{name}: {error.code} {error.message}")
        if took > 1.0:
            wrong.append(f"{name}: took {took:.1f} s")
    assert wrong == []
    error = await refused(create(trainer, base_model=str(folder)))
    assert error.reason == "BASE_MODEL_UNSUPPORTED"
    listed = await trainer.ListBaseModels(v1.ListBaseModelsRequest(page_size=1000))
    names = {model.base_model for model in listed.base_models}
    assert "tiny" in names
    assert not (await trainer.ListTrainingJobs(v1.ListTrainingJobsRequest())).training_jobs
