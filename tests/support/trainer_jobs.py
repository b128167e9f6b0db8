"""Jobs of a trainer whose worker acts them out: made, waited for, and looked into."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from google.rpc import error_details_pb2

from support import scripted_trainer as script
from support.serving import served
from tunix_rt import v1
from tunix_rt_trainer.wiring import TrainerSettings, build


@asynccontextmanager
async def running(settings: TrainerSettings) -> AsyncIterator[Any]:
    """A stub of a trainer, as long as the block lasts."""
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        yield v1.TrainerStub(channel)


async def create(
    trainer: Any, plan: int = script.SUCCEED, request_id: str = "", **spec: Any
) -> v1.TrainingJob:
    values = {"base_model": "tiny", "dataset": "datasets/sums@1", "seed": plan} | spec
    return await trainer.CreateTrainingJob(
        v1.CreateTrainingJobRequest(spec=v1.TrainingSpec(**values), request_id=request_id)
    )


async def get(trainer: Any, job: v1.TrainingJob) -> v1.TrainingJob:
    return await trainer.GetTrainingJob(v1.GetTrainingJobRequest(name=job.name))


async def until(
    trainer: Any, job: v1.TrainingJob, reached: Callable[[v1.TrainingJob], Any]
) -> v1.TrainingJob:
    for _ in range(600):
        latest = await get(trainer, job)
        if reached(latest):
            return latest
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job stayed {latest}")


def ended(job: v1.TrainingJob) -> bool:
    return job.state in (
        v1.TrainingJob.STATE_SUCCEEDED,
        v1.TrainingJob.STATE_FAILED,
        v1.TrainingJob.STATE_CANCELLED,
    )


def at_first_step(job: v1.TrainingJob) -> bool:
    return job.latest_metrics.step == 1


async def watched(trainer: Any, job: v1.TrainingJob, after: int = 0) -> list[v1.WatchTrainingJobResponse]:
    request = v1.WatchTrainingJobRequest(name=job.name, after_event=after)
    return [event async for event in trainer.WatchTrainingJob(request)]


def error_info(job: v1.TrainingJob) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert job.error.details[0].Unpack(info)
    return info


def worker_pid(settings: TrainerSettings, job: v1.TrainingJob) -> int:
    folder = settings.data_dir / "training-jobs" / job.name.removeprefix("trainingJobs/")
    return int(json.loads((folder / "worker.pid").read_bytes())["pid"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
