"""The source codes of graders that users wrote, and where the items of an eval set come from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "grader_sources",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
    )
    op.add_column("eval_sets", sa.Column("origin", CanonicalJson))


def downgrade() -> None:
    op.drop_column("eval_sets", "origin")
    op.drop_table("grader_sources")
