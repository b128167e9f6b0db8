"""Real training of a tiny model by a real server process, through kills and restarts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest

from support.tiny_model import make_tiny_model
from support.training import FakeExporter, exporting, rows
from tunix_rt import v1
from tunix_rt_kit.serving.channels import open_channel
from tunix_rt_kit.serving.status import domain_error

STEPS = 40
PATIENCE_S = 180.0


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[tuple[FakeExporter, str]]:
    make_tiny_model(tmp_path / "models" / "tiny")
    with exporting(tmp_path / "artifacts") as (fake, address):
        fake.add(train=rows(60), validation=rows(8, start=60))
        yield fake, address


@contextmanager
def server(data_dir: Path, exporter: str) -> Iterator[tuple[subprocess.Popen[bytes], v1.TrainerStub]]:
    """A trainer in a process of its own, killed at the end if it still runs."""
    flags = ["--listen", "127.0.0.1:0", "--data-dir", str(data_dir), "--exporter-target", exporter]
    log = data_dir / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "-m", "tunix_rt_trainer", "serve", *flags], stderr=output)
    try:
        with open_channel(address_in(log), retried=["tunix_rt.v1.Trainer"]) as channel:
            yield process, v1.TrainerStub(channel)
    finally:
        process.kill()
        process.wait()


def address_in(log: Path) -> str:
    """Where a server serves, as its log says once it does."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        for line in log.read_text().splitlines():
            if '"serving"' in line:
                return str(json.loads(line)["address"])
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def create(trainer: v1.TrainerStub, **spec: object) -> v1.TrainingJob:
    values: dict[str, object] = {
        "base_model": "tiny",
        "dataset": "datasets/sums@1",
        "max_steps": STEPS,
        "rows_per_batch": 4,
        "max_length": 128,
        "seed": 7,
        "lora": v1.LoraConfig(rank=4),
        "optimizer": v1.OptimizerConfig(learning_rate=0.01),
    }
    request = v1.CreateTrainingJobRequest(spec=v1.TrainingSpec(**(values | spec)))  # type: ignore[arg-type]
    return trainer.CreateTrainingJob(request)


def until(
    trainer: v1.TrainerStub, job: v1.TrainingJob, reached: Callable[[v1.TrainingJob], bool]
) -> v1.TrainingJob:
    end = time.monotonic() + PATIENCE_S
    latest = job
    while time.monotonic() < end:
        latest = trainer.GetTrainingJob(v1.GetTrainingJobRequest(name=job.name))
        if reached(latest):
            return latest
        assert latest.state != v1.TrainingJob.STATE_FAILED, latest.error
        time.sleep(0.05)
    raise AssertionError(f"the job stayed {latest}")


def at_third_step(job: v1.TrainingJob) -> bool:
    return job.latest_metrics.step >= 3


def succeeded(job: v1.TrainingJob) -> bool:
    return job.state == v1.TrainingJob.STATE_SUCCEEDED


def worker_of(data_dir: Path, job: v1.TrainingJob) -> psutil.Process:
    folder = data_dir / "training-jobs" / job.name.removeprefix("trainingJobs/")
    return psutil.Process(int(json.loads((folder / "worker.pid").read_bytes())["pid"]))


def checkpoint(trainer: v1.TrainerStub, job: v1.TrainingJob) -> v1.Checkpoint:
    return trainer.GetCheckpoint(v1.GetCheckpointRequest(name=job.checkpoint))


def test_a_job_ends_in_the_same_bytes_whether_its_server_is_killed_or_stopped_on_the_way(
    tmp_path: Path, exporter: tuple[FakeExporter, str]
) -> None:
    with server(tmp_path, exporter[1]) as (process, trainer):
        killed = until(trainer, create(trainer), at_third_step)
        worker = worker_of(tmp_path, killed)
        process.kill()
        process.wait()
        assert worker.is_running()
    with server(tmp_path, exporter[1]) as (process, trainer):
        killed = until(trainer, killed, succeeded)
        assert killed.attempt_count == 1
        adopted = checkpoint(trainer, killed)
        stopped = until(trainer, create(trainer), at_third_step)
        worker = worker_of(tmp_path, stopped)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not worker.is_running()
    with server(tmp_path, exporter[1]) as (process, trainer):
        stopped = until(trainer, stopped, succeeded)
        assert stopped.attempt_count == 2
        again = checkpoint(trainer, stopped)
        assert again.digest == adopted.digest
        assert [(file.path, file.digest) for file in again.files] == [
            (file.path, file.digest) for file in adopted.files
        ]
        events = list(trainer.WatchTrainingJob(v1.WatchTrainingJobRequest(name=killed.name)))
        losses = [event.metrics.loss for event in events if event.HasField("metrics")]
        assert len(losses) == STEPS
        assert losses[-1] < losses[0] - 1.0
        stages = [timing.stage for timing in killed.stage_timings]
        assert {"loading the model", "compiling", "training", "validating", "saving"} <= set(stages)
        assert killed.latest_metrics.validation_loss < losses[0] - 1.0
        assert adopted.manifest.code_revision
        assert list((tmp_path / "cache" / "jax").iterdir())


def test_a_real_worker_is_cancelled_at_a_step_and_refuses_data_that_does_not_fit(
    tmp_path: Path, exporter: tuple[FakeExporter, str]
) -> None:
    with server(tmp_path, exporter[1]) as (_, trainer):
        job = until(trainer, create(trainer, max_steps=100_000), at_third_step)
        trainer.CancelTrainingJob(v1.CancelTrainingJobRequest(name=job.name))
        job = until(trainer, job, lambda latest: latest.state == v1.TrainingJob.STATE_CANCELLED)
        assert checkpoint(trainer, job).step == job.latest_metrics.step
        with pytest.raises(grpc.RpcError) as caught:
            create(trainer, max_length=32)
        error = domain_error(caught.value, "the trainer")
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "EXAMPLE_TOO_LONG")
        assert rows(1)[0]["id"] in error.message
