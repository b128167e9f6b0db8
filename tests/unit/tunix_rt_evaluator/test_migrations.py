from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tunix_rt_evaluator.comparisons.model import ReportFilter
from tunix_rt_evaluator.evaluations.repository import SqlEvaluationRepository
from tunix_rt_evaluator.report.repository import SqlReportRepository
from tunix_rt_evaluator.tables import VERSION_TABLE, metadata
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database


def test_migrations_make_exactly_the_tables_of_the_code(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url)
    repository = SqlEvaluationRepository(database)
    repository.migrate()
    repository.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    assert SqlReportRepository(database, ArtifactStore(tmp_path)).page(ReportFilter(), [], None, 10) == []
    database.close()
