"""What goes wrong while evaluations run: full disks, slow graders, workers and servers that stop or die."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psutil
import pytest

from support import scripted_evaluator as script
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
from support.program import Program
from support.serving import refused
from support.store_process import environment
from support.threaded import free_address
from support.timing import eventually
from tunix_rt import v1
from tunix_rt.wire import open_aio_channel
from tunix_rt_evaluator.evaluations import jobs
from tunix_rt_evaluator.evaluations.jobs import Evaluations
from tunix_rt_evaluator.evaluations.repository import SqlEvaluationRepository
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import ResourceExhausted
from tunix_rt_kit.values import JobState

State = v1.Evaluation
SLOW_S = 0.2
MANY = [item(number, f"Answer: {number}") for number in range(100, 140)]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grading an item takes a while; the ids of those that were graded."""
    real, graded = Grading.grade_all, []

    def grade_all(grading: Grading, answers: Any) -> Any:
        for entry, *_ in answers:
            time.sleep(SLOW_S)
            graded.append(entry.id)
        return real(grading, answers)

    monkeypatch.setattr(Grading, "grade_all", grade_all)
    monkeypatch.setattr(jobs, "_CANCELLED_S", SLOW_S / 2)
    return graded


class FullDisk:
    """A database that takes nothing as long as ``full`` is set, and says so as ``error``."""

    def __init__(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = threading.Event()
        self.refused = 0
        real, add_results = Database.write, SqlEvaluationRepository.add_results

        @contextmanager
        def write(database: Database) -> Iterator[Any]:
            if self.full.is_set():
                self.refused += threading.current_thread().name.startswith("evaluation")
                raise error
            with real(database) as session:
                yield session

        def add(repository: SqlEvaluationRepository, *values: Any) -> None:
            if self.refused == 0:
                self.full.set()
            add_results(repository, *values)

        monkeypatch.setattr(Database, "write", write)
        monkeypatch.setattr(SqlEvaluationRepository, "add_results", add)


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ResourceExhausted("the database is full", reason="DATABASE_FULL"),
    ],
    ids=["system", "database"],
)
@pytest.mark.one_database
async def test_a_disk_that_is_full_for_a_while_keeps_no_evaluation_from_its_end(
    evaluator: Any, error: Exception, cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    disk = FullDisk(error, monkeypatch)
    made = await create(evaluator, script.WAIT)
    await asyncio.to_thread(eventually, lambda: disk.refused >= 3)
    assert (await get(evaluator, made)).state == State.STATE_RUNNING
    wish = v1.CancelEvaluationRequest(name=made.name)
    if cancelled:
        await refused(evaluator.CancelEvaluation(wish))
    disk.full.clear()
    if cancelled:
        await evaluator.CancelEvaluation(wish)
    done = await until(evaluator, made, ended)
    assert done.state == State.STATE_FAILED
    assert error_info(done).reason == (
        "DATABASE_FULL" if isinstance(error, ResourceExhausted) else "INTERNAL"
    )
    # And the next one runs.
    await run(evaluator)


async def begun(
    evaluator: Any, slow: list[str], regrade: bool, items: Sequence[v1.EvalItem] = MANY
) -> v1.Evaluation:
    """An evaluation with a slow grader, or a regrade, some items of which are graded."""
    await evaluator.CreateEvalSet(eval_set(items))
    if regrade:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.modules[__name__], "SLOW_S", 0.0)
            source = await run(evaluator)
        slow.clear()
        made = await evaluator.RegradeEvaluation(v1.RegradeEvaluationRequest(name=source.name))
    else:
        made = await create(evaluator)
    await asyncio.to_thread(eventually, lambda: len(slow) >= 2)
    return made


@pytest.mark.one_database
@pytest.mark.parametrize("regrade", [False, True])
async def test_a_slow_grader_is_cancelled_between_two_items(
    evaluator: Any, slow: list[str], regrade: bool
) -> None:
    made = await begun(evaluator, slow, regrade)
    await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    # Another one is cancelled meanwhile.
    other = await create(evaluator, script.WAIT)
    await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=other.name))
    assert (await until(evaluator, other, ended)).state == State.STATE_CANCELLED
    done = await until(evaluator, made, ended)
    assert done.state == State.STATE_CANCELLED
    graded = list(slow)
    assert len(graded) < 10
    # What was graded is kept.
    assert {result.item_id for result in await items_of(evaluator, done)} == set(graded)
    await asyncio.sleep(2 * SLOW_S)
    assert slow == graded


