"""A trace is kept encoded as it was written, and only what filters look at has columns of its own.

Scores get a place in the order of commits, and tombstones the source of their trace.
"""

from __future__ import annotations

import json
from typing import Final

import sqlalchemy as sa
from alembic import op

from tunix_rt import v1

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BATCH: Final = 500
_MOVED: Final = ("trace_version", "prompt", "final_answer", "steps")

_traces = sa.table(
    "traces",
    sa.column("sequence", sa.BigInteger),
    *(sa.column(name, sa.Text) for name in (*_MOVED, "source", "metadata")),
    sa.column("size_bytes", sa.Integer),
    sa.column("encoded", sa.LargeBinary),
)


def upgrade() -> None:
    op.add_column("traces", sa.Column("encoded", sa.LargeBinary))
    connection = op.get_bind()
    last = 0
    while rows := connection.execute(
        sa.select(_traces).where(_traces.c.sequence > last).order_by(_traces.c.sequence).limit(_BATCH)
    ).all():
        encoded = [_encoded(row) for row in rows]
        connection.execute(
            sa.update(_traces)
            .where(_traces.c.sequence == sa.bindparam("of"))
            .values(encoded=sa.bindparam("bytes"), size_bytes=sa.bindparam("size")),
            [
                {"of": row.sequence, "bytes": data, "size": len(data)}
                for row, data in zip(rows, encoded, strict=True)
            ],
        )
        last = rows[-1].sequence
    with op.batch_alter_table("traces") as table:
        table.alter_column("encoded", existing_type=sa.LargeBinary(), nullable=False)
        for name in _MOVED:
            table.drop_column(name)
    op.create_index("ix_traces_source_sequence", "traces", ["source", "sequence"])
    op.add_column("trace_tombstones", sa.Column("source", sa.String(64)))
    op.add_column("trace_scores", sa.Column("sequence", sa.BigInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("trace_scores") as table:
        table.alter_column("sequence", existing_type=sa.BigInteger(), server_default=None)


def _encoded(row: sa.Row[tuple[object, ...]]) -> bytes:
    trace = v1.Trace(
        trace_version=row.trace_version,
        prompt=row.prompt,
        steps=[v1.TraceStep(**step) for step in json.loads(row.steps)],
        final_answer=row.final_answer,
        source=row.source,
    )
    if metadata := json.loads(row.metadata):
        trace.metadata.update(metadata)
    return trace.SerializeToString(deterministic=True)


def downgrade() -> None:
    raise RuntimeError("the old columns are gone; restore a backup that was made before the upgrade")
