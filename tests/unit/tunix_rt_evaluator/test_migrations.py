from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Table, column, insert, table

from support.comparison import some_comparison
from tunix_rt_evaluator.comparisons.model import LEFT_OUT_OF_LISTS, ReportFilter
from tunix_rt_evaluator.evaluations.model import EvaluationFilter
from tunix_rt_evaluator.evaluations.repository import SqlEvaluationRepository
from tunix_rt_evaluator.report.repository import SqlReportRepository
from tunix_rt_evaluator.tables import VERSION_TABLE, evaluations, metadata, reports
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


def test_evaluations_and_reports_of_before_are_found_by_what_they_are_about(
    database_url: str, tmp_path: Path
) -> None:
    database = Database(database_url)
    database.upgrade("tunix_rt_evaluator:migrations", VERSION_TABLE, "0003")
    content = some_comparison(4, 1)
    digest = f"sha256:{'0' * 64}"
    times = {"create_time", "start_time", "end_time"}
    rows: list[tuple[Table, dict[str, Any]]] = [
        (evaluations, side.model_dump(mode="json") | side.model_dump(include=times))
        for side in (content.base, content.candidate)
    ]
    again = {**rows[0][1], "id": "again", "summary": None}
    again["inputs"] = again["inputs"] | {"regrade": {"source": content.base.id}}
    rows.append((evaluations, again))
    report = {"digest": digest, "documents": {}, "create_time": content.base.create_time}
    facts = content.model_dump(mode="json", exclude=LEFT_OUT_OF_LISTS)
    rows += [(reports, {**report, "id": "r", "facts": facts}), (reports, {**report, "id": "old"})]
    with database.write() as session:
        for into, values in rows:
            # Columns of later revisions are not named.
            old = table(into.name, *(column(name, into.c[name].type) for name in values))
            session.execute(insert(old).values(values))
    made = SqlEvaluationRepository(database)
    made.migrate()
    checkpoint = content.candidate.spec.checkpoint or ""
    job = checkpoint.partition("/checkpoints/")[0]
    found = made.page(EvaluationFilter(models=(job,)), [("base_model", False)], None, 10)
    assert [entry.id for entry, _ in found] == [content.candidate.id]
    assert len(made.page(EvaluationFilter(models=(content.base.inputs.base_model,)), [], None, 10)) == 3
    regrades = made.page(EvaluationFilter(regraded=(f"evaluations/{content.base.id}",)), [], None, 10)
    assert [entry.id for entry, _ in regrades] == ["again"]
    by_accuracy = made.page(EvaluationFilter(), [("accuracy", True)], None, 10)
    assert [entry.id for entry, _ in by_accuracy] == [content.candidate.id, content.base.id, "again"]
    stored = SqlReportRepository(database, ArtifactStore(tmp_path))
    for wanted in (
        ReportFilter(evaluations=(f"evaluations/{content.base.id}",)),
        ReportFilter(verdicts=(content.verdict,), models=(checkpoint,)),
        ReportFilter(eval_sets=("evalSets/sums",)),
    ):
        assert [entry.id for entry, _ in stored.page(wanted, [("verdict", True)], None, 10)] == ["r"]
    assert len(stored.page(ReportFilter(), [], None, 10)) == 2
    database.close()
