"""How evaluations run: watched, cancelled, failed, and taken up by the next server."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import scripted_evaluator as script
from support.checkpoints import FakeTrainer
from support.evaluating import (
    FOUR,
    create,
    ended,
    error_info,
    eval_set,
    get,
    item,
    items_of,
    run,
    running,
    until,
)
from support.tiny_model import make_tiny_model
from tunix_rt import v1
from tunix_rt_evaluator.evaluations.job_folders import WorkerSpec
from tunix_rt_evaluator.evaluations.model import EvaluationUpdate
from tunix_rt_evaluator.evaluations.repository import SqlEvaluationRepository
from tunix_rt_evaluator.evaluations.results import Splitters
from tunix_rt_evaluator.grading.reasoning import Splitter
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import ResourceExhausted, Unavailable
from tunix_rt_kit.jobs.process import WorkerProcess
from tunix_rt_kit.values import JobState

State = v1.Evaluation


async def test_watching_begins_with_the_present_and_ends_with_the_end(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator)
    states = [entry async for entry in evaluator.WatchEvaluation(v1.WatchEvaluationRequest(name=made.name))]
    assert states[-1].state == State.STATE_SUCCEEDED
    assert states[-1] == await get(evaluator, made)
    again = [entry async for entry in evaluator.WatchEvaluation(v1.WatchEvaluationRequest(name=made.name))]
    assert again == [states[-1]]
    with pytest.raises(Exception, match="does not exist"):
        async for _ in evaluator.WatchEvaluation(v1.WatchEvaluationRequest(name="evaluations/none")):
            pass


async def test_progress_is_told_while_it_runs(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator, script.WAIT)
    now = await until(evaluator, made, lambda entry: entry.progress.completed == 2)
    assert now.state == State.STATE_RUNNING
    assert (now.progress.stage, now.progress.total, now.progress.unit) == ("generating", 4, "items")
    assert now.progress.eta.seconds == 1
    await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    await until(evaluator, made, ended)


async def test_a_cancelled_evaluation_keeps_what_was_answered(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator, script.WAIT)
    await until(evaluator, made, lambda entry: entry.progress.completed == 2)
    asked = await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    assert asked.state in (State.STATE_CANCELLING, State.STATE_CANCELLED)
    done = await until(evaluator, made, ended)
    assert done.state == State.STATE_CANCELLED
    assert not done.HasField("summary")
    assert [result.item_id for result in await items_of(evaluator, done)] == ["q1", "q2"]
    assert await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name)) == done


async def test_a_queued_evaluation_is_cancelled_at_once_and_never_runs(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    first = await create(evaluator, script.WAIT)
    await until(evaluator, first, lambda entry: entry.state == State.STATE_RUNNING)
    second = await create(evaluator)
    done = await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=second.name))
    assert done.state == State.STATE_CANCELLED
    await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=first.name))
    await until(evaluator, first, ended)
    assert (await get(evaluator, second)).attempt_count == 0


async def test_cancelling_again_ends_a_worker_that_does_not_listen(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator, script.DEAF)
    await until(evaluator, made, lambda entry: entry.progress.completed == 2)
    for _ in range(2):
        await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    assert (await until(evaluator, made, ended)).state == State.STATE_CANCELLED


@pytest.mark.parametrize(
    ("plan", "reason", "text"),
    [
        (script.REFUSE, "BASE_MODEL_MISMATCH", "not this model"),
        (script.DIE, "WORKER_CRASHED", "SIGKILL"),
        (script.CRASH, "WORKER_CRASHED", "the end is near"),
        (script.BUG, "WORKER_FAILED", "no such luck"),
        (script.FORGET, "WORKER_INCOMPLETE", "1 of 4"),
    ],
)
async def test_a_failure_says_why(evaluator: Any, plan: int, reason: str, text: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    done = await until(evaluator, await create(evaluator, plan), ended)
    assert done.state == State.STATE_FAILED
    assert error_info(done).reason == reason
    assert text in done.error.message
    # The next one runs all the same.
    assert (await run(evaluator)).summary.overall.item_count == 4


async def test_an_evaluation_without_any_answer_has_failed_and_shows_why(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set([item(number, "FAIL") for number in range(1, 4)]))
    done = await until(evaluator, await create(evaluator), ended)
    assert done.state == State.STATE_FAILED
    assert error_info(done).reason == "NOTHING_ANSWERED"
    assert done.error.message == "no item was answered; the first, 'q1': it does not fit"
    assert not done.HasField("summary")
    assert [result.error for result in await items_of(evaluator, done)] == ["it does not fit"] * 3


async def test_a_missing_adapter_file_fails_the_evaluation(
    evaluator: Any, checkpoint: str, trainer: tuple[FakeTrainer, str]
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    file = next(entry for entry in trainer[0].checkpoints[checkpoint].files if "safetensors" in entry.path)
    Path(file.uri.removeprefix("file://")).unlink()
    done = await until(evaluator, await create(evaluator, checkpoint=checkpoint), ended)
    assert done.state == State.STATE_FAILED
    assert error_info(done).reason == "ARTIFACT_MISSING"


async def test_a_stopped_server_leaves_its_evaluation_to_the_next_one(
    settings: EvaluatorSettings,
) -> None:
    async with running(settings) as first:
        await first.CreateEvalSet(eval_set(FOUR))
        made = await create(first, script.WAIT_ONCE)
        waiting = await create(first)
        await until(first, made, lambda entry: entry.progress.completed == 2)
        before = await items_of(first, made)
    async with running(settings) as second:
        done = await until(second, made, ended)
        assert done.state == State.STATE_SUCCEEDED
        assert done.attempt_count == 2
        results = await items_of(second, done)
        assert len(results) == 4
        assert results[:2] == before
        assert (await until(second, waiting, ended)).state == State.STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("lost", "away"),
    [(False, False), (True, False), (False, True)],
    ids=["upgraded", "folder lost", "database away"],
)
async def test_results_are_all_of_the_engine_that_the_manifest_names(
    settings: EvaluatorSettings, lost: bool, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(settings) as first:
        await first.CreateEvalSet(eval_set(FOUR))
        made = await create(first, script.UPGRADE)
        await until(first, made, lambda entry: entry.progress.completed == 2)
        assert [result.output for result in await items_of(first, made)] == ["Answer: 1", "Answer: 3"]
    if lost:
        shutil.rmtree(settings.data_dir / "evaluations" / made.name.removeprefix("evaluations/"))
    if away:
        Away(monkeypatch, "drop_results")
    async with running(settings) as second:
        done = await until(second, made, ended)
        assert done.state == State.STATE_SUCCEEDED, done.error
        assert done.manifest.engine == "scripted/2"
        results = await items_of(second, done)
        assert [result.output for result in results] == [
            item.prompt.split("|")[2] for item in FOUR
        ]  # What the other engine says.
        assert done.summary.overall.item_count == 4


async def test_a_child_that_outlived_its_server_is_taken_over(settings: EvaluatorSettings) -> None:
    async with running(settings) as first:
        await first.CreateEvalSet(eval_set(FOUR))
        made = await create(first, script.WAIT_ONCE)
        await until(first, made, lambda entry: entry.progress.completed == 2)
    # As a server leaves things that was killed in the second attempt.
    folder = settings.data_dir / "evaluations" / made.name.removeprefix("evaluations/")
    spec = WorkerSpec.model_validate_json((folder / "spec.json").read_bytes())
    database = Database(settings.database)
    assert SqlEvaluationRepository(database).change_state(
        made.name.removeprefix("evaluations/"),
        [JobState.QUEUED],
        JobState.RUNNING,
        EvaluationUpdate(attempt_count=2),
    )
    database.close()
    orphan = WorkerProcess("support.scripted_evaluator", folder)
    orphan.start(spec.model_copy(update={"attempt": 2}).model_dump(mode="json"))
    async with running(settings) as second:
        done = await until(second, made, ended)
        assert done.state == State.STATE_SUCCEEDED
        assert done.attempt_count == 2
        assert len(await items_of(second, done)) == 4
    assert orphan.wait(10.0) == 0


async def test_the_copy_of_a_checkpoint_goes_when_its_evaluation_has_ended(
    settings: EvaluatorSettings, checkpoint: str
) -> None:
    def copies() -> list[Path]:
        return sorted(settings.data_dir.glob("evaluations/*/checkpoint"))

    async with running(settings) as first:
        await first.CreateEvalSet(eval_set(FOUR))
        done = await run(first, checkpoint=checkpoint)
        for plan in (script.DIE, script.REFUSE):
            await until(first, await create(first, plan, checkpoint=checkpoint), ended)
        waiting = await create(first, script.WAIT, checkpoint=checkpoint)
        await until(first, waiting, lambda entry: entry.progress.completed == 2)
        (copy,) = copies()
        assert copy.parent.name == waiting.name.removeprefix("evaluations/")
        assert (copy / "adapter_model.safetensors").read_bytes() == b"adapter_model.safetensors 7"
    # What an earlier version left goes with the next start.
    left = copy.parent.with_name(done.name.removeprefix("evaluations/")) / "checkpoint"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"weights")
    async with running(settings) as second:
        assert left not in copies()
        await second.CancelEvaluation(v1.CancelEvaluationRequest(name=waiting.name))
        await until(second, waiting, ended)
        for _ in range(600):
            if not copies():
                break
            await asyncio.sleep(0.05)
        assert not copies()


async def test_no_more_models_are_in_memory_than_there_are_slots(settings: EvaluatorSettings) -> None:
    def worker(evaluation: v1.Evaluation) -> int:
        folder = settings.data_dir / "evaluations" / evaluation.name.removeprefix("evaluations/")
        return int(json.loads((folder / "worker.pid").read_bytes())["pid"])

    for model in ("second", "third"):
        make_tiny_model(settings.models / model)
    two = settings.model_copy(update={"slots": 2, "keep_model_s": 60.0})
    async with running(two) as evaluator:
        await evaluator.CreateEvalSet(eval_set(FOUR))
        others = [await create(evaluator, script.WAIT, base_model="second")]
        idle = worker(await run(evaluator))
        assert psutil.pid_exists(idle)
        others.append(await create(evaluator, script.WAIT, base_model="third"))
        for other in others:
            await until(evaluator, other, lambda entry: entry.progress.completed == 2)
        assert not psutil.pid_exists(idle)
        for other in others:
            await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=other.name))
            await until(evaluator, other, ended)


async def test_watches_end_when_the_server_stops(settings: EvaluatorSettings) -> None:
    async with running(settings) as first:
        await first.CreateEvalSet(eval_set(FOUR))
        made = await create(first, script.WAIT)
        await until(first, made, lambda entry: entry.progress.completed == 2)
        seen: list[v1.Evaluation] = []

        async def watch() -> None:
            async for entry in first.WatchEvaluation(v1.WatchEvaluationRequest(name=made.name)):
                seen.append(entry)

        watching = asyncio.ensure_future(watch())
        while not seen:
            await asyncio.sleep(0.02)
    await asyncio.gather(watching, return_exceptions=True)
    assert seen[-1].state == State.STATE_RUNNING
    async with running(settings) as second:
        await second.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
        assert (await until(second, made, ended)).state == State.STATE_CANCELLED


class Away:
    """A repository's methods, each of which fails now and then, before or after it has done its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.failed: set[tuple[str, str]] = set()
        for name in names:
            monkeypatch.setattr(SqlEvaluationRepository, name, self._method(name))

    def _fail_once(self, name: str, when: str) -> None:
        if (name, when) not in self.failed:
            self.failed.add((name, when))
            raise Unavailable("the database is away", reason="DATABASE_UNAVAILABLE")

    def _method(self, name: str) -> Any:
        real = getattr(SqlEvaluationRepository, name)

        def method(repository: SqlEvaluationRepository, *values: Any, **named: Any) -> Any:
            # Calls of clients may fail: what the queue's threads ask must not.
            ours = threading.current_thread().name.startswith("evaluation")
            if ours:
                self._fail_once(name, "before")
            answer = real(repository, *values, **named)
            if ours:
                self._fail_once(name, "after")
            return answer

        return method


