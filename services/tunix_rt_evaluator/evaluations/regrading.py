"""Grades the answers of an evaluation again: what is asked for, and the queue that does it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.endings import failure, success
from tunix_rt_evaluator.evaluations.grade import Splitters, graded
from tunix_rt_evaluator.evaluations.model import Evaluation, EvaluationUpdate, evaluation_name
from tunix_rt_evaluator.evaluations.regrade_admission import regraded_items
from tunix_rt_evaluator.evaluations.results import ItemResult
from tunix_rt_evaluator.evaluations.service import EvalSets, EvaluationRepository
from tunix_rt_evaluator.evaluations.summary import Totals, regraded_manifest
from tunix_rt_evaluator.grading.reasoning.marks import is_current, resolved_marks
from tunix_rt_evaluator.grading.reasoning.split import Splitter
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.jobs import JobRunner
from tunix_rt_kit.jobs.runner import AWAY
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.values import JobState, Progress, StageTiming

_log = get_logger("tunix_rt.evaluator")

T = TypeVar("T")

_PAGE: Final = 200
_SAVE_S: Final = 0.5
_SAVE_ITEMS: Final = 64
_OPEN: Final = (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)


class Regrader:
    """The queue of evaluations that only grade; they wait for no device.

    Args:
        repository: where evaluations are kept.
        eval_sets: where eval sets are kept.
        artifacts: where manifests go.
        grading: the graders.
        splitters: tells reasoning from what is graded.
    """

    def __init__(
        self,
        repository: EvaluationRepository,
        eval_sets: EvalSets,
        artifacts: ArtifactStore,
        grading: Grading,
        splitters: Splitters,
    ) -> None:
        self._repository = repository
        self._eval_sets = eval_sets
        self._artifacts = artifacts
        self._grading = grading
        self._splitters = splitters
        self._runner: JobRunner | None = None

    def start(self) -> None:
        """Take up what an earlier server did not finish, oldest first."""
        self._runner = JobRunner(1, self._run, on_error=self._on_error, name="regrade")
        for evaluation_id in self._repository.unfinished(regrades=True):
            self._runner.submit(evaluation_id)

    def stop(self, grace_s: float) -> None:
        """Stop; what is not done goes on with the next server, and keeps what was graded."""
        if self._runner is not None and (left := self._runner.stop(grace_s)):
            _log.info("regrades_left", evaluations=left)

    def submit(self, evaluation_id: str) -> None:
        """Put one at the end of the queue. While the server stops, the next one will find it there."""
        if self._runner is not None and not self._runner.stopping.is_set():
            self._runner.submit(evaluation_id)

    def stop_job(self, evaluation_id: str) -> None:
        """Ask a running one to stop."""
        if self._runner is not None:
            self._runner.cancel(evaluation_id)

    def _run(self, evaluation_id: str, cancelled: threading.Event) -> None:
        # Again from the start: what was stored is not graded twice.
        self._insist(lambda: self._regrade(evaluation_id, cancelled), cancelled)

    def _regrade(self, evaluation_id: str, cancelled: threading.Event) -> None:
        evaluation = self._begin(evaluation_id)
        if evaluation is None or evaluation.inputs.regrade is None:
            return
        regrade = evaluation.inputs.regrade
        splitter = self._splitters.of(evaluation, evaluation.spec.chat_template)
        items = regraded_items(self._eval_sets.get(evaluation.spec.eval_set), regrade.grader)
        work = _Work(self._repository, self._grading, splitter, evaluation.id, regrade.source, items)
        for stored in work.chunks():
            if self._runner is not None and self._runner.stopping.is_set():
                work.flush()
                self._change(evaluation_id, JobState.RUNNING, JobState.QUEUED)
                return
            if cancelled.is_set() or (stored and self._state(evaluation_id) is JobState.CANCELLING):
                work.flush()
                update = work.update(ended=True)
                self._repository.change_state(evaluation_id, _OPEN, JobState.CANCELLED, update)
                return
        work.flush()
        source = self._repository.get(evaluation.inputs.regrade.source).manifest
        if source is None:
            raise RuntimeError(f"evaluation {evaluation.inputs.regrade.source} has no manifest")
        totals = Totals.of(self._repository.all_results(evaluation_id))
        totals.require_grade()
        manifest = regraded_manifest(source, evaluation, evaluation_name(evaluation_id), totals)
        result = success(self._artifacts, manifest, totals.summary)
        done = work.update(ended=True)
        update = result.model_copy(update={"progress": done.progress, "stage_timings": done.stage_timings})
        self._repository.change_state(evaluation_id, _OPEN, JobState.SUCCEEDED, update)

    def _begin(self, evaluation_id: str) -> Evaluation | None:
        evaluation = self._repository.get(evaluation_id)
        if evaluation.state is JobState.CANCELLING:
            self._change(evaluation_id, JobState.CANCELLING, JobState.CANCELLED)
            return None
        if not is_current(evaluation.spec.reasoning_marks):
            # What an earlier version graded is graded again.
            self._repository.drop_results(evaluation_id)
        marks = resolved_marks(evaluation.spec.reasoning_marks, evaluation.spec.chat_template)
        spec = evaluation.spec.model_copy(update={"reasoning_marks": marks})
        attempt = EvaluationUpdate(
            spec=spec, attempt_count=evaluation.attempt_count + 1, start_time=datetime.now(UTC)
        )
        expected = [JobState.QUEUED, JobState.RUNNING]
        begun = self._repository.change_state(evaluation_id, expected, JobState.RUNNING, attempt)
        return evaluation.model_copy(update={"spec": spec}) if begun else None

    def _change(self, evaluation_id: str, expected: JobState, state: JobState) -> None:
        self._repository.change_state(evaluation_id, [expected], state)

    def _state(self, evaluation_id: str) -> JobState:
        return self._repository.get(evaluation_id).state

    def _on_error(self, evaluation_id: str, error: Exception) -> None:
        store_end(self._repository, evaluation_id, error)

    def _insist(self, act: Callable[[], T], cancelled: threading.Event) -> T:
        return act() if self._runner is None else self._runner.insist(act, cancelled)


def store_end(repository: EvaluationRepository, evaluation_id: str, error: Exception) -> None:
    """Store that an evaluation ended by an error of this server: that it failed, or, where it was asked to
    stop and what it needs is away, that it was cancelled."""
    change = repository.change_state
    if isinstance(error, AWAY) and change(evaluation_id, [JobState.CANCELLING], JobState.CANCELLED):
        return
    change(evaluation_id, _OPEN, JobState.FAILED, failure(error))


class _Work:
    """The grading of one evaluation's items, those aside that have a result already."""

    def __init__(
        self,
        repository: EvaluationRepository,
        grading: Grading,
        splitter: Splitter,
        evaluation_id: str,
        source_id: str,
        items: Sequence[EvalItem],
    ) -> None:
        self._repository = repository
        self._grading = grading
        self._splitter = splitter
        self._id = evaluation_id
        self._source = source_id
        self._items = {item.id: item for item in items}
        self._done = repository.answered(evaluation_id)
        self._before = len(self._done)
        self._began = self._saved = time.monotonic()
        self._fresh: list[ItemResult] = []

    def chunks(self) -> Iterator[bool]:
        """Grade a few items at a time, yielding after each time whether they were stored."""
        for results in self._pending():
            answers = [(self._items[result.item_id], result.generation) for result in results]
            self._fresh += graded(answers, self._grading, self._splitter)
            due = len(self._fresh) >= _SAVE_ITEMS or time.monotonic() - self._saved >= _SAVE_S
            if due:
                self.flush()
            yield due

    def flush(self) -> None:
        """Store what was graded and not stored yet, and how far it has come."""
        if self._fresh:
            self._repository.add_results(self._id, self._fresh)
            self._done |= {result.item_id for result in self._fresh}
            self._fresh = []
        self._repository.save(self._id, self.update())
        self._saved = time.monotonic()

    def update(self, *, ended: bool = False) -> EvaluationUpdate:
        """How far it has come."""
        seconds = time.monotonic() - self._began
        total, done = len(self._items), len(self._done)
        eta = seconds / max(done - self._before, 1) * (total - done)
        progress = Progress(stage="grading", completed=done, total=total, unit="items", eta_s=eta)
        timings = (StageTiming(stage="grading", duration_s=seconds),) if ended else None
        return EvaluationUpdate(progress=progress, stage_timings=timings)

    def _pending(self) -> Iterator[Sequence[ItemResult]]:
        """The source's results that are not graded yet, as many at a time as judges are asked at once."""
        size, after, last = self._grading.concurrency, None, False
        while not last:
            page, last = self._repository.results_page(self._source, after, _PAGE)
            after = page[-1].item_id if page else None
            left = [result for result in page if result.item_id not in self._done]
            for at in range(0, len(left), size):
                yield left[at : at + size]


class GeneratingQueue(Protocol):
    """The queue of evaluations that generate."""

    def submit(self, evaluation_id: str) -> None: ...
    def stop_job(self, evaluation_id: str, *, at_once: bool) -> None: ...


class JobQueues:
    """Sends each evaluation to the queue that does its kind of work."""

    def __init__(
        self, repository: EvaluationRepository, generating: GeneratingQueue, regrader: Regrader
    ) -> None:
        self._repository = repository
        self._generating = generating
        self._regrader = regrader

    def submit(self, evaluation_id: str, *, only_grades: bool) -> None:
        """Put one that was stored at the end of its queue; asks no database, which may be away by now."""
        if only_grades:
            self._regrader.submit(evaluation_id)
        else:
            self._generating.submit(evaluation_id)

    def stop_job(self, evaluation_id: str, *, at_once: bool) -> None:
        """Ask a running one to stop at its next opportunity, or end it at once."""
        if self._only_grades(evaluation_id):
            self._regrader.stop_job(evaluation_id)
        else:
            self._generating.stop_job(evaluation_id, at_once=at_once)

    def _only_grades(self, evaluation_id: str) -> bool:
        return self._repository.get(evaluation_id).inputs.regrade is not None
