from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tunix_rt_exporter.datasets.repository import SqlDatasetRepository
from tunix_rt_exporter.tables import VERSION_TABLE, metadata
from tunix_rt_kit.database import Database


def test_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    repository = SqlDatasetRepository(database)
    repository.migrate()
    repository.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    assert repository.newest(None, 10) == []
    database.close()
