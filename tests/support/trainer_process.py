"""A trainer as a process of its own, which a test can kill and start again, and the children of its jobs."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import psutil

from support.server_process import ServerProcess
from support.threaded import free_address
from support.timing import eventually
from tunix_rt import v1
from tunix_rt.wire import open_channel


class TrainerProcess(ServerProcess):
    """``python -m tunix_rt_trainer serve`` on one address and one data folder; started by ``with``.

    ``options`` are further ones of its command line; ``module`` is run in place of the trainer.
    """

    def __init__(
        self, data_dir: Path, exporter: str, *options: str, module: str = "tunix_rt_trainer"
    ) -> None:
        self.data_dir = data_dir
        address = free_address()
        command = [sys.executable, "-m", module, "serve", "--listen", address, *options]
        command += ["--data-dir", str(data_dir), "--exporter-target", exporter]
        super().__init__(command, address, data_dir / "server.log")
        self._channel = open_channel(address)
        self.stub = v1.TrainerStub(self._channel)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
        for folder in (self.data_dir / "training-jobs").glob("*"):
            ChildProcess(folder).kill()

    def create(self, **spec: Any) -> v1.TrainingJob:
        """Start a job on the dataset of ``support.training`` with a tiny model."""
        values: dict[str, Any] = {
            "base_model": "tiny",
            "dataset": "datasets/sums@1",
            "max_steps": 40,
            "seed": 7,
            "lora": v1.LoraConfig(rank=4),
            "optimizer": v1.OptimizerConfig(learning_rate=0.01),
        }
        return self.stub.CreateTrainingJob(
            v1.CreateTrainingJobRequest(spec=v1.TrainingSpec(**(values | spec)))
        )

    def get(self, job: v1.TrainingJob) -> v1.TrainingJob:
        """The job as it is now."""
        return self.stub.GetTrainingJob(v1.GetTrainingJobRequest(name=job.name))

    def done(self, job: v1.TrainingJob) -> v1.TrainingJob:
        """The job, once it has succeeded."""
        latest = job

        def succeeded() -> bool:
            nonlocal latest
            # The channel may still be waiting before it connects to a new server.
            with suppress(grpc.RpcError):
                latest = self.get(job)
            assert latest.state not in (v1.TrainingJob.STATE_FAILED, v1.TrainingJob.STATE_CANCELLED), latest
            return latest.state == v1.TrainingJob.STATE_SUCCEEDED

        eventually(succeeded, lambda: f"the job stayed {latest}", pause_s=0.3)
        return latest

    def checkpoint(self, job: v1.TrainingJob) -> v1.Checkpoint:
        """The latest checkpoint of a job."""
        return self.stub.GetCheckpoint(v1.GetCheckpointRequest(name=job.checkpoint))

    def child(self, job: v1.TrainingJob) -> ChildProcess:
        """The child of a job."""
        return ChildProcess(self.data_dir / "training-jobs" / job.name.removeprefix("trainingJobs/"))


class ChildProcess:
    """The child of a job, known by the job's folder alone, so that no server is needed to watch it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def pid(self) -> int | None:
        """Its process id; None while there is no child, or none that runs."""
        try:
            pid = int(json.loads((self.folder / "worker.pid").read_bytes())["pid"])
            alive = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return pid if alive else None

    @property
    def step(self) -> int:
        """The last step that the present attempt has told of; 0 before its first one."""
        step = 0
        for line in reversed(self._lines()):
            event = json.loads(line)
            if event["kind"] == "metrics":
                step = max(step, event["step"])
            elif event["kind"] == "attempt":
                # The child of a new attempt tells nothing for a while.
                present = json.loads((self.folder / "spec.json").read_bytes())["attempt"]
                return step if event["number"] == present else 0
        return 0

    def kill(self) -> bool:
        """End it as ``kill -9`` does; returns whether it ran."""
        pid = self.pid
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def _lines(self) -> list[bytes]:
        try:
            data = (self.folder / "events.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        return data[: data.rfind(b"\n") + 1].splitlines()
