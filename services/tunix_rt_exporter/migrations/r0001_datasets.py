"""Datasets and the requests that made them."""

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
        "datasets",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite")),
        sa.Column("dataset_id", sa.String(64), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("build_id", sa.String(36), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spec", CanonicalJson, nullable=False),
        sa.Column("progress", CanonicalJson),
        sa.Column("failure", CanonicalJson),
        sa.Column("result", CanonicalJson),
        sa.Column("digest", sa.String(71)),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("start_time", UtcDateTime),
        sa.Column("end_time", UtcDateTime),
        sa.PrimaryKeyConstraint("number", name="pk_datasets"),
        sa.UniqueConstraint("build_id", name="uq_datasets_build_id"),
        sa.UniqueConstraint("dataset_id", "version", name="uq_datasets_dataset_id_version"),
    )
    op.create_index("ix_datasets_state", "datasets", ["state"])
    op.create_index("ix_datasets_digest", "datasets", ["digest"])
    op.create_table(
        "exporter_requests",
        sa.Column("method", sa.String(128)),
        sa.Column("request_id", sa.String(64)),
        sa.Column("request_digest", sa.String(71), nullable=False),
        sa.Column("result", CanonicalJson, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("method", "request_id", name="pk_exporter_requests"),
    )


def downgrade() -> None:
    op.drop_table("exporter_requests")
    op.drop_table("datasets")
