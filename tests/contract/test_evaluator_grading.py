"""Graders and regrading over a real channel, on both databases; the worker acts without a model."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support import scripted_evaluator as script
from support.evaluating import FOUR, create, ended, error_info, eval_set, get, item, items_of, run, until
from support.fake_endpoint import FakeEndpoint, Reply, answering, completion
from support.migrated import migrated
from support.serving import fields, refused, served
from support.tiny_model import make_tiny_model
from tunix_rt import v1
from tunix_rt_evaluator.evaluations import job_folders
from tunix_rt_evaluator.wiring import EvaluatorSettings, build, migrate
from tunix_rt_kit.canonical import digest_bytes

TESTS = Path(__file__).parents[1]
State = v1.Evaluation
OPTIONS = ["Paris", "London", "Rome"]


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations are acted out by ``support.scripted_evaluator``."""
    monkeypatch.setattr(job_folders, "WORKER_MODULE", "support.scripted_evaluator")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> EvaluatorSettings:
    make_tiny_model(tmp_path / "models" / "tiny")
    made = EvaluatorSettings(
        listen="127.0.0.1:0",
        database_url=database_url,
        data_dir=tmp_path,
        shutdown_grace_s=10.0,
        python_graders="sandboxed",
    )
    migrated(made, migrate)
    return made


