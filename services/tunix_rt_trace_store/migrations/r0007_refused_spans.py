"""Refused spans are listed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLE, _INDEX = "trace_store_span_traces", "ix_trace_store_span_traces_problems"


def upgrade() -> None:
    has_problems = sa.text("problems IS NOT NULL")
    op.create_index(
        _INDEX,
        _TABLE,
        ["update_time", "trace_id"],
        sqlite_where=has_problems,
        postgresql_where=has_problems,
    )


def downgrade() -> None:
    op.drop_index(_INDEX, _TABLE)
