"""`tunix-rt dataset`: build immutable datasets from traces, and export them."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tunix_rt import jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
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

app = group("Build immutable datasets from traces, and export them.")


@command(
    app,
    "build",
    example=(
        "tunix-rt dataset build arithmetic --source generator --template model:smollm2-135m-instruct",
        "tunix-rt dataset build gsm8k@2 --source gsm8k --random 1000 --split train=0.9 --split test=0.1",
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
            "--eval-set", help="Leave out traces whose prompt stands in this eval set (may be repeated)."
        ),
    ] = None,
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
    _show(session, found)


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
