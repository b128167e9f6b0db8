"""Columns that filters on conversations look at; a trace of before is none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COLUMNS = ("is_conversation", "assistant_turns", "tool_calls")


def upgrade() -> None:
    op.add_column(
        "traces", sa.Column("is_conversation", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("traces", sa.Column("assistant_turns", sa.Integer, nullable=False, server_default="1"))
    op.add_column("traces", sa.Column("tool_calls", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("traces") as table:
        for name in _COLUMNS:
            table.drop_column(name)