async def test_an_evaluation_goes_on_in_its_child_while_the_database_is_away(
    evaluator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunix_rt_kit.jobs.child_jobs.AWAY_S", 0.05)
    await evaluator.CreateEvalSet(eval_set(FOUR))
    away = Away(monkeypatch, "add_results", "save", "change_state", "get", "all_results")
    busy, splitter_of = iter([True]), Splitters.of

    def of(splitters: Splitters, *values: Any) -> Splitter:
        if next(busy, False):
            raise Unavailable("other templates take all the time", reason="CHAT_SANDBOX_BUSY")
        return splitter_of(splitters, *values)

    monkeypatch.setattr(Splitters, "of", of)
    done = await until(evaluator, await create(evaluator), ended)
    assert done.state == State.STATE_SUCCEEDED, done
    assert len(await items_of(evaluator, done)) == 4
    assert {"add_results", "change_state", "get"} <= {name for name, _ in away.failed}


async def test_a_failure_is_stored_once_the_database_is_back(
    evaluator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    await evaluator.CreateEvalSet(eval_set(FOUR))
    monkeypatch.setattr(SqlEvaluationRepository, "answered", broken)
    Away(monkeypatch, "change_state")
    done = await until(evaluator, await create(evaluator), ended)
    assert done.state == State.STATE_FAILED


async def test_a_cancel_ends_the_waiting_for_an_artifact_store_that_stays_away(
    evaluator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunix_rt_kit.jobs.run._CANCELLED_S", 0.2)
    tried = threading.Event()

    def away(*_: Any) -> None:
        tried.set()
        raise Unavailable("the artifact store is away", reason="STORAGE_UNAVAILABLE")

    monkeypatch.setattr(ArtifactStore, "put_bytes", away)
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator)
    await asyncio.to_thread(tried.wait, 30)
    assert (await get(evaluator, made)).state == State.STATE_RUNNING
    await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    done = await until(evaluator, made, ended)
    assert done.state == State.STATE_CANCELLED
    assert len(await items_of(evaluator, done)) == 4


async def test_a_database_that_takes_nothing_for_good_fails_the_evaluation_by_name_once_it_can(
    evaluator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    full = itertools.count()
    change_state = SqlEvaluationRepository.change_state

    def add_results(*_: Any) -> None:
        raise ResourceExhausted("the database is full", reason="DATABASE_FULL")

    def fail_a_while(repository: Any, evaluation_id: str, expected: Any, state: Any, *more: Any) -> bool:
        if state is JobState.FAILED and next(full) < 2:
            raise ResourceExhausted("the database is full", reason="DATABASE_FULL")
        return change_state(repository, evaluation_id, expected, state, *more)

    monkeypatch.setattr(SqlEvaluationRepository, "add_results", add_results)
    monkeypatch.setattr(SqlEvaluationRepository, "change_state", fail_a_while)
    done = await until(evaluator, await create(evaluator), ended)
    assert (done.state, error_info(done).reason) == (State.STATE_FAILED, "DATABASE_FULL")
    assert next(full) == 3


async def test_many_answers_that_come_at_once_are_graded_a_few_at_a_time(
    evaluator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that progress is seen, and a wish to stop: the worker is done long before they are graded."""
    monkeypatch.setattr("tunix_rt_evaluator.evaluations.jobs._GRADING_S", 0.1)
    grade_all = Grading.grade_all

    def slow(grading: Grading, answers: Any) -> Any:
        time.sleep(0.2)
        return grade_all(grading, answers)

    await evaluator.CreateEvalSet(eval_set([item(n, "x" * 20_000 + f" Answer: {n}") for n in range(40)]))
    assert len(await items_of(evaluator, await run(evaluator))) == 40
    monkeypatch.setattr(Grading, "grade_all", slow)
    made, completed = await create(evaluator), set()
    async for state in evaluator.WatchEvaluation(v1.WatchEvaluationRequest(name=made.name)):
        completed.add(state.progress.completed)
        if len(completed) == 3:
            for _ in range(2):
                await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    assert state.state == State.STATE_CANCELLED
    assert 0 < len(await items_of(evaluator, made)) < 40
