"""Column types that hold the same values on SQLite and on PostgreSQL, and many rows at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    DateTime,
    Dialect,
    Double,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator, TypeEngine

from tunix_rt_kit.canonical import canonical_json

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""How indexes and constraints are named, for ``MetaData(naming_convention=NAMING)``."""

# With 9 columns well below the 32,766 values that a statement may have.
_SQLITE_ROWS: Final = 500
# BigInteger comes before Integer, which it derives from.
_BINARY_TYPES: Final[Sequence[tuple[type[TypeEngine[Any]], str]]] = (
    (Boolean, "bool"),
    (BigInteger, "int8"),
    (Integer, "int4"),
    (Double, "float8"),
    (String, "text"),
    (LargeBinary, "bytea"),
    (DateTime, "timestamptz"),
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware ``datetime``, kept and given back in UTC to the microsecond; a naive one raises ValueError."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a time zone cannot be stored: {value!r}")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "sqlite":
            return value.replace(tzinfo=UTC)
        return value if value.tzinfo is UTC else value.astimezone(UTC)


class CanonicalJson(TypeDecorator[Any]):
    """A JSON value as RFC 8785 text, so that the bytes are the same in every database.

    It is not JSONB, which has an order and a number format of its own and takes no NUL. A float without a
    fraction comes back as an int. None is NULL.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else canonical_json(value).decode("utf-8")

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        del dialect
        return None if value is None else json.loads(value)


def bulk_insert(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert ``rows``, which all have the same columns: by COPY on PostgreSQL, many a statement on SQLite.

    Args:
        session: of a ``Database.write`` block.
        table: whose columns are numbers, text, bytes or aware times.
        rows: column names to values; columns that are left out take the database's default.

    Raises what an INSERT raises.
    """
    if not rows:
        return
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        _copy(connection, table, rows)
    else:
        _insert(connection, table, rows)


def _copy(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    # A tenth of a second, which nobody spends who has SQLite alone.
    import psycopg
    from psycopg import sql

    names = list(rows[0])
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, names))
    )
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([_binary_type(table.c[name].type) for name in names])
            for row in rows:
                copy.write_row([row[name] for name in names])
    except psycopg.Error as error:
        raise DBAPIError.instance(
            f"COPY {table.name}",
            None,
            error,
            psycopg.Error,
            hide_parameters=True,
            connection_invalidated=driver.closed,
            dialect=connection.dialect,
        ) from error


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    # ``executemany`` releases the interpreter's lock at each row, and waits for it while others compute.
    names = list(rows[0])
    dialect = connection.dialect
    convert = [_binder(table.c[name].type, dialect) for name in names]
    columns = ", ".join(map(dialect.identifier_preparer.quote, names))
    row_form = f"({', '.join('?' * len(names))})"
    for start in range(0, len(rows), _SQLITE_ROWS):
        part = rows[start : start + _SQLITE_ROWS]
        values = tuple(
            process(row[name]) if process else row[name]
            for row in part
            for name, process in zip(names, convert, strict=True)
        )
        connection.exec_driver_sql(
            f"INSERT INTO {dialect.identifier_preparer.format_table(table)} ({columns}) "
            f"VALUES {', '.join([row_form] * len(part))}",
            values,
        )


def _binder(column_type: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """What turns a value into one that SQLite takes; None where it takes it as it is."""
    plain = _plain(column_type)
    if isinstance(plain, LargeBinary):
        return None
    process = column_type.dialect_impl(dialect).bind_processor(dialect)
    # The rows of a batch share their moment.
    return lru_cache(maxsize=1)(process) if process and isinstance(plain, DateTime) else process


def _plain(column_type: TypeEngine[Any]) -> TypeEngine[Any]:
    return column_type.impl_instance if isinstance(column_type, TypeDecorator) else column_type


def _binary_type(column_type: TypeEngine[Any]) -> str:
    plain = _plain(column_type)
    return next(name for kind, name in _BINARY_TYPES if isinstance(plain, kind))
