"""Training jobs, checkpoints and base models that are deleted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from support import scripted_trainer as script
from support.serving import refused
from support.trainer_jobs import create, ended, get, until
from tunix_rt import v1
from tunix_rt_kit.errors import check_living
from tunix_rt_kit.models import CATALOG
from tunix_rt_trainer.jobs.model import DatasetInput
from tunix_rt_trainer.upstream import ExporterDatasets
from tunix_rt_trainer.wiring import TrainerSettings


def delete(trainer: Any, job: v1.TrainingJob) -> Any:
    return trainer.DeleteTrainingJob(v1.DeleteTrainingJobRequest(name=job.name))


def delete_checkpoint(trainer: Any, name: str) -> Any:
    return trainer.DeleteCheckpoint(v1.DeleteCheckpointRequest(name=name))


def delete_model(trainer: Any, name: str, *, force: bool = False) -> Any:
    return trainer.DeleteBaseModel(v1.DeleteBaseModelRequest(name=name, force=force))


async def test_a_deleted_job_goes_with_its_checkpoints_and_stays_on_record(
    trainer: Any, settings: TrainerSettings
) -> None:
    job = await until(trainer, await create(trainer), ended)
    folder = settings.data_dir / "training-jobs" / job.name.removeprefix("trainingJobs/")
    checkpoint = await trainer.GetCheckpoint(v1.GetCheckpointRequest(name=job.checkpoint))
    assert folder.is_dir()
    deleted = await delete(trainer, job)
    assert not folder.exists()
    assert await get(trainer, job) == deleted
    deleted.ClearField("delete_time")
    assert deleted == job
    gone = await trainer.GetCheckpoint(v1.GetCheckpointRequest(name=job.checkpoint))
    assert (gone.digest, gone.HasField("delete_time")) == (checkpoint.digest, True)
    assert not (await trainer.ListTrainingJobs(v1.ListTrainingJobsRequest())).training_jobs
    request = v1.ListTrainingJobsRequest(show_deleted=True)
    assert [entry.name for entry in (await trainer.ListTrainingJobs(request)).training_jobs] == [job.name]
    for call in (
        delete(trainer, job),
        trainer.ResumeTrainingJob(v1.ResumeTrainingJobRequest(name=job.name)),
        delete_checkpoint(trainer, job.checkpoint),
        trainer.ExportCheckpoint(v1.ExportCheckpointRequest(name=job.checkpoint, format=1)),
    ):
        error = await refused(call)
        assert (error.code, "was deleted at" in error.message) == ("NOT_FOUND", True)
    assert (await refused(delete(trainer, v1.TrainingJob(name="trainingJobs/none")))).code == "NOT_FOUND"


async def test_one_checkpoint_is_deleted_and_the_job_stays(trainer: Any, settings: TrainerSettings) -> None:
    job = await until(trainer, await create(trainer), ended)
    listed = await trainer.ListCheckpoints(v1.ListCheckpointsRequest(parent=job.name))
    name = listed.checkpoints[-1].name
    # It has one name, by which evaluations know it.
    for other in (name.replace("checkpoints/", "checkpoints/0"), f"{name} ", name.upper()):
        assert (await refused(delete_checkpoint(trainer, other))).code in ("NOT_FOUND", "INVALID_ARGUMENT")
    await delete_checkpoint(trainer, name)
    left = await trainer.ListCheckpoints(v1.ListCheckpointsRequest(parent=job.name))
    assert [entry.name for entry in left.checkpoints] == [
        entry.name for entry in listed.checkpoints if entry.name != name
    ]
    step = name.rpartition("/")[2]
    folder = settings.data_dir / "training-jobs" / job.name.removeprefix("trainingJobs/") / "checkpoints"
    assert not (folder / step).exists()
    outcomes = await asyncio.gather(delete(trainer, job), delete(trainer, job), return_exceptions=True)
    assert sorted(isinstance(outcome, Exception) for outcome in outcomes) == [False, True]


async def test_what_runs_is_not_deleted(trainer: Any) -> None:
    job = await create(trainer, script.WAIT)
    error = await refused(delete(trainer, job))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "TRAINING_JOB_RUNNING")
    assert f"tunix-rt train cancel {job.name.removeprefix('trainingJobs/')}" in error.message
    error = await refused(delete_model(trainer, "baseModels/tiny", force=True))
    assert (error.reason, error.metadata["used_by"]) == ("BASE_MODEL_IN_USE", job.name)
    for _ in range(2):
        await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    await until(trainer, job, ended)
    await delete(trainer, job)


async def test_of_a_job_deleted_and_resumed_at_once_one_is_refused(trainer: Any) -> None:
    job = await create(trainer, script.WAIT)
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    await until(trainer, job, ended)
    outcomes = await asyncio.gather(
        delete(trainer, job),
        trainer.ResumeTrainingJob(v1.ResumeTrainingJobRequest(name=job.name)),
        return_exceptions=True,
    )
    assert sorted(isinstance(outcome, Exception) for outcome in outcomes) == [False, True]


async def test_a_request_id_gives_what_it_made_although_it_was_deleted(trainer: Any) -> None:
    job = await until(trainer, await create(trainer, request_id="once"), ended)
    await delete(trainer, job)
    again = await create(trainer, request_id="once")
    assert (again.name, again.HasField("delete_time")) == (job.name, True)


async def test_a_dataset_deleted_while_a_job_is_admitted_refuses_the_job(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = ExporterDatasets.get, []

    def deleted_meanwhile(self: ExporterDatasets, name: str) -> DatasetInput:
        calls.append(name)
        if len(calls) > 1:
            check_living(name, "DATASET", datetime.now(UTC))
        return real(self, name)

    monkeypatch.setattr(ExporterDatasets, "get", deleted_meanwhile)
    error = await refused(create(trainer))
    assert (error.code, error.reason) == ("NOT_FOUND", "DATASET_NOT_FOUND")
    (job,) = (await trainer.ListTrainingJobs(v1.ListTrainingJobsRequest())).training_jobs
    assert (await until(trainer, job, ended)).state == v1.TrainingJob.STATE_CANCELLED


async def test_a_base_model_is_deleted_unless_checkpoints_need_it(
    trainer: Any, settings: TrainerSettings
) -> None:
    job = await until(trainer, await create(trainer), ended)
    error = await refused(delete_model(trainer, "baseModels/tiny"))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "BASE_MODEL_IN_USE")
    assert job.checkpoint in error.message
    assert (settings.models / "tiny").is_dir()
    assert not (await delete_model(trainer, "baseModels/tiny", force=True)).available
    assert not (settings.models / "tiny").exists()
    assert (await refused(delete_model(trainer, "baseModels/tiny"))).code == "NOT_FOUND"


async def test_other_folders_and_models_that_are_not_here_are_refused(
    trainer: Any, settings: TrainerSettings
) -> None:
    elsewhere = settings.data_dir / "mine"
    elsewhere.mkdir()
    error = await refused(delete_model(trainer, f"baseModels/{elsewhere}", force=True))
    assert (error.reason, elsewhere.is_dir()) == ("BASE_MODEL_ELSEWHERE", True)
    for name in (next(iter(CATALOG)), "none", "..", "hf://none/none", "/none/x.gguf", ""):
        assert (await refused(delete_model(trainer, f"baseModels/{name}"))).code == "NOT_FOUND"
    assert (settings.models / "tiny").is_dir()
    damaged = settings.models / "tiny" / "config.json"
    damaged.write_text("{")
    await delete_model(trainer, "baseModels/tiny")
    assert not damaged.exists()
