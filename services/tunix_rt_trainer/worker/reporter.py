"""What the worker tells: events to the server, which rows each step learned from, and metrics to other places
(TensorBoard files, MLflow, Weights & Biases)."""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.jobs.child import JobDir
from tunix_rt_kit.models.tensor_files import storing
from tunix_rt_kit.regular_files import read_text
from tunix_rt_kit.values import Progress
from tunix_rt_trainer.jobs.model import MetricsSink, StepMetrics, TrainingSpec
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


_CLOSE_S: Final = 15.0
_PROJECT: Final = "tunix-rt"


class Sink(Protocol):
    """Takes the metrics of each step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step, by name."""

    def close(self, succeeded: bool) -> None:
        """The attempt has ended; write what is still held."""


class TensorBoard:
    """Event files in the job's folder; ``tensorboard --logdir`` shows them."""

    def __init__(self, folder: Path, _name: str, _spec: Mapping[str, Any], resumed: int) -> None:
        from tensorboardX import SummaryWriter

        # Files are read in the order of their names, which hold the second in which they were begun.
        self._writer = SummaryWriter(
            str(folder / "tensorboard"),
            purge_step=resumed + 1 if resumed else None,
            filename_suffix=f".{resumed:012d}",
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)
        self._writer.flush()

    def close(self, succeeded: bool) -> None:
        del succeeded
        self._writer.close()


class MLflow:
    """A run of the tracking server that MLflow's own environment variables name."""

    def __init__(self, folder: Path, name: str, spec: Mapping[str, Any], _resumed: int) -> None:
        import mlflow

        self._client = mlflow.MlflowClient()
        memo = folder / "mlflow-run"
        if memo.is_file():
            self._run = read_text(memo)
            self._client.update_run(self._run, status="RUNNING")
            return
        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT))
        self._run = self._client.create_run(experiment.experiment_id, run_name=name).info.run_id
        for key, value in spec.items():
            self._client.log_param(self._run, key, value)
        memo.write_text(self._run, encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self, succeeded: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if succeeded else "FAILED")


class WeightsAndBiases:
    """A run of the project that the library's own environment variables name."""

    def __init__(self, folder: Path, name: str, spec: Mapping[str, Any], _resumed: int) -> None:
        import wandb

        run_id = name.rpartition("/")[2]
        settings = wandb.Settings(silent=True, console="off")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=run_id,
            name=name,
            resume="allow",
            dir=folder,
            config=dict(spec),
            settings=settings,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)


_SINKS: Final[Mapping[MetricsSink, Callable[[Path, str, Mapping[str, Any], int], Sink]]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


class MetricsSinks:
    """All sinks of an attempt, fed from a thread of their own. A context manager.

    Training never waits for a sink and never fails by one: of a sink that fails one line is told, and then it
    gets nothing more.

    Args:
        names: which ones.
        folder: the job's.
        job_name: its resource name.
        spec: what is trained, shown as parameters.
        tell: takes a line for people.
        resumed: the step after which the attempt resumes, 0 for none.
    """

    def __init__(
        self,
        names: tuple[MetricsSink, ...],
        folder: Path,
        job_name: str,
        spec: TrainingSpec,
        *,
        tell: Callable[[str], None],
        resumed: int = 0,
    ) -> None:
        self._opening = (folder, job_name, _flat(spec.model_dump(mode="json")), resumed)
        self._tell = tell
        self._steps: queue.SimpleQueue[StepMetrics | bool] = queue.SimpleQueue()
        self._sinks: dict[MetricsSink, Sink] = {}
        self._names = names
        self._thread = threading.Thread(target=self._feed, name="metrics-sinks", daemon=True)

    def write(self, metrics: StepMetrics) -> None:
        """Hand on the metrics of a step."""
        self._steps.put(metrics)

    def __enter__(self) -> MetricsSinks:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._steps.put(kind is None)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            self._tell(f"metrics were not all taken within {_CLOSE_S:g} s by {', '.join(self._sinks)}")

    def _feed(self) -> None:
        for name in self._names:
            self._guarded(name, self._open, name)
        while not isinstance(metrics := self._steps.get(), bool):
            values = metrics.model_dump(exclude={"step", "eta_s"}, exclude_none=True)
            for name, sink in tuple(self._sinks.items()):
                self._guarded(name, sink.write, metrics.step, values)
        for name, sink in tuple(self._sinks.items()):
            self._guarded(name, sink.close, metrics)

    def _open(self, name: MetricsSink) -> None:
        self._sinks[name] = _SINKS[name](*self._opening)

    def _guarded(self, name: MetricsSink, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:
            # Each of these libraries raises what it likes, over a network that may be down.
            self._sinks.pop(name, None)
            self._tell(f"metrics no longer go to {name}: {type(error).__name__}: {error}"[:500])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value
    return flat
