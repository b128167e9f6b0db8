"""What people call datasets, what lists of them are filtered and ordered by, when they were deleted, and
their rows, so that a trace's datasets can be told. Rows of present datasets follow when somebody first asks.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson, UtcDateTime, listing_columns
from tunix_rt_kit.values import subjects

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_DATASETS = sa.table(
    "datasets",
    sa.column("number"),
    sa.column("dataset_id"),
    sa.column("version"),
    sa.column("subjects", CanonicalJson),
)


def upgrade() -> None:
    for column in listing_columns():
        op.add_column("datasets", column)
    connection, table = op.get_bind(), _DATASETS.c
    for number, dataset_id, version in connection.execute(
        sa.select(table.number, table.dataset_id, table.version)
    ).all():
        about = subjects(datasets=[f"datasets/{dataset_id}@{version}"])
        connection.execute(sa.update(_DATASETS).where(table.number == number).values(subjects=about))
    for field in ("create_time", "display_name_folded"):
        op.create_index(f"ix_datasets_{field}_number", "datasets", [field, "number"])
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
    op.add_column("datasets", sa.Column("delete_time", UtcDateTime))
    op.add_column("datasets", sa.Column("bound_digest", sa.String(71)))


def downgrade() -> None:
    op.drop_column("datasets", "bound_digest")
    op.drop_column("datasets", "delete_time")
    op.drop_column("datasets", "rows_indexed")
    op.drop_table("dataset_rows")
    for field in ("create_time", "display_name_folded"):
        op.drop_index(f"ix_datasets_{field}_number", "datasets")
    with op.batch_alter_table("datasets") as table:
        for column in listing_columns():
            table.drop_column(column.name)
