"""Settings of the trace store, by flag or ``TUNIX_RT_TRACE_STORE_...``, and what puts it together by them."""

from __future__ import annotations

import asyncio

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tunix_rt import v1
from tunix_rt_kit.database import Database
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration, opened_database
from tunix_rt_kit.serving.settings import Address, DataSettings
from tunix_rt_trace_store import convert
from tunix_rt_trace_store.servicer import TraceStoreServicer
from tunix_rt_trace_store.traces.repository import SqlTraceRepository
from tunix_rt_trace_store.traces.service import TraceStoreService


class TraceStoreSettings(DataSettings):
    """Where to serve, and where traces are stored."""

    model_config = SettingsConfigDict(env_prefix="TUNIX_RT_TRACE_STORE_")

    listen: Address = Field("127.0.0.1:50051", description="address to serve on, host:port; port 0 picks one")


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
