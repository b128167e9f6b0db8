from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tunix_rt_kit.database import Database
from tunix_rt_trace_store.repository import SqlTraceRepository
from tunix_rt_trace_store.tables import VERSION_TABLE, metadata


def test_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    repository = SqlTraceRepository(database)
    repository.migrate()
    repository.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    assert repository.last_sequence() == 0
    database.close()
