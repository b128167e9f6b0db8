"""What a database's failure means, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tunix_rt_kit.errors import (
    Aborted,
    DataLoss,
    DomainError,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)

# By SQLite's primary result code: https://www.sqlite.org/rescode.html
_SQLITE: dict[str, tuple[type[DomainError], str, str]] = {
    "SQLITE_BUSY": (Unavailable, "DATABASE_BUSY", "is busy"),
    "SQLITE_LOCKED": (Unavailable, "DATABASE_BUSY", "is locked"),
    "SQLITE_CANTOPEN": (Unavailable, "DATABASE_UNAVAILABLE", "cannot be opened"),
    "SQLITE_IOERR": (Unavailable, "DATABASE_UNAVAILABLE", "cannot be read or written"),
    "SQLITE_FULL": (ResourceExhausted, "DATABASE_FULL", "is full"),
    "SQLITE_READONLY": (FailedPrecondition, "DATABASE_READ_ONLY", "is read-only"),
    "SQLITE_PERM": (FailedPrecondition, "DATABASE_READ_ONLY", "may not be used"),
    "SQLITE_CORRUPT": (DataLoss, "DATABASE_CORRUPT", "is damaged"),
    "SQLITE_NOTADB": (DataLoss, "DATABASE_CORRUPT", "is not a database file"),
}
# By SQLSTATE or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRES: dict[str, tuple[type[DomainError], str, str]] = {
    "08": (Unavailable, "DATABASE_UNAVAILABLE", "lost the connection"),
    "25006": (FailedPrecondition, "DATABASE_READ_ONLY", "is read-only"),
    "28": (FailedPrecondition, "DATABASE_REFUSED", "refused the login"),
    "3D": (FailedPrecondition, "DATABASE_REFUSED", "does not exist"),
    "40": (Aborted, "DATABASE_CONFLICT", "undid the transaction because of another one"),
    "42501": (FailedPrecondition, "DATABASE_REFUSED", "denied permission"),
    "42P01": (FailedPrecondition, "DATABASE_NOT_MIGRATED", "lacks a table; it must be migrated first"),
    "42703": (FailedPrecondition, "DATABASE_NOT_MIGRATED", "lacks a column; it must be migrated first"),
    "53100": (ResourceExhausted, "DATABASE_FULL", "is full"),
    "53200": (ResourceExhausted, "DATABASE_FULL", "is out of memory"),
    "53": (Unavailable, "DATABASE_BUSY", "has no free resources"),
    "55": (Unavailable, "DATABASE_BUSY", "could not take a lock"),
    "57": (Unavailable, "DATABASE_UNAVAILABLE", "ended the connection"),
    "58": (Unavailable, "DATABASE_UNAVAILABLE", "has a system error"),
    "XX": (DataLoss, "DATABASE_CORRUPT", "is damaged"),
}


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn a failure of the database at ``where`` (its URL without the password) into a domain error.

    A violated constraint (IntegrityError) and a mistake in a statement stay SQLAlchemy's errors: only the
    repository knows what they mean.
    """
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable(
            f"database {where} is busy: every connection is in use", reason="DATABASE_BUSY"
        ) from error
    except DBAPIError as error:
        known = domain_error(error, where)
        if known is None:
            raise
        raise known from error


def domain_error(error: DBAPIError, where: str) -> DomainError | None:
    """The domain error for a driver's failure, or None if it is one that the repository must handle."""
    if isinstance(error, IntegrityError | DataError):
        return None
    original = error.orig
    detail = " ".join(str(original).split())
    entry = None
    sqlite_name = getattr(original, "sqlite_errorname", None)
    if sqlite_name is not None:
        entry = _SQLITE.get("_".join(str(sqlite_name).split("_")[:2]))
        if entry is None and detail.startswith("no such table"):
            entry = _POSTGRES["42P01"]
        elif entry is None and ("no such column" in detail or "has no column named" in detail):
            entry = _POSTGRES["42703"]
    elif isinstance(original, psycopg.Error):
        entry = _by_sqlstate(original.sqlstate, error.connection_invalidated or "connect" in detail)
    if entry is None:
        return None
    kind, reason, what = entry
    return kind(f"database {where} {what}: {detail}", reason=reason)


def _by_sqlstate(state: str | None, connection_failed: bool) -> tuple[type[DomainError], str, str] | None:
    if state is None:
        return (Unavailable, "DATABASE_UNAVAILABLE", "is not reachable") if connection_failed else None
    return _POSTGRES.get(state) or _POSTGRES.get(state[:2])
