"""Runs queued evaluations: a child process each, watched until it has ended, its answers graded as they
come."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.endings import failure, success
from tunix_rt_evaluator.evaluations.events import AttemptFacts
from tunix_rt_evaluator.evaluations.grade import Splitters, graded
from tunix_rt_evaluator.evaluations.job_folders import JobFolders
from tunix_rt_evaluator.evaluations.model import Evaluation, EvaluationUpdate, evaluation_name
from tunix_rt_evaluator.evaluations.regrading import store_end
from tunix_rt_evaluator.evaluations.results import ItemResult
from tunix_rt_evaluator.evaluations.service import EvalSets, EvaluationRepository
from tunix_rt_evaluator.evaluations.summary import Totals, manifest
from tunix_rt_evaluator.evaluations.warm_workers import WarmWorkers
from tunix_rt_evaluator.grading.reasoning.marks import is_current
from tunix_rt_evaluator.grading.reasoning.split import Splitter
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs import JobRunner, WorkerProcess
from tunix_rt_kit.jobs.runner import AWAY, AWAY_S
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.values import JobError, JobState

T = TypeVar("T")

_log = get_logger("tunix_rt.evaluator")

_POLL_S: Final = 0.1
_LOOK_S: Final = 0.5
# What is read of a child's events, and how many of the answers in them are graded, before progress is stored
# and a wish to cancel is looked for.
_MOST_BYTES: Final = 1 << 18
_MOST_GRADED: Final = 128
_LOG_LINES: Final = 20
_LOG_CHARACTERS: Final = 4_000
_CANCELLED_CODE: Final = 3
_END_S: Final = 10.0
_UNDER_WAY: Final = (JobState.RUNNING, JobState.CANCELLING)


class Supervisor:
    """The queue of evaluations, and the children of those that run.

    Args:
        repository: where evaluations are kept.
        eval_sets: where eval sets are kept.
        folders: where their children work.
        artifacts: where manifests go.
        grading: grades what they answer.
        slots: how many run at once.
        kept: children that hold a model for the next evaluation.
        splitters: tells reasoning from what is graded.
    """

    def __init__(
        self,
        repository: EvaluationRepository,
        eval_sets: EvalSets,
        folders: JobFolders,
        artifacts: ArtifactStore,
        grading: Grading,
        slots: int,
        kept: WarmWorkers,
        splitters: Splitters,
    ) -> None:
        self._repository = repository
        self._eval_sets = eval_sets
        self._kept = kept
        self._splitters = splitters
        self._folders = folders
        self._artifacts = artifacts
        self._grading = grading
        self._slots = slots
        self._runner: JobRunner | None = None
        self._end_at_once: set[str] = set()

    def start(self) -> None:
        """Take up the evaluations that an earlier server did not finish, oldest first."""
        self._runner = JobRunner(self._slots, self._run, on_error=self._on_error, name="evaluation")
        unfinished = self._repository.unfinished()
        self._folders.discard_checkpoints(unfinished)
        for evaluation_id in unfinished:
            self._runner.submit(evaluation_id)

    def stop(self, grace_s: float) -> None:
        """End the children; their evaluations go back to the queue and keep what was answered."""
        if self._runner is not None and (left := self._runner.stop(grace_s)):
            _log.info("evaluations_left", evaluations=left)
        self._kept.close()

    def submit(self, evaluation_id: str) -> None:
        """Put one at the end of the queue. While the server stops, the next one will find it there."""
        if self._runner is not None and not self._runner.stopping.is_set():
            self._runner.submit(evaluation_id)

    def stop_job(self, evaluation_id: str, *, at_once: bool) -> None:
        """Ask a running one to stop at its next opportunity, or end it at once."""
        if at_once:
            self._end_at_once.add(evaluation_id)
        if self._runner is not None:
            self._runner.cancel(evaluation_id)

    def _run(self, evaluation_id: str, cancelled: threading.Event) -> None:
        evaluation = self._insist(lambda: self._repository.get(evaluation_id), cancelled)
        process = self._folders.process(evaluation, warm=self._kept.keeps)
        run = None
        try:
            begin = partial(self._begin, evaluation_id, process)
            if (run := self._insist(begin, cancelled)) is None:
                return
            if evaluation.state is JobState.CANCELLING:
                cancelled.set()
            unsaved, looked, more = False, 0.0, True
            while not run.told_its_end and (more or process.poll() is None):
                if self._stopping:
                    self._give_back(run, process)
                    return
                try:
                    more = run.collect()
                    unsaved |= more
                    if time.monotonic() - looked >= _LOOK_S:
                        looked = time.monotonic()
                        if unsaved:
                            run.save()
                            unsaved = False
                        if run.cancelling:
                            cancelled.set()
                except AWAY as error:
                    # What the child tells waits in its folder.
                    _log.warning("storage_away", evaluation=evaluation_id, error=str(error))
                    unsaved = more = True
                    if cancelled.is_set() and process.poll() is not None:
                        break
                    time.sleep(AWAY_S)
                if evaluation_id in self._end_at_once:
                    process.kill()
                    break
                if cancelled.is_set():
                    process.cancel()
                if not more:
                    time.sleep(_POLL_S)
            end_at_once = evaluation_id in self._end_at_once
            finish = partial(run.finish, asked_to_stop=cancelled.is_set(), at_once=end_at_once)
            self._insist(finish, cancelled)
        finally:
            self._keep_or_kill(process, run)
            self._folders.discard_checkpoint(evaluation_id)
            self._end_at_once.discard(evaluation_id)

    def _keep_or_kill(self, process: WorkerProcess, run: _Run | None) -> None:
        if run is not None and run.told_its_end:
            child = process.release()
            if child is not None and run.did_well and run.local_model:
                self._kept.give(run.local_model, child)
                return
            if child is not None:
                child.close()
            process.wait(_END_S)
        process.kill()

    @property
    def _stopping(self) -> bool:
        return self._runner is not None and self._runner.stopping.is_set()

    def _begin(self, evaluation_id: str, process: WorkerProcess) -> _Run | None:
        """Start an evaluation's child, or take over the one that an earlier server started."""
        evaluation = self._repository.get(evaluation_id)
        if evaluation.state in _UNDER_WAY:
            process.adopt()
            run = self._make_run(evaluation, process)
            run.collect_all()
            if process.poll() is None or run.told_its_end:
                return run
            if evaluation.state is JobState.CANCELLING:
                run.save()
                run.change([evaluation.state], JobState.CANCELLED)
                return None
            run.change([evaluation.state], JobState.QUEUED)
        attempt = evaluation.attempt_count + 1
        if not self._repository.change_state(
            evaluation.id,
            [JobState.QUEUED],
            JobState.RUNNING,
            EvaluationUpdate(attempt_count=attempt, start_time=datetime.now(UTC)),
        ):
            return None
        evaluation = evaluation.model_copy(update={"attempt_count": attempt})
        run = self._make_run(evaluation, process)
        run.collect_all()
        run.forget_unless_told()
        spec = self._folders.prepare(evaluation, run.items, attempt)
        running = len(self._runner.active()) if self._runner is not None else 1
        child = self._kept.take(run.local_model, running) if run.local_model else None
        process.start(spec.model_dump(mode="json"), child)
        return run

    def _make_run(self, evaluation: Evaluation, process: WorkerProcess) -> _Run:
        items = self._eval_sets.get(evaluation.spec.eval_set).items or ()
        return _Run(
            self._repository, self._artifacts, self._grading, self._splitters, evaluation, items, process
        )

    def _give_back(self, run: _Run, process: WorkerProcess) -> None:
        """The server stops: end the child and leave the evaluation to the next server."""
        process.kill()
        run.collect_all()
        if run.cancelling:
            run.save()
            run.change([JobState.CANCELLING], JobState.CANCELLED)
        else:
            run.change([JobState.RUNNING], JobState.QUEUED)

    def _on_error(self, evaluation_id: str, error: Exception) -> None:
        store_end(self._repository, evaluation_id, error)

    def _insist(self, act: Callable[[], T], cancelled: threading.Event) -> T:
        return act() if self._runner is None else self._runner.insist(act, cancelled)


