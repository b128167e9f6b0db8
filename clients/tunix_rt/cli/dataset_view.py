"""How a dataset is shown, what a model would learn of it, and what leaked into it."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from typing import Annotated, Any, TypedDict

from rich.console import Console

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.documents import as_document
from tunix_rt.cli.labels import label_facts
from tunix_rt.cli.lookup import named
from tunix_rt.cli.options import short_name
from tunix_rt.cli.progress import Bar
from tunix_rt.cli.session import Session
from tunix_rt.errors import DataLossError, TunixRtError
from tunix_rt.leaks import LeakingDataset, leaking_datasets

_ROWS_SHOWN = 10
_LEAKS_SHOWN = 20
_NAMED = 5
_MOST_COUNTED = 1_000


def fitting_models(client: Client, dataset: v1.Dataset) -> list[str] | None:
    """The base models on the trainer's host that fit a dataset; None if that cannot be told now."""
    required = set(dataset.template_facts.required_tokens)
    if not required:
        return None
    try:
        models = [model for model in client.trainer.list_base_models() if model.available]
    except TunixRtError:
        return None
    return [model.base_model for model in models if required <= set(model.special_tokens)] if models else None


def added_since(client: Client, dataset: v1.Dataset) -> int:
    """How many traces were stored after a dataset's snapshot that its filter matches, up to a thousand; 0 if
    that cannot be told now."""
    if not dataset.digest:
        return 0
    as_of, wanted = dataset.spec.as_of, dataset.spec.filter
    try:
        newest = next(client.trace_store.list_traces(filter=wanted, page_size=1).pages()).traces
        if not newest or newest[0].sequence <= as_of:
            return 0
        found = islice(client.trace_store.list_traces(filter=wanted, page_size=200), _MOST_COUNTED)
        return sum(1 for _ in takewhile(lambda trace: trace.sequence > as_of, found))
    except TunixRtError:
        return 0


def dataset_row(dataset: v1.Dataset) -> tables.Row:
    """A dataset in a list."""
    return (
        short_name(dataset.name),
        tables.state(v1.Dataset.State.Name(dataset.state)),
        dataset.display_name,
        text.count(sum(part.row_count for part in dataset.splits)),
        ", ".join(f"{part.split} {part.row_count:,}" for part in dataset.splits) or "-",
        tables.digest(dataset.digest),
        ", ".join(dataset.tags),
        tables.deleted(dataset),
        tables.age(dataset.create_time),
    )


def print_dataset(
    console: Console, dataset: v1.Dataset, models: Sequence[str] | None = None, added: int = 0
) -> None:
    """Print a dataset: its facts, its splits, what was left out, and its figures.

    ``models`` are this server's base models that fit it, ``added`` is what ``added_since`` says.
    """
    spec = dataset.spec
    template = spec.chat_template
    console.print(
        tables.facts(
            [
                ("dataset", dataset.name),
                *label_facts(dataset),
                ("state", tables.state(v1.Dataset.State.Name(dataset.state))),
                ("error", dataset.error.message),
                ("digest", dataset.digest),
                (
                    "traces",
                    f"{dataset.trace_count:,} matched at snapshot {spec.as_of}" if dataset.digest else "",
                ),
                ("since then", _since(dataset, added)),
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
                ("deleted", tables.deleted(dataset)),
            ]
        )
    )
    if not dataset.digest:
        return
    _print_splits(console, dataset.splits)
    if dropped := [row for row in dataset.dropped if row.row_count]:
        left_out = tables.table("LEFT OUT", ">ROWS", "~BECAUSE")
        for row in dropped:
            tables.add_row(left_out, row.stage, text.count(row.row_count), row.reason)
        console.print(left_out)
    if dataset.notices:
        _print_notices(console, dataset.notices)
    _print_figures(console, dataset.statistics)


def _since(dataset: v1.Dataset, added: int) -> str:
    if not added:
        return ""
    count = f"{'at least ' if added == _MOST_COUNTED else ''}{text.counted(added, 'trace')}"
    verb = "was" if added == 1 else "were"
    as_of = dataset.spec.as_of
    return f"{count} that match {verb} added: set another version to have them, or --as-of {as_of} for this"


