"""An evaluator over a real channel, on both databases; its worker acts out evaluations without a model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import FakeTrainer, training
from support.evaluating import running
from support.migrated import migrated
from support.tiny_model import make_tiny_model
from tunix_rt_evaluator.evaluations import job_folders
from tunix_rt_evaluator.wiring import EvaluatorSettings, migrate
from tunix_rt_kit.models.store import ModelStore

TESTS = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations are acted out by ``support.scripted_evaluator``."""
    monkeypatch.setattr(job_folders, "WORKER_MODULE", "support.scripted_evaluator")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[tuple[FakeTrainer, str]]:
    with training(tmp_path / "artifacts") as served_trainer:
        yield served_trainer


@pytest.fixture
def settings(database_url: str, tmp_path: Path, trainer: tuple[FakeTrainer, str]) -> EvaluatorSettings:
    make_tiny_model(tmp_path / "models" / "tiny")
    made = EvaluatorSettings(
        listen="127.0.0.1:0",
        database_url=database_url,
        data_dir=tmp_path,
        trainer_target=trainer[1],
        # Who asks it about datasets is told at once that there is no exporter.
        exporter_target=trainer[1],
        shutdown_grace_s=10.0,
    )
    migrated(made, migrate)
    return made


@pytest.fixture
def checkpoint(settings: EvaluatorSettings, trainer: tuple[FakeTrainer, str]) -> str:
    """Name of a checkpoint of the model "tiny"."""
    digest = ModelStore(settings.models).resolve("tiny").weights_digest or ""
    return trainer[0].add(7, base_weights_digest=digest)


@pytest.fixture
async def evaluator(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    async with running(settings) as stub:
        yield stub