class _Run:
    """One attempt at an evaluation: what its child tells goes into the database."""

    def __init__(
        self,
        repository: EvaluationRepository,
        artifacts: ArtifactStore,
        grading: Grading,
        splitters: Splitters,
        evaluation: Evaluation,
        items: tuple[EvalItem, ...],
        process: WorkerProcess,
    ) -> None:
        self.items = items
        self._repository = repository
        self._artifacts = artifacts
        self._grading = grading
        self._evaluation = evaluation
        self._process = process
        self._by_id = {item.id: item for item in items}
        self._facts = AttemptFacts(evaluation.attempt_count)
        self._read = 0
        self._splitters = splitters
        self._splitter: Splitter | None = None
        if not is_current(evaluation.spec.reasoning_marks):
            # What an earlier version graded is graded again: the folder has all that was written.
            repository.drop_results(evaluation.id)
        self._stored = repository.answered(evaluation.id)
        self._unstored: list[ItemResult] = []
        self._unsure = False

    @property
    def told_its_end(self) -> bool:
        """Whether the child of this attempt ended by itself, and all that it told was taken in."""
        return self._facts.exit_code is not None and not self._facts.new_generations

    @property
    def did_well(self) -> bool:
        """Whether the child of this attempt ended by itself, all done."""
        return self._facts.exit_code == 0

    @property
    def local_model(self) -> str:
        """The base model that the child loads; empty if it loads none."""
        spec = self._evaluation.spec
        return "" if spec.endpoint_model is not None else self._evaluation.inputs.base_model

    @property
    def cancelling(self) -> bool:
        """Whether the evaluation was asked to stop, by whichever server."""
        return self._repository.get(self._evaluation.id).state is JobState.CANCELLING

    def collect(self) -> bool:
        """Take in some of what the child told since the last call, grading its answers; whether there was
        anything."""
        waiting = self._facts.new_generations
        told = bool(waiting)
        if not waiting:
            events = self._process.events(self._read, _MOST_BYTES)
            self._read += len(events)
            self._facts.take(events)
            told = bool(events)
        # Also where the last call could not: until then what waits is another engine's.
        if self._facts.changed:
            self._start_over(self._facts.changed)
            self._facts.changed = []
        if not told:
            self._store()
            return False
        now = waiting[:_MOST_GRADED]
        fresh = [entry for entry in now if entry.item_id not in self._stored]
        if fresh:
            answers = [(self._by_id[entry.item_id], entry) for entry in fresh]
            self._unstored += graded(answers, self._grading, self._make_splitter())
        # Not before they are graded: that may fail for now, and nobody would read them again.
        del waiting[: len(now)]
        self._store()
        return True

    def _store(self) -> None:
        """Store what was graded. Where the database goes away meanwhile, the next call does, and looks first
        whether it was stored all the same."""
        if self._unstored and self._unsure:
            self._stored = self._repository.answered(self._evaluation.id)
            self._unstored = [result for result in self._unstored if result.item_id not in self._stored]
        if self._unstored:
            self._unsure = True
            self._repository.add_results(self._evaluation.id, self._unstored)
            self._stored |= {result.item_id for result in self._unstored}
        self._unsure, self._unstored = False, []

    def _make_splitter(self) -> Splitter:
        """The one for what this evaluation's children write; all of them use one chat template."""
        if self._splitter is None:
            spec, told = self._evaluation.spec, self._facts.told
            self._splitter = self._splitters.of(
                self._evaluation, told.chat_template if told is not None else spec.chat_template
            )
        return self._splitter

    def collect_all(self) -> None:
        """Take in all that the child told since the last call."""
        while self.collect():
            pass

    def forget_unless_told(self) -> None:
        """Before an attempt: what is stored counts only if the folder still says which engine it is of."""
        if self._stored and not self._read:
            self._start_over(["the folder of the evaluation was lost"])

    def _start_over(self, changed: Sequence[str]) -> None:
        """All items are answered anew, as another engine may answer now: nothing that is stored counts."""
        _log.warning("evaluation_started_over", evaluation=self._evaluation.id, changed=changed)
        self._repository.drop_results(self._evaluation.id)
        self._stored.clear()
        self._unstored.clear()

    def save(self) -> None:
        """Store how far the evaluation has come."""
        self._repository.save(self._evaluation.id, self._update())

    def change(self, expected: list[JobState], state: JobState) -> None:
        """Change the evaluation's state."""
        self._repository.change_state(self._evaluation.id, expected, state)

    def finish(self, *, asked_to_stop: bool, at_once: bool) -> None:
        """The child has ended: store how; ``at_once`` without what is not graded yet."""
        if at_once:
            self._store()
        else:
            self.collect_all()
        code = self._facts.exit_code if self.told_its_end else self._process.poll()
        if code == 0 and len(self._stored) == len(self.items):
            self._succeed()
        elif code == _CANCELLED_CODE or self.cancelling or asked_to_stop:
            self._end(JobState.CANCELLED)
        else:
            self._end(JobState.FAILED, self._failure(code))

    def _succeed(self) -> None:
        evaluation, facts = self._evaluation, self._facts.facts
        if facts is None:
            raise RuntimeError("the worker ended well without saying what it ran")
        totals = Totals.of(self._repository.all_results(evaluation.id))
        try:
            totals.require_answer()
        except FailedPrecondition as error:
            self._end(JobState.FAILED, failure(error).error)
            return
        marks = self._make_splitter().marks
        complete = manifest(
            evaluation, evaluation_name(evaluation.id), evaluation.inputs, facts, marks, totals
        )
        result = success(self._artifacts, complete, totals.summary)
        update = self._update().model_copy(
            update={name: getattr(result, name) for name in ("summary", "manifest", "manifest_file")}
        )
        self._repository.change_state(evaluation.id, list(_UNDER_WAY), JobState.SUCCEEDED, update)

    def _end(self, state: JobState, error: JobError | None = None) -> None:
        update = self._update().model_copy(update={"error": error})
        self._repository.change_state(self._evaluation.id, list(_UNDER_WAY), state, update)

    def _update(self) -> EvaluationUpdate:
        facts = self._facts
        spec = self._evaluation.spec
        if facts.facts is not None:
            marks = self._make_splitter().marks
            spec = facts.facts.completed(spec).model_copy(update={"reasoning_marks": marks})
        return EvaluationUpdate(spec=spec, progress=facts.progress, stage_timings=facts.stage_timings)

    def _failure(self, code: int | None) -> JobError:
        if self._facts.error is not None:
            return self._facts.error
        if code == 0:
            return JobError(
                code="INTERNAL",
                reason="WORKER_INCOMPLETE",
                message=f"the worker ended after {len(self._stored)} of {len(self.items)} items",
            )
        log = "\n".join(self._process.log_tail(_LOG_LINES))[-_LOG_CHARACTERS:]
        return JobError(
            code="ABORTED",
            reason="WORKER_CRASHED",
            message=f"the worker {_ended_by(code)}; it wrote last: {log.strip() or 'nothing'}",
        )


def _ended_by(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with code {code}"
