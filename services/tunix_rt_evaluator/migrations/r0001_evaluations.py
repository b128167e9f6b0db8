"""Eval sets, evaluations with their results, and comparison reports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    eval_set_id = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
    op.create_table(
        "eval_sets",
        sa.Column("id", eval_set_id),
        sa.Column("description", sa.String(1000), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("item_count", sa.Integer, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("items", CanonicalJson, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_eval_sets"),
    )
    op.create_index("ix_eval_sets_create_time_id", "eval_sets", ["create_time", "id"])
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(36)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spec", CanonicalJson, nullable=False),
        sa.Column("inputs", CanonicalJson, nullable=False),
        sa.Column("error", CanonicalJson),
        sa.Column("progress", CanonicalJson),
        sa.Column("stage_timings", CanonicalJson, nullable=False),
        sa.Column("summary", CanonicalJson),
        sa.Column("manifest", CanonicalJson),
        sa.Column("manifest_file", CanonicalJson),
        sa.Column("attempt_count", sa.Integer, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("start_time", UtcDateTime),
        sa.Column("end_time", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
    )
    op.create_index("ix_evaluations_state", "evaluations", ["state"])
    _add_results_and_reports()


def _add_results_and_reports() -> None:
    item_id = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "evaluation_results",
        sa.Column("evaluation_id", sa.String(36)),
        sa.Column("item_id", item_id),
        sa.Column("result", CanonicalJson, nullable=False),
        sa.PrimaryKeyConstraint("evaluation_id", "item_id", name="pk_evaluation_results"),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["evaluations.id"],
            name="fk_evaluation_results_evaluation_id",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "comparison_reports",
        sa.Column("id", sa.String(64)),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("documents", CanonicalJson, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_comparison_reports"),
    )
    op.create_table(
        "evaluator_requests",
        sa.Column("method", sa.String(128)),
        sa.Column("request_id", sa.String(64)),
        sa.Column("request_digest", sa.String(71), nullable=False),
        sa.Column("result", CanonicalJson, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("method", "request_id", name="pk_evaluator_requests"),
    )


def downgrade() -> None:
    for table in (
        "evaluator_requests",
        "comparison_reports",
        "evaluation_results",
        "evaluations",
        "eval_sets",
    ):
        op.drop_table(table)
