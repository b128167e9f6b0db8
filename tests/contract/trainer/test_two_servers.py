"""Two trainers on one database: they share its jobs, and one goes on with those of the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from support import scripted_trainer as script
from support.timing import eventually
from support.trainer_jobs import at_first_step, create, ended, get, running, until, worker_pid
from support.trainer_process import TrainerProcess
from support.training import FakeExporter
from tunix_rt import v1
from tunix_rt_trainer.wiring import TrainerSettings

OtherServer = Callable[[Path], AbstractContextManager[TrainerProcess]]


@pytest.fixture
def other_server(settings: TrainerSettings, exporter: tuple[FakeExporter, str]) -> OtherServer:
    """Makes a second server, a process of its own, with a data folder."""

    def make(data_dir: Path) -> TrainerProcess:
        data_dir.mkdir(exist_ok=True)
        options = (
            *("--database-url", settings.database),
            *("--artifacts-uri", str(settings.artifacts)),
            *("--models-dir", str(settings.models)),
        )
        return TrainerProcess(data_dir, exporter[1], *options, module="support.scripted_trainer_server")

    return make


async def cancel(trainer: Any, job: v1.TrainingJob) -> None:
    await trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_two_servers_share_the_jobs_and_one_follows_the_children_of_the_other_that_was_killed(
    settings: TrainerSettings, other_server: OtherServer
) -> None:
    with other_server(settings.data_dir) as other:
        # A slot each: both jobs run, so each server has one.
        first = other.create(seed=script.WAIT)
        eventually(lambda: at_first_step(other.get(first)), "the first job did not begin")
        async with running(settings) as trainer:
            second = await until(trainer, await create(trainer, script.WAIT), at_first_step)
            third = await create(trainer)
            child = worker_pid(settings, first)
            other.kill()
            await cancel(trainer, second)
            assert (await until(trainer, second, ended)).state == v1.TrainingJob.STATE_CANCELLED
            assert other.child(first).pid == child
            await cancel(trainer, first)
            done = await until(trainer, first, ended)
            # It was that child which saw the wish and left a checkpoint: the first attempt is the only one.
            assert (done.state, done.attempt_count) == (v1.TrainingJob.STATE_CANCELLED, 1)
            assert done.checkpoint == f"{first.name}/checkpoints/1"
            assert (await until(trainer, third, ended)).state == v1.TrainingJob.STATE_SUCCEEDED


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_server_with_another_data_folder_starts_an_attempt_of_its_own_and_the_old_child_is_ended(
    settings: TrainerSettings, other_server: OtherServer, tmp_path: Path
) -> None:
    with other_server(tmp_path / "elsewhere") as other:
        job = other.create(seed=script.WAIT_ONCE)
        eventually(lambda: at_first_step(other.get(job)), "the job did not begin")
        child = other.child(job)
        other.kill()
        async with running(settings) as trainer:
            done = await until(trainer, job, ended)
            assert (done.state, done.attempt_count) == (v1.TrainingJob.STATE_SUCCEEDED, 2)
            assert (await get(trainer, job)).latest_metrics.step == script.STEPS
            assert child.pid is not None
            other.start()
            assert child.pid is None
