"""Puts the trace store together."""

from __future__ import annotations

import asyncio

from tunix_rt import v1
from tunix_rt_kit.database import Database
from tunix_rt_kit.serving.main import BuiltService, opened_database
from tunix_rt_kit.serving.server import ServiceRegistration
from tunix_rt_trace_store.servicer import TraceStoreServicer
from tunix_rt_trace_store.settings import TraceStoreSettings
from tunix_rt_trace_store.traces import convert
from tunix_rt_trace_store.traces.repository import SqlTraceRepository
from tunix_rt_trace_store.traces.service import TraceStoreService

FULL_NAME = "tunix_rt.v1.TraceStore"


def build(settings: TraceStoreSettings, stopping: asyncio.Event) -> BuiltService:
    """The trace store, not started yet; it does not use ``stopping``, the server's stop event."""
    del stopping
    database = Database(settings.database)
    repository = SqlTraceRepository(database)
    servicer = TraceStoreServicer(TraceStoreService(repository, convert.content))

    def start() -> None:
        if database.dialect == "sqlite":
            settings.make_data_dir()
            repository.migrate()
        repository.last_sequence()

    return BuiltService(
        ServiceRegistration(FULL_NAME, lambda server: v1.add_TraceStoreServicer_to_server(servicer, server)),
        start,
        database.close,
    )


def migrate(settings: TraceStoreSettings) -> None:
    """Bring the schema of the settings' database to the newest revision."""
    with opened_database(settings) as database:
        SqlTraceRepository(database).migrate()
