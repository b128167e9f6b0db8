"""Which server runs which build, and which builds may take a newer snapshot."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.jobs.leases import lease_columns

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("build_leases", *lease_columns())
    op.add_column(
        "datasets", sa.Column("snapshot_open", sa.Boolean, nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    op.drop_column("datasets", "snapshot_open")
    op.drop_table("build_leases")
