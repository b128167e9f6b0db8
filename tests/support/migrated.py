"""Databases with the newest schema: migrations make one a session, and others are made like it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Engine, event, make_url

from tunix_rt_kit.serving.settings import DataSettings

Settings = TypeVar("Settings", bound=DataSettings)
Statement = tuple[str, Any]

_READS = ("SELECT", "SHOW")
_files: dict[Callable[..., None], bytes] = {}
_statements: dict[Callable[..., None], list[Statement]] = {}


def migrated(settings: Settings, migrate: Callable[[Settings], None]) -> None:
    """Do to a database what ``migrate`` does, which takes a tenth of its time but for the first of a session.

    Of SQLite a file is copied, where there is none yet; on PostgreSQL the same statements are sent again,
    where the tables are not there yet.
    """
    url = make_url(settings.database)
    if url.get_backend_name() == "postgresql":
        if migrate not in _statements:
            with _noted() as statements:
                migrate(settings)
            _statements[migrate] = statements
            return
        server = url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            with psycopg.connect(server) as connection:
                for statement, values in _statements[migrate]:
                    connection.execute(statement, values)
        except psycopg.errors.DuplicateTable:
            migrate(settings)
        return
    file = Path(url.database or "")
    if migrate in _files and not file.exists():
        settings.make_data_dir()
        file.write_bytes(_files[migrate])
        return
    empty = not file.exists()
    migrate(settings)
    if empty:
        _files[migrate] = file.read_bytes()


@contextmanager
def _noted() -> Iterator[list[Statement]]:
    """What is sent to databases in the block, but for what only reads."""
    statements: list[Statement] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if not statement.lstrip().upper().startswith(_READS):
            statements.append((statement, values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)