@pytest.mark.one_database
@pytest.mark.parametrize("regrade", [False, True])
async def test_what_was_cancelled_is_not_graded_on_after_a_restart(
    settings: EvaluatorSettings, slow: list[str], regrade: bool
) -> None:
    async with running(settings) as first:
        made = await begun(first, slow, regrade)
    graded, job_id = list(slow), made.name.removeprefix("evaluations/")
    # As a server leaves things that was killed after it was asked to stop.
    database = Database(settings.database)
    open_states = [JobState.QUEUED, JobState.RUNNING]
    assert SqlEvaluationRepository(database).change_state(job_id, open_states, JobState.CANCELLING)
    database.close()
    async with running(settings) as second:
        assert (await until(second, made, ended)).state == State.STATE_CANCELLED
        assert {result.item_id for result in await items_of(second, made)} == set(graded)
    assert slow == graded


@pytest.mark.one_database
@pytest.mark.parametrize("regrade", [False, True])
async def test_grading_that_takes_too_long_fails_and_says_what_took_how_long(
    settings: EvaluatorSettings, slow: list[str], regrade: bool
) -> None:
    async with running(settings.model_copy(update={"grading_budget_s": 1.0})) as evaluator:
        done = await until(evaluator, await begun(evaluator, slow, regrade), ended)
        assert done.state == State.STATE_FAILED
        info = error_info(done)
        assert (info.reason, info.metadata["setting"]) == ("GRADING_BUDGET_EXCEEDED", "grading_budget_s")
        words = done.error.message
        assert words.startswith(f"grading {len(slow)} items took 1.")
        assert "an evaluation has 1 s for all of its items; the slowest was 'q1" in words
        assert "s by numeric/" in words and "--grading-budget-s" in words
        assert len(await items_of(evaluator, done)) == len(slow) < 10


@pytest.mark.one_database
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_worker_that_hangs_or_dies_is_replaced_and_no_answer_is_lost(
    settings: EvaluatorSettings, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Evaluations, "hung_s", 3.0)
    async with running(settings) as evaluator:
        await evaluator.CreateEvalSet(eval_set(FOUR))
        made = await create(evaluator, script.WAIT_ONCE)
        await until(evaluator, made, lambda entry: entry.progress.completed == 2)
        before = await items_of(evaluator, made)
        worker_of(settings, made).send_signal(how)
        done = await until(evaluator, made, ended)
        assert (done.state, done.attempt_count) == (State.STATE_SUCCEEDED, 2)
        results = await items_of(evaluator, done)
        assert (len(results), results[:2]) == (4, before)


def worker_of(settings: EvaluatorSettings, evaluation: v1.Evaluation) -> psutil.Process:
    folder = settings.data_dir / "evaluations" / evaluation.name.removeprefix("evaluations/")
    return psutil.Process(int(json.loads((folder / "worker.pid").read_bytes())["pid"]))


async def test_two_evaluators_on_one_data_folder_share_the_work(
    settings: EvaluatorSettings, slow: list[str]
) -> None:
    """Each evaluation runs once, and nothing of it is stored twice."""
    async with running(settings) as first:
        made = await begun(first, slow, False, MANY[:8])
        async with running(settings) as second:
            others = [await create(second) for _ in range(2)]
            for each in (made, *others):
                done = await until(second, each, ended)
                assert (done.state, done.attempt_count) == (State.STATE_SUCCEEDED, 1), done.error
                assert len(await items_of(first, each)) == 8
    assert len(slow) == 3 * 8


@asynccontextmanager
async def killed_at_the_end(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    """A stub of an evaluator that is a process of its own, and is killed when the block ends."""
    address = free_address()
    options = ["--data-dir", str(settings.data_dir), "--database-url", settings.database]
    arguments = ["serve", "--listen", address, *options]
    process = Program("support.evaluator_process", arguments, settings.data_dir / "server.log", environment())
    try:
        async with open_aio_channel(address) as channel:
            await channel.channel_ready()
            yield v1.EvaluatorStub(channel)
    finally:
        process.kill()
        process.wait()


@pytest.mark.one_database
async def test_a_worker_outlives_a_killed_server_and_the_next_one_follows_it(
    settings: EvaluatorSettings,
) -> None:
    async with killed_at_the_end(settings) as first:
        await first.CreateEvalSet(eval_set(FOUR))
        made = await create(first, script.HOLD)
        await until(first, made, lambda entry: entry.progress.completed == 2)
        worker = worker_of(settings, made)
    assert worker.is_running()
    async with running(settings) as second:
        (settings.data_dir / "evaluations" / made.name.partition("/")[2] / "go").touch()
        done = await until(second, made, ended)
        assert (done.state, done.attempt_count) == (State.STATE_SUCCEEDED, 1)
        assert len(await items_of(second, done)) == 4
