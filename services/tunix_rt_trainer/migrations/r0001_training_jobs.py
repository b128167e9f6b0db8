"""Training jobs and their checkpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "training_jobs",
        sa.Column("id", sa.String(36)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spec", CanonicalJson, nullable=False),
        sa.Column("inputs", CanonicalJson, nullable=False),
        sa.Column("error", CanonicalJson),
        sa.Column("progress", CanonicalJson),
        sa.Column("latest_metrics", CanonicalJson),
        sa.Column("stage_timings", CanonicalJson, nullable=False),
        sa.Column("checkpoint_step", sa.BigInteger),
        sa.Column("attempt_count", sa.Integer, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("start_time", UtcDateTime),
        sa.Column("end_time", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_training_jobs"),
    )
    op.create_index("ix_training_jobs_state", "training_jobs", ["state"])
    op.create_table(
        "training_checkpoints",
        sa.Column("job_id", sa.String(36)),
        sa.Column("step", sa.BigInteger, autoincrement=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("files", CanonicalJson, nullable=False),
        sa.Column("manifest", CanonicalJson, nullable=False),
        sa.Column("manifest_file", CanonicalJson, nullable=False),
        sa.Column("chat_template", CanonicalJson, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "step", name="pk_training_checkpoints"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["training_jobs.id"], name="fk_training_checkpoints_job_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "trainer_requests",
        sa.Column("method", sa.String(128)),
        sa.Column("request_id", sa.String(64)),
        sa.Column("request_digest", sa.String(71), nullable=False),
        sa.Column("result", CanonicalJson, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("method", "request_id", name="pk_trainer_requests"),
    )


def downgrade() -> None:
    for table in ("trainer_requests", "training_checkpoints", "training_jobs"):
        op.drop_table(table)
