"""What a loop reports while it runs, and what it leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from tunix_rt import v1
from tunix_rt.importing import ImportResult

Stage: TypeAlias = Literal[
    "import", "dataset", "eval_set", "evaluation_before", "training", "evaluation_after", "comparison"
]
EventKind: TypeAlias = Literal["started", "progress", "log", "finished", "skipped"]

STAGES: Final[tuple[Stage, ...]] = (
    "import",
    "dataset",
    "eval_set",
    "evaluation_before",
    "training",
    "evaluation_after",
    "comparison",
)


@dataclass(frozen=True, slots=True)
class LoopEvent:
    """One thing that happened.

    Each stage sends ``started``, any number of ``progress``, and ``finished``; one whose result was there
    already sends ``skipped`` in place of ``finished``. ``log`` carries a line of a job's log as its message.
    Where the questions come from a file or a built-in set, the stage ``eval_set`` comes before ``dataset``.

    ``resource`` names what the stage made, ``message`` says it to a person; ``completed`` of ``total`` (0
    when unknown) ``unit`` and ``eta_seconds`` are for progress bars; ``metrics`` come with training steps.
    """

    stage: Stage
    kind: EventKind
    resource: str = ""
    message: str = ""
    completed: int = 0
    total: int = 0
    unit: str = ""
    eta_seconds: float | None = None
    metrics: v1.TrainingMetrics | None = None


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What one stage of a loop would do.

    ``amounts`` counts what is known, by unit (``traces``, ``rows``, ``items``, ``answers``, ``steps``,
    ``tokens``); where ``bounded`` they are at most so many. ``seconds`` is an estimate of the time, and
    ``basis`` says how it was made, or why there is none.
    """

    stage: Stage
    does: str
    amounts: Mapping[str, int]
    bounded: bool = False
    seconds: float | None = None
    basis: str = ""


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """What a loop would do, stage by stage, in order."""

    name: str
    stages: tuple[StagePlan, ...]

    @property
    def seconds(self) -> float | None:
        """The time of all stages that have an estimate; None if none has."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class LoopResult:
    """Everything that a loop made.

    ``imported`` is None when the store was used as it was. ``files`` are the written documents by name
    (``report.md``, ``report.json``, ``report.html``, ``loop.json``); ``stage_seconds`` is the wall time of
    each stage in this run.
    """

    name: str
    imported: ImportResult | None
    dataset: v1.Dataset
    eval_set: v1.EvalSet
    evaluation_before: v1.Evaluation
    training_job: v1.TrainingJob
    checkpoint: v1.Checkpoint
    evaluation_after: v1.Evaluation
    report: v1.ComparisonReport
    files: Mapping[str, Path]
    stage_seconds: Mapping[Stage, float]

    def summary(self) -> dict[str, Any]:
        """Names and digests, without times: two runs of one loop can be compared by it."""
        return {
            "name": self.name,
            "traces": None
            if self.imported is None
            else {
                "read": self.imported.read,
                "created": self.imported.created,
                "skipped": self.imported.skipped,
            },
            "dataset": {
                "name": self.dataset.name,
                "digest": self.dataset.digest,
                "rows": {split.split: split.row_count for split in self.dataset.splits},
            },
            "eval_set": {
                "name": self.eval_set.name,
                "digest": self.eval_set.digest,
                "item_count": self.eval_set.item_count,
            },
            "evaluation_before": _evaluation(self.evaluation_before),
            "training_job": {
                "name": self.training_job.name,
                "losses_digest": losses_digest(self.report),
                "manifest_digest": self.checkpoint.manifest_file.digest,
            },
            "checkpoint": {
                "name": self.checkpoint.name,
                "step": self.checkpoint.step,
                "digest": self.checkpoint.digest,
            },
            "evaluation_after": _evaluation(self.evaluation_after),
            "comparison": {
                "name": self.report.name,
                "digest": self.report.digest,
                "verdict": v1.ComparisonReport.Verdict.Name(self.report.verdict),
            },
        }

    def to_json(self) -> bytes:
        """``summary()`` as a document whose keys are sorted."""
        text = json.dumps(self.summary(), indent=2, sort_keys=True, ensure_ascii=False)
        return f"{text}\n".encode()


def losses_digest(report: v1.ComparisonReport) -> str:
    """Digest of the loss at each step, by which two trainings are compared to the last bit."""
    losses = [[metrics.step, metrics.loss.hex()] for metrics in report.training_metrics]
    return f"sha256:{hashlib.sha256(json.dumps(losses).encode()).hexdigest()}"


def _evaluation(evaluation: v1.Evaluation) -> dict[str, Any]:
    return {
        "name": evaluation.name,
        "correct_count": evaluation.summary.overall.correct_count,
        "item_count": evaluation.summary.overall.item_count,
        "results_digest": evaluation.manifest.results_digest,
        "manifest_digest": evaluation.manifest_file.digest,
    }


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
            self._steps = job.spec.max_steps
            # The state is read apart from the metrics, and may be a step behind them.
            if job.progress.unit == "steps" and job.progress.completed < self._step:
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
