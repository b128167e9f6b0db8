"""The latest loss of jobs, which lists are ordered by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_JOBS = sa.table(
    "training_jobs", sa.column("id"), sa.column("latest_metrics", CanonicalJson), sa.column("loss")
)


def upgrade() -> None:
    op.add_column("training_jobs", sa.Column("loss", sa.Double, nullable=False, server_default="1e+300"))
    connection, table = op.get_bind(), _JOBS.c
    for job_id, metrics in connection.execute(sa.select(table.id, table.latest_metrics)).all():
        if metrics is not None:
            connection.execute(sa.update(_JOBS).where(table.id == job_id).values(loss=metrics["loss"]))


def downgrade() -> None:
    op.drop_column("training_jobs", "loss")
