"""What people call jobs, what lists of them are filtered and ordered by, and when jobs and checkpoints were
deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson, UtcDateTime, listing_columns
from tunix_rt_kit.values import subjects

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SCALARS = ("base_model", "dataset")
_JOBS = sa.table(
    "training_jobs",
    sa.column("id"),
    sa.column("spec", CanonicalJson),
    sa.column("subjects", CanonicalJson),
    sa.column("base_model"),
    sa.column("dataset"),
)


def upgrade() -> None:
    for column in listing_columns(*_SCALARS):
        op.add_column("training_jobs", column)
    connection = op.get_bind()
    for job_id, spec in connection.execute(sa.select(_JOBS.c.id, _JOBS.c.spec)).all():
        model, dataset = spec["base_model"], spec["dataset"]
        about = subjects(models=[model], datasets=[dataset])
        values = {"base_model": model, "dataset": dataset, "subjects": about}
        connection.execute(sa.update(_JOBS).where(_JOBS.c.id == job_id).values(values))
    for field in ("create_time", "display_name_folded"):
        op.create_index(f"ix_training_jobs_{field}_id", "training_jobs", [field, "id"])
    op.add_column("training_jobs", sa.Column("delete_time", UtcDateTime))
    op.add_column("training_checkpoints", sa.Column("delete_time", UtcDateTime))


def downgrade() -> None:
    op.drop_column("training_checkpoints", "delete_time")
    op.drop_column("training_jobs", "delete_time")
    for field in ("create_time", "display_name_folded"):
        op.drop_index(f"ix_training_jobs_{field}_id", "training_jobs")
    with op.batch_alter_table("training_jobs") as table:
        for column in listing_columns(*_SCALARS):
            table.drop_column(column.name)
