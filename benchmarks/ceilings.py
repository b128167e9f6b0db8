"""What the database and the driver allow at most, on the rows of the REST baseline's table."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import sqlalchemy as sa

from benchmarks.rest_baseline import Batch, TraceRow

_TABLE = TraceRow.metadata.tables[TraceRow.__tablename__]
_COLUMNS = tuple(column.name for column in _TABLE.columns)
_COPY = f"COPY {_TABLE.name} ({', '.join(_COLUMNS)}) FROM STDIN"


def copy_seconds(url: str, documents: Sequence[dict[str, Any]], batch_size: int) -> float:
    """COPY of ready rows by psycopg, a transaction for each batch."""
    _make_table(url)
    rows = [_row(document) for document in documents]
    with psycopg.connect(url) as connection:

        def store(start: int) -> None:
            _copy(connection, rows[start : start + batch_size])

        return _timed(store, len(rows), batch_size)


def validate_and_copy_seconds(url: str, documents: Sequence[dict[str, Any]], batch_size: int) -> float:
    """Parsing and validating JSON with pydantic, then COPY, in one process without a server."""
    _make_table(url)
    bodies = [
        json.dumps({"traces": documents[start : start + batch_size]})
        for start in range(0, len(documents), batch_size)
    ]
    with psycopg.connect(url) as connection:

        def store(start: int) -> None:
            batch = Batch.model_validate_json(bodies[start // batch_size])
            _copy(connection, [_row(trace.model_dump()) for trace in batch.traces])

        return _timed(store, len(documents), batch_size)


def executemany_seconds(url: str, documents: Sequence[dict[str, Any]], batch_size: int) -> float:
    """SQLAlchemy core's executemany of ready rows, a transaction for each batch."""
    engine = _engine(url)
    TraceRow.metadata.create_all(engine)
    rows = [dict(zip(_COLUMNS, _values(document), strict=True)) for document in documents]

    def store(start: int) -> None:
        with engine.begin() as connection:
            connection.execute(sa.insert(_TABLE), rows[start : start + batch_size])

    try:
        return _timed(store, len(rows), batch_size)
    finally:
        engine.dispose()


def _timed(store: Callable[[int], None], count: int, batch_size: int) -> float:
    begun = time.perf_counter()
    for start in range(0, count, batch_size):
        store(start)
    return time.perf_counter() - begun


def _copy(connection: psycopg.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            copy.write_row(row)
    connection.commit()


def _row(document: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        json.dumps(value) if isinstance(value, dict | list) else value for value in _values(document)
    )


def _values(document: dict[str, Any]) -> Iterator[Any]:
    own = {"id": str(uuid.uuid4()), "create_time": datetime.now(UTC)}
    return (own[name] if name in own else document[name] for name in _COLUMNS)


def _make_table(url: str) -> None:
    engine = _engine(url)
    TraceRow.metadata.create_all(engine)
    engine.dispose()


def _engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return sa.create_engine(parsed.set(drivername="postgresql+psycopg"))
    engine = sa.create_engine(parsed)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    return engine
