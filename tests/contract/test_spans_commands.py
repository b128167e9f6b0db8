"""`tunix-rt traces spans` against the real trace store."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from typer.testing import CliRunner

from support.migrated import migrated
from support.threaded import real_server
from tunix_rt import Client
from tunix_rt.cli.main import app
from tunix_rt.wire import open_channel
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate

pytestmark = pytest.mark.one_database


@pytest.fixture
def address(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    options = TraceStoreSettings(
        listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path, spans_wait_s=0.0
    )
    migrated(options, migrate)

    def service(stopping: asyncio.Event) -> Any:
        return build(options, stopping)

    with real_server(service) as running:
        monkeypatch.setenv("TUNIX_RT_SERVER", running)
        monkeypatch.setenv("COLUMNS", "160")
        yield running


def spans(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["traces", "spans", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_reasons_are_listed_once_with_how_many_spans_they_are_about(address: str) -> None:
    assert spans() == "no spans were refused\n"
    sent = []
    for number in range(1, 4):
        span = Span(trace_id=number.to_bytes(16, "big"), span_id=bytes(7) + b"1")
        span.attributes.add(key="gen_ai.operation.name").value.string_value = "chat"
        sent.append(span)
    scopes = [ResourceSpans(scope_spans=[ScopeSpans(spans=sent)])]
    with open_channel(address) as channel, Client(address) as client:
        TraceServiceStub(channel).Export(ExportTraceServiceRequest(resource_spans=scopes))  # type: ignore[no-untyped-call]
        end = time.monotonic() + 30
        while len(list(client.trace_store.list_refused_spans())) < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
    shown = spans()
    assert shown.count("calls of a model without its messages") == 1
    assert "CAPTURE_MESSAGE_CONTENT" in shown
    found = json.loads(spans("--json"))
    assert sorted(int(entry["otel_trace_id"], 16) for entry in found) == [1, 2, 3]
    assert "these are of the newest 1 trace; there are more (--limit)" in spans("--limit", "1")
