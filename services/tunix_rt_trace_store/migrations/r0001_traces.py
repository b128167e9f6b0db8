"""Traces, their scores, and what was deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    commits = op.create_table(
        "trace_commits",
        sa.Column("id", sa.Integer, autoincrement=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trace_commits"),
    )
    op.bulk_insert(commits, [{"id": 1, "last_sequence": 0}])
    op.create_table(
        "traces",
        sa.Column("sequence", _SEQUENCE, autoincrement=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("content_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("trace_version", sa.String(64), nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("prompt_folded", sa.Text, nullable=False),
        sa.Column("final_answer", sa.Text, nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_traces"),
        sa.UniqueConstraint("id", name="uq_traces_id"),
    )
    op.create_index("ix_traces_content_digest", "traces", ["content_digest"])
    op.create_table(
        "trace_tombstones",
        sa.Column("sequence", _SEQUENCE, autoincrement=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("content_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("delete_sequence", sa.BigInteger, nullable=False),
        sa.Column("delete_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_trace_tombstones"),
        sa.UniqueConstraint("id", name="uq_trace_tombstones_id"),
    )
    op.create_index("ix_trace_tombstones_delete_sequence", "trace_tombstones", ["delete_sequence"])
    _create_scores()
    op.create_table(
        "trace_store_requests",
        sa.Column("method", sa.String(128)),
        sa.Column("request_id", sa.String(64)),
        sa.Column("request_digest", sa.String(71), nullable=False),
        sa.Column("result", CanonicalJson, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("method", "request_id", name="pk_trace_store_requests"),
    )


def _create_scores() -> None:
    op.create_table(
        "trace_scores",
        sa.Column("id", _SEQUENCE),
        sa.Column("trace_sequence", _SEQUENCE, nullable=False),
        sa.Column("criterion", sa.String(64), nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("details", CanonicalJson, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trace_scores"),
        sa.ForeignKeyConstraint(
            ["trace_sequence"], ["traces.sequence"], name="fk_trace_scores_trace_sequence", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_trace_scores_trace_sequence_criterion_id", "trace_scores", ["trace_sequence", "criterion", "id"]
    )


def downgrade() -> None:
    for table in ("trace_store_requests", "trace_scores", "trace_tombstones", "traces", "trace_commits"):
        op.drop_table(table)
