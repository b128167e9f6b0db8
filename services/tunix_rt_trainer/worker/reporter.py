"""What the worker tells the server: events of the job, and which rows each step learned from."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.jobs import JobDir
from tunix_rt_kit.models.durable import storing
from tunix_rt_kit.values import Progress
from tunix_rt_trainer.jobs.model import StepMetrics
from tunix_rt_trainer.worker.batches import BatchSource

_MIN_INTERVAL_S = 0.25


class Reporter:
    """Writes stages, progress, metrics, log lines and checkpoints; every call but ``check_cancelled`` is an
    event.

    Progress is written a few times a second at most.
    """

    def __init__(self, job: JobDir) -> None:
        self._job = job
        self._progress = Progress(stage="")
        self._written = 0.0
        self._listeners: list[Callable[[StepMetrics], None]] = []

    def listen(self, listener: Callable[[StepMetrics], None]) -> None:
        """Have the metrics of each step told to ``listener`` too."""
        self._listeners.append(listener)

    def attempt(self, number: int) -> None:
        """Begin an attempt; what was told before belongs to the ones before."""
        self._job.emit("attempt", number=number)

    def resumed(self, step: int) -> None:
        """Tell that the attempt resumes after ``step``, whose state an earlier one saved."""
        self._job.emit("resumed", step=step)

    def stage(self, name: str, total: int = 0, unit: str = "") -> None:
        """Begin a stage of ``total`` units; the one before has ended."""
        self._progress = Progress(stage=name, total=total, unit=unit)
        self._job.emit("stage", **self._progress.model_dump(mode="json", exclude_none=True))
        self._written = 0.0

    def progress(self, completed: int, total: int, eta_s: float | None = None) -> None:
        """Tell how far the stage has come; raises JobCancelled if the job was cancelled."""
        self.check_cancelled()
        self._progress = self._progress.model_copy(
            update={"completed": completed, "total": total, "eta_s": eta_s}
        )
        now = time.monotonic()
        if completed >= total or now - self._written >= _MIN_INTERVAL_S:
            self._written = now
            self._job.emit("progress", **self._progress.model_dump(mode="json", exclude_none=True))

    def plan(self, max_steps: int, dtype: str) -> None:
        """Tell how many optimizer steps there will be, and in which type they are computed."""
        self._job.emit("plan", max_steps=max_steps, dtype=dtype)

    def metrics(self, metrics: StepMetrics) -> None:
        """Tell what a step measured."""
        self._job.emit("metrics", **metrics.model_dump(mode="json", exclude_none=True))
        for listener in self._listeners:
            listener(metrics)

    def log(self, line: str) -> None:
        """Tell people something."""
        self._job.emit("log", line=line)

    def checkpoint(self, step: int, folder: str, *, best: bool = False) -> None:
        """Tell that the checkpoint of ``step`` lies in ``folder`` (relative to the job's) and is whole.

        ``best`` tells that its validation loss is the lowest so far, where the best one is to be kept.
        """
        self._job.emit("checkpoint", step=step, folder=folder, best=best)

    def check_cancelled(self) -> None:
        """Raise JobCancelled if the job was cancelled."""
        self._job.check_cancelled()


class Ledger:
    """A file of canonical JSON lines ``{"example_ids": [[id, ...], ...], "step": n}``, one for each step,
    whose ids stand by the rows of its batch.

    Args:
        path: the file; what it held is replaced.
        source: of the batches.
        steps: how many steps were taken already.
    """

    def __init__(self, path: Path, source: BatchSource, steps: int) -> None:
        self._path = path
        self._source = source
        self._order = hashlib.sha256()
        with storing(path):
            self._file = path.open("wb")
        for step in range(1, steps + 1):
            self.add(step)

    @property
    def data_order_digest(self) -> str:
        """Digest of the ids alone: for each step a line with the rows of ids of its batch."""
        return f"sha256:{self._order.hexdigest()}"

    def add(self, step: int) -> None:
        """Note the step ``step``, counted from 1; raises ResourceExhausted(STORAGE_FULL)."""
        ids = self._source.example_ids(step - 1)
        self._order.update(canonical_json(ids) + b"\n")
        with storing(self._path):
            self._file.write(canonical_json({"step": step, "example_ids": ids}) + b"\n")

    def copy_to(self, path: Path) -> None:
        """Write the lines so far to ``path``; raises OSError."""
        self._file.flush()
        shutil.copyfile(self._path, path)
