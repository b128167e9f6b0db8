"""Which rows a dataset has, so that a trace's datasets can be told. Those of present datasets follow when
somebody first asks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dataset_rows",
        sa.Column("dataset_number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=False),
        sa.Column("digest", sa.LargeBinary(32)),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("row_number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("dataset_number", "digest", name="pk_dataset_rows"),
        sqlite_with_rowid=False,
    )
    op.add_column(
        "datasets", sa.Column("rows_indexed", sa.Boolean, nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    op.drop_column("datasets", "rows_indexed")
    op.drop_table("dataset_rows")
