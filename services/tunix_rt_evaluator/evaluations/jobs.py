"""The two kinds of jobs: evaluations that generate, and those that grade another one's answers again.

Where one generates, a child process answers, and its answers are graded as they come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.eval_sets.service import EvalSetRepository
from tunix_rt_evaluator.evaluations.admission import regraded_items
from tunix_rt_evaluator.evaluations.job_folders import WORKER_MODULE, JobFolders, WarmWorkers
from tunix_rt_evaluator.evaluations.model import (
    Evaluation,
    EvaluationUpdate,
    Generation,
    ItemResult,
    ModelFacts,
)
from tunix_rt_evaluator.evaluations.results import (
    GradingBudget,
    GradingBudgetExceeded,
    Splitters,
    Totals,
    graded_in_turn,
    manifest,
    regraded_manifest,
    success,
)
from tunix_rt_evaluator.evaluations.service import EvaluationJobs, EvaluationRepository
from tunix_rt_evaluator.grading.reasoning import Splitter, is_current, resolved_marks
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.jobs.child import JobCancelled
from tunix_rt_kit.jobs.child_jobs import Attempt, AttemptFacts, ChildJobs, Launcher, end_left_behind
from tunix_rt_kit.jobs.engine import LIVE, JobKind
from tunix_rt_kit.jobs.process import WorkerProcess
from tunix_rt_kit.jobs.run import JobFailed, JobInterrupted, Run
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.values import JobError, JobState, Progress, StageTiming, TimeLeft

_log = get_logger("tunix_rt.evaluator")

UNEXPECTED: Final = JobError(
    code="INTERNAL",
    reason="INTERNAL",
    message="the evaluation failed for a reason that is in the server's log",
)
# What is read of a child's events, and how long the answers in them are graded, before progress is stored
# and a wish to cancel is looked for.
_MOST_BYTES: Final = 1 << 18
_GRADING_S: Final = 0.5
# What a cancelled evaluation has to grade what was answered.
_CANCELLED_S: Final = 2.0


@dataclass
class EvaluationFacts(AttemptFacts):
    """What an evaluation's children told: the facts of one attempt, and the answers of all attempts.

    Args:
        facts: what this attempt runs.
        told: what the latest attempt runs that told of its model, this one or one before it.
        new_generations: what nobody has taken yet, all of it by what ``told`` says.
        changed: if it is not empty, why an attempt answered all items anew: answers from before it do not
            count. Whoever takes it clears it.
    """

    facts: ModelFacts | None = None
    told: ModelFacts | None = None
    new_generations: list[Generation] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def take_own(self, kind: str, fields: Mapping[str, Any], *, current: bool) -> None:
        if kind == "item":
            self.new_generations.append(Generation.model_validate(fields["generation"]))
        elif kind == "facts":
            self.told = ModelFacts.model_validate(fields["facts"])
            if fields.get("changed"):
                self.new_generations.clear()
                self.changed = list(fields["changed"])
            if current:
                self.facts = self.told


@dataclass(frozen=True, slots=True)
class JobContext:
    """What both kinds of jobs work with.

    Args:
        repository: where evaluations are kept.
        eval_sets: where eval sets are kept.
        artifacts: where manifests go.
        grading: the graders.
        splitters: tells reasoning from what is graded.
        grading_budget_s: how long grading the answers of one evaluation may take.
    """

    repository: EvaluationRepository
    eval_sets: EvalSetRepository
    artifacts: ArtifactStore
    grading: Grading
    splitters: Splitters
    grading_budget_s: float


class Evaluations(ChildJobs[EvaluationFacts]):
    """The evaluations that generate.

    Args:
        context: what they work with.
        folders: where their children work.
        warm_workers: children that hold a model for the next evaluation.
        slots: how many run at once.
    """

    name = "evaluation"
    unexpected = UNEXPECTED
    most_deaths = 3

    def __init__(
        self, context: JobContext, folders: JobFolders, warm_workers: WarmWorkers, slots: int
    ) -> None:
        super().__init__(EvaluationJobs(context.repository, regrades=False), slots)
        self.context = context
        self.folders = folders
        self.warm_workers = warm_workers
        self.budgets: dict[str, GradingBudget] = {}

    def launcher(self, job_id: str) -> Launcher:
        return self.folders.process(self.context.repository.get(job_id), warm=self.warm_workers.keeps)

    def open(self, run: Run, child: Launcher) -> FollowedEvaluation:
        assert isinstance(child, WorkerProcess)
        return FollowedEvaluation(self, run, child, self.context.repository.get(run.job_id))

    def tidy(self) -> None:
        """End the children, and remove the copies of checkpoints, that nobody has a use for any more."""
        end_left_behind(self.folders.root, WORKER_MODULE, self.context.repository.get)
        self.folders.discard_checkpoints(self.store.unfinished)

    def let_go(self, attempt: Attempt[EvaluationFacts]) -> None:
        assert isinstance(attempt, FollowedEvaluation)
        warm = attempt.process.release() if attempt.ended else None
        if warm is not None and attempt.facts.exit_code == 0 and attempt.local_model:
            self.warm_workers.give(attempt.local_model, warm)
        elif warm is not None:
            warm.close()
        super().let_go(attempt)

    def work(self, run: Run) -> None:
        self.budgets[run.job_id] = GradingBudget(self.context.grading_budget_s)
        try:
            super().work(run)
        finally:
            del self.budgets[run.job_id]
            if not run.lost.is_set():
                self.folders.discard_checkpoint(run.job_id)


class FollowedEvaluation(Attempt[EvaluationFacts]):
    """One attempt at ``evaluation``, which ``process`` makes: what it tells is graded and stored."""

    died = ("ABORTED", "WORKER_CRASHED")

    def __init__(self, kind: Evaluations, run: Run, process: WorkerProcess, evaluation: Evaluation) -> None:
        super().__init__(
            kind.store, run, process, evaluation.state, EvaluationFacts(evaluation.attempt_count)
        )
        self.process = process
        self._kind = kind
        self._context = kind.context
        self._repository = kind.context.repository
        self._evaluation = evaluation
        eval_set = kind.context.eval_sets.get(evaluation.spec.eval_set)
        self._items, self._origin = eval_set.items or (), eval_set.origin
        self._by_id = {item.id: item for item in self._items}
        self._splitter: Splitter | None = None
        if not is_current(evaluation.spec.reasoning_marks):
            # What an earlier version graded is graded again: the folder has all that was written.
            self._repository.drop_results(evaluation.id)
        self._stored = self._repository.answered(evaluation.id)
        self._unstored: dict[str, ItemResult] = {}
        self._unsure = False
        self._last_wanted = 0.0  # Long ago, where it was asked to stop before it was taken up.

    def start(self) -> FollowedEvaluation | None:
        evaluation, number = self._evaluation, self._evaluation.attempt_count + 1
        begun = EvaluationUpdate(attempt_count=number, start_time=datetime.now(UTC))
        if not self._repository.change_state(evaluation.id, [JobState.QUEUED], JobState.RUNNING, begun):
            return None
        evaluation = evaluation.model_copy(update={"attempt_count": number, "state": JobState.RUNNING})
        attempt = FollowedEvaluation(self._kind, self.run, self.process, evaluation)
        attempt._go_on()
        return attempt

    def _go_on(self) -> None:
        """Take in what earlier attempts told, and start the child of this one."""
        while self.collect():
            pass
        self.run.check()
        if self._stored and not self._events:
            # What is stored counts only if the folder still says which engine it is of.
            self._start_over(["the folder of the evaluation was lost"])
        warm, running = self._kind.warm_workers, len(self._kind.budgets)
        self._kind.folders.start(
            self.process,
            self._evaluation,
            self._items,
            lambda: warm.take(self.local_model, running) if self.local_model else None,
            self.run.confirm,
        )

    @property
    def step(self) -> int:
        return len(self._stored)

    @property
    def ended(self) -> bool:
        return super().ended and not self.facts.new_generations

    @property
    def complete(self) -> bool:
        return len(self._stored) == len(self._items)

    @property
    def local_model(self) -> str:
        """The base model that the child loads; empty if it loads none."""
        spec = self._evaluation.spec
        return "" if spec.endpoint_model is not None else self._evaluation.inputs.base_model

    def collect(self) -> bool:
        waiting, over = self.facts.new_generations, self._is_over()
        more = bool(waiting) or bool(self.read(_MOST_BYTES))
        # Also where the last call could not: until then what waits is another engine's.
        if self.facts.changed:
            self._start_over(self.facts.changed)
            self.facts.changed = []
        try:
            if over:
                waiting.clear()
            elif not self.run.stopping.is_set():
                self._grade(waiting)
        finally:
            self._store_results()
        if waiting and self.run.stopping.is_set():
            # The next server grades it: the folder has all that was written.
            raise JobInterrupted
        return more

    def _is_over(self) -> bool:
        """Whether what is not graded by now stays so, as the evaluation was asked to stop."""
        if not self.run.cancelled.is_set():
            self._last_wanted = time.monotonic()
        return self.run.at_once.is_set() or time.monotonic() - self._last_wanted > _CANCELLED_S

    def _grade(self, waiting: list[Generation]) -> None:
        """Grade some of what waits."""
        end = time.monotonic() + _GRADING_S
        answers = [(self._by_id[entry.item_id], entry) for entry in waiting if self._is_new(entry)]
        budget = self._kind.budgets[self.run.job_id]
        splitter = self._make_splitter() if answers else None
        for results in graded_in_turn(answers, self._context.grading, splitter, budget) if splitter else ():
            self._unstored |= {result.item_id: result for result in results}
            if time.monotonic() >= end or self.run.stopping.is_set() or self._is_over():
                break
        # Not before they are graded: that may fail for now, and nobody would read them again.
        waiting[:] = filter(self._is_new, waiting)

    def _is_new(self, entry: Generation) -> bool:
        return entry.item_id not in self._stored and entry.item_id not in self._unstored

    def _store_results(self) -> None:
        """Store what was graded. Where the database goes away meanwhile, the next call does, and looks first
        whether it was stored all the same."""
        if self._unstored and self._unsure:
            self._stored = self._repository.answered(self._evaluation.id)
            for item_id in self._stored & self._unstored.keys():
                del self._unstored[item_id]
        if self._unstored:
            if not self._stored:
                # With the marks that they were graded by: the next server drops results without.
                self._repository.save(self._evaluation.id, EvaluationUpdate(spec=self.update().spec))
            self._unsure = True
            self._repository.add_results(self._evaluation.id, list(self._unstored.values()))
            self._stored |= self._unstored.keys()
        self._unsure, self._unstored = False, {}

    def _make_splitter(self) -> Splitter:
        """The one for what this evaluation's children write; all of them use one chat template."""
        if self._splitter is None:
            spec, told = self._evaluation.spec, self.facts.told
            self._splitter = self._context.splitters.of(
                self._evaluation, told.chat_template if told is not None else spec.chat_template
            )
        return self._splitter

    def _start_over(self, changed: Sequence[str]) -> None:
        """All items are answered anew, as another engine may answer now: nothing that is stored counts."""
        _log.warning("evaluation_started_over", evaluation=self._evaluation.id, changed=changed)
        self._repository.drop_results(self._evaluation.id)
        self._stored.clear()
        self._unstored.clear()

    def update(self) -> EvaluationUpdate:
        facts, spec = self.facts, self._evaluation.spec
        if facts.facts is not None:
            marks = self._make_splitter().marks
            spec = facts.facts.completed(spec).model_copy(update={"reasoning_marks": marks})
        return EvaluationUpdate(spec=spec, progress=facts.progress, stage_timings=facts.stage_timings)

    def succeed(self) -> None:
        evaluation, facts = self._evaluation, self.facts.facts
        if not self.complete:
            message = f"the worker ended after {len(self._stored)} of {len(self._items)} items"
            raise JobFailed(JobError(code="INTERNAL", reason="WORKER_INCOMPLETE", message=message))
        if facts is None:
            raise RuntimeError("the worker ended well without saying what it ran")
        totals = Totals.of(self._repository.all_results(evaluation.id))
        totals.require_answer()
        complete = manifest(evaluation, facts, self._make_splitter().marks, totals, self._origin)
        result = success(self._context.artifacts, complete, totals, self.update())
        self._repository.change_state(evaluation.id, LIVE, JobState.SUCCEEDED, result)


