"""What an evaluation's child process told, read from the events in the job's folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunix_rt_evaluator.evaluations.model import ModelFacts
from tunix_rt_evaluator.evaluations.results import Generation
from tunix_rt_kit.values import JobError, Progress, StageTiming

_ENVELOPE = {"kind", "time"}


@dataclass
class AttemptFacts:
    """The facts of one attempt, folded from events, and the items of all attempts.

    ``told`` is what the latest attempt runs that told of its model, this one or an earlier.
    ``new_generations`` holds what nobody has taken yet, all of it by what ``told`` says.
    ``changed``, if it is not empty, says why an attempt
    answered all items anew, so that those told of before count no more; whoever takes it clears it.
    ``exit_code`` is None while the child has not told its end.
    """

    attempt: int
    progress: Progress | None = None
    facts: ModelFacts | None = None
    told: ModelFacts | None = None
    error: JobError | None = None
    exit_code: int | None = None
    new_generations: list[Generation] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._current = False
        self._timings: list[StageTiming] = []
        self._stage: tuple[str, float] | None = None

    @property
    def stage_timings(self) -> tuple[StageTiming, ...]:
        """Wall time of each stage that has ended, in order."""
        return tuple(self._timings)

    def take(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Fold in events, in order."""
        for event in events:
            if event["kind"] == "item":
                self.new_generations.append(Generation.model_validate(event["generation"]))
            elif event["kind"] == "attempt":
                self._current = event["number"] == self.attempt
            elif event["kind"] == "facts":
                self.told = ModelFacts.model_validate(event["facts"])
                if event.get("changed"):
                    self.new_generations.clear()
                    self.changed = list(event["changed"])
            if self._current:
                self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        kind = event["kind"]
        fields = {name: value for name, value in event.items() if name not in _ENVELOPE}
        if kind in ("stage", "progress"):
            self.progress = Progress.model_validate(fields)
        if kind in ("stage", "exit"):
            self._end_stage(event["time"])
        if kind == "stage":
            self._stage = (fields["stage"], event["time"])
        elif kind == "facts":
            self.facts = self.told
        elif kind == "error":
            self.error = JobError.model_validate(fields)
        elif kind == "exit":
            self.exit_code = fields["code"]

    def _end_stage(self, time: float) -> None:
        if self._stage is not None:
            stage, began = self._stage
            self._timings.append(StageTiming(stage=stage, duration_s=max(0.0, time - began)))
            self._stage = None
