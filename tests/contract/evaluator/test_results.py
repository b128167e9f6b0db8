"""What an evaluation says: its summary, its items, lists of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.evaluating import FOUR, create, ended, eval_set, item, items_of, run, until
from support.serving import fields, refused
from tunix_rt import v1
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_kit.artifacts import ArtifactStore

State = v1.Evaluation


async def test_an_evaluation_answers_grades_and_sums_up(evaluator: Any, settings: EvaluatorSettings) -> None:
    stored = await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator)
    assert made.name.startswith("evaluations/")
    done = await until(evaluator, made, ended)
    assert done.state == State.STATE_SUCCEEDED
    overall = done.summary.overall
    assert (overall.item_count, overall.correct_count, overall.accuracy) == (4, 2, 0.5)
    assert 0 < overall.interval.lower < 0.5 < overall.interval.upper < 1
    assert overall.interval.confidence == 0.95
    assert [(entry.category, entry.accuracy.correct_count) for entry in done.summary.categories] == [
        ("sums", 1),
        ("words", 1),
    ]
    assert (done.summary.generated_tokens, done.summary.tokens_per_second) == (16, 16.0)
    assert [timing.stage for timing in done.stage_timings] == ["loading the model", "generating"]
    assert done.attempt_count == 1
    assert done.start_time.ToDatetime() <= done.end_time.ToDatetime()
    manifest = done.manifest
    assert manifest.evaluation == done.name
    assert manifest.eval_set_digest == stored.digest
    assert manifest.graders == ["numeric/3"]
    assert manifest.engine == "scripted/1"
    assert manifest.chat_template_digest == done.spec.chat_template.digest
    assert manifest.checkpoint_digest == ""
    content = ArtifactStore(settings.artifacts).read_bytes(done.manifest_file.digest)
    assert json.loads(content)["results_digest"] == manifest.results_digest


async def test_item_results_hold_what_was_asked_answered_and_graded(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set([*FOUR, item(5, "FAIL"), item(6, "LONG")]))
    done = await run(evaluator)
    results = {result.item_id: result for result in await items_of(evaluator, done)}
    right = results["q1"]
    assert (right.correct, right.extracted_answer, right.output) == (True, "1", "Answer: 1")
    assert right.prompt == FOUR[0].prompt
    assert list(right.accepted_answers) == ["1"]
    assert right.finish_reason == v1.FINISH_REASON_STOP
    assert right.latency.ToMilliseconds() == 250
    assert right.grader == "numeric/3"
    assert (results["q3"].correct, results["q3"].extracted_answer) == (False, "")
    failed = results["q5"]
    assert (failed.correct, failed.finish_reason, failed.error) == (
        False,
        v1.FINISH_REASON_FAILED,
        "it does not fit",
    )
    assert results["q6"].finish_reason == v1.FINISH_REASON_LENGTH
    assert (done.summary.failed_count, done.summary.truncated_count) == (1, 1)
    assert len({result.item_digest for result in results.values()}) == 6


async def test_items_are_listed_by_id_a_page_at_a_time(evaluator: Any) -> None:
    names = ["b", "B", "a1", "a10", "a2", "é", "_"]
    await evaluator.CreateEvalSet(eval_set([item(number, id=name) for number, name in enumerate(names)]))
    done = await run(evaluator)
    listed: list[str] = []
    token = ""
    while True:
        request = v1.ListEvaluationItemsRequest(parent=done.name, page_size=2, page_token=token)
        page = await evaluator.ListEvaluationItems(request)
        assert len(page.results) <= 2
        listed += [result.item_id for result in page.results]
        token = page.next_page_token
        if not token:
            break
    assert listed == sorted(names)


async def in_order(evaluator: Any, parent: str, order_by: str, **wanted: Any) -> list[v1.EvaluationResult]:
    """All results in an order, two on a page at most."""
    found: list[v1.EvaluationResult] = []
    request = v1.ListEvaluationItemsRequest(
        parent=parent, order_by=order_by, page_size=2, filter=v1.EvaluationItemFilter(**wanted)
    )
    while True:
        page = await evaluator.ListEvaluationItems(request)
        found += page.results
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_items_are_listed_in_an_order(evaluator: Any) -> None:
    categories = ["b", "a", "b", "", "a"]
    await evaluator.CreateEvalSet(
        eval_set([item(number, category=category) for number, category in enumerate(categories)])
    )
    done = await run(evaluator)
    results = await in_order(evaluator, done.name, "")

    def ids(found: list[v1.EvaluationResult]) -> list[str]:
        return [result.item_id for result in found]

    by_id = ids(results)
    assert by_id == sorted(by_id) and len(by_id) == len(categories)
    assert ids(await in_order(evaluator, done.name, "item_id desc")) == by_id[::-1]
    for order_by, key in (
        ("category", lambda result: (result.category, result.item_id)),
        ("score, category", lambda result: (result.score, result.category, result.item_id)),
        ("output_tokens", lambda result: (result.output_tokens, result.item_id)),
    ):
        assert ids(await in_order(evaluator, done.name, order_by)) == ids(sorted(results, key=key))
    own = ids(await in_order(evaluator, done.name, "category desc", correct=True))
    assert sorted(own) == [result.item_id for result in results if result.correct]
    wrong = await refused(in_order(evaluator, done.name, "prompt"))
    assert (wrong.reason, fields(wrong)) == ("ORDER_BY_INVALID", ["order_by"])
    request = v1.ListEvaluationItemsRequest(parent=done.name, page_size=1)
    request.page_token = (await evaluator.ListEvaluationItems(request)).next_page_token
    request.order_by = "score"
    assert fields(await refused(evaluator.ListEvaluationItems(request))) == ["page_token"]


async def test_a_page_of_items_stops_short_of_the_message_limit(evaluator: Any) -> None:
    long = [item(number, "Answer: " + "y" * 49_000) for number in range(35)]
    await evaluator.CreateEvalSet(eval_set(long))
    done = await run(evaluator)
    ordered = v1.ListEvaluationItemsRequest(parent=done.name, order_by="item_id desc")
    page = await evaluator.ListEvaluationItems(ordered)
    assert (0 < len(page.results) < 35, page.ByteSize() < 4 << 20, page.next_page_token != "") == (True,) * 3
    first = await evaluator.ListEvaluationItems(v1.ListEvaluationItemsRequest(parent=done.name))
    assert 0 < len(first.results) < 50
    assert first.ByteSize() < 4 << 20
    count, page = len(first.results), first
    while page.next_page_token:
        page = await evaluator.ListEvaluationItems(
            v1.ListEvaluationItemsRequest(parent=done.name, page_token=page.next_page_token)
        )
        count += len(page.results)
    assert count == 35


async def test_equal_answers_have_one_results_digest_whatever_the_times(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    first, second = await run(evaluator), await run(evaluator)
    assert first.name != second.name
    assert first.manifest.results_digest == second.manifest.results_digest


async def test_evaluations_are_listed_newest_first(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = [(await create(evaluator)).name for _ in range(3)]
    page = await evaluator.ListEvaluations(v1.ListEvaluationsRequest(page_size=2))
    assert [entry.name for entry in page.evaluations] == made[:0:-1]
    request = v1.ListEvaluationsRequest(page_size=2, page_token=page.next_page_token)
    rest = await evaluator.ListEvaluations(request)
    assert [entry.name for entry in rest.evaluations] == made[:1]
    assert not rest.next_page_token


async def test_foreign_page_tokens_are_refused(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    first, second = await run(evaluator), await run(evaluator)
    request = v1.ListEvaluationItemsRequest(parent=first.name, page_size=1)
    token = (await evaluator.ListEvaluationItems(request)).next_page_token
    for call in (
        evaluator.ListEvaluationItems(v1.ListEvaluationItemsRequest(parent=second.name, page_token=token)),
        evaluator.ListEvaluations(v1.ListEvaluationsRequest(page_token=token)),
        evaluator.ListEvalSets(v1.ListEvalSetsRequest(page_token="made up")),
    ):
        error = await refused(call)
        assert (error.reason, fields(error)) == ("PAGE_TOKEN_INVALID", ["page_token"])


@pytest.mark.parametrize("method", ["GetEvaluation", "CancelEvaluation"])
async def test_an_unknown_evaluation_is_not_found(evaluator: Any, method: str) -> None:
    request = getattr(v1, f"{method}Request")(name="evaluations/none")
    error = await refused(getattr(evaluator, method)(request))
    assert (error.code, error.reason) == ("NOT_FOUND", "EVALUATION_NOT_FOUND")


async def test_items_of_an_unknown_evaluation_are_not_found(evaluator: Any) -> None:
    error = await refused(
        evaluator.ListEvaluationItems(v1.ListEvaluationItemsRequest(parent="evaluations/none"))
    )
    assert error.reason == "EVALUATION_NOT_FOUND"
