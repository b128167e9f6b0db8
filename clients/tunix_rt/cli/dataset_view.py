"""How a dataset is shown."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.resources import short_name
from tunix_rt.errors import DataLossError, TunixRtError

_ROWS_SHOWN = 10
_NAMED = 5


def fitting_models(client: Client, dataset: v1.Dataset) -> list[str] | None:
    """The base models on the trainer's host that a dataset serves; None if that cannot be told now."""
    required = set(dataset.template_facts.required_tokens)
    if not required:
        return None
    try:
        models = [model for model in client.trainer.list_base_models() if model.available]
    except TunixRtError:
        return None
    return [model.base_model for model in models if required <= set(model.special_tokens)] if models else None


def print_dataset(console: Console, dataset: v1.Dataset, models: Sequence[str] | None = None) -> None:
    """A dataset as a sheet of facts and tables of its splits, of what was left out and of its figures.

    ``models`` are the base models of this server that it serves.
    """
    spec = dataset.spec
    template = spec.chat_template
    console.print(
        tables.facts(
            [
                ("dataset", dataset.name),
                ("state", tables.state(v1.Dataset.State.Name(dataset.state))),
                ("error", dataset.error.message),
                ("digest", dataset.digest),
                (
                    "traces",
                    f"{dataset.trace_count:,} matched at snapshot {spec.as_of}" if dataset.digest else "",
                ),
                ("seed", str(spec.seed)),
                ("template", f"{template.builtin or 'jinja'} ({text.short_digest(template.digest)})"),
                ("serves", _served(dataset.template_facts, models)),
                ("template loses", "; ".join(dataset.template_facts.losses)),
                ("system", template.system_instruction),
                (
                    "parent",
                    f"{spec.parent} ({text.short_digest(dataset.parent_digest)})" if spec.parent else "",
                ),
                ("duplicates", _duplicates(spec.deduplication)),
                ("groups", _groups(spec.split_group)),
                ("style", text.enum_label(v1.ReasoningStyle.Name(spec.reasoning_style), "REASONING_STYLE_")),
                ("created", tables.moment(dataset.create_time)),
            ]
        )
    )
    if not dataset.digest:
        return
    splits = tables.table("SPLIT", ">ROWS", ">SIZE", "DIGEST OF EXAMPLES")
    for part in dataset.splits:
        examples = next(
            (file.file for file in part.files if file.format == v1.DATASET_FORMAT_TRAINING_EXAMPLE),
            v1.ArtifactFile(),
        )
        tables.add_row(
            splits,
            part.split,
            text.count(part.row_count),
            text.size(examples.size_bytes),
            text.short_digest(examples.digest),
        )
    console.print(splits)
    if dropped := [row for row in dataset.dropped if row.row_count]:
        left_out = tables.table("LEFT OUT", ">ROWS", "~BECAUSE")
        for row in dropped:
            tables.add_row(left_out, row.stage, text.count(row.row_count), row.reason)
        console.print(left_out)
    if dataset.notices:
        _print_notices(console, dataset.notices)
    figures = tables.table("PER ROW", ">MIN", ">MEAN", ">MEDIAN", ">P95", ">MAX")
    statistics = dataset.statistics
    for label, spread in (
        ("steps", statistics.steps),
        ("prompt characters", statistics.prompt_characters),
        ("response characters", statistics.response_characters),
    ):
        values = (spread.minimum, spread.mean, spread.median, spread.p95, spread.maximum)
        tables.add_row(figures, label, *(f"{value:,.1f}".removesuffix(".0") for value in values))
    console.print(figures)


def _print_notices(console: Console, notices: Iterable[v1.DatasetNotice]) -> None:
    """What the build noticed about rows that it kept, with the first of them."""
    noticed = tables.table("NOTICED IN", ">ROWS", "~WHAT", "~FIRST OF THEM")
    for notice in notices:
        rows = notice.rows
        ids = ", ".join(row[:12] for row in rows.example_row_ids[:_NAMED])
        more = ", ..." if rows.row_count > _NAMED else ""
        tables.add_row(noticed, notice.split or "-", text.count(rows.row_count), notice.reason, ids + more)
    console.print(noticed)


def first_dropped(client: Client, name: str) -> list[Any]:
    """The first rows of the report of what was left out: those that are shown, and one if there are more.

    No more of it is read. Raises TunixRtError: DataLossError when it is missing or damaged.
    """
    beginning = _Beginning()
    with suppress(_Enough):
        client.exporter.read_dropped_rows_into(name, beginning)
    try:
        return [json.loads(line) for line in beginning.getvalue().splitlines()[: _ROWS_SHOWN + 1]]
    except ValueError as error:
        raise DataLossError(f"the report is damaged: {error}", reason="REPORT_DAMAGED") from error


def print_dropped(console: Console, report: Sequence[Any]) -> None:
    """The first rows of the report of what was left out, with what each of them matched."""
    rows = tables.table("LEFT OUT ROW", "!STAGE", "MATCHED", "!HOW", "~WORDS")
    for row in report[:_ROWS_SHOWN]:
        matched = f"{short_name(row['eval_set'])} {row['eval_item']}" if "eval_item" in row else ""
        kept = f"row {row['kept'][:12]}" if "kept" in row else ""
        tables.add_row(
            rows,
            row["id"][:12],
            row["stage"],
            matched or kept,
            row.get("match", "") or ", ".join(row.get("lost", [])),
            row.get("matched_text", "") or row.get("control_text", "") or row.get("problem", ""),
        )
    console.print(rows)
    if len(report) > _ROWS_SHOWN:
        console.print("there are more; tunix-rt dataset dropped writes each", highlight=False)


class _Enough(Exception):
    """As much has been read as is wanted."""


class _Beginning(io.BytesIO):
    """Takes bytes until there are more lines in it than are shown, and then raises ``_Enough``."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = 0

    def write(self, data: Any) -> int:
        written = super().write(data)
        self._lines += bytes(data).count(b"\n")
        if self._lines > _ROWS_SHOWN:
            raise _Enough
        return written


def _served(facts: v1.TemplateFacts, models: Sequence[str] | None) -> str:
    if not facts.required_tokens:
        return ""
    here = "" if models is None else f"; here: {', '.join(models) or 'none'}"
    return f"models that have as one token each: {', '.join(facts.required_tokens)}{here}"


def _duplicates(rule: v1.Deduplication) -> str:
    label = text.enum_label(v1.Deduplication.Method.Name(rule.method), "METHOD_")
    return f"{label}, similarity {rule.threshold:g}" if rule.HasField("threshold") else label


def _groups(rule: v1.SplitGroup) -> str:
    key = f"metadata {rule.metadata_field}" if rule.metadata_field else "prompt"
    if not rule.HasField("near_duplicate_threshold"):
        return key
    return f"{key}; prompts of similarity {rule.near_duplicate_threshold:g} kept apart"
