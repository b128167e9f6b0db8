from __future__ import annotations

from datetime import UTC, datetime

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import column, insert, table

from tunix_rt_exporter.datasets.model import DatasetFilter, DatasetSpec
from tunix_rt_exporter.datasets.repository import SqlDatasetRepository
from tunix_rt_exporter.tables import VERSION_TABLE, datasets, metadata
from tunix_rt_kit.database import Database
from tunix_rt_kit.values import JobState


def test_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    repository = SqlDatasetRepository(database)
    repository.migrate()
    repository.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    assert repository.page(DatasetFilter(), [], None, 10) == []
    database.close()


def test_a_build_that_an_older_server_left_is_in_the_queue(database_url: str) -> None:
    database = Database(database_url)
    database.upgrade("tunix_rt_exporter:migrations", VERSION_TABLE, "0002")
    spec = DatasetSpec(dataset_id="d", parent="datasets/p@1", eval_sets=("evalSets/e",))
    row = {"dataset_id": "d", "version": "1", "build_id": "b", "state": "RUNNING"}
    with database.write() as session:
        values = {**row, "spec": spec.model_dump(mode="json"), "create_time": datetime.now(UTC)}
        # Columns of later revisions are not named.
        session.execute(
            insert(table(datasets.name, *(column(name, datasets.c[name].type) for name in values))).values(
                values
            )
        )
    repository = SqlDatasetRepository(database)
    repository.migrate()
    assert repository.unfinished() == [("b", JobState.RUNNING)]
    stored = repository.by_build("b")
    assert (stored.spec, stored.snapshot_open) == (spec, False)
    for wanted in (DatasetFilter(parents=("datasets/p@1",)), DatasetFilter(eval_sets=("evalSets/e",))):
        assert [entry.build_id for entry, _ in repository.page(wanted, [], None, 10)] == ["b"]
    assert repository.page(DatasetFilter(eval_sets=("datasets/p@1",)), [], None, 10) == []
    database.close()
