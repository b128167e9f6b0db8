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
    op.add_column("datasets", sa.Column("delete_time", UtcDateTime))
    op.add_column("datasets", sa.Column("bound_digest", sa.String(71)))


def downgrade() -> None:
    op.drop_column("datasets", "bound_digest")
    op.drop_column("datasets", "delete_time")
