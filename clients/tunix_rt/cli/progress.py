"""Progress of long work: live bars, a plain line now and then, or nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import text

# Seconds between two plain lines about the same work.
_LINE_INTERVAL = 10.0
# From when on this computer's own work tells the time that it will take: it goes on evenly, and its first
# seconds are no measure. Of a server's work the server alone tells it.
_OWN_SECONDS = 10.0
_OWN_SHARE = 0.05


class Bar:
    """One piece of work; this one shows nothing."""

    def update(
        self,
        completed: int,
        total: int | None = None,
        *,
        detail: str = "",
        seconds_left: float | None = None,
    ) -> None:
        """Show that ``completed`` of ``total`` units are done; ``total`` None or 0 means unknown.

        ``detail`` is a short note; ``seconds_left`` replaces the reporter's own estimate.
        """

    def finish(self, detail: str | None = None) -> None:
        """The work is done: the bar is full. ``detail`` replaces the last one."""

    def pause(self) -> None:
        """The work is broken off, and another bar goes on with it: this one shows how far it came."""

    def stop(self, detail: str) -> None:
        """The work ended before it was done."""


class Reporter:
    """Where bars are shown, a context manager; this one shows nothing."""

    def bar(
        self,
        description: str,  # noqa: ARG002
        total: int | None = None,  # noqa: ARG002
        unit: str = "",  # noqa: ARG002
        *,
        estimates: bool = True,  # noqa: ARG002
    ) -> Bar:
        """Begin a piece of work of ``total`` units; ``estimates``: its time left may be worked out here."""
        return Bar()

    def note(self, line: str) -> None:
        """A line that stays, above the bars."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class LineReporter(Reporter):
    """A line when work begins and ends, and one every ten seconds between."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock

    def bar(
        self,
        description: str,
        total: int | None = None,
        unit: str = "",
        *,
        estimates: bool = True,  # noqa: ARG002
    ) -> Bar:
        return _LineBar(self, description, total, unit, self._clock)

    def note(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _LineBar(Bar):
    def __init__(
        self,
        reporter: LineReporter,
        description: str,
        total: int | None,
        unit: str,
        clock: Callable[[], float],
    ) -> None:
        self._reporter = reporter
        self._description = description
        self._completed = 0
        self._total = total or None
        self._unit = unit
        self._detail = ""
        self._clock = clock
        self._begun = self._said = clock()

    def update(
        self,
        completed: int,
        total: int | None = None,
        *,
        detail: str = "",
        seconds_left: float | None = None,
    ) -> None:
        self._completed, self._total, self._detail = completed, total or self._total, detail
        now = self._clock()
        if now - self._said >= _LINE_INTERVAL:
            self._said = now
            left = f", {text.duration(seconds_left)} left" if seconds_left else ""
            self._say(f"{detail}{left}".lstrip(", "))

    def finish(self, detail: str | None = None) -> None:
        self._completed = self._total or self._completed
        self._detail = self._detail if detail is None else detail
        self.pause()

    def pause(self) -> None:
        took = text.duration(self._clock() - self._begun)
        self._say(f"{self._detail}, {took}" if self._detail else took)

    def stop(self, detail: str) -> None:
        amount = _amount(self._completed, self._total, self._unit)
        how = f"{detail} after {amount}" if amount else detail
        took = text.duration(self._clock() - self._begun)
        self._reporter.note(f"{self._description}: {how}, {took}")

    def _say(self, tail: str) -> None:
        amount = _amount(self._completed, self._total, self._unit)
        self._reporter.note(" ".join(part for part in (f"{self._description}:", amount, tail) if part))


class LiveReporter(Reporter):
    """Bars that move, for a terminal. A bar that is finished stays."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]", table_column=_whole()),
            TextColumn("{task.description}", markup=False, table_column=_whole()),
            BarColumn(bar_width=20, table_column=_whole()),
            _AmountColumn(table_column=_whole()),
            _TimeColumn(table_column=_whole()),
            _DetailColumn(),
            console=console,
        )

    def bar(
        self, description: str, total: int | None = None, unit: str = "", *, estimates: bool = True
    ) -> Bar:
        return _LiveBar(self._progress, description, total, unit, estimates)

    def note(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class _LiveBar(Bar):
    def __init__(
        self, progress: Progress, description: str, total: int | None, unit: str, estimates: bool
    ) -> None:
        self._progress = progress
        self._task = progress.add_task(
            description, total=total or None, unit=unit, detail="", seconds_left=None, estimates=estimates
        )

    def update(
        self,
        completed: int,
        total: int | None = None,
        *,
        detail: str = "",
        seconds_left: float | None = None,
    ) -> None:
        known = self._progress.tasks[self._task].total
        self._progress.update(
            self._task, completed=completed, total=total or known, detail=detail, seconds_left=seconds_left
        )

    def finish(self, detail: str | None = None) -> None:
        task = self._progress.tasks[self._task]
        total = task.total if task.total else max(task.completed, 1)
        shown = task.fields["detail"] if detail is None else detail
        self._progress.update(
            self._task, completed=total, total=total, detail=shown, seconds_left=None, unknown=not task.total
        )

    def pause(self) -> None:
        self._progress.update(self._task, seconds_left=None)
        self._progress.stop_task(self._task)

    def stop(self, detail: str) -> None:
        self._progress.update(self._task, detail=detail, seconds_left=None)
        self._progress.stop_task(self._task)


def _whole() -> Column:
    """A column that does not give way where the window is narrow."""
    return Column(no_wrap=True)


class _DetailColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["detail"], style="dim", no_wrap=True, overflow="ellipsis")


