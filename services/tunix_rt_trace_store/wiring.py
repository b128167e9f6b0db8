"""Settings of the trace store, by flag or ``TUNIX_RT_TRACE_STORE_...``, and what puts it together by them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from typing import Literal

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server
from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from tunix_rt import v1
from tunix_rt.redaction import KINDS, Redactor
from tunix_rt.redaction.library import presidio
from tunix_rt_kit.database import Database
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration, opened_database
from tunix_rt_kit.serving.settings import Address, DataSettings
from tunix_rt_trace_store import convert
from tunix_rt_trace_store.redacted_spans import SpanRedaction
from tunix_rt_trace_store.servicer import SpanServicer, TraceStoreServicer
from tunix_rt_trace_store.traces.live_spans import LiveSpans, Windows
from tunix_rt_trace_store.traces.repository import SqlTraceRepository
from tunix_rt_trace_store.traces.service import TraceStoreService
from tunix_rt_trace_store.traces.span_repository import SqlSpanRepository


def _kinds(value: str) -> list[str]:
    return [kind for part in value.split(",") if (kind := part.strip().upper())]


def _goes_with_redaction(value: str, others: ValidationInfo) -> str:
    if value and not others.data.get("spans_redact"):
        raise ValueError("it goes with spans_redact")
    return value


class TraceStoreSettings(DataSettings):
    """Where to serve, and where traces are stored."""

    model_config = SettingsConfigDict(env_prefix="TUNIX_RT_TRACE_STORE_")

    listen: Address = Field("127.0.0.1:50051", description="address to serve on, host:port; port 0 picks one")
    spans_wait_s: float = Field(
        5.0,
        ge=0,
        le=86_400,
        description="seconds without another span after which the spans of a trace of OpenTelemetry become "
        "conversations, once its root has ended",
    )
    spans_idle_s: float = Field(
        300.0, ge=0, le=86_400, description="the same, as long as no root has come: longer than any one call"
    )
    spans_as: Literal["conversations", "calls"] = Field(
        "conversations",
        description="what spans become: conversations, in which calls of a model that go on with one another "
        "are joined, or one for each of the calls",
    )
    spans_redact: bool = Field(
        False,
        description="replace personal data and secrets in spans by placeholders such as <EMAIL_1>, before "
        "anything is stored",
    )
    spans_redact_skip: str = Field(
        "",
        description=f"kinds that are left as they are then, with a comma between, of {', '.join(KINDS)}",
    )
    spans_redact_with: Literal["", "presidio"] = Field(
        "", description="a library whose findings are replaced then, too; it comes with the extra redact"
    )

    @field_validator("spans_redact_skip")
    @classmethod
    def _known_kinds(cls, value: str, others: ValidationInfo) -> str:
        if unknown := set(_kinds(value)) - set(KINDS):
            raise ValueError(f"{min(unknown)!r} is none of {', '.join(KINDS)}")
        return _goes_with_redaction(value, others)

    @field_validator("spans_redact_with")
    @classmethod
    def _installed(cls, value: str, others: ValidationInfo) -> str:
        if value and find_spec("presidio_analyzer") is None:
            raise ValueError("it is not installed: pip install 'tunix-rt[redact]'")
        return _goes_with_redaction(value, others)


def _redactor(settings: TraceStoreSettings) -> Redactor | None:
    if not settings.spans_redact:
        return None
    return Redactor(_kinds(settings.spans_redact_skip), presidio() if settings.spans_redact_with else None)


FULL_NAME = "tunix_rt.v1.TraceStore"


def build(settings: TraceStoreSettings, stopping: asyncio.Event) -> BuiltService:
    """The trace store, not started yet; it does not use ``stopping``, the server's stop event."""
    del stopping
    database = Database(settings.database)
    repository = SqlTraceRepository(database)
    span_repository = SqlSpanRepository(database)
    windows = Windows(timedelta(seconds=settings.spans_wait_s), timedelta(seconds=settings.spans_idle_s))
    redaction = SpanRedaction(_redactor(settings), span_repository.secret)
    assemble = partial(convert.assembled, each_call=settings.spans_as == "calls", redaction=redaction)
    live_spans = LiveSpans(span_repository, windows, assemble)
    servicer = TraceStoreServicer(TraceStoreService(repository, convert.content), live_spans)

    def add(server: grpc.aio.Server) -> None:
        v1.add_TraceStoreServicer_to_server(servicer, server)
        add_TraceServiceServicer_to_server(SpanServicer(live_spans, redaction), server)  # type: ignore[no-untyped-call]

    def start() -> None:
        if database.dialect == "sqlite":
            settings.make_data_dir()
            repository.migrate()
        repository.last_sequence()
        span_repository.due(datetime.now(UTC), 1)

    def start_jobs(*, only_ends: bool) -> None:
        # Who only looks, or gives one command, leaves spans to the next server.
        if not only_ends:
            live_spans.start()

    def stop() -> None:
        live_spans.stop()
        database.close()

    return BuiltService(ServiceRegistration(FULL_NAME, add), start, stop, start_jobs)


def migrate(settings: TraceStoreSettings) -> None:
    """Bring the schema of the settings' database to the newest revision."""
    with opened_database(settings) as database:
        SqlTraceRepository(database).migrate()
