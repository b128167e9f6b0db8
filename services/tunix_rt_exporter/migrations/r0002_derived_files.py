"""Derived files and audits of supervision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "derived_files",
        sa.Column("dataset_digest", sa.String(71)),
        sa.Column("path", sa.String(80)),
        sa.Column("file", CanonicalJson, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("dataset_digest", "path", name="pk_derived_files"),
    )
    op.create_table(
        "supervision_audits",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite")),
        sa.Column("dataset_digest", sa.String(71), nullable=False),
        sa.Column("audit_id", sa.String(32), nullable=False),
        sa.Column("audit", CanonicalJson, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_supervision_audits"),
        sa.UniqueConstraint(
            "dataset_digest", "audit_id", name="uq_supervision_audits_dataset_digest_audit_id"
        ),
    )


def downgrade() -> None:
    op.drop_table("supervision_audits")
    op.drop_table("derived_files")