class _AmountColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.fields.get("unknown") and not task.fields["unit"]:
            return Text("")
        total = None if task.total is None or task.fields.get("unknown") else int(task.total)
        return Text(_amount(int(task.completed), total, task.fields["unit"]), style="cyan")


class _TimeColumn(ProgressColumn):
    # Looked at less often than it is drawn, so that the estimate does not flicker.
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.finished or task.stop_time is not None:
            return Text(text.duration(task.finished_time or task.elapsed or 0.0), style="dim")
        left = task.fields["seconds_left"]
        if left is None and task.fields["estimates"] and _told_enough(task):
            left = task.time_remaining
        if left is None:
            return Text(text.duration(task.elapsed or 0.0), style="dim")
        return Text(f"{text.duration(left)} left", style="dim")


def _told_enough(task: Task) -> bool:
    return (task.elapsed or 0.0) >= _OWN_SECONDS and task.completed >= (task.total or 0) * _OWN_SHARE


def _amount(completed: int, total: int | None, unit: str) -> str:
    if total:
        return f"{completed:,}/{text.amount(total, unit)}"
    return text.amount(completed, unit) if completed or unit else ""


_LOSSES = 16
STEPS = "steps"
"""The unit of the stage that losses belong to."""


class LossLine:
    """Loss with a sparkline of the last ones, tokens per second and validation loss on one line."""

    def __init__(self) -> None:
        self._losses: deque[tuple[int, float]] = deque(maxlen=_LOSSES)

    def after(self, metrics: v1.TrainingMetrics) -> str:
        """The line after one more step; a job that went on from its checkpoint takes steps once more."""
        while self._losses and self._losses[-1][0] >= metrics.step:
            self._losses.pop()
        self._losses.append((metrics.step, metrics.loss))
        spark = text.sparkline([loss for _, loss in self._losses])
        parts = [f"loss {metrics.loss:.4f} {spark}".rstrip()]
        if metrics.tokens_per_second:
            parts.append(f"{metrics.tokens_per_second:,.0f} tokens/s")
        if metrics.HasField("validation_loss"):
            parts.append(f"validation loss {metrics.validation_loss:.4f}")
        return ", ".join(parts)


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
            self._leave_stage()
            self._stage = progress.stage
            name = self._job if progress.stage == self._job else f"{self._job}: {progress.stage}"
            bar = self._bar = self._reporter.bar(name, progress.total or None, progress.unit, estimates=False)
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

    def _leave_stage(self) -> None:
        if self._bar is not None and self._stage == self._job:
            # Training is broken off to validate and to save.
            self._bar.pause()
            self._bar = None
        self._finish_stage()

    def _finish_stage(self) -> None:
        if self._bar is not None:
            self._bar.finish()
            self._bar = None


def dataset_progress(reporter: Reporter) -> Callable[[v1.Dataset], None]:
    """What to call with each state of a dataset's build."""
    bars = StageBars(reporter, "dataset")

    def update(dataset: v1.Dataset) -> None:
        _show_state(bars, dataset.progress, v1.Dataset.State.Name(dataset.state))

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
    losses = LossLine()
    present = v1.Progress()
    detail = ""
    max_steps = 0

    def event(response: v1.WatchTrainingJobResponse) -> None:
        nonlocal detail, max_steps
        match response.WhichOneof("part"):
            case "training_job":
                job = response.training_job
                present.CopyFrom(job.progress)
                max_steps = job.spec.max_steps
                _show_state(bars, present, v1.TrainingJob.State.Name(job.state), detail)
            case "metrics":
                metrics = response.metrics
                begins, detail = not detail, losses.after(metrics)
                if begins and present.unit != STEPS:
                    # A fast job may be beyond its steps when its first state is read.
                    present.CopyFrom(v1.Progress(stage="training", total=max_steps, unit=STEPS))
                if present.unit == STEPS:
                    present.completed = max(present.completed, metrics.step)
                    present.eta.CopyFrom(metrics.eta)
                    bars.show(present, detail)
            case "log_line" if show_log:
                reporter.note(response.log_line)

    return event


def _show_state(bars: StageBars, progress: v1.Progress, state: str, detail: str = "") -> None:
    match state:
        case "STATE_QUEUED":
            bars.waiting()
        case "STATE_RUNNING" | "STATE_CANCELLING":
            bars.show(progress, detail if progress.unit == STEPS else "")
        case "STATE_SUCCEEDED" | "STATE_FAILED" | "STATE_CANCELLED":
            bars.end(state == "STATE_SUCCEEDED", text.enum_label(state, "STATE_"))