def _print_splits(console: Console, parts: Iterable[v1.DatasetSplit]) -> None:
    splits = tables.table("SPLIT", ">ROWS", ">SIZE", "DIGEST OF EXAMPLES")
    for part in parts:
        files = {file.format: file.file for file in part.files}
        plain = files.get(v1.DATASET_FORMAT_TRAINING_EXAMPLE, v1.ArtifactFile())
        examples = files.get(v1.DATASET_FORMAT_CONVERSATION_EXAMPLE, plain)
        tables.add_row(
            splits,
            part.split,
            text.count(part.row_count),
            text.size(examples.size_bytes),
            text.short_digest(examples.digest),
        )
    console.print(splits)


def _print_figures(console: Console, statistics: v1.DatasetStatistics) -> None:
    figures = tables.table("PER ROW", ">MIN", ">MEAN", ">MEDIAN", ">P95", ">MAX")
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
    """The first rows of the report of what was left out: those that are shown, and one more if there is one.

    The rest is not read. Raises TunixRtError: DataLossError when it is missing or damaged.
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


def run_audit(
    session: Session, eval_set: str, dataset: str | None, decontamination: v1.Decontamination
) -> None:
    """Compare one dataset, or all, with an eval set, and show what is affected."""
    bars: dict[str, Bar] = {}
    with session.connect() as client, session.progress() as progress:

        def on_progress(candidate: v1.Dataset, compared: int, total: int) -> None:
            if candidate.name not in bars:
                bars[candidate.name] = progress.bar(short_name(candidate.name), total, "rows")
            bars[candidate.name].update(compared, total)
            if compared == total:
                bars[candidate.name].finish()

        eval_set = named(session, client, eval_set)
        dataset = dataset and named(session, client, dataset)
        found = list(
            leaking_datasets(
                client,
                eval_set,
                dataset=dataset,
                decontamination=decontamination,
                on_progress=on_progress,
            )
        )
    if session.as_json:
        session.print_json([_document(leak) for leak in found])
    else:
        print_leaks(session.out, eval_set, found)


def print_leaks(console: Console, eval_set: str, found: list[LeakingDataset]) -> None:
    """A table of what is affected, and the first rows of each dataset."""
    summary = tables.table(
        "DATASET", ">LEARNED ROWS", ">OTHER ROWS", ">ITEMS", "CHECKPOINTS", "EVALUATIONS", "REPORTS"
    )
    for leak in found:
        tables.add_row(
            summary,
            short_name(leak.dataset.name),
            text.count(len(leak.learned_rows)),
            text.count(len(leak.rows) - len(leak.learned_rows)),
            text.count(len({row.eval_item for row in leak.rows})),
            *(
                "\n".join(map(short_name, names)) or "-"
                for names in (leak.checkpoints, leak.evaluations, leak.reports)
            ),
        )
    tables.print_table(console, summary, f"no dataset leaks an item of {eval_set}")
    for leak in found:
        rows = tables.table(f"ROW OF {short_name(leak.dataset.name)}", "SPLIT", "ITEM", "!MATCH", "~WORDS")
        for row in leak.rows[:_LEAKS_SHOWN]:
            label = text.enum_label(v1.ContaminatedRow.Match.Name(row.match), "MATCH_")
            tables.add_row(rows, row.row_id[:12], row.split, row.eval_item, label, row.matched_text)
        console.print(rows)
        if len(leak.rows) > _LEAKS_SHOWN:
            kinds = Counter(row.split for row in leak.rows)
            shares = ", ".join(f"{split} {count:,}" for split, count in sorted(kinds.items()))
            console.print(
                f"{text.counted(len(leak.rows), 'row')} in all ({shares}); --json shows each", highlight=False
            )


class LeakDocument(TypedDict):
    """A dataset that leaks items of an eval set, and what that affects."""

    dataset: Annotated[str, "The dataset's name."]
    digest: Annotated[str, "The dataset's digest."]
    rows: Annotated[list[v1.ContaminatedRow], "Each row that gives an item away."]
    checkpoints: Annotated[list[str], "Checkpoints that learned such a row."]
    evaluations: Annotated[list[str], "Evaluations of these checkpoints on the eval set."]
    reports: Annotated[list[str], "Comparison reports with one of these evaluations."]


def _document(leak: LeakingDataset) -> dict[str, Any]:
    return {
        "dataset": leak.dataset.name,
        "digest": leak.dataset.digest,
        "rows": [as_document(row) for row in leak.rows],
        "checkpoints": list(leak.checkpoints),
        "evaluations": list(leak.evaluations),
        "reports": list(leak.reports),
    }
