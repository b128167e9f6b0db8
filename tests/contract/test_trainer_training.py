"""Real training of a tiny model by a real server process, through kills and restarts."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from support.timing import eventually
from support.tiny_model import ONE_LAYER, make_tiny_model
from support.trainer_process import TrainerProcess
from support.training import FakeExporter, exporting, rows
from tunix_rt import v1
from tunix_rt_kit.serving.calls import domain_error

pytestmark = pytest.mark.slow

STEPS = 40
SPEC = {"max_steps": STEPS, "rows_per_batch": 4, "max_length": 128}


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[tuple[FakeExporter, str]]:
    make_tiny_model(tmp_path / "models" / "tiny", config=ONE_LAYER)
    with exporting(tmp_path / "artifacts") as (fake, address):
        fake.add(train=rows(60), validation=rows(8, start=60))
        yield fake, address


def until(
    trainer: TrainerProcess, job: v1.TrainingJob, reached: Callable[[v1.TrainingJob], bool]
) -> v1.TrainingJob:
    latest = job

    def holds() -> bool:
        nonlocal latest
        # The channel may still be waiting before it connects to a new server.
        with suppress(grpc.RpcError):
            latest = trainer.get(job)
        assert latest.state != v1.TrainingJob.STATE_FAILED, latest.error
        return reached(latest)

    eventually(holds, "the job did not come so far", pause_s=0.05)
    return latest


def at_third_step(job: v1.TrainingJob) -> bool:
    return job.latest_metrics.step >= 3


def test_a_job_ends_in_the_same_bytes_whether_its_server_is_killed_or_stopped_on_the_way(
    tmp_path: Path, exporter: tuple[FakeExporter, str]
) -> None:
    with TrainerProcess(tmp_path, exporter[1]) as trainer:
        killed = until(trainer, trainer.create(**SPEC), at_third_step)
        trainer.kill()
        assert trainer.child(killed).pid is not None
        trainer.start()
        killed = trainer.done(killed)
        assert killed.attempt_count == 1
        adopted = trainer.checkpoint(killed)
        stopped = until(trainer, trainer.create(**SPEC), at_third_step)
        assert trainer.end(signal.SIGTERM) == 0
        assert trainer.child(stopped).pid is None
        trainer.start()
        stopped = trainer.done(stopped)
        assert stopped.attempt_count == 2
        assert stopped.attempts[1].resumed_from_step >= 3
        again = trainer.checkpoint(stopped)
        assert again.digest == adopted.digest
        assert [(file.path, file.digest) for file in again.files] == [
            (file.path, file.digest) for file in adopted.files
        ]
        assert "ledger.jsonl" in {file.path for file in again.files}
        for job in (killed, stopped):
            events = trainer.stub.WatchTrainingJob(v1.WatchTrainingJobRequest(name=job.name))
            told = [event.metrics for event in events if event.HasField("metrics")]
            losses = [metrics.loss for metrics in told]
            # No step is taken twice by a job that could save when its server stopped; that whose validation
            # was cut short is told of once more.
            steps = [metrics.step for metrics in told]
            assert list(dict.fromkeys(steps)) == [*range(1, STEPS + 1)] and len(steps) <= STEPS + 1
        assert losses[-1] < losses[0] - 1.0
        stages = [timing.stage for timing in killed.stage_timings]
        assert {"loading the model", "compiling", "training", "validating", "saving"} <= set(stages)
        assert killed.latest_metrics.validation_loss < losses[0] - 1.0
        assert adopted.manifest.code_revision
        assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 2
        assert not list((tmp_path / "training-jobs").glob("*/states"))


def test_a_real_worker_is_cancelled_at_a_step_goes_on_and_refuses_data_that_does_not_fit(
    tmp_path: Path, exporter: tuple[FakeExporter, str]
) -> None:
    with TrainerProcess(tmp_path, exporter[1]) as trainer:
        job = until(trainer, trainer.create(**SPEC | {"max_steps": 100_000}), at_third_step)
        trainer.stub.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
        job = until(trainer, job, lambda latest: latest.state == v1.TrainingJob.STATE_CANCELLED)
        cancelled_at = job.latest_metrics.step
        assert trainer.checkpoint(job).step == cancelled_at
        trainer.stub.ResumeTrainingJob(v1.ResumeTrainingJobRequest(name=job.name))
        job = until(trainer, job, lambda latest: latest.latest_metrics.step > cancelled_at)
        assert job.attempts[1].resumed_from_step == cancelled_at
        trainer.stub.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
        with pytest.raises(grpc.RpcError) as caught:
            trainer.create(**SPEC | {"max_length": 32})
        error = domain_error(caught.value, "the trainer")
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "EXAMPLE_TOO_LONG")
        assert rows(1)[0]["id"] in error.message
