"""Attempts and the best checkpoint of a job, and the formats that checkpoints were exported in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("training_jobs", sa.Column("best_checkpoint_step", sa.BigInteger))
    op.add_column("training_jobs", sa.Column("attempts", CanonicalJson))
    op.create_table(
        "training_checkpoint_exports",
        sa.Column("job_id", sa.String(36)),
        sa.Column("step", sa.BigInteger, autoincrement=False),
        sa.Column("format", sa.String(16)),
        sa.Column("files", CanonicalJson, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "step", "format", name="pk_training_checkpoint_exports"),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["training_jobs.id"],
            name="fk_training_checkpoint_exports_job_id",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    op.drop_table("training_checkpoint_exports")
    with op.batch_alter_table("training_jobs") as table:
        table.drop_column("attempts")
        table.drop_column("best_checkpoint_step")
