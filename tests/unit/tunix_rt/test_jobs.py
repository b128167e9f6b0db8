"""Waiting for jobs, over watches that break."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from support.threaded import fake_server
from tunix_rt import AsyncClient, Client, jobs, v1
from tunix_rt.aio import jobs as aio_jobs
from tunix_rt.errors import JobFailedError, NotFoundError, UnavailableError

JOB = "trainingJobs/j"
RUNNING = v1.TrainingJob(name=JOB, state=v1.TrainingJob.STATE_RUNNING)
DONE = v1.TrainingJob(name=JOB, state=v1.TrainingJob.STATE_SUCCEEDED)


class Services(v1.TrainerServicer, v1.ExporterServicer):
    """Each watch plays the next script: states and numbers of events, or a code with which it breaks."""

    def __init__(self) -> None:
        self.scripts: list[list[Any]] = []
        self.asked: list[int] = []

    def WatchTrainingJob(
        self, request: v1.WatchTrainingJobRequest, context: Any
    ) -> Iterator[v1.WatchTrainingJobResponse]:
        self.asked.append(request.after_event)
        for entry in self.scripts.pop(0):
            if isinstance(entry, grpc.StatusCode):
                context.abort(entry, "broken")
            elif isinstance(entry, int):
                yield v1.WatchTrainingJobResponse(event=entry, metrics=v1.TrainingMetrics(step=entry))
            else:
                yield v1.WatchTrainingJobResponse(event=99, training_job=entry)

    def WatchDataset(self, _: v1.WatchDatasetRequest, context: Any) -> Iterator[v1.Dataset]:
        for entry in self.scripts.pop(0):
            if isinstance(entry, grpc.StatusCode):
                context.abort(entry, "broken")
            yield entry

    def add(self, server: grpc.Server) -> None:
        v1.add_TrainerServicer_to_server(self, server)
        v1.add_ExporterServicer_to_server(self, server)


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    with fake_server(services.add) as address, Client(address) as client:
        yield client


def test_a_watch_that_breaks_or_ends_early_goes_on_behind_the_last_event(
    client: Client, services: Services
) -> None:
    services.scripts = [
        [RUNNING, 1, 2, grpc.StatusCode.UNAVAILABLE],
        [RUNNING, 3],
        [RUNNING, 4, DONE],
    ]
    steps: list[int] = []
    states: list[int] = []

    def note(event: v1.WatchTrainingJobResponse) -> None:
        if event.WhichOneof("part") == "metrics":
            steps.append(event.metrics.step)
        else:
            states.append(event.training_job.state)

    assert jobs.wait_for_training_job(client, JOB, note) == DONE
    assert steps == [1, 2, 3, 4]
    assert services.asked == [0, 2, 3]
    assert states[-1] == v1.TrainingJob.STATE_SUCCEEDED


def test_updates_of_a_dataset_are_handed_on(client: Client, services: Services) -> None:
    states = [v1.Dataset.STATE_QUEUED, v1.Dataset.STATE_RUNNING, v1.Dataset.STATE_SUCCEEDED]
    services.scripts = [[v1.Dataset(name="datasets/d@1", state=state) for state in states]]
    seen: list[int] = []
    built = jobs.wait_for_dataset(client, "datasets/d@1", lambda update: seen.append(update.state))
    assert built.state == v1.Dataset.STATE_SUCCEEDED
    assert seen == states


def test_a_job_that_failed_says_why(client: Client, services: Services) -> None:
    detail = AnyMessage()
    detail.Pack(error_details_pb2.ErrorInfo(reason="DATASET_EMPTY"))
    error = status_pb2.Status(
        code=code_pb2.FAILED_PRECONDITION, message="the filter matches no trace", details=[detail]
    )
    failed = v1.Dataset(name="datasets/d@1", state=v1.Dataset.STATE_FAILED, error=error)
    services.scripts = [[failed]]
    with pytest.raises(JobFailedError) as caught:
        jobs.wait_for_dataset(client, "datasets/d@1")
    assert str(caught.value) == "datasets/d@1 failed: the filter matches no trace"
    assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "DATASET_EMPTY")
    assert caught.value.resource == failed


def test_a_job_that_was_cancelled_is_no_success(client: Client, services: Services) -> None:
    services.scripts = [[v1.TrainingJob(name=JOB, state=v1.TrainingJob.STATE_CANCELLED)]]
    with pytest.raises(JobFailedError, match="trainingJobs/j was cancelled") as caught:
        jobs.wait_for_training_job(client, JOB)
    assert caught.value.code == "CANCELLED"


def test_errors_other_than_a_broken_connection_come_at_once(client: Client, services: Services) -> None:
    services.scripts = [[grpc.StatusCode.NOT_FOUND]]
    with pytest.raises(NotFoundError):
        jobs.wait_for_training_job(client, JOB)


@pytest.mark.usefixtures("quick_retries")
def test_a_server_that_stays_away_is_given_up(
    client: Client, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PATIENCE", 0.2)
    services.scripts = [[RUNNING, grpc.StatusCode.UNAVAILABLE], *([[grpc.StatusCode.UNAVAILABLE]] * 50)]
    with pytest.raises(UnavailableError):
        jobs.wait_for_training_job(client, JOB)


@pytest.mark.usefixtures("quick_retries")
async def test_a_job_is_waited_for_in_asyncio(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    services.scripts = [[RUNNING, 1, 2, grpc.StatusCode.UNAVAILABLE], [RUNNING, 3], [RUNNING, 4, DONE]]
    steps: list[int] = []

    def note(event: v1.WatchTrainingJobResponse) -> None:
        if event.WhichOneof("part") == "metrics":
            steps.append(event.metrics.step)

    with fake_server(services.add) as address:
        async with AsyncClient(address) as client:
            assert await aio_jobs.wait_for_training_job(client, JOB, note) == DONE
            services.scripts = [[v1.TrainingJob(name=JOB, state=v1.TrainingJob.STATE_CANCELLED)]]
            with pytest.raises(JobFailedError, match="trainingJobs/j was cancelled"):
                await aio_jobs.wait_for_training_job(client, JOB)
            monkeypatch.setattr(aio_jobs, "PATIENCE", 0.2)
            services.scripts = [[grpc.StatusCode.UNAVAILABLE]] * 50
            with pytest.raises(UnavailableError):
                await aio_jobs.wait_for_training_job(client, JOB)
    assert steps == [1, 2, 3, 4]
    assert services.asked[:3] == [0, 2, 3]
