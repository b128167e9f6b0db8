"""Evaluations that grade the answers of another one again, as a kind of job."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.admission import EvalSets, regraded_items
from tunix_rt_evaluator.evaluations.generating import UNEXPECTED
from tunix_rt_evaluator.evaluations.grade import (
    GradingBudget,
    GradingBudgetExceeded,
    Splitters,
    graded_in_turn,
)
from tunix_rt_evaluator.evaluations.model import Evaluation, EvaluationUpdate
from tunix_rt_evaluator.evaluations.results import Generation, ItemResult
from tunix_rt_evaluator.evaluations.service import EvaluationJobs, EvaluationRepository
from tunix_rt_evaluator.evaluations.summary import Totals, regraded_manifest, success
from tunix_rt_evaluator.grading.reasoning.marks import is_current, resolved_marks
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.jobs import JobCancelled, JobInterrupted, JobKind, Run
from tunix_rt_kit.jobs.engine import LIVE
from tunix_rt_kit.values import JobState, Progress, StageTiming

_PAGE: Final = 200
_SAVE_S: Final = 0.5
_SAVE_ITEMS: Final = 64


class Regrades(JobKind):
    """Evaluations that only grade, one at a time; they wait for no device.

    Args:
        repository: where evaluations are kept.
        eval_sets: where eval sets are kept.
        artifacts: where manifests go.
        grading: the graders.
        splitters: tells reasoning from what is graded.
        grading_budget_s: how long grading one of them may take.
    """

    name = "regrade"
    unexpected = UNEXPECTED

    def __init__(
        self,
        repository: EvaluationRepository,
        eval_sets: EvalSets,
        artifacts: ArtifactStore,
        grading: Grading,
        splitters: Splitters,
        grading_budget_s: float,
    ) -> None:
        super().__init__(EvaluationJobs(repository, regrades=True), 1)
        self._repository = repository
        self._eval_sets = eval_sets
        self._artifacts = artifacts
        self._grading = grading
        self._splitters = splitters
        self._grading_budget_s = grading_budget_s

    def work(self, run: Run) -> None:
        evaluation = run.retry(lambda: self._begin(run))
        if evaluation is not None:
            budget = GradingBudget(self._grading_budget_s)
            # Again from the start: what was stored is not graded twice.
            run.retry(lambda: self._regrade(run, evaluation, budget))

    def _begin(self, run: Run) -> Evaluation | None:
        run.check()
        evaluation = self._repository.get(run.job_id)
        if not is_current(evaluation.spec.reasoning_marks):
            # What an earlier version graded is graded again.
            self._repository.drop_results(run.job_id)
        marks = resolved_marks(evaluation.spec.reasoning_marks, evaluation.spec.chat_template)
        spec = evaluation.spec.model_copy(update={"reasoning_marks": marks})
        attempt = EvaluationUpdate(
            spec=spec, attempt_count=evaluation.attempt_count + 1, start_time=datetime.now(UTC)
        )
        expected = [JobState.QUEUED, JobState.RUNNING]
        begun = self._repository.change_state(run.job_id, expected, JobState.RUNNING, attempt)
        return evaluation.model_copy(update={"spec": spec}) if begun else None

    def _regrade(self, run: Run, evaluation: Evaluation, budget: GradingBudget) -> None:
        regrade = evaluation.inputs.regrade
        if regrade is None:
            raise RuntimeError(f"evaluation {evaluation.id} is no regrade")
        splitter = self._splitters.of(evaluation, evaluation.spec.chat_template)
        items = regraded_items(self._eval_sets.get(evaluation.spec.eval_set), regrade.grader)
        work = _Work(self._repository, evaluation.id, items)
        answers = work.pending(regrade.source)
        try:
            for results in graded_in_turn(answers, self._grading, splitter, budget):
                work.take(results)
                run.check()
        except (JobCancelled, JobInterrupted, GradingBudgetExceeded):
            work.flush(ended=True)
            raise
        work.flush()
        source = self._repository.get(regrade.source).manifest
        if source is None:
            raise RuntimeError(f"evaluation {regrade.source} has no manifest")
        totals = Totals.of(self._repository.all_results(run.job_id))
        totals.require_grade()
        manifest = regraded_manifest(source, evaluation, totals)
        result = success(self._artifacts, manifest, totals, work.update(ended=True))
        self._repository.change_state(run.job_id, LIVE, JobState.SUCCEEDED, result)


class _Work:
    """The grading of one evaluation's items, those aside that have a result already."""

    def __init__(
        self, repository: EvaluationRepository, evaluation_id: str, items: Sequence[EvalItem]
    ) -> None:
        self._repository = repository
        self._id = evaluation_id
        self._items = {item.id: item for item in items}
        self._done = repository.answered(evaluation_id)
        self._before = len(self._done)
        self._began = self._saved = time.monotonic()
        self._fresh: list[ItemResult] = []

    def pending(self, source_id: str) -> Iterator[tuple[EvalItem, Generation]]:
        """What the evaluation ``source_id`` answered to the items that are not graded yet."""
        after, last = None, False
        while not last:
            page, last = self._repository.results_page(source_id, after, _PAGE)
            after = page[-1].item_id if page else None
            for result in page:
                if result.item_id not in self._done:
                    yield self._items[result.item_id], result.generation

    def take(self, results: Sequence[ItemResult]) -> None:
        """Take in what was graded, and store it now and then."""
        self._fresh += results
        if len(self._fresh) >= _SAVE_ITEMS or time.monotonic() - self._saved >= _SAVE_S:
            self.flush()

    def flush(self, *, ended: bool = False) -> None:
        """Store what was graded and is not stored yet, and how far it has come."""
        if self._fresh:
            self._repository.add_results(self._id, self._fresh)
            self._done |= {result.item_id for result in self._fresh}
            self._fresh = []
        self._repository.save(self._id, self.update(ended=ended))
        self._saved = time.monotonic()

    def update(self, *, ended: bool) -> EvaluationUpdate:
        """How far it has come."""
        seconds = time.monotonic() - self._began
        total, done = len(self._items), len(self._done)
        eta = seconds / max(done - self._before, 1) * (total - done)
        progress = Progress(stage="grading", completed=done, total=total, unit="items", eta_s=eta)
        timings = (StageTiming(stage="grading", duration_s=seconds),) if ended else None
        return EvaluationUpdate(progress=progress, stage_timings=timings)
