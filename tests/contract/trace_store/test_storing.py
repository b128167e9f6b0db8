"""What a trace store takes, and what it keeps of it."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.serving import fields, refused
from support.storing import content_of, create, nested, own_score, settings_for, stream
from support.traces import step, trace
from tunix_rt import v1
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_trace_store.wiring import build


async def test_a_trace_is_kept_exactly_as_it_was_written(store: Any) -> None:
    written = trace(
        7,
        prompt='  "Ünïcode" \\ \n\t\x7f \U0001f600  ',
        metadata={
            "whole": 5,
            "fraction": 0.1,
            "huge": 1e300,
            "negative": -7.0,
            "null": None,
            "list": [1, "a", {"b": [True, False]}],
            "key \" with \\ all 'sorts'": "x",
        },
    )
    before = datetime.now(UTC) - timedelta(seconds=1)
    stored = await store.CreateTrace(v1.CreateTraceRequest(trace=written))
    assert content_of(stored) == written
    assert stored.sequence == 1
    assert before < stored.create_time.ToDatetime(UTC) < datetime.now(UTC)
    assert await store.GetTrace(v1.GetTraceRequest(name=stored.name)) == stored
    assert (await store.ListTraces(v1.ListTracesRequest())).traces == [stored]
    assert (await stream(store))[1] == [stored]


async def test_the_content_digest_is_that_of_the_canonical_form(store: Any) -> None:
    stored = await store.CreateTrace(v1.CreateTraceRequest(trace=trace(3)))
    assert stored.content_digest == digest_json(
        {
            "trace_version": "1.0",
            "prompt": "What is 3 + 1?",
            "steps": [
                {"i": 0, "type": "recall", "content": "We have 3."},
                {"i": 1, "type": "compute", "content": "3 + 1 = 4"},
            ],
            "final_answer": "4",
            "metadata": {"number": 3, "reference_answer": "4"},
            "source": "tests",
        }
    )


async def test_output_only_fields_are_ignored(store: Any) -> None:
    plain = await store.CreateTrace(v1.CreateTraceRequest(trace=trace(1)))
    written = trace(1, name="traces/mine", content_digest="sha256:no", sequence=99)
    stored = await store.CreateTrace(v1.CreateTraceRequest(trace=written))
    assert (stored.sequence, stored.content_digest) == (2, plain.content_digest)
    assert stored.name not in {"traces/mine", plain.name}


def steps_of(count: int) -> list[v1.TraceStep]:
    return [step(i) for i in range(count)]


WRONG = {
    "trace_version empty": (lambda t: t.ClearField("trace_version"), "trace_version"),
    "trace_version 65": (lambda t: setattr(t, "trace_version", "v" * 65), "trace_version"),
    "prompt empty": (lambda t: t.ClearField("prompt"), "prompt"),
    "prompt 50,001": (lambda t: setattr(t, "prompt", "é" * 50_001), "prompt"),
    "prompt with NUL": (lambda t: setattr(t, "prompt", "a\0b"), "prompt"),
    "final_answer empty": (lambda t: t.ClearField("final_answer"), "final_answer"),
    "final_answer 50,001": (lambda t: setattr(t, "final_answer", "x" * 50_001), "final_answer"),
    "source 65": (lambda t: setattr(t, "source", "s" * 65), "source"),
    "no steps": (lambda t: t.ClearField("steps"), "steps"),
    "1,001 steps": (lambda t: (t.ClearField("steps"), t.steps.extend(steps_of(1001))), "steps"),
    "step type empty": (lambda t: setattr(t.steps[1], "type", ""), "steps[1].type"),
    "step type 65": (lambda t: setattr(t.steps[1], "type", "t" * 65), "steps[1].type"),
    "step content empty": (lambda t: setattr(t.steps[0], "content", ""), "steps[0].content"),
    "step content 500,001": (lambda t: setattr(t.steps[0], "content", "c" * 500_001), "steps[0].content"),
    "step content with NUL": (lambda t: setattr(t.steps[0], "content", "\0"), "steps[0].content"),
    "step i negative": (lambda t: setattr(t.steps[0], "i", -1), "steps[0].i"),
    "step i twice": (lambda t: setattr(t.steps[1], "i", 0), "steps[1].i"),
    "metadata NaN": (lambda t: t.metadata.update({"a": [{"b": math.nan}]}), "metadata.a[0].b"),
    "metadata infinite": (lambda t: t.metadata.update({"a": math.inf}), "metadata.a"),
    "metadata NUL in a text": (lambda t: t.metadata.update({"a": "x\0"}), "metadata.a"),
    "metadata NUL in a key": (lambda t: t.metadata.update({"a\0": 1}), "metadata"),
}


async def test_each_limit_is_checked_and_named(store: Any) -> None:
    for case, (spoil, field) in WRONG.items():
        wrong = trace(5)
        spoil(wrong)
        single = await refused(store.CreateTrace(v1.CreateTraceRequest(trace=wrong)))
        assert (single.code, single.reason) == ("INVALID_ARGUMENT", "TRACE_INVALID"), case
        assert fields(single) == [f"trace.{field}"], case
        batch = await refused(create(store, trace(1), wrong))
        assert fields(batch) == [f"traces[1].{field}"], case
    assert (await stream(store))[1] == []


async def test_limits_themselves_are_allowed(store: Any) -> None:
    widest = trace(
        0,
        trace_version="v" * 64,
        prompt="é" * 50_000,
        final_answer="x" * 50_000,
        source="s" * 64,
        steps=[step(2**31 - 1, "t" * 64, "c" * 500_000), *steps_of(999)],
    )
    stored = await store.CreateTrace(v1.CreateTraceRequest(trace=widest))
    assert content_of(stored) == widest


async def test_a_trace_over_one_mebibyte_is_refused(store: Any) -> None:
    big = trace(0, steps=[step(i, content="x" * 20_000) for i in range(53)])
    error = await refused(create(store, trace(1), big))
    assert (error.reason, fields(error)) == ("TRACE_INVALID", ["traces[1]"])


async def test_every_wrong_trace_of_a_batch_is_named(store: Any) -> None:
    error = await refused(
        create(store, trace(0, prompt="\0"), trace(1), v1.Trace(), trace(3, source="s" * 65))
    )
    assert fields(error) == [
        "traces[0].prompt",
        "traces[2].trace_version",
        "traces[2].prompt",
        "traces[2].steps",
        "traces[2].final_answer",
        "traces[3].source",
    ]
    assert (await stream(store))[1] == []


async def test_a_batch_holds_one_to_a_thousand(store: Any) -> None:
    for count in (0, 1001):
        error = await refused(create(store, *[trace(i) for i in range(count)]))
        assert (error.code, error.reason, fields(error)) == (
            "INVALID_ARGUMENT",
            "BATCH_SIZE_INVALID",
            ["traces"],
        )


async def test_an_unknown_duplicate_policy_is_refused(store: Any) -> None:
    error = await refused(create(store, trace(0), duplicate_policy=9))
    assert (error.reason, fields(error)) == ("DUPLICATE_POLICY_INVALID", ["duplicate_policy"])


async def test_duplicates_are_kept_or_skipped(store: Any) -> None:
    first = await create(store, trace(0), trace(1), trace(0))
    assert (first.created_count, first.skipped_count) == (3, 0)
    second = await create(store, trace(0), trace(2), trace(2), duplicate_policy=v1.DUPLICATE_POLICY_SKIP)
    assert (second.created_count, second.skipped_count) == (1, 2)
    assert [result.created for result in second.results] == [False, True, False]
    assert second.results[0].name == first.results[0].name
    assert second.results[2].name == second.results[1].name
    assert [t.sequence for t in (await stream(store))[1]] == [1, 2, 3, 4]


async def test_a_batch_is_carried_out_once_for_each_request_id(store: Any) -> None:
    first = await create(store, trace(0), trace(1), request_id="r-1")
    again = await create(store, trace(0), trace(1), request_id="r-1")
    assert first == again
    assert len((await stream(store))[1]) == 2
    error = await refused(create(store, trace(0), request_id="r-1"))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    error = await refused(create(store, trace(0), request_id="no spaces"))
    assert (error.reason, fields(error)) == ("REQUEST_ID_INVALID", ["request_id"])


async def test_a_trace_is_created_once_for_each_request_id(store: Any) -> None:
    request = v1.CreateTraceRequest(trace=trace(0), request_id="r-1")
    stored = await store.CreateTrace(request)
    assert await store.CreateTrace(request) == stored
    error = await refused(store.CreateTrace(v1.CreateTraceRequest(trace=trace(1), request_id="r-1")))
    assert error.reason == "REQUEST_ID_REUSED"


async def test_writers_at_once_leave_no_gap_and_no_duplicate(store: Any) -> None:
    batches = [
        create(
            store,
            *[trace(10 * k + i) for i in range(10)],
            duplicate_policy=v1.DUPLICATE_POLICY_SKIP,
            request_id=f"batch-{k}",
        )
        for k in [*range(8), *range(8)]
    ]
    await asyncio.gather(*batches)
    traces = (await stream(store))[1]
    assert [t.sequence for t in traces] == list(range(1, 81))
    assert len({t.content_digest for t in traces}) == 80


async def test_names_that_lead_nowhere(store: Any) -> None:
    real = (await create(store, trace(0))).results[0].name
    for name, code, reason in (
        ("traces/0192f3a0-0000-7000-8000-000000000000", "NOT_FOUND", "TRACE_NOT_FOUND"),
        ("datasets/x", "INVALID_ARGUMENT", "RESOURCE_NAME_INVALID"),
        ("", "INVALID_ARGUMENT", "RESOURCE_NAME_INVALID"),
    ):
        for field, call in (
            ("name", store.GetTrace(v1.GetTraceRequest(name=name))),
            ("name", store.DeleteTrace(v1.DeleteTraceRequest(name=name))),
            ("name", store.ScoreTrace(v1.ScoreTraceRequest(name=name))),
            ("base", store.CompareTraces(v1.CompareTracesRequest(base=name, other=real))),
            ("other", store.CompareTraces(v1.CompareTracesRequest(base=real, other=name))),
        ):
            error = await refused(call)
            assert (error.code, error.reason) == (code, reason)
            assert error.message.startswith(field)


async def test_a_trace_is_found_by_digits_of_its_content_digest(store: Any) -> None:
    first, other, second = (await create(store, trace(0), trace(1), trace(0))).results
    digits = first.content_digest.removeprefix("sha256:")
    for name in (f"traces/{digits}", f"traces/{digits[:12]}"):
        assert (await store.GetTrace(v1.GetTraceRequest(name=name))).name == first.name
        scores = (await store.ScoreTrace(v1.ScoreTraceRequest(name=name))).scores
        assert [score.trace for score in scores] == [first.name]
        compared = await store.CompareTraces(v1.CompareTracesRequest(base=other.name, other=name))
        assert compared.other.trace.name == first.name
        assert (await store.ListScores(v1.ListScoresRequest(trace=name))).scores[0] == scores[0]
    for name in (f"traces/{digits[:11]}", f"traces/{digits[1:]}"):
        assert (await refused(store.GetTrace(v1.GetTraceRequest(name=name)))).reason == "TRACE_NOT_FOUND"
    # Which of several is meant by a deletion must be said.
    by_content = v1.DeleteTraceRequest(name=f"traces/{digits}")
    assert (await refused(store.DeleteTrace(by_content))).reason == "TRACE_NOT_FOUND"
    await store.DeleteTrace(v1.DeleteTraceRequest(name=first.name))
    assert (await store.GetTrace(v1.GetTraceRequest(name=f"traces/{digits}"))).name == second.name
    await store.DeleteTrace(v1.DeleteTraceRequest(name=second.name))
    gone = await refused(store.GetTrace(v1.GetTraceRequest(name=f"traces/{digits}")))
    assert (gone.reason, gone.metadata["content_digest"]) == ("TRACE_DELETED", first.content_digest)


async def test_a_batch_is_deleted_together_and_what_is_gone_is_left_out(store: Any) -> None:
    results = (await create(store, *map(trace, range(4)))).results
    one, two, three, four = (result.name for result in results)
    await store.DeleteTrace(v1.DeleteTraceRequest(name=two))
    missing = "traces/0192f3a0-0000-7000-8000-000000000000"
    answer = await store.BatchDeleteTraces(
        v1.BatchDeleteTracesRequest(names=[three, two, missing, one, three])
    )
    assert list(answer.names) == [three, one]
    gone = await refused(store.GetTrace(v1.GetTraceRequest(name=three)))
    assert (gone.reason, gone.metadata["content_digest"]) == ("TRACE_DELETED", results[2].content_digest)
    assert not (await store.BatchDeleteTraces(v1.BatchDeleteTracesRequest(names=[one]))).names
    as_of, left = await stream(store)
    assert [kept.name for kept in left] == [four]
    # Four traces, and two calls that deleted some.
    assert as_of == 6
    for names, reason in (([], "BATCH_SIZE_INVALID"), ([four] * 1_001, "BATCH_SIZE_INVALID"),
                          ([four, "", "traces/A"], "RESOURCE_NAME_INVALID")):  # fmt: skip
        error = await refused(store.BatchDeleteTraces(v1.BatchDeleteTracesRequest(names=names)))
        assert error.reason == reason
    assert fields(error) == ["names[1]", "names[2]"]
    assert (await store.GetTrace(v1.GetTraceRequest(name=four))).name == four


async def test_digits_of_several_contents_are_refused(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunix_rt_trace_store.traces.repository._DIGITS", re.compile("[0-9a-f]{1,64}"))
    results = (await create(store, *[trace(i) for i in range(17)])).results
    first = Counter(result.content_digest[7] for result in results).most_common(1)[0][0]
    error = await refused(store.GetTrace(v1.GetTraceRequest(name=f"traces/{first}")))
    assert (error.code, error.reason, fields(error)) == ("INVALID_ARGUMENT", "TRACE_AMBIGUOUS", ["name"])
    named = re.findall("[0-9a-f]{64}", error.message)
    assert len(set(named) & {result.content_digest[7:] for result in results}) == 2


@pytest.mark.parametrize("kind", [list, dict])
async def test_the_deepest_metadata_comes_back_by_every_call(store: Any, kind: type) -> None:
    too_deep = trace(0, metadata={"m": nested(30, kind)})
    error = await refused(create(store, trace(1), too_deep))
    assert (error.reason, fields(error)) == ("TRACE_INVALID", ["traces[1].metadata.m"])
    deepest = await store.CreateTrace(v1.CreateTraceRequest(trace=trace(0, metadata={"m": nested(29, kind)})))
    await store.WriteScores(v1.WriteScoresRequest(scores=[own_score(deepest.name, m=nested(29, kind))]))
    assert (await stream(store))[1] == [deepest]
    assert (await store.ListTraces(v1.ListTracesRequest())).traces == [deepest]
    compared = await store.CompareTraces(v1.CompareTracesRequest(base=deepest.name, other=deepest.name))
    assert compared.other.trace == deepest
    listed = await store.ListScores(v1.ListScoresRequest(trace=deepest.name))
    assert listed.scores == compared.other.scores


async def test_postgresql_must_be_migrated_first(postgres_url: str, tmp_path: Path) -> None:
    service = build(settings_for(postgres_url, tmp_path), asyncio.Event())
    with pytest.raises(FailedPrecondition, match="must be migrated first") as caught:
        service.start()
    service.stop()
    assert caught.value.reason == "DATABASE_NOT_MIGRATED"
