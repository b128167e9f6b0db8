"""Lists of traces are ordered by time, too."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_traces_create_time_sequence", "traces", ["create_time", "sequence"])


def downgrade() -> None:
    op.drop_index("ix_traces_create_time_sequence", "traces")
