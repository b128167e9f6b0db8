"""Which server runs which evaluation."""

from __future__ import annotations

from alembic import op

from tunix_rt_kit.jobs.leases import lease_columns

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("evaluation_leases", *lease_columns())


def downgrade() -> None:
    op.drop_table("evaluation_leases")
