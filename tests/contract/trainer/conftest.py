"""A trainer over a real channel, on both databases; its worker acts out jobs without a model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.migrated import migrated
from support.tiny_model import make_tiny_model
from support.trainer_jobs import running
from support.training import FakeExporter, exporting, rows
from tunix_rt_trainer.jobs import training
from tunix_rt_trainer.wiring import TrainerSettings, migrate

TESTS = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are acted out by ``support.scripted_trainer``."""
    monkeypatch.setattr(training, "WORKER_MODULE", "support.scripted_trainer")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[tuple[FakeExporter, str]]:
    with exporting(tmp_path / "artifacts") as (fake, address):
        fake.add(train=rows(40), validation=rows(4, start=40))
        yield fake, address


@pytest.fixture
def settings(database_url: str, tmp_path: Path, exporter: tuple[FakeExporter, str]) -> TrainerSettings:
    make_tiny_model(tmp_path / "models" / "tiny")
    made = TrainerSettings(
        listen="127.0.0.1:0",
        database_url=database_url,
        data_dir=tmp_path,
        exporter_target=exporter[1],
        shutdown_grace_s=10.0,
    )
    migrated(made, migrate)
    return made


@pytest.fixture
async def trainer(settings: TrainerSettings) -> AsyncIterator[Any]:
    async with running(settings) as stub:
        yield stub
