"""How traces are found, listed, streamed, compared and deleted."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from support.serving import assert_ends_when_left, fields, refused
from support.storing import create, stream
from support.traces import step, trace
from tunix_rt import v1


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


async def test_traces_are_found_by_the_beginning_of_their_ids(store: Any) -> None:
    created = (await create(store, *[trace(i) for i in range(12)])).results
    ids = [entry.name.removeprefix("traces/") for entry in created]
    for prefix in [ids[3][:size] for size in range(1, 37)]:
        found, token = [], ""
        while True:
            request = v1.ListTracesRequest(id_prefix=prefix, page_size=5, page_token=token)
            page = await store.ListTraces(request)
            found += [entry.name.removeprefix("traces/") for entry in page.traces]
            if not (token := page.next_page_token):
                break
        assert found == [each for each in reversed(ids) if each.startswith(prefix)]
    for prefix in ("g", ids[0] + "0", "%", "0" * 8 + "x", "-", ids[0].upper()):
        assert not (await store.ListTraces(v1.ListTracesRequest(id_prefix=prefix))).traces
    request = v1.ListTracesRequest(id_prefix=ids[3][:4], filter=v1.TraceFilter(sources=["none"]))
    assert not (await store.ListTraces(request)).traces
    assert fields(await refused(store.ListTraces(v1.ListTracesRequest(id_prefix="a" * 65)))) == ["id_prefix"]


async def ordered(store: Any, order_by: str, **condition: Any) -> list[int]:
    """The sequences of all traces in an order, three on a page."""
    found: list[int] = []
    request = v1.ListTracesRequest(order_by=order_by, page_size=3, filter=v1.TraceFilter(**condition))
    while True:
        page = await store.ListTraces(request)
        found += [entry.sequence for entry in page.traces]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_traces_are_listed_in_an_order(store: Any) -> None:
    # Of one source and of one time, so that pages end among equal ones.
    await create(
        store, *[trace(i, source=source) for i, source in enumerate(["b", "a", "B", "a", "ä", "b", "a"])]
    )
    await create(store, *[trace(i, source="a") for i in range(7, 9)])
    assert await ordered(store, "") == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert await ordered(store, "sequence") == await ordered(store, "create_time") == list(range(1, 10))
    assert await ordered(store, "sequence desc") == await ordered(store, "create_time desc")
    assert await ordered(store, "source") == [3, 2, 4, 7, 8, 9, 1, 6, 5]
    assert await ordered(store, "source desc") == [5, 6, 1, 9, 8, 7, 4, 2, 3]
    assert await ordered(store, "source, sequence desc") == [3, 9, 8, 7, 4, 2, 6, 1, 5]
    assert await ordered(store, "create_time, sequence desc", sources=["a"]) == [7, 4, 2, 9, 8]
    token = (await store.ListTraces(v1.ListTracesRequest(page_size=1, order_by="source"))).next_page_token
    for wrong, field in (
        (v1.ListTracesRequest(page_token=token), "page_token"),
        (v1.ListTracesRequest(page_token=token, order_by="source desc"), "page_token"),
        (v1.ListTracesRequest(order_by="prompt"), "order_by"),
        (v1.ListTracesRequest(order_by="source, source"), "order_by"),
    ):
        assert fields(await refused(store.ListTraces(wrong))) == [field]


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
    assert await ordered(store, "create_time") == list(range(1, 11))
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


async def test_a_long_comparison_ends_when_its_client_has_left(store: Any) -> None:
    # Much alike and never the same: some ten seconds.
    alike = [["x"] * 1_000, ["x", "y"] * 500]
    made = await create(
        store, *(trace(1, steps=[step(place, word) for place, word in enumerate(side)]) for side in alike)
    )
    base, other = (result.name for result in made.results)
    call = store.CompareTraces(v1.CompareTracesRequest(base=base, other=other))
    await assert_ends_when_left(call)
