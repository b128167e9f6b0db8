"""The trace store over a real channel, on both databases."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from support.serving import assert_ends_when_left, fields, refused, served
from support.traces import step, trace
from tunix_rt import v1
from tunix_rt_kit.artifacts import digest_json
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_trace_store.settings import TraceStoreSettings
from tunix_rt_trace_store.wiring import build, migrate


def settings_for(url: str, data_dir: Path) -> TraceStoreSettings:
    return TraceStoreSettings(listen="127.0.0.1:0", database_url=url, data_dir=data_dir)


@pytest.fixture
async def channel(database_url: str, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    settings = settings_for(database_url, tmp_path)
    migrate(settings)
    async with served(build(settings, asyncio.Event())) as opened:
        yield opened


@pytest.fixture
def store(channel: grpc.aio.Channel) -> Any:
    return v1.TraceStoreStub(channel)


async def create(store: Any, *traces: v1.Trace, **options: Any) -> v1.BatchCreateTracesResponse:
    return await store.BatchCreateTraces(v1.BatchCreateTracesRequest(traces=traces, **options))


async def stream(store: Any, as_of: int = 0, **wanted: Any) -> tuple[int, list[v1.Trace]]:
    header, traces = 0, []
    async for part in store.StreamTraces(
        v1.StreamTracesRequest(as_of=as_of, filter=v1.TraceFilter(**wanted))
    ):
        if part.HasField("header"):
            assert not header
            header = part.header.as_of
        traces += part.batch.traces
    return header, traces


def content_of(message: v1.Trace) -> v1.Trace:
    copy = v1.Trace()
    copy.CopyFrom(message)
    for name in ("name", "content_digest", "sequence", "create_time"):
        copy.ClearField(name)
    return copy


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
    "step content 20,001": (lambda t: setattr(t.steps[0], "content", "c" * 20_001), "steps[0].content"),
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
        steps=[step(2**31 - 1, "t" * 64, "c" * 20_000), *steps_of(999)],
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


async def test_digits_of_several_contents_are_refused(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunix_rt_trace_store.traces.repository._DIGITS", re.compile("[0-9a-f]{1,64}"))
    results = (await create(store, *[trace(i) for i in range(17)])).results
    first = Counter(result.content_digest[7] for result in results).most_common(1)[0][0]
    error = await refused(store.GetTrace(v1.GetTraceRequest(name=f"traces/{first}")))
    assert (error.code, error.reason, fields(error)) == ("INVALID_ARGUMENT", "TRACE_AMBIGUOUS", ["name"])
    named = re.findall("[0-9a-f]{64}", error.message)
    assert len(set(named) & {result.content_digest[7:] for result in results}) == 2


async def test_pages_are_newest_first_and_complete(store: Any) -> None:
    await create(store, *[trace(i) for i in range(23)])
    seen, token = [], ""
    while True:
        page = await store.ListTraces(v1.ListTracesRequest(page_size=10, page_token=token))
        assert len(page.traces) <= 10
        seen += [t.sequence for t in page.traces]
        if len(seen) == 10:
            await create(store, trace(100))
        token = page.next_page_token
        if not token:
            break
    assert seen == list(range(23, 0, -1))


async def test_a_page_and_a_stream_part_stay_below_the_message_limit(store: Any) -> None:
    for k in range(5):
        await create(
            store, trace(k, prompt=f"{k}", final_answer="é" * 50_000, steps=[step(0, content="x" * 20_000)])
        )
        big = [step(i, content=f"{k}" * 20_000) for i in range(45)]
        await create(store, trace(k, steps=big))
    first = await store.ListTraces(v1.ListTracesRequest(page_size=1000))
    rest = await store.ListTraces(v1.ListTracesRequest(page_size=1000, page_token=first.next_page_token))
    assert [t.sequence for t in [*first.traces, *rest.traces]] == list(range(10, 0, -1))
    assert [t.sequence for t in (await stream(store))[1]] == list(range(1, 11))


async def test_bad_pages(store: Any) -> None:
    await create(store, *[trace(i) for i in range(3)])
    token = (await store.ListTraces(v1.ListTracesRequest(page_size=1))).next_page_token
    wrong = {
        "page_size": v1.ListTracesRequest(page_size=-1),
        "page_token": v1.ListTracesRequest(page_token="made-up"),
    }
    for field, request in wrong.items():
        error = await refused(store.ListTraces(request))
        assert (error.code, fields(error)) == ("INVALID_ARGUMENT", [field])
    other = v1.ListTracesRequest(page_token=token, filter=v1.TraceFilter(sources=["x"]))
    assert fields(await refused(store.ListTraces(other))) == ["page_token"]


def equals(key: str, value: Any) -> v1.MetadataCondition:
    kind = {str: "string_value", bool: "bool_value", int: "number_value", float: "number_value"}
    wanted = Value(null_value=0) if value is None else Value(**{kind[type(value)]: value})
    return v1.MetadataCondition(key=key, equals=wanted)


def exists(key: str, there: bool = True) -> v1.MetadataCondition:
    return v1.MetadataCondition(key=key, exists=there)


FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 1, 2, 3, 4]),
    ({"sources": ["gsm8k"]}, [0, 1]),
    ({"sources": ["gsm8k", ""]}, [0, 1, 4]),
    ({"prompt_contains": "STRASSE"}, [0, 2]),
    ({"prompt_contains": "100%"}, [3]),
    ({"prompt_contains": "_"}, [3]),
    ({"metadata": [equals("k", "x")]}, [0]),
    ({"metadata": [equals("k", 5)]}, [1]),
    ({"metadata": [equals("k", 0.1)]}, [4]),
    ({"metadata": [equals("k", True)]}, [2]),
    ({"metadata": [equals("k", False)]}, []),
    ({"metadata": [equals("k", None)]}, [3]),
    ({"metadata": [equals("k", "5")]}, []),
    ({"metadata": [equals("k", 1)]}, []),
    ({"metadata": [exists('odd "key" \\ $.é')]}, [1]),
    ({"metadata": [equals('odd "key" \\ $.é', 'v"\n')]}, [1]),
    ({"metadata": [exists("inner")]}, []),
    ({"metadata": [exists("k", False)]}, []),
    ({"metadata": [exists("list", False)]}, [0, 1, 2, 3]),
    ({"metadata": [exists("k"), exists("list")]}, [4]),
    ({"sources": ["gsm8k"], "metadata": [exists("k")], "prompt_contains": "stra"}, [0]),
    ({"scores": [v1.ScoreCondition(criterion="answer", minimum=50)]}, [0]),
    ({"scores": [v1.ScoreCondition(criterion="answer", minimum=0)]}, [0, 1]),
    ({"scores": [v1.ScoreCondition(criterion="unknown")]}, []),
]


async def test_filters_mean_the_same_everywhere(store: Any) -> None:
    rows = [
        trace(0, prompt="Hauptstraße 0", source="gsm8k", metadata={"k": "x", "reference_answer": 1}),
        trace(
            1,
            prompt="1",
            source="gsm8k",
            metadata={"k": 5, 'odd "key" \\ $.é': 'v"\n', "reference_answer": 9},
        ),
        trace(2, prompt="hauptSTRASSE 2", source="other", metadata={"k": True, "deep": {"inner": 1}}),
        trace(3, prompt="100%_3", source="other", metadata={"k": None}),
        trace(4, prompt="4", metadata={"k": 0.1, "list": ["k", 5]}),
    ]
    rows[4].source = ""
    created = await create(store, *rows)
    for result in created.results[:2]:
        await store.ScoreTrace(v1.ScoreTraceRequest(name=result.name, criteria=["answer"]))
    for wanted, expected in FILTERS:
        listed = await store.ListTraces(v1.ListTracesRequest(filter=v1.TraceFilter(**wanted)))
        assert [t.sequence - 1 for t in reversed(listed.traces)] == expected, wanted
        assert [t.sequence - 1 for t in (await stream(store, **wanted))[1]] == expected, wanted


async def test_filter_by_time(store: Any) -> None:
    await create(store, trace(0))
    await asyncio.sleep(0.002)
    later = (await store.CreateTrace(v1.CreateTraceRequest(trace=trace(1)))).create_time
    assert [t.sequence for t in (await stream(store, created_from=later))[1]] == [2]
    assert [t.sequence for t in (await stream(store, created_before=later))[1]] == [1]


async def test_the_latest_score_counts(store: Any) -> None:
    name = (await create(store, trace(0))).results[0].name
    for _ in range(2):
        await store.ScoreTrace(v1.ScoreTraceRequest(name=name))
    compared = await store.CompareTraces(v1.CompareTracesRequest(base=name, other=name))
    assert [score.criterion for score in compared.base.scores] == ["structure"]


WRONG_FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "condition missing": ({"metadata": [v1.MetadataCondition(key="k")]}, "filter.metadata[0].condition"),
    "equals empty": (
        {"metadata": [v1.MetadataCondition(key="k", equals=Value())]},
        "filter.metadata[0].equals",
    ),
    "key empty": ({"metadata": [exists("")]}, "filter.metadata[0].key"),
    "key 257": ({"metadata": [exists("k" * 257)]}, "filter.metadata[0].key"),
    "NaN": ({"scores": [v1.ScoreCondition(criterion="a", minimum=math.nan)]}, "filter.scores[0].minimum"),
    "criterion empty": ({"scores": [v1.ScoreCondition()]}, "filter.scores[0].criterion"),
    "text 1,001": ({"prompt_contains": "x" * 1001}, "filter.prompt_contains"),
    "text with NUL": ({"prompt_contains": "\0"}, "filter.prompt_contains"),
    "source with NUL": ({"sources": ["a", "\0"]}, "filter.sources[1]"),
    "too many sources": ({"sources": ["a"] * 101}, "filter.sources"),
    "time": ({"created_from": Timestamp(seconds=1 << 60)}, "filter.created_from"),
}


async def test_bad_filters(store: Any) -> None:
    for case, (wanted, field) in WRONG_FILTERS.items():
        listed = await refused(store.ListTraces(v1.ListTracesRequest(filter=v1.TraceFilter(**wanted))))
        streamed = await refused(stream(store, **wanted))
        for error in (listed, streamed):
            assert (error.code, error.reason) == ("INVALID_ARGUMENT", "FILTER_INVALID"), case
            assert fields(error) == [field], case


async def test_a_snapshot_is_the_same_for_ever(store: Any) -> None:
    await create(store, *[trace(i) for i in range(5)])
    as_of, first = await stream(store)
    assert (as_of, len(first)) == (5, 5)
    await create(store, *[trace(i) for i in range(5, 9)])
    assert await stream(store, as_of=5) == (5, first)
    assert len((await stream(store, as_of=3))[1]) == 3
    assert (await stream(store))[0] == 9


async def test_a_snapshot_that_is_not_there(store: Any) -> None:
    await create(store, *[trace(i) for i in range(3)])
    for as_of in (4, -1):
        error = await refused(stream(store, as_of=as_of))
        assert (error.code, error.reason, fields(error)) == ("INVALID_ARGUMENT", "AS_OF_INVALID", ["as_of"])


async def test_long_streams_come_in_parts(store: Any) -> None:
    for start in range(0, 2500, 500):
        await create(store, *[trace(i) for i in range(start, start + 500)])
    parts = [part async for part in store.StreamTraces(v1.StreamTracesRequest())]
    assert [len(part.batch.traces) for part in parts] == [0, 1000, 1000, 500]
    assert parts[0].header.as_of == 2500


async def test_a_deleted_trace_leaves_a_tombstone(store: Any) -> None:
    created = await create(store, *[trace(i) for i in range(3)])
    victim = created.results[1]
    await store.ScoreTrace(v1.ScoreTraceRequest(name=victim.name))
    await store.DeleteTrace(v1.DeleteTraceRequest(name=victim.name))
    for call in (
        store.GetTrace(v1.GetTraceRequest(name=victim.name)),
        store.DeleteTrace(v1.DeleteTraceRequest(name=victim.name)),
        store.ScoreTrace(v1.ScoreTraceRequest(name=victim.name)),
    ):
        error = await refused(call)
        assert (error.code, error.reason) == ("NOT_FOUND", "TRACE_DELETED")
        assert error.metadata["content_digest"] == victim.content_digest
    error = await refused(stream(store, as_of=3))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "SNAPSHOT_INCOMPLETE")
    assert error.metadata["deleted_count"] == "1"
    assert (await stream(store, as_of=1))[0] == 1
    as_of, traces = await stream(store)
    assert [t.sequence for t in traces] == [1, 3]
    assert await stream(store, as_of=as_of) == (as_of, traces)
    assert [t.sequence for t in (await store.ListTraces(v1.ListTracesRequest())).traces] == [3, 1]


async def test_deleted_content_can_be_stored_again(store: Any) -> None:
    first = (await create(store, trace(0))).results[0]
    await store.DeleteTrace(v1.DeleteTraceRequest(name=first.name))
    again = await create(store, trace(0), duplicate_policy=v1.DUPLICATE_POLICY_SKIP)
    assert again.created_count == 1
    assert again.results[0].name != first.name


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


def own_score(name: str, criterion: str = "judge", value: float = 0.5, **details: Any) -> v1.TraceScore:
    score = v1.TraceScore(trace=name, criterion=criterion, value=value)
    score.details.update(details)
    return score


async def listed_scores(store: Any, name: str, **options: Any) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    token = ""
    while True:
        request = v1.ListScoresRequest(trace=name, page_token=token, **options)
        page = await store.ListScores(request)
        found += [(score.criterion, score.value) for score in page.scores]
        if not (token := page.next_page_token):
            return found


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


def nested(levels: int, kind: type) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = [value] if kind is list else {"k": value}
    return value


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


async def test_a_stream_goes_on_where_one_broke_off(store: Any) -> None:
    await create(store, *[trace(i) for i in range(5)])
    parts = [p async for p in store.StreamTraces(v1.StreamTracesRequest(as_of=4, after_sequence=2))]
    assert [t.sequence for part in parts for t in part.batch.traces] == [3, 4]
    error = await refused(store.StreamTraces(v1.StreamTracesRequest(after_sequence=-1)).read())
    assert fields(error) == ["after_sequence"]


async def test_a_deletion_concerns_the_snapshots_of_its_source(store: Any) -> None:
    created = await create(store, trace(0, source="a"), trace(1, source="b"))
    await store.DeleteTrace(v1.DeleteTraceRequest(name=created.results[1].name))
    assert [t.source for t in (await stream(store, as_of=2, sources=["a"]))[1]] == ["a"]
    for sources in (["a", "b"], []):
        error = await refused(stream(store, as_of=2, sources=sources))
        assert error.reason == "SNAPSHOT_INCOMPLETE"


async def test_a_page_of_scores_belongs_to_its_trace(store: Any) -> None:
    first, second = [result.name for result in (await create(store, trace(0), trace(1))).results]
    await store.WriteScores(v1.WriteScoresRequest(scores=[own_score(first), own_score(first)]))
    token = (await store.ListScores(v1.ListScoresRequest(trace=first, page_size=1))).next_page_token
    error = await refused(store.ListScores(v1.ListScoresRequest(trace=second, page_token=token)))
    assert (error.code, fields(error)) == ("INVALID_ARGUMENT", ["page_token"])


async def test_two_traces_side_by_side(store: Any) -> None:
    base = trace(
        0,
        final_answer="  Ten  Apples ",
        steps=[step(0, "a", "one"), step(1, "a", "two"), step(2, "a", "three")],
    )
    other = trace(0, final_answer="ten apples", steps=[step(5, "a", "one"), step(7, "a", "2")])
    names = [result.name for result in (await create(store, base, other)).results]
    await store.ScoreTrace(v1.ScoreTraceRequest(name=names[1]))
    compared = await store.CompareTraces(v1.CompareTracesRequest(base=names[0], other=names[1]))
    assert (compared.base.trace.name, compared.other.trace.name) == tuple(names)
    assert (len(compared.base.scores), len(compared.other.scores)) == (0, 1)
    assert compared.same_final_answer
    relation = v1.StepAlignment.Relation
    rows = [
        (
            relation.Name(row.relation).removeprefix("RELATION_"),
            row.base_index if row.HasField("base_index") else None,
            row.other_index if row.HasField("other_index") else None,
        )
        for row in compared.alignment
    ]
    assert rows == [("SAME", 0, 0), ("CHANGED", 1, 1), ("ONLY_BASE", 2, None)]


async def test_postgresql_must_be_migrated_first(postgres_url: str, tmp_path: Path) -> None:
    service = build(settings_for(postgres_url, tmp_path), asyncio.Event())
    with pytest.raises(FailedPrecondition, match="must be migrated first") as caught:
        service.start()
    service.stop()
    assert caught.value.reason == "DATABASE_NOT_MIGRATED"


async def test_a_long_comparison_ends_when_its_client_has_left(store: Any) -> None:
    # Much alike and never the same: some ten seconds.
    alike = [["x"] * 1_000, ["x", "y"] * 500]
    made = await create(
        store, *(trace(1, steps=[step(place, word) for place, word in enumerate(side)]) for side in alike)
    )
    base, other = (result.name for result in made.results)
    call = store.CompareTraces(v1.CompareTracesRequest(base=base, other=other))
    await assert_ends_when_left(call)
