"""Jobs that run, are watched, cancelled and taken up again, on both databases."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from support import scripted_trainer as script
from support.serving import served
from support.trainer_jobs import alive, at_first_step, create, ended, get, running, until, watched, worker_pid
from support.training import CHATML
from tunix_rt import v1
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import digest_json
from tunix_rt_trainer.wiring import TrainerSettings, build


async def test_a_job_runs_to_its_checkpoint(trainer: Any, settings: TrainerSettings) -> None:
    job = await until(trainer, await create(trainer), ended)
    assert job.state == v1.TrainingJob.STATE_SUCCEEDED
    assert job.attempt_count == 1
    assert job.spec.max_steps == script.STEPS
    assert job.latest_metrics.step == script.STEPS
    assert job.latest_metrics.loss == pytest.approx(4.0 / 3.0)
    assert (job.progress.stage, job.progress.completed, job.progress.unit) == ("training", 3, "steps")
    assert [timing.stage for timing in job.stage_timings] == ["preparing data", "training"]
    assert job.create_time.ToDatetime() <= job.start_time.ToDatetime() <= job.end_time.ToDatetime()
    assert job.checkpoint == f"{job.name}/checkpoints/3"
    checkpoint = await trainer.GetCheckpoint(v1.GetCheckpointRequest(name=job.checkpoint))
    assert (checkpoint.step, checkpoint.manifest.training_job) == (3, job.name)
    assert checkpoint.manifest.spec == job.spec
    assert checkpoint.manifest.dataset_digest == job.dataset_digest
    assert checkpoint.chat_template.builtin == "chatml"
    assert checkpoint.chat_template.digest == checkpoint.manifest.chat_template_digest == CHATML.digest
    files = {file.path: file for file in checkpoint.files}
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors", "metrics.jsonl"}
    weights = ("adapter_config.json", "adapter_model.safetensors")
    assert checkpoint.digest == digest_json({path: files[path].digest for path in weights})
    store = ArtifactStore(settings.artifacts)
    assert all(store.exists(file.digest) for file in [*checkpoint.files, checkpoint.manifest_file])
    listed = await trainer.ListCheckpoints(v1.ListCheckpointsRequest(parent=job.name))
    assert list(listed.checkpoints) == [checkpoint]


async def test_jobs_run_one_after_the_other(trainer: Any) -> None:
    first, second = await create(trainer, script.WAIT), await create(trainer)
    await until(trainer, first, at_first_step)
    assert (await get(trainer, second)).state == v1.TrainingJob.STATE_QUEUED
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=first.name))
    assert (await until(trainer, second, ended)).state == v1.TrainingJob.STATE_SUCCEEDED


async def test_a_watch_gives_the_state_first_then_every_line_once_then_the_end(trainer: Any) -> None:
    job = await create(trainer)
    events = await watched(trainer, job)
    parts = [event.WhichOneof("part") for event in events]
    assert parts[0] == parts[-1] == "training_job"
    assert events[-1].training_job.state == v1.TrainingJob.STATE_SUCCEEDED
    lines = [event for event in events if event.WhichOneof("part") != "training_job"]
    assert [event.event for event in lines] == [1, 2, 3, 4, 5]
    assert lines[0].log_line == "attempt 1 of datasets/sums@1"
    assert [event.metrics.step for event in lines[1:4]] == [1, 2, 3]
    assert lines[4].checkpoint_step == script.STEPS
    assert events[-1].event == 5
    states = [event.training_job for event in events if event.HasField("training_job")]
    assert all(one != other for one, other in itertools.pairwise(states))


async def test_a_watch_goes_on_after_an_event_also_when_the_job_has_ended(trainer: Any) -> None:
    job = await until(trainer, await create(trainer), ended)
    lines = [event for event in await watched(trainer, job, after=2) if not event.HasField("training_job")]
    assert [event.event for event in lines] == [3, 4, 5]
    assert [event.training_job.state for event in await watched(trainer, job, after=5)] == [
        v1.TrainingJob.STATE_SUCCEEDED
    ]


async def test_a_watch_ends_when_the_server_stops(settings: TrainerSettings) -> None:
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        trainer = v1.TrainerStub(channel)
        job = await until(trainer, await create(trainer, script.WAIT), at_first_step)
        watch = asyncio.create_task(watched(trainer, job))
        await asyncio.sleep(0.5)
        assert not watch.done()
        stop.set()
        events = await asyncio.wait_for(watch, 10)
    assert not ended(events[0].training_job)
    assert events[-1].metrics.step == 1


async def test_a_watcher_that_leaves_does_not_end_the_job(trainer: Any) -> None:
    job = await create(trainer, script.WAIT)
    call = trainer.WatchTrainingJob(v1.WatchTrainingJobRequest(name=job.name))
    await call.read()
    call.cancel()
    assert (await until(trainer, job, at_first_step)).state == v1.TrainingJob.STATE_RUNNING


async def test_a_running_job_stops_at_its_next_step_and_keeps_its_checkpoint(trainer: Any) -> None:
    job = await until(trainer, await create(trainer, script.WAIT), at_first_step)
    cancelled = await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    assert cancelled.state in (v1.TrainingJob.STATE_CANCELLING, v1.TrainingJob.STATE_CANCELLED)
    job = await until(trainer, job, ended)
    assert job.state == v1.TrainingJob.STATE_CANCELLED
    assert job.checkpoint == f"{job.name}/checkpoints/1"
    assert not job.HasField("error")
    assert await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name)) == job


async def test_a_second_cancel_ends_a_worker_that_does_not_listen(
    trainer: Any, settings: TrainerSettings
) -> None:
    job = await until(trainer, await create(trainer, script.DEAF), at_first_step)
    pid = worker_pid(settings, job)
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    await asyncio.sleep(0.5)
    assert (await get(trainer, job)).state == v1.TrainingJob.STATE_CANCELLING
    assert alive(pid)
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    assert (await until(trainer, job, ended)).state == v1.TrainingJob.STATE_CANCELLED
    assert not alive(pid)


async def test_a_queued_job_is_cancelled_at_once_and_never_starts(trainer: Any) -> None:
    first = await until(trainer, await create(trainer, script.WAIT), at_first_step)
    second = await create(trainer)
    cancelled = await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=second.name))
    assert cancelled.state == v1.TrainingJob.STATE_CANCELLED
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=first.name))
    third = await until(trainer, await create(trainer), ended)
    assert third.state == v1.TrainingJob.STATE_SUCCEEDED
    assert (await get(trainer, second)).attempt_count == 0


async def test_a_stopped_server_ends_its_workers_and_the_next_one_starts_them_again(
    settings: TrainerSettings,
) -> None:
    async with running(settings) as trainer:
        job = await until(trainer, await create(trainer, script.WAIT_ONCE), at_first_step)
        waiting = await create(trainer)
        pid = worker_pid(settings, job)
        assert alive(pid)
    assert not alive(pid)
    async with running(settings) as trainer:
        job = await until(trainer, job, ended)
        assert (job.state, job.attempt_count) == (v1.TrainingJob.STATE_SUCCEEDED, 2)
        assert [attempt.number for attempt in job.attempts] == [1, 2]
        assert job.start_time == job.attempts[1].start_time
        assert (await until(trainer, waiting, ended)).attempt_count == 1
        lines = [event for event in await watched(trainer, job) if not event.HasField("training_job")]
        assert [event.event for event in lines] == list(range(1, 9))
        assert [line.log_line for line in lines if line.log_line] == [
            "attempt 1 of datasets/sums@1",
            "attempt 2 of datasets/sums@1",
        ]


async def test_a_cancel_that_a_stopped_server_did_not_finish_holds(settings: TrainerSettings) -> None:
    async with running(settings) as trainer:
        job = await until(trainer, await create(trainer, script.DEAF), at_first_step)
        await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
    async with running(settings) as trainer:
        assert (await get(trainer, job)).state == v1.TrainingJob.STATE_CANCELLED
