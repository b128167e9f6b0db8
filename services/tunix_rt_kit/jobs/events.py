"""What the child of a job told, folded from the events that every kind of job has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunix_rt_kit.values import JobError, Progress, StageTiming

_ENVELOPE = {"kind", "time"}


@dataclass
class AttemptFacts:
    """The facts of one attempt at a job; a service's subclass adds its own.

    Args:
        attempt: its number. The events of a job are those of all its attempts, each after an event
            ``attempt``; those of others are passed over.
        exit_code: None while the child has not told its end.
    """

    attempt: int
    progress: Progress | None = None
    error: JobError | None = None
    exit_code: int | None = None

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
            kind = event["kind"]
            if kind == "attempt":
                self._current = event["number"] == self.attempt
                continue
            fields = event_fields(event)
            if self._current:
                self._take_common(kind, event["time"], fields)
            self.take_own(kind, fields, current=self._current)

    def take_own(self, kind: str, fields: Mapping[str, Any], *, current: bool) -> None:
        """Fold in an event of a kind that only this service has; ``current`` if it is of this attempt."""

    def _take_common(self, kind: str, time: float, fields: Mapping[str, Any]) -> None:
        if kind in ("stage", "exit") and self._stage is not None:
            stage, began = self._stage
            self._timings[stage] = self._timings.get(stage, 0.0) + max(0.0, time - began)
            self._stage = None
        if kind in ("stage", "progress"):
            self.progress = Progress.model_validate(fields)
        if kind == "stage":
            self._stage = (fields["stage"], time)
        elif kind == "error":
            self.error = JobError.model_validate(fields)
        elif kind == "exit":
            self.exit_code = fields["code"]


def event_fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """What an event says besides its kind and its time."""
    return {name: value for name, value in event.items() if name not in _ENVELOPE}
