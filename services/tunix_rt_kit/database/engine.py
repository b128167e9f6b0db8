"""The engine: connections, transactions and migrations on SQLite (WAL) and PostgreSQL (psycopg 3)."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    column,
    create_engine,
    event,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from tunix_rt_kit.callers import check, current_caller, ended_by_leaving
from tunix_rt_kit.database.columns import NAMING
from tunix_rt_kit.errors import (
    Aborted,
    DataLoss,
    DomainError,
    FailedPrecondition,
    InvalidArgument,
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
    "25P03": (Unavailable, "DATABASE_UNAVAILABLE", "ended a transaction that was idle"),
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
_BEGIN = "tunix_rt_begin"
_BUSY_TIMEOUT_MS = 30_000
_CACHE_KIB = 16_384
_CHECKPOINT_PAGES = 16_384
_CONNECT_TIMEOUT_S = 5
_POOL_SIZE = 20
_POOL_TIMEOUT_S = 30
# Alembic's ``op`` and ``context`` are one per process: two migrations would use each other's connection.
_migrating = threading.Lock()
_REVISION: Final = re.compile(r'^(down_)?revision = (?:"(\w+)"|None)$', re.MULTILINE)
_guard: ContextVar[Callable[[Session], None] | None] = ContextVar("tunix_rt_guard", default=None)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn a failure of the database at ``where`` (its URL without the password) into a domain error.

    A violated constraint and a mistake in a statement stay SQLAlchemy's errors: the repository knows what
    they mean.
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
    original: Any = error.orig
    detail = " ".join(str(original).split())
    entry = None
    sqlite_name = getattr(original, "sqlite_errorname", None)
    if sqlite_name is not None:
        entry = _SQLITE.get("_".join(str(sqlite_name).split("_")[:2]))
        if entry is None and detail.startswith("no such table"):
            entry = _POSTGRES["42P01"]
        elif entry is None and ("no such column" in detail or "has no column named" in detail):
            entry = _POSTGRES["42703"]
    elif hasattr(original, "sqlstate"):
        # psycopg's, which takes long to import and is not where there is SQLite alone.
        entry = _by_sqlstate(original.sqlstate, error.connection_invalidated or "connect" in detail)
    if entry is None:
        return None
    kind, reason, what = entry
    return kind(f"database {where} {what}: {detail}", reason=reason)


def _by_sqlstate(state: str | None, connection_failed: bool) -> tuple[type[DomainError], str, str] | None:
    if state is None:
        return (Unavailable, "DATABASE_UNAVAILABLE", "is not reachable") if connection_failed else None
    return _POSTGRES.get(state) or _POSTGRES.get(state[:2])


class Database:
    """A database that several threads use at once.

    Args:
        url: ``sqlite:////absolute/path.db`` or ``postgresql://user:password@host:port/name``. No connection
            is made yet.

    Raises InvalidArgument(DATABASE_URL_INVALID) for any other URL. All methods that touch the database raise
    Unavailable (DATABASE_UNAVAILABLE, DATABASE_BUSY), FailedPrecondition (DATABASE_READ_ONLY,
    DATABASE_REFUSED, DATABASE_NOT_MIGRATED), ResourceExhausted (DATABASE_FULL), Aborted (DATABASE_CONFLICT)
    or DataLoss (DATABASE_CORRUPT). A violated constraint stays SQLAlchemy's IntegrityError: the repository
    translates it.
    """

    def __init__(self, url: str) -> None:
        parsed = _parse(url)
        self.where: str = parsed.render_as_string(hide_password=True)
        self.dialect: str = parsed.get_backend_name()
        self.engine: Engine = _sqlite(parsed) if self.dialect == "sqlite" else _postgresql(parsed)
        if self.dialect == "sqlite":
            self._reader: Engine = self.engine.execution_options(**{_BEGIN: "BEGIN"})
            self._writer: Engine = self.engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        else:
            self._reader = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._writer = self.engine
        # SQLite has one writer at a time. Waiting in line here is fairer than its sleeping and trying again.
        self._turn = threading.Lock() if self.dialect == "sqlite" else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session whose reads all see the database at one moment; nothing that it writes is kept."""
        check()
        with (
            translated(self.where),
            Session(self._reader, expire_on_commit=False) as session,
            _interruptible(session),
        ):
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits when the block ends well, to disk, and rolls back when it raises.

        On SQLite it holds the write lock from its start, so that nothing it reads can change. On PostgreSQL
        it is READ COMMITTED: use ``transaction_lock``, constraints or SELECT FOR UPDATE. Do not nest. A call
        that has committed something is carried to its end, even when its caller leaves.
        """
        with translated(self.where), self._turn, Session(self._writer, expire_on_commit=False) as session:
            check()
            with session.begin(), _interruptible(session):
                if (guard := _guard.get()) is not None:
                    guard(session)
                yield session
        caller = current_caller()
        if caller is not None:
            caller.bind()

    def upgrade(self, scripts: str, version_table: str, revision: str = "head") -> None:
        """Bring the schema to ``revision`` in one transaction; servers that start at once take turns.

        Args:
            scripts: folder of the Alembic scripts, as ``package:folder``.
            version_table: the table of the applied revision, one per service, so that services may share a
                database.
            revision: the target.

        Raises FailedPrecondition(DATABASE_TOO_NEW) if a newer version has migrated the database.
        """
        newest = newest_revision(scripts) if revision == "head" else revision
        applied = self._revision(version_table)
        if newest is not None and applied == newest:
            return
        # A third of a second, which most starts need not spend.
        from alembic.config import Config
        from alembic.runtime.environment import EnvironmentContext
        from alembic.script import ScriptDirectory

        config = Config()
        for option in ("script_location", "version_locations"):
            config.set_main_option(option, scripts.replace("%", "%%"))
        config.set_main_option("path_separator", "newline")
        script = ScriptDirectory.from_config(config)
        if applied is not None and applied not in {known.revision for known in script.walk_revisions()}:
            raise FailedPrecondition(
                f"database {self.where} has the revision {applied!r}, which this version of tunix-rt does "
                "not know; a newer version made it: use that one",
                reason="DATABASE_TOO_NEW",
                metadata={"revision": applied},
            )

        def steps(current: Any, _context: Any) -> Any:
            return script._upgrade_revs(revision, current)

        with self._migration(version_table) as connection:
            with EnvironmentContext(config, script, fn=steps, destination_rev=revision) as migration:
                migration.configure(
                    connection=connection,
                    version_table=version_table,
                    # What a migration makes without a name is named by it.
                    target_metadata=MetaData(naming_convention=NAMING),
                )
                with migration.begin_transaction():
                    migration.run_migrations()
            self._check_foreign_keys(connection)

    @contextmanager
    def _migration(self, version_table: str) -> Iterator[Connection]:
        """The one connection that may change the schema now."""
        with (
            _migrating,
            translated(self.where),
            self._turn,
            self._writer.connect() as connection,
            _foreign_keys_off(connection),
            connection.begin(),
        ):
            if self.dialect == "postgresql":
                _advisory_lock(connection, f"migrate {version_table}")
            yield connection

    def _revision(self, version_table: str) -> str | None:
        """The applied revision; None where that table is not there yet."""
        with self.read() as session:
            if not inspect(session.connection()).has_table(version_table):
                return None
            return session.execute(select(column("version_num")).select_from(table(version_table))).scalar()

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        self.engine.dispose()

    def _check_foreign_keys(self, connection: Connection) -> None:
        if self.dialect == "sqlite":
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            if broken:
                raise DataLoss(
                    f"migration of {self.where} would leave rows of {broken[0][0]} that refer to nothing",
                    reason="DATABASE_CORRUPT",
                )


def newest_revision(scripts: str) -> str | None:
    """The revision that no other of the Alembic scripts in ``package:folder`` follows, by their text alone;
    None where that does not tell."""
    package, colon, folder = scripts.partition(":")
    found = find_spec(package) if colon else None
    if found is None or found.origin is None:
        return None
    revisions, followed = set(), set()
    for script in Path(found.origin).with_name(folder).glob("*.py"):
        named: dict[str, str] = dict(_REVISION.findall(script.read_text("utf-8")))
        if len(named) != 2 or not named[""]:
            return None
        revisions.add(named[""])
        followed.add(named["down_"])
    newest = revisions - followed
    return newest.pop() if len(newest) == 1 else None


@contextmanager
def _interruptible(session: Session) -> Iterator[None]:
    """Break off what the database does when the caller leaves; raises CallerLeft then."""
    if current_caller() is None:
        yield
        return
    driver: Any = session.connection().connection.driver_connection
    # SQLite's; psycopg asks the server, by another connection.
    interrupt = driver.interrupt if hasattr(driver, "interrupt") else driver.cancel_safe
    with ended_by_leaving(interrupt):
        yield


@contextmanager
def guarded(guard: Callable[[Session], None]) -> Iterator[None]:
    """Have each ``Database.write`` of this thread in the block begin with ``guard``, in the same transaction;
    what it raises undoes the write."""
    token = _guard.set(guard)
    try:
        yield
    finally:
        _guard.reset(token)


def transaction_lock(session: Session, key: str) -> None:
    """Hold the lock named ``key`` until the session's transaction ends; others that ask for it wait.

    Nothing to do on SQLite, where a ``Database.write`` block holds the database's only write lock.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        _advisory_lock(connection, key)


