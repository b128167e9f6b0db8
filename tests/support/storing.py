"""Asks a trace store for what its tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunix_rt import v1
from tunix_rt_trace_store.wiring import TraceStoreSettings


def settings_for(url: str, data_dir: Path) -> TraceStoreSettings:
    return TraceStoreSettings(listen="127.0.0.1:0", database_url=url, data_dir=data_dir)


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


def nested(levels: int, kind: type) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = [value] if kind is list else {"k": value}
    return value
