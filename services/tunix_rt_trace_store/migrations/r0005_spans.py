"""Spans of OpenTelemetry that wait until they become conversations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson, UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TRACES, _SPANS = "trace_store_span_traces", "trace_store_spans"


def upgrade() -> None:
    op.create_table(
        _TRACES,
        sa.Column("trace_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("due_time", UtcDateTime),
        sa.Column("arrivals", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("root_ended", sa.Boolean, nullable=False),
        sa.Column("update_time", UtcDateTime, nullable=False),
        sa.Column("problems", CanonicalJson),
    )
    for column in ("due_time", "update_time"):
        op.create_index(f"ix_{_TRACES}_{column}", _TRACES, [column])
    op.create_table(
        _SPANS,
        sa.Column(
            "trace_id",
            sa.LargeBinary(16),
            sa.ForeignKey(f"{_TRACES}.trace_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("span_id", sa.LargeBinary(8), primary_key=True),
        sa.Column("encoded", sa.LargeBinary),
    )


def downgrade() -> None:
    op.drop_table(_SPANS)
    op.drop_table(_TRACES)
