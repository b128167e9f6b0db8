"""What a job's child process told, read from the events in the job's folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunix_rt_kit.values import JobError, Progress, StageTiming
from tunix_rt_trainer.jobs.model import JobLine, StepMetrics

_ENVELOPE = {"kind", "time"}


@dataclass(frozen=True, slots=True)
class WrittenCheckpoint:
    """A checkpoint that lies in ``folder`` (relative to the job's); ``best`` so far by validation loss, where
    that is asked for."""

    step: int
    folder: str
    best: bool = False


@dataclass
class AttemptFacts:
    """The facts of one attempt, folded from events; those of other attempts are passed over.

    ``filled_in`` holds the fields of the spec that the child chose, ``resumed_from_step`` is None until the
    attempt has told it. ``new_checkpoints`` holds those that nobody has taken yet. ``exit_code`` is None
    while the child has not told its end.
    """

    attempt: int
    progress: Progress | None = None
    latest_metrics: StepMetrics | None = None
    filled_in: Mapping[str, Any] = field(default_factory=dict)
    error: JobError | None = None
    exit_code: int | None = None
    resumed_from_step: int | None = None
    new_checkpoints: list[WrittenCheckpoint] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._current = False
        self._timings: dict[str, float] = {}
        self._stage: tuple[str, float] | None = None

    @property
    def stage_timings(self) -> tuple[StageTiming, ...]:
        """Wall time of each stage that has ended, in the order in which they began; a stage that came again
        is added up."""
        return tuple(StageTiming(stage=stage, duration_s=spent) for stage, spent in self._timings.items())

    def take(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Fold in events, in order."""
        for event in events:
            if event["kind"] == "attempt":
                self._current = event["number"] == self.attempt
            elif self._current:
                self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, fields = event["kind"], _fields(event)
        if kind in ("stage", "progress"):
            self.progress = Progress.model_validate(fields)
        if kind in ("stage", "exit"):
            self._end_stage(event["time"])
        if kind == "stage":
            self._stage = (fields["stage"], event["time"])
        elif kind == "metrics":
            self.latest_metrics = StepMetrics.model_validate(fields)
        elif kind == "plan":
            self.filled_in = fields
        elif kind == "checkpoint":
            self.new_checkpoints.append(WrittenCheckpoint(**fields))
        elif kind == "resumed":
            self.resumed_from_step = fields["step"]
        elif kind == "error":
            self.error = JobError.model_validate(fields)
        elif kind == "exit":
            self.exit_code = fields["code"]

    def _end_stage(self, time: float) -> None:
        if self._stage is not None:
            stage, began = self._stage
            self._timings[stage] = self._timings.get(stage, 0.0) + max(0.0, time - began)
            self._stage = None


def numbered_lines(events: Iterable[Mapping[str, Any]], after: int) -> list[JobLine]:
    """The metrics, log lines and checkpoints among events, numbered on from ``after``; attempts are numbered
    as one."""
    lines: list[JobLine] = []
    for event in events:
        number = after + len(lines) + 1
        if event["kind"] == "metrics":
            lines.append(JobLine(number=number, metrics=StepMetrics.model_validate(_fields(event))))
        elif event["kind"] == "log":
            lines.append(JobLine(number=number, log_line=event["line"]))
        elif event["kind"] == "checkpoint":
            lines.append(JobLine(number=number, checkpoint_step=event["step"]))
    return lines


def _fields(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in _ENVELOPE}
