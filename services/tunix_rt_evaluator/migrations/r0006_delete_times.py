"""When what is not there any more was deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("eval_sets", sa.Column("delete_time", UtcDateTime))
    op.add_column("evaluations", sa.Column("delete_time", UtcDateTime))
    op.add_column("comparison_reports", sa.Column("delete_time", UtcDateTime))


def downgrade() -> None:
    op.drop_column("comparison_reports", "delete_time")
    op.drop_column("evaluations", "delete_time")
    op.drop_column("eval_sets", "delete_time")