@asynccontextmanager
async def running(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    """A stub of an evaluator, as long as the block lasts."""
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        yield v1.EvaluatorStub(channel)


@pytest.fixture
async def evaluator(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    async with running(settings) as stub:
        yield stub


class Gate:
    """A judge that grades "Answer: N" as right for an even N; it can be told to wait after some answers."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self._left = 0

    def answer_after(self, count: int) -> None:
        """Answer ``count`` times more, and then when the gate is opened."""
        self._left = count
        self.open.clear()

    def answer(self, prompt: str) -> Reply:
        self._left -= 1
        if self._left < 0:
            self.open.wait(30)
        written = prompt.partition("<answer>\nAnswer: ")[2].partition("\n")[0]
        return completion(f"So be it.\nGRADE: {1 if int(written) % 2 == 0 else 0.25}")


@pytest.fixture
def judge() -> Iterator[tuple[FakeEndpoint, Gate]]:
    gate = Gate()
    with answering(gate.answer) as made:
        yield made, gate
        gate.open.set()


def judged(settings: EvaluatorSettings, judge: FakeEndpoint) -> EvaluatorSettings:
    """The settings with a judge that is asked four answers at a time, once each."""
    return settings.model_copy(
        update={"judge_url": judge.url, "judge_concurrency": 4, "judge_retries": 0, "judge_timeout_s": 20.0}
    )


async def regrade(evaluator: Any, source: v1.Evaluation, **values: Any) -> v1.Evaluation:
    return await evaluator.RegradeEvaluation(v1.RegradeEvaluationRequest(name=source.name, **values))


async def regraded(evaluator: Any, source: v1.Evaluation, **values: Any) -> v1.Evaluation:
    done = await until(evaluator, await regrade(evaluator, source, **values), ended)
    assert done.state == State.STATE_SUCCEEDED, done
    return done


async def listed(evaluator: Any, evaluation: v1.Evaluation, **wanted: Any) -> list[str]:
    filter_ = v1.EvaluationItemFilter(**wanted)
    request = v1.ListEvaluationItemsRequest(parent=evaluation.name, filter=filter_, page_size=1_000)
    return [result.item_id for result in (await evaluator.ListEvaluationItems(request)).results]


# Eval sets


ALL_KINDS: list[dict[str, Any]] = [
    {"numeric": {"tolerance": 0.5, "relative_tolerance": 0.1, "units": ["kg", "$"], "unit_required": True}},
    {"text": {}},
    {"set": {}},
    {"math": {}},
    {"regex": {"full_match": True, "ignore_case": True, "whole_output": True}},
    {"contains": {"all": True, "case_sensitive": True, "whole_words": True, "whole_output": True}},
    {"format": {"reasoning_style": v1.REASONING_STYLE_ANSWER_ONLY, "min_steps": 3}},
    {"token_f1": {"threshold": 0.25}},
    {"json_schema": {"schema": {"type": "object", "maxProperties": 3}}},
    {"judge": {"model": "m", "prompt": "{question} {answer} {accepted}", "threshold": 0.75}},
]


async def test_every_kind_of_grader_is_kept_with_its_settings(evaluator: Any) -> None:
    given = [item(number, grader=grader) for number, grader in enumerate(ALL_KINDS)]
    given.append(item(10, accepted_answers=["A"], grader={"multiple_choice": {"options": OPTIONS}}))
    source = "def right(output, item):\n    return output == item['id']\n"
    own = {"source_digest": digest_bytes(source.encode()), "function": "right", "threshold": 0.75}
    given.append(item(11, grader={"python": own}))
    calls: list[dict[str, Any]] = [
        {"name": "add", "arguments": {"a": 1, "more": {"b": [None, True]}}},
        {"name": "now", "arguments": {}},
        {"name": "find", "arguments_text": '{"id": 9007199254740993}'},
        {"name": "any", "arguments_schema": {"type": "object"}},
    ]
    expected = {"tool_call": {"calls": calls, "calls_alone": True}}
    given.append(item(12, accepted_answers=[], grader=expected))
    made = await evaluator.CreateEvalSet(eval_set(given, python_sources=[source]))
    stored = await evaluator.GetEvalSet(v1.GetEvalSetRequest(name=made.name))
    assert list(stored.python_sources) == [source]
    kept = {entry.id: entry.grader for entry in stored.items}
    assert {entry.id: entry.grader for entry in given} == kept
    assert {grader.WhichOneof("kind") for grader in kept.values()} == set(v1.Grader.DESCRIPTOR.fields_by_name)


async def test_settings_are_part_of_an_eval_sets_digest_and_unused_ones_are_not(evaluator: Any) -> None:
    async def digest(name: str, **numeric: Any) -> str:
        made = await evaluator.CreateEvalSet(eval_set([item(1, grader={"numeric": numeric})], name))
        return str(made.digest)

    plain = await digest("plain")
    assert await digest("spelled", tolerance=0.0, relative_tolerance=0.0) == plain
    # What an evaluator without units and relative tolerance called these items.
    assert plain == "sha256:8589661f88afdd52075fc61703ed1f872ac0e17c69584f52f00e0729c167f453"
    others = [
        await digest("t", tolerance=0.1),
        await digest("r", relative_tolerance=0.1),
        await digest("u", units=["kg"]),
    ]
    assert len({plain, *others}) == 4


@pytest.mark.parametrize(
    ("wrong", "path", "words"),
    [
        (
            {"grader": v1.Grader()},
            "grader",
            "names no kind of grader that this server knows; one of numeric, text",
        ),
        ({"grader": {"text": {}}, "accepted_answers": []}, "accepted_answers", "needs at least one"),
        (
            {"grader": {"regex": {}}, "accepted_answers": ["("]},
            "accepted_answers[0]",
            "is no regular expression",
        ),
        ({"grader": {"multiple_choice": {}}}, "grader.multiple_choice.options", "at least 2"),
        (
            {"grader": {"multiple_choice": {"options": ["x", "x"]}}, "accepted_answers": ["A"]},
            "grader.multiple_choice.options[1]",
            "is the same as options[0]",
        ),
        (
            {"grader": {"multiple_choice": {"options": ["x", "y"]}}, "accepted_answers": ["C"]},
            "accepted_answers[0]",
            "a letter from A to B or an option",
        ),
        (
            {"grader": {"numeric": {"relative_tolerance": -1}}},
            "grader.numeric.relative_tolerance",
            "at least 0",
        ),
        ({"grader": {"numeric": {"units": [""]}}}, "grader.numeric.units[0]", "is empty"),
        ({"grader": {"numeric": {"unit_required": True}}}, "grader.numeric.unit_required", "without units"),
        ({"grader": {"token_f1": {"threshold": 0}}}, "grader.token_f1.threshold", "more than 0"),
        ({"grader": {"token_f1": {"threshold": 1.5}}}, "grader.token_f1.threshold", "at most 1"),
        ({"grader": {"format": {"min_steps": -1}}}, "grader.format.min_steps", "at least 0"),
        ({"grader": {"format": {"reasoning_style": 9}}}, "grader.format.reasoning_style", "'9'"),
        ({"grader": {"json_schema": {}}}, "grader.json_schema.schema", ""),
        (
            {"grader": {"json_schema": {"schema": {"type": 3}}}},
            "grader.json_schema.schema",
            "is no JSON Schema",
        ),
        (
            {"grader": {"json_schema": {"schema": {"const": float("inf")}}}, "accepted_answers": []},
            "grader.json_schema.schema",
            "",
        ),
        ({"grader": {"judge": {}}}, "grader.judge.model", "is empty"),
        ({"grader": {"judge": {"model": "a b"}}}, "grader.judge.model", "must match"),
        ({"grader": {"judge": {"model": "m", "prompt": "Right?"}}}, "grader.judge.prompt", "{question}"),
    ],
)
@pytest.mark.one_database
async def test_what_is_wrong_with_a_grader_is_named(
    evaluator: Any, wrong: dict[str, Any], path: str, words: str
) -> None:
    error = await refused(evaluator.CreateEvalSet(eval_set([item(0), item(1, **wrong)])))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "EVAL_SET_INVALID")
    assert fields(error)[0] == f"eval_set.items[1].{path}"
    assert words in error.violations[0].description


# Evaluations


MIXED = [
    item(1, "Answer: 1", category="sums"),
    item(2, "Answer: 3", category="sums"),
    item(3, "Answer: the cat", accepted_answers=["the cat sat"], grader={"token_f1": {}}),
    item(4, '{"a": 1}', accepted_answers=[], grader={"json_schema": {"schema": {"required": ["b"]}}}),
    item(5, "a" * 5_000 + "c", accepted_answers=["(a|aa|b?a)+$"], grader={"regex": {}}),
    item(6, "FAIL"),
    item(7, "LONG", category="words"),
]


async def test_scores_explanations_and_failed_grades_are_kept(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(MIXED))
    done = await run(evaluator)
    results = {result.item_id: result for result in await items_of(evaluator, done)}
    assert [results[f"q{n}"].correct for n in range(1, 8)] == [True, False, True, False, False, False, False]
    assert [results[f"q{n}"].score for n in (1, 2, 3)] == [1.0, 0.0, pytest.approx(2 / 3)]
    assert results["q4"].explanation == "$: 'b' is a required property"
    assert results["q5"].grade_error == "the pattern '(a|aa|b?a)+$' is not done after 1 s"
    assert results["q5"].grader.startswith("regex/2 regex=")
    summary = done.summary
    assert (summary.overall.correct_count, summary.overall.item_count) == (2, 7)
    assert (summary.failed_count, summary.ungraded_count, summary.truncated_count) == (1, 1, 1)
    assert summary.mean_score == pytest.approx((1 + 2 / 3) / 7)
    assert [grader.partition("/")[0] for grader in done.manifest.graders] == [
        *("json_schema", "numeric", "regex", "token_f1")
    ]


async def test_items_are_listed_by_what_they_are(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(MIXED))
    done = await run(evaluator)
    assert await listed(evaluator, done) == [f"q{n}" for n in range(1, 8)]
    assert await listed(evaluator, done, correct=True) == ["q1", "q3"]
    assert await listed(evaluator, done, correct=False, category="sums") == ["q2"]
    assert await listed(evaluator, done, category="") == ["q3", "q4", "q5", "q6"]
    assert await listed(evaluator, done, finish_reason=v1.FINISH_REASON_FAILED) == ["q6"]
    assert await listed(evaluator, done, finish_reason=v1.FINISH_REASON_LENGTH) == ["q7"]
    assert await listed(evaluator, done, ungraded=True) == ["q5"]
    assert await listed(evaluator, done, grader="json_schema") == ["q4"]
    assert await listed(evaluator, done, grader="judge") == []


async def test_filtered_items_come_a_page_at_a_time(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(MIXED))
    done = await run(evaluator)
    wanted = v1.EvaluationItemFilter(correct=False)
    request = v1.ListEvaluationItemsRequest(parent=done.name, filter=wanted, page_size=2)
    pages = []
    for _ in range(3):
        page = await evaluator.ListEvaluationItems(request)
        pages.append([result.item_id for result in page.results])
        request.page_token = page.next_page_token
    assert pages == [["q2", "q4"], ["q5", "q6"], ["q7"]]
    assert request.page_token == ""
    first = await evaluator.ListEvaluationItems(
        v1.ListEvaluationItemsRequest(parent=done.name, filter=wanted, page_size=2)
    )
    other = v1.ListEvaluationItemsRequest(parent=done.name, page_token=first.next_page_token)
    assert (await refused(evaluator.ListEvaluationItems(other))).reason == "PAGE_TOKEN_INVALID"
    odd = v1.ListEvaluationItemsRequest(parent=done.name, filter=v1.EvaluationItemFilter(finish_reason=9))
    assert fields(await refused(evaluator.ListEvaluationItems(odd))) == ["filter.finish_reason"]


# Regrading


async def test_stored_answers_are_graded_again_without_generating(
    evaluator: Any, settings: EvaluatorSettings
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    source = await run(evaluator)
    before = await items_of(evaluator, source)
    done = await regraded(evaluator, source)
    assert done.name != source.name
    assert done.regrade.source == source.name
    assert not done.regrade.HasField("grader")
    assert done.regrade.source_results_digest == source.manifest.results_digest
    # The same graders say the same of the same answers, and nothing else is different.
    assert await items_of(evaluator, done) == before
    assert done.summary == source.summary
    assert done.manifest.results_digest == source.manifest.results_digest
    assert done.manifest.eval_set_digest == source.manifest.eval_set_digest
    assert done.manifest.engine == source.manifest.engine
    assert done.manifest.regrade == done.regrade
    assert (done.progress.stage, done.progress.completed, done.progress.total) == ("grading", 4, 4)
    assert [timing.stage for timing in done.stage_timings] == ["grading"]
    assert not (settings.data_dir / "evaluations" / done.name.partition("/")[2]).exists()
    # What came out is an evaluation like any other, also for being graded again.
    again = await regraded(evaluator, done)
    assert again.regrade.source == done.name


async def test_another_grader_for_every_item_gives_other_grades(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    source = await run(evaluator)
    loose = v1.Grader(numeric=v1.NumericGrader(tolerance=1))
    done = await regraded(evaluator, source, grader=loose)
    assert [result.correct for result in await items_of(evaluator, source)] == [True, False, False, True]
    assert [result.correct for result in await items_of(evaluator, done)] == [True, True, False, True]
    assert done.regrade.grader == loose
    assert done.manifest.graders == source.manifest.graders
    # The version is the same and the grading is not: neither the set nor its items count as the same.
    assert done.manifest.eval_set_digest != source.manifest.eval_set_digest
    request = v1.CompareEvaluationsRequest(base=source.name, candidate=done.name)
    error = await refused(evaluator.CompareEvaluations(request))
    assert error.reason == "COMPARISON_UNSOUND"
    same = await regraded(evaluator, source, grader=loose)
    request = v1.CompareEvaluationsRequest(base=same.name, candidate=done.name)
    assert (await evaluator.CompareEvaluations(request)).overall.difference == 0


async def test_a_corrected_eval_set_regrades_what_the_first_one_asked(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    source = await run(evaluator)
    corrected = [
        item(2, "Answer: 3", "Answer: 2", category="sums", accepted_answers=["3"]),
        *FOUR[:1],
        *FOUR[2:],
    ]
    made = await evaluator.CreateEvalSet(eval_set(corrected, "corrected"))
    done = await regraded(evaluator, source, eval_set=made.name)
    assert [result.correct for result in await items_of(evaluator, done)] == [True, True, False, True]
    assert done.spec.eval_set == made.name
    assert done.manifest.spec.eval_set == made.name
    assert done.manifest.eval_set_digest == made.digest
    assert list((await items_of(evaluator, done))[1].accepted_answers) == ["3"]


@pytest.mark.one_database
async def test_a_regrade_is_refused_by_name(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    await evaluator.CreateEvalSet(eval_set([item(1, "x"), *FOUR[1:], item(9)], "other"))
    source = await run(evaluator)

    async def reason(**values: Any) -> tuple[str, list[str], str]:
        error = await refused(regrade(evaluator, source, **values))
        return error.reason, fields(error), error.message

    found, _, message = await reason(eval_set="evalSets/other")
    assert found == "EVAL_SET_MISMATCH"
    assert "2 items differ in id or prompt, such as 'q1', 'q9'" in message
    assert (await reason(eval_set="evalSets/none"))[0] == "EVAL_SET_NOT_FOUND"
    assert (await reason(eval_set="sums"))[1] == ["eval_set"]
    assert (await reason(grader={}))[:2] == ("GRADER_INVALID", ["grader"])
    assert (await reason(grader={"numeric": {"tolerance": -1}}))[1] == ["grader.numeric.tolerance"]
    assert (await reason(grader={"json_schema": {}}))[1] == ["grader.json_schema.schema"]
    found, where, message = await reason(grader={"multiple_choice": {"options": ["x", "y"]}})
    assert (found, where[0]) == ("GRADER_INVALID", "grader")
    assert "does not fit item 'q1': its accepted_answers[0] is '1'; a letter from A to B" in message
    found, _, message = await reason(grader={"judge": {"model": "m"}})
    assert found == "JUDGE_NOT_CONFIGURED"
    assert "--judge-url" in message
    missing = v1.RegradeEvaluationRequest(name="evaluations/none")
    assert (await refused(evaluator.RegradeEvaluation(missing))).reason == "EVALUATION_NOT_FOUND"
    # Nothing was made of what was refused.
    assert len((await evaluator.ListEvaluations(v1.ListEvaluationsRequest())).evaluations) == 1


async def test_only_what_succeeded_is_graded_again(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    waiting = await create(evaluator, script.WAIT)
    error = await refused(regrade(evaluator, waiting))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "EVALUATION_NOT_SUCCEEDED")
    await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=waiting.name))


async def test_a_regrades_request_id_is_bound_to_its_body(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    source = await run(evaluator)
    first = await regrade(evaluator, source, request_id="r")
    assert (await regrade(evaluator, source, request_id="r")).name == first.name
    error = await refused(regrade(evaluator, source, request_id="r", grader={"text": {}}))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


# Judges


def many(count: int) -> list[v1.EvalItem]:
    return [item(number, f"Answer: {number}") for number in range(100, 100 + count)]


@pytest.mark.one_database
async def test_a_judge_grades_with_its_model_and_prompt_recorded(
    settings: EvaluatorSettings, judge: tuple[FakeEndpoint, Gate]
) -> None:
    async with running(judged(settings, judge[0])) as evaluator:
        await evaluator.CreateEvalSet(eval_set(many(9)))
        source = await run(evaluator)
        done = await regraded(evaluator, source, grader={"judge": {"model": "m"}})
        results = await items_of(evaluator, done)
    assert [result.correct for result in results] == [number % 2 == 0 for number in range(9)]
    assert {result.score for result in results} == {1.0, 0.25}
    assert done.summary.mean_score == pytest.approx((5 + 4 * 0.25) / 9)
    assert results[0].explanation == "So be it.\nGRADE: 1"
    (grader,) = done.manifest.graders
    assert grader.startswith("judge/2 model=m prompt=sha256:")
    assert len(judge[0].requests) == 9


@pytest.mark.one_database
async def test_an_evaluation_that_needs_a_judge_is_refused_where_there_is_none(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set([item(1, grader={"judge": {"model": "m"}})]))
    error = await refused(create(evaluator))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "JUDGE_NOT_CONFIGURED")


async def test_grading_again_without_any_grade_has_failed_and_shows_why(settings: EvaluatorSettings) -> None:
    down = settings.model_copy(update={"judge_url": "http://127.0.0.1:9/v1", "judge_retries": 0})
    async with running(down) as evaluator:
        await evaluator.CreateEvalSet(eval_set([item(1, "Answer: 1"), item(2, "FAIL")]))
        source = await run(evaluator)
        made = await regrade(evaluator, source, grader={"judge": {"model": "m"}})
        done = await until(evaluator, made, ended)
        assert done.state == State.STATE_FAILED
        assert error_info(done).reason == "NOTHING_GRADED"
        assert "no answer could be graded; the first, 'q1': the judge at" in done.error.message
        assert await get(evaluator, source) == source


@pytest.mark.one_database
async def test_a_judge_that_is_down_fails_grades_and_not_the_evaluation(settings: EvaluatorSettings) -> None:
    down = settings.model_copy(update={"judge_url": "http://127.0.0.1:9/v1", "judge_retries": 0})
    async with running(down) as evaluator:
        await evaluator.CreateEvalSet(
            eval_set([item(1, "Answer: 1", grader={"judge": {"model": "m"}}), item(2)])
        )
        done = await run(evaluator)
        results = await items_of(evaluator, done)
    assert done.summary.ungraded_count == 1
    assert "the judge at http://127.0.0.1:9/v1 cannot be reached (tried once)" in results[0].grade_error
    assert not results[0].correct


async def test_a_regrade_tells_its_progress_and_keeps_what_it_graded_when_cancelled(
    settings: EvaluatorSettings, judge: tuple[FakeEndpoint, Gate]
) -> None:
    fake, gate = judge
    async with running(judged(settings, fake)) as evaluator:
        await evaluator.CreateEvalSet(eval_set(many(100)))
        source = await run(evaluator)
        gate.answer_after(70)
        made = await regrade(evaluator, source, grader={"judge": {"model": "m"}})
        part = await until(evaluator, made, lambda found: found.progress.completed)
        assert (part.state, part.progress.stage, part.progress.total) == (State.STATE_RUNNING, "grading", 100)
        assert 0 < part.progress.completed < 100
        await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
        gate.open.set()
        done = await until(evaluator, made, ended)
        kept = await listed(evaluator, made)
    assert done.state == State.STATE_CANCELLED
    assert part.progress.completed <= len(kept) < 100


async def test_a_stopped_server_leaves_a_regrade_to_the_next_one(
    settings: EvaluatorSettings, judge: tuple[FakeEndpoint, Gate]
) -> None:
    fake, gate = judge
    known = judged(settings, fake)
    async with running(known) as evaluator:
        await evaluator.CreateEvalSet(eval_set(many(100)))
        source = await run(evaluator)
        gate.answer_after(70)
        made = await regrade(evaluator, source, grader={"judge": {"model": "m"}})
        await until(evaluator, made, lambda found: found.progress.completed)
        asyncio.get_running_loop().call_later(0.5, gate.open.set)
    asked = len(fake.requests)
    assert asked < 100
    async with running(known) as evaluator:
        done = await until(evaluator, made, ended)
        results = await listed(evaluator, made)
    assert done.state == State.STATE_SUCCEEDED
    assert done.attempt_count == 2
    assert len(results) == 100
    # What was graded before is not graded again.
    assert len(fake.requests) == 100
