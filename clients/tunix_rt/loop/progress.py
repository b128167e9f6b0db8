"""The progress of jobs as events of a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunix_rt import v1


def facts_of(progress: v1.Progress) -> dict[str, Any]:
    """What a LoopEvent says of a job's progress."""
    return {
        "message": progress.stage or "queued",
        "completed": progress.completed,
        "total": progress.total,
        "unit": progress.unit,
        "eta_seconds": _eta(progress),
    }


class TrainingProgress:
    """Call it with each event of a training job; it calls ``emit`` with a LoopEvent's kind and facts."""

    def __init__(self, emit: Callable[..., None]) -> None:
        self._emit = emit
        self._name = ""
        self._step = 0
        self._steps = 0

    def __call__(self, event: v1.WatchTrainingJobResponse) -> None:
        part = event.WhichOneof("part")
        if part == "training_job":
            job = event.training_job
            self._name = job.name
            if job.progress.unit == "steps":
                self._steps = job.progress.total
                # The state is read apart from the metrics, and may be a step behind them.
                if job.progress.completed < self._step:
                    return
            self._emit("progress", resource=job.name, **facts_of(job.progress))
        elif part == "metrics":
            self._step = event.metrics.step
            self._emit(
                "progress",
                resource=self._name,
                message="training",
                completed=event.metrics.step,
                total=self._steps,
                unit="steps",
                eta_seconds=_eta(event.metrics),
                metrics=event.metrics,
            )
        else:
            self._emit("log", resource=self._name, message=event.log_line)


def _eta(message: v1.Progress | v1.TrainingMetrics) -> float | None:
    return message.eta.ToTimedelta().total_seconds() if message.HasField("eta") else None
