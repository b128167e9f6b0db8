"""The peer of the measurements: traces behind FastAPI and SQLAlchemy's asyncio ORM.

``python -m benchmarks.rest_baseline HOST:PORT DATABASE_URL [--refresh]`` serves ``POST
/traces:batchCreate`` and ``GET /traces/{id}``. It checks with pydantic what the trace store checks, stores a
batch in one transaction through the ORM, and has no digests, request ids, snapshots or filters. With
``--refresh`` it reads back each row that it stored by ``session.refresh``, as FastAPI's tutorial does.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import JSON, DateTime, String, Text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite+aiosqlite"}


class Step(BaseModel):
    """A step as it is sent."""

    i: Annotated[int, Field(ge=0, le=2**31 - 1)]
    type: Annotated[str, Field(min_length=1, max_length=64)]
    content: Annotated[str, Field(min_length=1, max_length=20_000)]


class Trace(BaseModel):
    """A trace as it is sent."""

    model_config = ConfigDict(extra="forbid")

    trace_version: Annotated[str, Field(min_length=1, max_length=64)]
    prompt: Annotated[str, Field(min_length=1, max_length=50_000)]
    steps: Annotated[list[Step], Field(min_length=1, max_length=1_000)]
    final_answer: Annotated[str, Field(min_length=1, max_length=50_000)]
    metadata: dict[str, Any] = Field(default_factory=dict)
    source: Annotated[str, Field(max_length=64)] = ""


class StoredTrace(Trace):
    """A trace as it is returned."""

    id: str
    create_time: datetime


class Batch(BaseModel):
    """1-1,000 traces."""

    traces: Annotated[list[Trace], Field(min_length=1, max_length=1_000)]


class Created(BaseModel):
    """The ids of a batch, in its order."""

    ids: list[str]


class Base(DeclarativeBase):
    """The tables' base."""


class TraceRow(Base):
    """A trace as it is stored."""

    __tablename__ = "rest_traces"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    trace_version: Mapped[str] = mapped_column(String(64))
    prompt: Mapped[str] = mapped_column(Text)
    steps: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    final_answer: Mapped[str] = mapped_column(Text)
    # ``metadata`` is a name of SQLAlchemy's own.
    facts: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    source: Mapped[str] = mapped_column(String(64), index=True)
    create_time: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def application(database_url: str, *, refresh: bool = False) -> FastAPI:
    """The service on a database, whose table is made when it starts; ``refresh`` reads back each new row."""
    url = make_url(database_url)
    engine = create_async_engine(url.set(drivername=_DRIVERS[url.get_backend_name()]))
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            if url.get_backend_name() == "sqlite":
                await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            await connection.run_sync(Base.metadata.create_all)
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/traces:batchCreate")
    async def create(batch: Batch) -> Created:
        now = datetime.now(UTC)
        rows = [_row(trace, now) for trace in batch.traces]
        async with sessions() as session, session.begin():
            session.add_all(rows)
            if refresh:
                await session.flush()
                for row in rows:
                    await session.refresh(row)
        return Created(ids=[row.id for row in rows])

    @app.get("/traces/{trace_id}")
    async def get(trace_id: str) -> StoredTrace:
        async with sessions() as session:
            row = await session.get(TraceRow, trace_id)
        if row is None:
            raise HTTPException(404, f"trace {trace_id} does not exist")
        return _stored(row)

    return app


def _row(trace: Trace, now: datetime) -> TraceRow:
    return TraceRow(
        id=str(uuid.uuid4()),
        trace_version=trace.trace_version,
        prompt=trace.prompt,
        steps=[step.model_dump() for step in trace.steps],
        final_answer=trace.final_answer,
        facts=trace.metadata,
        source=trace.source,
        create_time=now,
    )


def _stored(row: TraceRow) -> StoredTrace:
    return StoredTrace(
        id=row.id,
        create_time=row.create_time,
        trace_version=row.trace_version,
        prompt=row.prompt,
        steps=[Step(**step) for step in row.steps],
        final_answer=row.final_answer,
        metadata=row.facts,
        source=row.source,
    )


def main(address: str, database_url: str, *options: str) -> None:
    host, _, port = address.rpartition(":")
    service = application(database_url, refresh="--refresh" in options)
    uvicorn.run(service, host=host, port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
