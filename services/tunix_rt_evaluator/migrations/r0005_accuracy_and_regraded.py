"""The accuracy of evaluations, which lists are ordered by, and which evaluations a regrade graded again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson
from tunix_rt_kit.values import subjects

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_JSON = ("inputs", "summary", "subjects")
_EVALUATIONS = sa.table(
    "evaluations",
    sa.column("id"),
    sa.column("accuracy"),
    *(sa.column(name, CanonicalJson) for name in _JSON),
)


def upgrade() -> None:
    accuracy = sa.Column("accuracy", sa.Double, nullable=False, server_default="-1")
    op.add_column("evaluations", accuracy)
    connection, table = op.get_bind(), _EVALUATIONS.c
    read = sa.select(*(table[name] for name in _JSON))
    for (evaluation_id,) in connection.execute(sa.select(table.id)).all():
        row = connection.execute(read.where(table.id == evaluation_id)).one()
        values = {}
        if row.summary is not None:
            values["accuracy"] = row.summary["overall"]["accuracy"]
        if regrade := row.inputs.get("regrade"):
            regraded = subjects(regraded=[f"evaluations/{regrade['source']}"])
            values["subjects"] = sorted([*row.subjects, *regraded])
        if values:
            connection.execute(sa.update(_EVALUATIONS).where(table.id == evaluation_id).values(values))


def downgrade() -> None:
    op.drop_column("evaluations", "accuracy")
