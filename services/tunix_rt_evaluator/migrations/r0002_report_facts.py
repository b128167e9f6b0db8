"""The facts of a comparison report that lists show."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("comparison_reports", sa.Column("facts", CanonicalJson))


def downgrade() -> None:
    op.drop_column("comparison_reports", "facts")
