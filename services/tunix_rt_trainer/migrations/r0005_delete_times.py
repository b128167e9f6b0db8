"""When what is not there any more was deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("training_jobs", sa.Column("delete_time", UtcDateTime))
    op.add_column("training_checkpoints", sa.Column("delete_time", UtcDateTime))


def downgrade() -> None:
    op.drop_column("training_checkpoints", "delete_time")
    op.drop_column("training_jobs", "delete_time")
