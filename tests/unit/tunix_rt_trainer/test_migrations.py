from __future__ import annotations

from datetime import UTC, datetime

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import column, insert, table

from tunix_rt_kit.database import Database
from tunix_rt_trainer.jobs.model import TrainingJobFilter
from tunix_rt_trainer.jobs.repository import SqlJobRepository
from tunix_rt_trainer.tables import VERSION_TABLE, jobs, metadata


def test_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    repository = SqlJobRepository(database)
    repository.migrate()
    repository.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_jobs_of_before_are_found_by_model_and_dataset(database_url: str) -> None:
    database = Database(database_url)
    database.upgrade("tunix_rt_trainer:migrations", VERSION_TABLE, "0003")
    digest = f"sha256:{'0' * 64}"
    file = {"digest": digest, "row_count": 1}
    template = {"builtin": "chatml"}
    inputs = {
        "dataset_digest": digest,
        "chat_template": template,
        "chat_template_digest": digest,
        "train": file,
        "validation": None,
        "turn_markers": [],
    }
    metrics = {
        "step": 3,
        "learning_rate": 0.1,
        "grad_norm": 1.0,
        "supervised_tokens": 1,
        "tokens": 2,
        "tokens_per_second": 5.0,
        "step_duration_s": 0.4,
    }
    with database.write() as session:
        for number, dataset in enumerate(("datasets/a@1", "datasets/a@2", "datasets/ab@1")):
            values = {
                "id": f"job-{number}",
                "state": "SUCCEEDED",
                "spec": {"base_model": "m", "dataset": dataset, "lora": None},
                "inputs": inputs,
                "stage_timings": [],
                "attempt_count": 1,
                "create_time": datetime.now(UTC),
                "latest_metrics": {**metrics, "loss": 0.25 * (number + 1)} if number else None,
            }
            # Columns of later revisions are not named.
            old = table(jobs.name, *(column(name, jobs.c[name].type) for name in values))
            session.execute(insert(old).values(values))
    repository = SqlJobRepository(database)
    repository.migrate()

    def found(**wanted: tuple[str, ...]) -> list[str]:
        page = repository.page(TrainingJobFilter(**wanted), [("dataset", False)], None, 10)  # type: ignore[arg-type]
        return [job.id for job, _ in page]

    assert found() == ["job-0", "job-1", "job-2"]
    assert found(datasets=("datasets/a",)) == ["job-0", "job-1"]
    assert found(datasets=("datasets/a@2",), base_models=("m", "n")) == ["job-1"]
    assert found(base_models=("n",)) == []
    by_loss = repository.page(TrainingJobFilter(), [("loss", False)], None, 10)
    assert [job.id for job, _ in by_loss] == ["job-1", "job-2", "job-0"]
    behind = repository.page(TrainingJobFilter(), [("loss", False)], by_loss[0][1], 10)
    assert [job.id for job, _ in behind] == ["job-2", "job-0"]
    database.close()
