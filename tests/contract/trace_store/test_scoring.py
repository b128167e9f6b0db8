"""Scores of the trace store's criteria and of callers."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.serving import fields, refused
from support.storing import create, listed_scores, own_score, stream
from support.traces import trace
from tunix_rt import v1


async def test_scores(store: Any) -> None:
    right = await store.CreateTrace(v1.CreateTraceRequest(trace=trace(1, metadata={"reference_answer": 2})))
    request = v1.ScoreTraceRequest(name=right.name, criteria=["answer", "structure"])
    scores = (await store.ScoreTrace(request)).scores
    assert [(s.trace, s.criterion) for s in scores] == [(right.name, "answer"), (right.name, "structure")]
    assert scores[0].value == 100
    characters = (len("We have 1.") + len("1 + 1 = 2")) / 2
    assert scores[1].value == pytest.approx(50 * 2 / 10 + 50 * characters / 500)
    assert dict(scores[1].details) == {"step_count": 2, "mean_step_characters": characters}
    default = (await store.ScoreTrace(v1.ScoreTraceRequest(name=right.name))).scores
    assert [s.criterion for s in default] == ["structure"]


async def test_bad_criteria(store: Any) -> None:
    name = (await create(store, trace(0, metadata={"reference_answer": True}))).results[0].name
    wrong = v1.ScoreTraceRequest(name=name, criteria=["structure", "beauty", "structure"])
    error = await refused(store.ScoreTrace(wrong))
    assert (error.reason, fields(error)) == ("CRITERION_INVALID", ["criteria[1]", "criteria[2]"])
    error = await refused(store.ScoreTrace(v1.ScoreTraceRequest(name=name, criteria=["answer"])))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "REFERENCE_ANSWER_MISSING")


async def test_a_batch_is_scored_as_each_trace_is_alone(store: Any) -> None:
    made = await create(
        store,
        trace(1, metadata={"reference_answer": 2}),
        trace(2, metadata={"reference_answer": 5}),
        trace(3, metadata={"no": "reference"}),
        trace(4, metadata={"reference_answer": 8}),
    )
    names = [result.name for result in made.results]
    digest = f"traces/{made.results[0].content_digest.removeprefix('sha256:')[:20]}"
    await store.DeleteTrace(v1.DeleteTraceRequest(name=names[3]))
    wanted = [*names, digest, names[0], "traces/01a2131f-0bad-747b-9465-14ddd66bd8a2"]
    for criteria in ([], ["answer"], ["answer", "structure"]):
        before = [await listed_scores(store, name) for name in names[:3]]
        request = v1.BatchScoreTracesRequest(names=wanted, criteria=criteria)
        results = (await store.BatchScoreTraces(request)).results
        assert len(results) == len(wanted)
        # It was one commit, of what the results say.
        for name, earlier in zip(names[:3], before, strict=True):
            added = [(s.criterion, s.value) for r in results for s in r.scores if s.trace == name]
            assert await listed_scores(store, name) == added[::-1] + earlier
        for name, result in zip(wanted, results, strict=True):
            alone = v1.ScoreTraceRequest(name=name, criteria=criteria)
            if result.reason:
                error = await refused(store.ScoreTrace(alone))
                assert (result.reason, list(result.scores)) == (error.reason, [])
                assert error.message.removeprefix("name: ") in result.message
            else:
                scores = list((await store.ScoreTrace(alone)).scores)
                for score in [*scores, *result.scores]:
                    score.ClearField("create_time")
                assert list(result.scores) == scores


async def test_a_batch_of_scores_is_one_commit(store: Any) -> None:
    made = await create(store, trace(1), trace(2), trace(3))
    names = [result.name for result in made.results]
    await store.BatchScoreTraces(v1.BatchScoreTracesRequest(names=names))
    assert (await stream(store))[0] == 4
    missing = v1.BatchScoreTracesRequest(names=["traces/0192f3a0-0000-7000-8000-000000000000"])
    assert [r.reason for r in (await store.BatchScoreTraces(missing)).results] == ["TRACE_NOT_FOUND"]
    assert (await stream(store))[0] == 4


async def test_a_bad_batch_of_scores_stores_none(store: Any) -> None:
    name = (await create(store, trace(1))).results[0].name
    for count in (0, 501):
        error = await refused(store.BatchScoreTraces(v1.BatchScoreTracesRequest(names=[name] * count)))
        assert (error.reason, fields(error)) == ("BATCH_SIZE_INVALID", ["names"])
    error = await refused(store.BatchScoreTraces(v1.BatchScoreTracesRequest(names=[name, "", "traces/A"])))
    assert (error.reason, fields(error)) == ("RESOURCE_NAME_INVALID", ["names[1]", "names[2]"])
    odd = v1.BatchScoreTracesRequest(names=[name], criteria=["answer", "beauty"])
    error = await refused(store.BatchScoreTraces(odd))
    assert (error.reason, fields(error)) == ("CRITERION_INVALID", ["criteria[1]"])
    assert await listed_scores(store, name) == []


async def test_results_that_would_not_fit_in_a_message_are_left_for_the_next_call(store: Any) -> None:
    long = "語" * 50_000
    made = [
        (await create(store, trace(number, final_answer=long, metadata={"reference_answer": long}))).results[
            0
        ]
        for number in range(20)
    ]
    left = [result.name for result in made]
    answers = 0
    while left:
        answer = await store.BatchScoreTraces(v1.BatchScoreTracesRequest(names=left, criteria=["answer"]))
        assert [result.scores[0].trace for result in answer.results] == left[: len(answer.results)]
        left = left[len(answer.results) :]
        answers += 1
    assert answers > 1
    assert [len(await listed_scores(store, result.name)) for result in made] == [1] * 20


async def test_scores_of_the_callers_own(store: Any) -> None:
    first, second = [result.name for result in (await create(store, trace(0), trace(1))).results]
    scores = [
        own_score(first, value=0.25, why="short"),
        own_score(second, value=0.75),
        own_score(first, "length", -3.5),
        own_score(first, value=1.0),
    ]
    request = v1.WriteScoresRequest(scores=scores, request_id="once")
    for _ in range(2):
        assert (await store.WriteScores(request)).written_count == 4
    assert await listed_scores(store, first) == [("judge", 1.0), ("length", -3.5), ("judge", 0.25)]
    assert await listed_scores(store, first, page_size=1) == await listed_scores(store, first)
    assert await listed_scores(store, first, criterion="judge", page_size=1) == [
        ("judge", 1.0),
        ("judge", 0.25),
    ]
    oldest = (await store.ListScores(v1.ListScoresRequest(trace=first))).scores[-1]
    assert dict(oldest.details) == {"why": "short"}
    assert oldest.create_time.ToDatetime(UTC) > datetime.now(UTC) - timedelta(minutes=1)
    wanted = [v1.ScoreCondition(criterion="judge", minimum=0.9)]
    assert [found.name for found in (await stream(store, scores=wanted))[1]] == [first]


async def test_a_request_id_of_other_scores(store: Any) -> None:
    name = (await create(store, trace(0))).results[0].name
    await store.WriteScores(v1.WriteScoresRequest(scores=[own_score(name)], request_id="a"))
    other = v1.WriteScoresRequest(scores=[own_score(name, value=0.6)], request_id="a")
    error = await refused(store.WriteScores(other))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert await listed_scores(store, name) == [("judge", 0.5)]


async def test_bad_scores_store_none(store: Any) -> None:
    name = (await create(store, trace(0))).results[0].name
    wrong = [
        own_score(name),
        own_score(name, ""),
        own_score(name, "c" * 65),
        own_score(name, value=math.nan),
        own_score(name, a=[{"b": math.inf}]),
        own_score(name, "structure"),
    ]
    error = await refused(store.WriteScores(v1.WriteScoresRequest(scores=wrong)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "SCORE_INVALID")
    assert fields(error) == [
        "scores[1].criterion",
        "scores[2].criterion",
        "scores[3].value",
        "scores[4].details.a[0].b",
    ]
    error = await refused(store.WriteScores(v1.WriteScoresRequest(scores=wrong[-1:])))
    assert (error.reason, fields(error)) == ("SCORE_INVALID", ["scores[0].criterion"])
    error = await refused(store.WriteScores(v1.WriteScoresRequest(scores=[own_score("traces")])))
    assert fields(error) == ["scores[0].trace"]
    for count in (0, 1001):
        request = v1.WriteScoresRequest(scores=[own_score(name)] * count)
        error = await refused(store.WriteScores(request))
        assert (error.reason, fields(error)) == ("BATCH_SIZE_INVALID", ["scores"])
    missing = own_score("traces/01a2131f-0bad-747b-9465-14ddd66bd8a2")
    error = await refused(store.WriteScores(v1.WriteScoresRequest(scores=[own_score(name), missing])))
    assert (error.code, error.reason) == ("NOT_FOUND", "TRACE_NOT_FOUND")
    assert error.message.startswith("scores[1].trace: ")
    assert await listed_scores(store, name) == []
    error = await refused(store.ListScores(v1.ListScoresRequest(trace=missing.trace)))
    assert (error.code, error.reason) == ("NOT_FOUND", "TRACE_NOT_FOUND")


async def test_a_page_of_the_largest_scores_fits_in_a_message(store: Any) -> None:
    name = (await create(store, trace(0))).results[0].name
    score = own_score(name, text="x" * 16_000)
    for _ in range(2):
        await store.WriteScores(v1.WriteScoresRequest(scores=[score] * 150))
    assert len(await listed_scores(store, name, page_size=1000)) == 300
    error = await refused(
        store.WriteScores(v1.WriteScoresRequest(scores=[own_score(name, text="x" * 17_000)]))
    )
    assert fields(error) == ["scores[0].details"]


async def test_a_snapshot_counts_the_scores_of_its_time(store: Any) -> None:
    name = (await create(store, trace(0), trace(1))).results[0].name
    good = [v1.ScoreCondition(criterion="judge", minimum=0.5)]
    await store.WriteScores(v1.WriteScoresRequest(scores=[own_score(name, value=0.9)]))
    as_of, found = await stream(store, scores=good)
    assert (as_of, [t.name for t in found]) == (3, [name])
    await store.WriteScores(v1.WriteScoresRequest(scores=[own_score(name, value=0.1)]))
    assert await stream(store, as_of=2, scores=good) == (2, [])
    assert await stream(store, as_of=3, scores=good) == (3, found)
    assert await stream(store, scores=good) == (4, [])


async def test_a_page_of_scores_belongs_to_its_trace(store: Any) -> None:
    first, second = [result.name for result in (await create(store, trace(0), trace(1))).results]
    await store.WriteScores(v1.WriteScoresRequest(scores=[own_score(first), own_score(first)]))
    token = (await store.ListScores(v1.ListScoresRequest(trace=first, page_size=1))).next_page_token
    error = await refused(store.ListScores(v1.ListScoresRequest(trace=second, page_token=token)))
    assert (error.code, fields(error)) == ("INVALID_ARGUMENT", ["page_token"])


async def test_scores_are_listed_in_an_order(store: Any) -> None:
    name = (await create(store, trace(0))).results[0].name
    given = [("b", 2.0), ("a", 1.0), ("B", 2.0), ("a", -1.5), ("b", 1.0)]
    for criterion, value in given:
        score = v1.TraceScore(trace=name, criterion=criterion, value=value)
        await store.WriteScores(v1.WriteScoresRequest(scores=[score]))

    async def listed(order_by: str, criterion: str = "") -> list[int]:
        found: list[int] = []
        request = v1.ListScoresRequest(trace=name, criterion=criterion, order_by=order_by, page_size=2)
        while True:
            page = await store.ListScores(request)
            found += [given.index((score.criterion, score.value)) for score in page.scores]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    assert await listed("") == await listed("create_time desc") == [4, 3, 2, 1, 0]
    assert await listed("value") == [3, 1, 4, 0, 2]
    assert await listed("value desc") == [2, 0, 4, 1, 3]
    assert await listed("criterion, value desc") == [2, 1, 3, 0, 4]
    assert await listed("value", "a") == [3, 1]
    assert fields(await refused(store.ListScores(v1.ListScoresRequest(trace=name, order_by="x")))) == [
        "order_by"
    ]
    request = v1.ListScoresRequest(trace=name, page_size=1)
    request.page_token = (await store.ListScores(request)).next_page_token
    request.order_by = "value"
    assert fields(await refused(store.ListScores(request))) == ["page_token"]
