"""What is stored of an attempt while its child tells of it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from support.training_specs import SPEC, metrics
from tunix_rt_kit.jobs.child import JobDir
from tunix_rt_kit.jobs.process import WorkerProcess
from tunix_rt_kit.jobs.run import Run
from tunix_rt_kit.values import JobState
from tunix_rt_trainer.checkpoints.service import CheckpointService
from tunix_rt_trainer.jobs.model import JobUpdate, QueuedJob, TrainingAttempt, TrainingInput, TrainingJob
from tunix_rt_trainer.jobs.service import JobRepository
from tunix_rt_trainer.jobs.training import FollowedTraining, JobFolders, Training

NOW = datetime(2026, 1, 1, tzinfo=UTC)
METRICS = metrics(6)


class Repository:
    """Holds one job, and what was saved of it."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.saved: list[JobUpdate] = []

    def save(self, job_id: str, update_: JobUpdate) -> None:
        assert job_id == self.job.id
        self.saved.append(update_)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Repository, FollowedTraining, JobDir]:
    job = TrainingJob(
        id="a",
        spec=SPEC,
        state=JobState.RUNNING,
        latest_metrics=METRICS,
        dataset_digest="sha256:d",
        chat_template_digest="sha256:c",
        attempt_count=2,
        attempts=(
            TrainingAttempt(number=1, start_time=NOW),
            TrainingAttempt(number=2, start_time=NOW),
        ),
        create_time=NOW,
    )
    repository = Repository(job)
    kind = Training(
        cast("JobRepository", repository), cast("CheckpointService", None), cast("JobFolders", None), 1
    )
    attempt = FollowedTraining(
        kind,
        Run("a", threading.Event()),
        WorkerProcess("none", tmp_path),
        QueuedJob(job, cast("TrainingInput", None)),
    )
    folder = JobDir(tmp_path)
    folder.emit("attempt", number=2)
    return repository, attempt, folder


def test_a_resumed_attempt_shows_the_metrics_of_the_one_before_until_its_first_step(
    world: tuple[Repository, FollowedTraining, JobDir],
) -> None:
    repository, attempt, folder = world
    folder.emit("resumed", step=5)
    attempt.collect_all()
    assert repository.saved[-1].latest_metrics == METRICS
    assert [entry.resumed_from_step for entry in repository.saved[-1].attempts] == [0, 5]
    assert attempt.step == 5
    after = METRICS.model_copy(update={"loss": 1.25})
    told: dict[str, Any] = after.model_dump(mode="json", exclude_none=True)
    folder.emit("metrics", **told)
    attempt.collect_all()
    assert repository.saved[-1].latest_metrics == after
    assert attempt.step == 6


def test_an_attempt_from_the_beginning_shows_none_before_its_first_step(
    world: tuple[Repository, FollowedTraining, JobDir],
) -> None:
    repository, attempt, folder = world
    folder.emit("stage", stage="loading the model", completed=0, total=0, unit="")
    attempt.collect_all()
    assert repository.saved[-1].latest_metrics is None
    assert repository.saved[-1].attempts == ()