_PAGE: Final = 200
_SAVE_S: Final = 0.5
_SAVE_ITEMS: Final = 64


class Regrades(JobKind):
    """Evaluations that only grade, one at a time; they wait for no device."""

    name = "regrade"
    unexpected = UNEXPECTED

    def __init__(self, context: JobContext) -> None:
        super().__init__(EvaluationJobs(context.repository, regrades=True), 1)
        self._context = context
        self._repository = context.repository

    def work(self, run: Run) -> None:
        evaluation = run.retry(lambda: self._begin(run))
        if evaluation is not None:
            budget = GradingBudget(self._context.grading_budget_s)
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
        splitter = self._context.splitters.of(evaluation, evaluation.spec.chat_template)
        eval_set = self._context.eval_sets.get(evaluation.spec.eval_set)
        items = regraded_items(eval_set, regrade.grader)
        work = _Work(self._repository, evaluation.id, items)
        answers = work.pending(regrade.source)
        try:
            for results in graded_in_turn(answers, self._context.grading, splitter, budget):
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
        manifest = regraded_manifest(source, evaluation, totals, eval_set.origin)
        result = success(self._context.artifacts, manifest, totals, work.update(ended=True))
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
        self._left = TimeLeft()
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
        eta = self._left.after(done, total, seconds)
        progress = Progress(stage="grading", completed=done, total=total, unit="items", eta_s=eta)
        timings = (StageTiming(stage="grading", duration_s=seconds),) if ended else None
        return EvaluationUpdate(progress=progress, stage_timings=timings)
