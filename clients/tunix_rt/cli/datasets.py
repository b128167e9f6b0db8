"""`tunix-rt dataset`: build immutable datasets from traces, and export them."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tunix_rt import jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.dataset_audit import run_audit
from tunix_rt.cli.dataset_options import (
    Duplicates,
    DuplicatesOption,
    GroupByOption,
    KeepApartOption,
    NgramOption,
    ParentOption,
    SimilarityOption,
    decontamination,
    deduplication,
    split_group,
)
from tunix_rt.cli.filter_options import FilterOptions
from tunix_rt.cli.job_progress import dataset_progress
from tunix_rt.cli.resources import dataset_name, resource_name, short_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.spec_options import (
    DATASET_FORMATS,
    REASONING_STYLES,
    DatasetFormat,
    ReasoningStyle,
    chat_template,
)
from tunix_rt.cli.waiting import waiting_for

_ROWS_SHOWN = 10

app = group("Build immutable datasets from traces, and export them.")


@command(
    app,
    "build",
    example=(
        "tunix-rt dataset build arithmetic --source generator --template model:smollm2-135m-instruct",
        "tunix-rt dataset build gsm8k@2 --source gsm8k --random 1000 --split train=0.9 --split test=0.1",
        "tunix-rt dataset build gsm8k@3 --duplicates near --keep-apart 0.8 --eval-set gsm8k-test",
    ),
)
def build(
    session: Session,
    dataset: Annotated[
        str, typer.Argument(metavar="ID[@VERSION]", help="Its name; the version defaults to 1.")
    ],
    wanted: FilterOptions,
    as_of: Annotated[int, typer.Option("--as-of", min=0, help="A trace-store snapshot; 0: the newest.")] = 0,
    latest: Annotated[int | None, typer.Option("--latest", min=1, help="Only the newest N traces.")] = None,
    random: Annotated[
        int | None, typer.Option("--random", min=1, help="Only N traces, drawn by the seed.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            metavar="NAME=FRACTION",
            help="A split and its share (may be repeated). \\[default: train=0.8, validation=0.1, test=0.1]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of row order, selection and splits.")] = 0,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="Chat template: gemma-it, chatml, model:NAME or file:PATH. \\[default: gemma-it]",
        ),
    ] = None,
    system: Annotated[
        str, typer.Option("--system", help="System instruction before the first user turn.")
    ] = "",
    bos_token: Annotated[
        str, typer.Option("--bos-token", help="For a Jinja file: text of its bos_token.")
    ] = "",
    eos_token: Annotated[
        str, typer.Option("--eos-token", help="For a Jinja file: text of its eos_token.")
    ] = "",
    style: Annotated[
        ReasoningStyle, typer.Option("--style", help="How the reasoning is written.")
    ] = ReasoningStyle.NUMBERED,
    eval_set: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-set", help="Leave out traces that give away an item of this eval set (may be repeated)."
        ),
    ] = None,
    ngram_words: NgramOption = None,
    duplicates: DuplicatesOption = Duplicates.EXACT,
    similarity: SimilarityOption = None,
    group_by: GroupByOption = "",
    keep_apart: KeepApartOption = None,
    parent: ParentOption = "",
) -> None:
    """Build a dataset: traces selected, split and rendered, bound to its name for ever."""
    dataset_id, _, version = dataset.removeprefix("datasets/").partition("@")
    spec = v1.DatasetSpec(
        dataset_id=dataset_id,
        version=version,
        filter=wanted.filter(),
        as_of=as_of,
        selection=_selection(latest, random),
        splits=[_split(given) for given in split or ()],
        seed=seed,
        reasoning_style=REASONING_STYLES[style],
        eval_sets=[resource_name("evalSets", name) for name in eval_set or ()],
        decontamination=decontamination(ngram_words),
        deduplication=deduplication(duplicates, similarity),
        split_group=split_group(group_by, keep_apart),
        parent=dataset_name(parent) if parent else "",
    )
    with session.connect() as client:
        if template or system:
            spec.chat_template.CopyFrom(
                chat_template(
                    client,
                    template or "gemma-it",
                    system_instruction=system,
                    bos_token=bos_token,
                    eos_token=eos_token,
                )
            )
        created = client.exporter.create_dataset(spec=spec)
        with (
            session.progress() as progress,
            waiting_for(session, "build", f"tunix-rt dataset show {short_name(created.name)}"),
        ):
            built = jobs.wait_for_dataset(client, created.name, on_update=dataset_progress(progress))
    _show(session, built)


@command(app, "list", example="tunix-rt dataset list --json")
def list_(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most datasets shown.")] = 20,
) -> None:
    """List datasets, newest first."""
    with session.connect() as client:
        found = list(islice(client.exporter.list_datasets(page_size=min(limit, 1000)), limit))
    if session.as_json:
        session.print_messages(found)
        return
    rows = tables.table("DATASET", "!STATE", ">ROWS", "SPLITS", "DIGEST", ">AGE")
    for dataset in found:
        tables.add_row(
            rows,
            short_name(dataset.name),
            tables.state(v1.Dataset.State.Name(dataset.state)),
            text.count(sum(part.row_count for part in dataset.splits)),
            ", ".join(f"{part.split} {part.row_count:,}" for part in dataset.splits) or "-",
            text.short_digest(dataset.digest),
            tables.age(dataset.create_time),
        )
    tables.print_table(session.out, rows, "no datasets")


@command(app, "show", example="tunix-rt dataset show arithmetic@1")
def show(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
) -> None:
    """Show one dataset: its splits, what was left out and why, its figures and digest."""
    name = dataset_name(dataset)
    with session.connect() as client:
        found = client.exporter.get_dataset(name)
        report = b""
        if not session.as_json and found.dropped_rows.size_bytes:
            report = client.exporter.read_dropped_rows(name)
    _show(session, found)
    if report:
        print_dropped(session.out, report)


@command(
    app,
    "dropped",
    example="tunix-rt dataset dropped gsm8k@3 > dropped.jsonl",
)
def dropped(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
) -> None:
    """Write each row that was left out, and what it matched, as JSON lines."""
    with session.connect() as client:
        sys.stdout.buffer.write(client.exporter.read_dropped_rows(dataset_name(dataset)))


@command(
    app,
    "audit",
    example=(
        "tunix-rt dataset audit gsm8k@3 --against gsm8k-test",
        "tunix-rt dataset audit --against gsm8k-test --json",
    ),
)
def audit(
    session: Session,
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help="ID, or ID@VERSION; left out, all of them.")
    ] = None,
    against: Annotated[str, typer.Option("--against", metavar="EVALSET", help="The eval set.")] = ...,  # type: ignore[assignment]
    ngram_words: NgramOption = None,
) -> None:
    """Find rows that give away an eval set, and the checkpoints, evaluations and reports that they touch.

    Rows of the split train are learned; an eval set that was made of a held-out split is found in that split.
    """
    run_audit(
        session,
        resource_name("evalSets", against),
        dataset_name(dataset) if dataset else None,
        decontamination(ngram_words),
    )


@command(
    app,
    "export",
    example=(
        "tunix-rt dataset export arithmetic@1 --split train --format training_example -o train.jsonl",
        "tunix-rt dataset export arithmetic@1 --split test | head -1",
    ),
)
def export(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
    split: Annotated[str, typer.Option("--split", help="Which split.")] = "train",
    format: Annotated[
        DatasetFormat, typer.Option("--format", "-f", help="How rows are written.")
    ] = DatasetFormat.TRAINING_EXAMPLE,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to; - is stdout.")] = Path("-"),
) -> None:
    """Write one split as JSON lines."""
    name = dataset_name(dataset)
    wanted = DATASET_FORMATS[format]
    with session.connect() as client:
        if str(output) == "-":
            sys.stdout.buffer.write(client.exporter.read_dataset(name, split, format=wanted))
        else:
            header = client.exporter.download_dataset(name, split, output, format=wanted)
            session.say(f"{text.size(header.size_bytes)} written to {output}")


def _selection(latest: int | None, random: int | None) -> v1.Selection | None:
    if latest is not None and random is not None:
        raise typer.BadParameter("--latest and --random exclude each other")
    if latest is not None:
        return v1.Selection(latest=latest)
    return v1.Selection(random=random) if random is not None else None


def _split(given: str) -> v1.SplitFraction:
    name, equals, share = given.partition("=")
    try:
        fraction = float(share)
    except ValueError:
        fraction = 0.0
    if not name or not equals or not 0 < fraction <= 1:
        raise typer.BadParameter(f"--split takes NAME=FRACTION such as train=0.8, not {given!r}")
    return v1.SplitFraction(split=name, fraction=fraction)


def _show(session: Session, dataset: v1.Dataset) -> None:
    if session.as_json:
        session.print_message(dataset)
    else:
        print_dataset(session.out, dataset)


def print_dataset(console: Console, dataset: v1.Dataset) -> None:
    """A dataset as a sheet of facts and tables of its splits, of what was left out and of its figures."""
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


def print_dropped(console: Console, report: bytes) -> None:
    """The first rows of the report of what was left out, with what each of them matched."""
    lines = report.splitlines()
    rows = tables.table("LEFT OUT ROW", "!STAGE", "MATCHED", "!HOW", "~WORDS")
    for line in lines[:_ROWS_SHOWN]:
        row = json.loads(line)
        matched = f"{short_name(row['eval_set'])} {row['eval_item']}" if "eval_item" in row else ""
        kept = f"row {row['kept'][:12]}" if "kept" in row else ""
        tables.add_row(
            rows,
            row["id"][:12],
            row["stage"],
            matched or kept,
            row.get("match", ""),
            row.get("matched_text", ""),
        )
    console.print(rows)
    if len(lines) > _ROWS_SHOWN:
        console.print(f"{len(lines):,} rows in all; tunix-rt dataset dropped writes each", highlight=False)


def _duplicates(rule: v1.Deduplication) -> str:
    label = text.enum_label(v1.Deduplication.Method.Name(rule.method), "METHOD_")
    return f"{label}, similarity {rule.threshold:g}" if rule.HasField("threshold") else label


def _groups(rule: v1.SplitGroup) -> str:
    key = f"metadata {rule.metadata_field}" if rule.metadata_field else "prompt"
    if not rule.HasField("near_duplicate_threshold"):
        return key
    return f"{key}; prompts of similarity {rule.near_duplicate_threshold:g} kept apart"