def _advisory_lock(connection: Connection, key: str) -> None:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


def _parse(url: str) -> URL:
    right = "use sqlite:////absolute/path.db or postgresql://user:password@host:port/name"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        # The text is not repeated: it may hold a password.
        raise InvalidArgument(
            f"the database URL cannot be read; {right}", reason="DATABASE_URL_INVALID"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    shown = parsed.render_as_string(hide_password=True)
    raise InvalidArgument(f"database {shown!r} is not supported; {right}", reason="DATABASE_URL_INVALID")


def _sqlite(url: URL) -> Engine:
    # The connection that was used last has the fullest cache.
    engine = create_engine(
        url, pool_size=_POOL_SIZE, max_overflow=0, pool_timeout=_POOL_TIMEOUT_S, pool_use_lifo=True
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN comes too late for reads and for DDL; ``begun`` sends it instead.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        # In WAL mode, NORMAL can lose the last commits when the power fails; FULL keeps them.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # Room for the pages of the indexes, so that a large import does not read them again and again.
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        # Write the log back every 64 MiB; by default it is 4, which one batch of traces comes to.
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

    return engine


def _postgresql(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_size=_POOL_SIZE,
        max_overflow=0,
        pool_timeout=_POOL_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={"connect_timeout": _CONNECT_TIMEOUT_S, **_in_utc(url)},
    )

    @event.listens_for(engine, "checkout")
    def checked_out(connection: Any, _record: Any, _proxy: Any) -> None:
        # SQLAlchemy resets a reader's connection to READ WRITE, which would overrule the database's default.
        connection.read_only = None

    return engine


def _in_utc(url: URL) -> dict[str, str]:
    """Times of a connection in UTC are read several times faster; options of the URL's own stand."""
    return {} if "options" in url.query else {"options": "-c timezone=UTC"}


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """Keep SQLite from deleting rows that refer to a table which a migration rebuilds and drops."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")
