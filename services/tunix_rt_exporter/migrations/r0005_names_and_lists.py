"""What people call datasets, and what lists of them are filtered and ordered by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson, listing_columns
from tunix_rt_kit.values import subjects

revision = "0005"
down_revision = "0004"
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


def downgrade() -> None:
    for field in ("create_time", "display_name_folded"):
        op.drop_index(f"ix_datasets_{field}_number", "datasets")
    with op.batch_alter_table("datasets") as table:
        for column in listing_columns():
            table.drop_column(column.name)
