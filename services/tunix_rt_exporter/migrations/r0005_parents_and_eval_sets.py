"""What datasets were derived from, and the eval sets that they leave out, for filters of lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson
from tunix_rt_kit.values import subjects

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_DATASETS = sa.table(
    "datasets",
    sa.column("number"),
    sa.column("spec", CanonicalJson),
    sa.column("subjects", CanonicalJson),
)


def upgrade() -> None:
    connection, table = op.get_bind(), _DATASETS.c
    for row in connection.execute(sa.select(_DATASETS)).all():
        parent, eval_sets = row.spec.get("parent", ""), row.spec.get("eval_sets", ())
        if about := subjects(parents=[parent], eval_sets=eval_sets):
            changed = sa.update(_DATASETS).where(table.number == row.number)
            connection.execute(changed.values(subjects=sorted([*row.subjects, *about])))


def downgrade() -> None:
    """What was added hurts nobody."""
