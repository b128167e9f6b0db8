"""`tunix-rt evalset`: import and look at sets of questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from io import BytesIO
from itertools import islice
from typing import Annotated

import typer
from rich.table import Table

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.resources import dataset_name, resource_name, short_name
from tunix_rt.cli.session import Session
from tunix_rt.formats import BUILTIN, eval_items_from_traces, read_eval_items, read_traces

app = group("Import and look at sets of questions.")


class Format(StrEnum):
    """What the lines of a file hold."""

    ITEMS = "items"
    NATIVE = "native"
    GSM8K = "gsm8k"


class GraderKind(StrEnum):
    """How answers of questions that come from traces are graded."""

    NUMERIC = "numeric"
    TEXT = "text"
    AUTO = "auto"


@command(
    app,
    "import",
    example=(
        "tunix-rt evalset import general eval_v1",
        "tunix-rt evalset import arithmetic-test --from-dataset arithmetic@1 --split test --limit 100",
        "tunix-rt evalset import gsm8k-40 gsm8k_test.jsonl --format gsm8k --limit 40",
    ),
)
def import_(
    session: Session,
    eval_set: Annotated[str, typer.Argument(metavar="ID", help="The id that it gets, for ever.")],
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help=f"JSON lines, or {BUILTIN}: 25 questions of eight categories."),
    ] = None,
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="What its lines hold: eval items, or traces whose answers are the accepted ones.",
        ),
    ] = Format.ITEMS,
    from_dataset: Annotated[
        str | None,
        typer.Option("--from-dataset", help="Take the held-out rows of this dataset instead of a file."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="With --from-dataset: which split.")] = "test",
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Most items taken.")] = None,
    grader: Annotated[
        GraderKind, typer.Option("--grader", help="For items that come from traces: how answers are graded.")
    ] = GraderKind.NUMERIC,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
) -> None:
    """Store an eval set from a file, from the built-in questions or from a dataset's held-out split."""
    if (file is None) == (from_dataset is None):
        raise typer.BadParameter("give a FILE or --from-dataset, one of the two")
    items = [] if file is None else _file_items(file, format, limit, grader)
    with session.connect() as client:
        if from_dataset is not None:
            items = _dataset_items(client, dataset_name(from_dataset), split, limit, grader)
        wanted = v1.EvalSet(eval_set_id=eval_set, description=description, items=items)
        stored = client.evaluator.create_eval_set(eval_set=wanted)
    if session.as_json:
        session.print_message(stored)
    else:
        session.out.print(f"{stored.name}: {text.counted(stored.item_count, 'item')}, digest {stored.digest}")


@command(app, "list", example="tunix-rt evalset list")
def list_(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most eval sets shown.")] = 20,
) -> None:
    """List eval sets, newest first."""
    with session.connect() as client:
        found = list(islice(client.evaluator.list_eval_sets(page_size=min(limit, 1000)), limit))
    if session.as_json:
        session.print_messages(found)
        return
    rows = tables.table("EVAL SET", ">ITEMS", "DIGEST", "DESCRIPTION", ">AGE")
    for eval_set in found:
        tables.add_row(
            rows,
            short_name(eval_set.name),
            text.count(eval_set.item_count),
            text.short_digest(eval_set.digest),
            text.one_line(eval_set.description, 40),
            tables.age(eval_set.create_time),
        )
    tables.print_table(session.out, rows, "no eval sets")


@command(app, "show", example="tunix-rt evalset show general --items 25")
def show(
    session: Session,
    eval_set: Annotated[str, typer.Argument(metavar="EVALSET", help="The eval set's id.")],
    items: Annotated[int, typer.Option("--items", "-n", min=0, help="Items shown.")] = 10,
) -> None:
    """Show one eval set: its categories and first items."""
    name = resource_name("evalSets", eval_set)
    with session.connect() as client:
        found = client.evaluator.get_eval_set(name)
    if session.as_json:
        session.print_message(found)
        return
    categories = Counter(item.category for item in found.items)
    session.out.print(
        tables.facts(
            [
                ("eval set", found.name),
                ("description", found.description),
                ("items", text.count(found.item_count)),
                (
                    "categories",
                    ", ".join(f"{name or 'none'} {many}" for name, many in sorted(categories.items())),
                ),
                ("digest", found.digest),
                ("stored", tables.moment(found.create_time)),
            ]
        )
    )
    session.out.print(_items(found.items[:items]))
    if len(found.items) > items:
        session.out.print(f"and {len(found.items) - items:,} more (--items)", style="dim", highlight=False)


def _items(items: Sequence[v1.EvalItem]) -> Table:
    rows = tables.table("ITEM", "CATEGORY", "GRADER", "~PROMPT", "ACCEPTED")
    for item in items:
        tables.add_row(
            rows,
            item.id,
            item.category or "-",
            item.grader.WhichOneof("kind") or "-",
            text.one_line(item.prompt, 120),
            text.one_line(" | ".join(item.accepted_answers), 32),
        )
    return rows


def _file_items(file: str, format: Format, limit: int | None, grader: GraderKind) -> list[v1.EvalItem]:
    if format is Format.ITEMS:
        return read_eval_items(file)[:limit]
    traces = read_traces(file, "gsm8k" if format is Format.GSM8K else "native")
    return eval_items_from_traces(traces, limit, grader.value)


def _dataset_items(
    client: Client, dataset: str, split: str, limit: int | None, grader: GraderKind
) -> list[v1.EvalItem]:
    rows = client.exporter.read_dataset(dataset, split, format=v1.DATASET_FORMAT_TRACE)
    return eval_items_from_traces(read_traces(BytesIO(rows), "dataset"), limit, grader.value)
