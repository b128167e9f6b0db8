"""Turns what a job tells about itself into bars, one for each stage it goes through."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tunix_rt import v1
from tunix_rt.cli import text
from tunix_rt.cli.progress import Bar, Reporter

LOSSES = 16
"""How many of the last losses a sparkline shows."""
STEPS = "steps"
"""The unit of the stage that losses belong to."""


class StageBars:
    """The bars of one job: a new one when its stage changes, the one before it finished."""

    def __init__(self, reporter: Reporter, job: str) -> None:
        self._reporter = reporter
        self._job = job
        self._stage: str | None = None
        self._bar: Bar | None = None

    def show(self, progress: v1.Progress, detail: str = "") -> None:
        """Shows a job's progress; ``detail`` is a word on how it goes."""
        if not progress.stage:
            return
        bar = self._bar
        if bar is None or progress.stage != self._stage:
            self._finish_stage()
            self._stage = progress.stage
            name = self._job if progress.stage == self._job else f"{self._job}: {progress.stage}"
            bar = self._bar = self._reporter.bar(name, progress.total or None, progress.unit)
        left = progress.eta.ToTimedelta().total_seconds() if progress.HasField("eta") else None
        bar.update(progress.completed, progress.total or None, detail=detail, seconds_left=left)

    def waiting(self) -> None:
        """The job is in the queue."""
        if self._bar is None:
            self._stage, self._bar = "queued", self._reporter.bar(f"{self._job}: waiting for its turn")

    def end(self, succeeded: bool, state: str) -> None:
        """The job has ended in ``state``."""
        if succeeded:
            self._finish_stage()
        elif self._bar is not None:
            self._bar.stop(state)
            self._bar = None

    def _finish_stage(self) -> None:
        if self._bar is not None:
            self._bar.finish()
            self._bar = None


def dataset_progress(reporter: Reporter) -> Callable[[v1.Dataset], None]:
    """What to call with each state of a dataset's build."""
    bars = StageBars(reporter, "dataset")

    def update(dataset: v1.Dataset) -> None:
        states = v1.Dataset.State
        _show_state(bars, dataset.progress, states.Name(dataset.state))

    return update


def evaluation_progress(reporter: Reporter, job: str = "evaluation") -> Callable[[v1.Evaluation], None]:
    """What to call with each state of an evaluation."""
    bars = StageBars(reporter, job)

    def update(evaluation: v1.Evaluation) -> None:
        _show_state(bars, evaluation.progress, v1.Evaluation.State.Name(evaluation.state))

    return update


def training_progress(
    reporter: Reporter, *, show_log: bool = False
) -> Callable[[v1.WatchTrainingJobResponse], None]:
    """What to call with each event of a training job. Log lines are shown with ``show_log`` only."""
    bars = StageBars(reporter, "training")
    losses: deque[float] = deque(maxlen=LOSSES)
    present = v1.Progress()
    detail = ""

    def event(response: v1.WatchTrainingJobResponse) -> None:
        nonlocal detail
        match response.WhichOneof("part"):
            case "training_job":
                job = response.training_job
                present.CopyFrom(job.progress)
                _show_state(bars, present, v1.TrainingJob.State.Name(job.state), detail)
            case "metrics":
                metrics = response.metrics
                losses.append(metrics.loss)
                detail = metrics_line(metrics, list(losses))
                if present.unit == STEPS:
                    present.completed = max(present.completed, metrics.step)
                    present.eta.CopyFrom(metrics.eta)
                    bars.show(present, detail)
            case "log_line" if show_log:
                reporter.note(response.log_line)

    return event


def metrics_line(metrics: v1.TrainingMetrics, losses: list[float]) -> str:
    """Loss with a sparkline of the last ones, tokens per second and validation loss on one line."""
    parts = [f"loss {metrics.loss:.4f} {text.sparkline(losses)}".rstrip()]
    if metrics.tokens_per_second:
        parts.append(f"{metrics.tokens_per_second:,.0f} tokens/s")
    if metrics.HasField("validation_loss"):
        parts.append(f"validation loss {metrics.validation_loss:.4f}")
    return ", ".join(parts)


def _show_state(bars: StageBars, progress: v1.Progress, state: str, detail: str = "") -> None:
    match state:
        case "STATE_QUEUED":
            bars.waiting()
        case "STATE_RUNNING" | "STATE_CANCELLING":
            bars.show(progress, detail if progress.unit == STEPS else "")
        case "STATE_SUCCEEDED" | "STATE_FAILED" | "STATE_CANCELLED":
            bars.end(state == "STATE_SUCCEEDED", text.enum_label(state, "STATE_"))
