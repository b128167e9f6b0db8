"""What people call eval sets, evaluations and reports, what lists of them are filtered and ordered by, when
they were deleted, where eval sets come from, and the source codes of graders that users wrote."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from tunix_rt_kit.database import CanonicalJson, UtcDateTime, listing_columns
from tunix_rt_kit.values import subjects

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SCALARS: dict[str, tuple[str, ...]] = {
    "eval_sets": (),
    "evaluations": ("eval_set", "base_model", "dataset"),
    "comparison_reports": ("verdict", "eval_set", "base_model", "dataset"),
}


def upgrade() -> None:
    for name, scalars in _SCALARS.items():
        for column in listing_columns(*scalars):
            op.add_column(name, column)
    _fill_in("evaluations", ["spec", "inputs"], lambda row: _values([("", row.spec, row.inputs)]))
    _fill_in("comparison_reports", ["facts"], lambda row: _of_report(row.facts))
    for name in _SCALARS:
        if name != "eval_sets":
            op.create_index(f"ix_{name}_create_time_id", name, ["create_time", "id"])
        op.create_index(f"ix_{name}_display_name_folded_id", name, ["display_name_folded", "id"])
    op.create_table(
        "grader_sources",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
    )
    op.add_column("eval_sets", sa.Column("origin", CanonicalJson))
    op.add_column("eval_sets", sa.Column("delete_time", UtcDateTime))
    op.add_column("evaluations", sa.Column("delete_time", UtcDateTime))
    op.add_column("comparison_reports", sa.Column("delete_time", UtcDateTime))


def _fill_in(name: str, read: list[str], values: Any) -> None:
    scalars: list[Any] = [sa.column(scalar) for scalar in _SCALARS[name]]
    json = (sa.column(column, CanonicalJson) for column in [*read, "subjects"])
    table = sa.table(name, sa.column("id"), *json, *scalars)
    connection = op.get_bind()
    for (row_id,) in connection.execute(sa.select(table.c.id)).all():
        row = connection.execute(
            sa.select(*(table.c[column] for column in read)).where(table.c.id == row_id)
        ).one()
        connection.execute(sa.update(table).where(table.c.id == row_id).values(values(row)))


def _of_report(facts: Any) -> dict[str, Any]:
    if facts is None:
        # A report of the first version, of which only the artifact says what it is about.
        return {"subjects": []}
    sides = [facts["candidate"], facts["base"], *facts["more_bases"], *facts["more_candidates"]]
    told = [(f"evaluations/{side['id']}", side["spec"], side["inputs"]) for side in sides]
    return {"verdict": facts["verdict"], **_values(told)}


def _values(evaluations: list[tuple[str, Any, Any]]) -> dict[str, Any]:
    """The columns of an entry about evaluations (name, spec, inputs); the first one gives the scalars."""
    checkpoints = [inputs.get("checkpoint") or {} for _, _, inputs in evaluations]
    eval_sets = [f"evalSets/{spec['eval_set']}" for _, spec, _ in evaluations]
    models = [inputs["base_model"] for _, _, inputs in evaluations]
    datasets = [checkpoint.get("dataset", "") for checkpoint in checkpoints]
    return {
        "eval_set": eval_sets[0],
        "base_model": models[0],
        "dataset": datasets[0],
        "subjects": subjects(
            models=[*models, *(checkpoint.get("name", "") for checkpoint in checkpoints)],
            datasets=datasets,
            eval_sets=eval_sets,
            evaluations=[name for name, _, _ in evaluations],
        ),
    }


def downgrade() -> None:
    op.drop_column("comparison_reports", "delete_time")
    op.drop_column("evaluations", "delete_time")
    op.drop_column("eval_sets", "delete_time")
    op.drop_column("eval_sets", "origin")
    op.drop_table("grader_sources")
    for name, scalars in _SCALARS.items():
        op.drop_index(f"ix_{name}_display_name_folded_id", name)
        if name != "eval_sets":
            op.drop_index(f"ix_{name}_create_time_id", name)
        with op.batch_alter_table(name) as table:
            for column in listing_columns(*scalars):
                table.drop_column(column.name)
