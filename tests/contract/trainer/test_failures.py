"""Jobs whose worker fails, dies or hangs, on both databases."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from support import scripted_trainer as script
from support.serving import refused
from support.trainer_jobs import at_first_step, create, ended, error_info, get, until, worker_pid
from support.training import FakeExporter
from tunix_rt import v1
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import FailedPrecondition, Unavailable
from tunix_rt_kit.values import JobState
from tunix_rt_trainer.jobs import training
from tunix_rt_trainer.jobs.repository import SqlJobRepository
from tunix_rt_trainer.wiring import TrainerSettings


@pytest.mark.one_database
async def test_what_the_worker_refuses_is_the_error_of_the_job(trainer: Any) -> None:
    job = await until(trainer, await create(trainer, script.REFUSE), ended)
    assert job.state == v1.TrainingJob.STATE_FAILED
    assert (job.error.code, job.error.message) == (9, "rows are too long")
    info = error_info(job)
    assert (info.reason, info.domain, dict(info.metadata)) == ("EXAMPLE_TOO_LONG", "tunix-rt", {"count": "2"})
    assert not job.checkpoint
    assert job.HasField("end_time")


@pytest.mark.one_database
async def test_a_worker_that_is_killed_each_time_fails_its_job_with_its_last_output(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.Training, "most_deaths", 3)
    job = await until(trainer, await create(trainer, script.DIE), ended)
    assert job.state == v1.TrainingJob.STATE_FAILED
    assert job.attempt_count == 3
    assert "SIGKILL" in job.error.message
    assert "memory" in job.error.message
    assert "3 times in a row without a new step" in job.error.message
    info = error_info(job)
    assert info.reason == "WORKER_DIED"
    assert "about to train" in info.metadata["log_tail"]
    assert job.latest_metrics.step == 1


@pytest.mark.one_database
async def test_the_job_of_a_worker_that_was_killed_goes_on_in_another(
    trainer: Any, settings: TrainerSettings
) -> None:
    job = await until(trainer, await create(trainer, script.WAIT_ONCE), at_first_step)
    following = await create(trainer)
    os.kill(worker_pid(settings, job), signal.SIGKILL)
    job = await until(trainer, job, ended)
    assert (job.state, job.attempt_count) == (v1.TrainingJob.STATE_SUCCEEDED, 2)
    assert (await until(trainer, following, ended)).state == v1.TrainingJob.STATE_SUCCEEDED


@pytest.mark.one_database
async def test_a_worker_that_the_system_kills_for_memory_fails_its_job_at_once(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = itertools.count()
    monkeypatch.setattr(training, "processes_killed_for_memory", lambda: next(counts))
    job = await until(trainer, await create(trainer, script.DIE), ended)
    assert (job.state, job.attempt_count) == (v1.TrainingJob.STATE_FAILED, 1)
    assert error_info(job).reason == "OUT_OF_MEMORY"
    assert "8 rows of 256 tokens at a time; a smaller rows_per_batch" in job.error.message


@pytest.mark.one_database
async def test_the_job_of_a_worker_that_hangs_goes_on_in_another(
    trainer: Any, settings: TrainerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.Training, "hung_s", 5.0)
    job = await until(trainer, await create(trainer, script.WAIT_ONCE), at_first_step)
    os.kill(worker_pid(settings, job), signal.SIGSTOP)
    job = await until(trainer, job, ended)
    assert (job.state, job.attempt_count) == (v1.TrainingJob.STATE_SUCCEEDED, 2)


@pytest.mark.one_database
async def test_a_worker_that_exits_or_raises_fails_its_job_with_its_last_output(trainer: Any) -> None:
    crashed, broken = await create(trainer, script.CRASH), await create(trainer, script.BUG)
    crashed = await until(trainer, crashed, ended)
    assert "exit code 7" in crashed.error.message
    assert "the end is near" in crashed.error.message
    broken = await until(trainer, broken, ended)
    assert (broken.error.code, error_info(broken).reason) == (13, "WORKER_FAILED")
    assert "no such luck" in broken.error.message
    assert "Traceback" in error_info(broken).metadata["log_tail"]


def damage(settings: TrainerSettings, exporter: tuple[FakeExporter, str]) -> Path:
    """Change the bytes of the training split and return their file."""
    digest = exporter[0].datasets["datasets/sums@1"].splits[0].files[1].file.digest.removeprefix("sha256:")
    path = settings.data_dir / "artifacts" / "sha256" / digest[:2] / digest
    path.write_bytes(b"else")
    return path


@pytest.mark.one_database
async def test_data_that_is_damaged_in_the_artifact_store_is_refused(
    trainer: Any, settings: TrainerSettings, exporter: tuple[FakeExporter, str]
) -> None:
    path = damage(settings, exporter)
    error = await refused(create(trainer))
    assert (error.code, error.reason) == ("DATA_LOSS", "ARTIFACT_CORRUPT")
    assert path.name in error.message


@pytest.mark.one_database
async def test_data_that_is_damaged_while_a_job_waits_fails_the_job(
    trainer: Any, settings: TrainerSettings, exporter: tuple[FakeExporter, str]
) -> None:
    first = await until(trainer, await create(trainer, script.WAIT), at_first_step)
    second = await create(trainer)
    damage(settings, exporter)
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=first.name))
    job = await until(trainer, second, ended)
    assert job.state == v1.TrainingJob.STATE_FAILED
    assert error_info(job).reason == "ARTIFACT_CORRUPT"


@pytest.mark.one_database
async def test_the_job_of_a_worker_that_somebody_else_stopped_goes_on_in_another(
    trainer: Any, settings: TrainerSettings
) -> None:
    job = await until(trainer, await create(trainer, script.WAIT_ONCE), at_first_step)
    os.kill(worker_pid(settings, job), signal.SIGTERM)
    done = await until(trainer, job, ended)
    assert (done.state, done.attempt_count) == (v1.TrainingJob.STATE_SUCCEEDED, 2)


async def test_a_job_outlives_a_moment_without_its_database(
    trainer: Any, settings: TrainerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await until(trainer, await create(trainer, script.WAIT_ONCE), at_first_step)
    monkeypatch.setattr("tunix_rt_kit.jobs.child_jobs.AWAY_S", 0.05)
    away = itertools.count()
    for name in ("save", "change_state"):
        original = getattr(SqlJobRepository, name)

        def call(*given: Any, original: Any = original, **named: Any) -> Any:
            if next(away) < 4:
                raise Unavailable("the database is away", reason="DATABASE_UNAVAILABLE")
            return original(*given, **named)

        monkeypatch.setattr(SqlJobRepository, name, call)
    os.kill(worker_pid(settings, job), signal.SIGTERM)
    done = await until(trainer, job, ended)
    assert (done.state, done.attempt_count) == (v1.TrainingJob.STATE_SUCCEEDED, 2)
    assert next(away) > 4


@pytest.mark.one_database
async def test_a_cancel_ends_the_waiting_for_an_artifact_store_that_stays_away(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunix_rt_kit.jobs.run._CANCELLED_S", 0.2)
    monkeypatch.setattr("tunix_rt_kit.jobs.child_jobs.AWAY_S", 0.05)
    tried = threading.Event()

    def away(*_: Any) -> None:
        tried.set()
        raise Unavailable("the artifact store is away", reason="STORAGE_UNAVAILABLE")

    made = await create(trainer)
    monkeypatch.setattr(ArtifactStore, "put_file", away)
    await asyncio.to_thread(tried.wait, 30)
    assert (await get(trainer, made)).state == v1.TrainingJob.STATE_RUNNING
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=made.name))
    assert (await until(trainer, made, ended)).state == v1.TrainingJob.STATE_CANCELLED


async def test_a_database_that_takes_nothing_for_good_fails_the_job_by_name_once_it_can(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_writes = itertools.count()
    change_state = SqlJobRepository.change_state
    read_only = FailedPrecondition("the database is read-only", reason="DATABASE_READ_ONLY")

    def save(*_: Any) -> None:
        raise read_only

    def fail_a_while(repository: Any, job_id: str, expected: Any, state: Any, **more: Any) -> bool:
        if state is JobState.FAILED and next(refused_writes) < 2:
            raise read_only
        return change_state(repository, job_id, expected, state, **more)

    monkeypatch.setattr(SqlJobRepository, "save", save)
    monkeypatch.setattr(SqlJobRepository, "change_state", fail_a_while)
    done = await until(trainer, await create(trainer), ended)
    assert (done.state, error_info(done).reason) == (v1.TrainingJob.STATE_FAILED, "DATABASE_READ_ONLY")
    assert next(refused_writes) == 3
