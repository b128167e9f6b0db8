"""`tunix-rt train checkpoints` and `train export`: what jobs left, and as files that other programs load."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command
from tunix_rt.cli.filter_options import moment
from tunix_rt.cli.labels import (
    DatasetOption,
    DeletedOption,
    SinceOption,
    UntilOption,
    dataset_names,
    list_option,
    sort_option,
)
from tunix_rt.cli.lookup import checkpoint_name, completes, named, whole_names
from tunix_rt.cli.options import LimitOption, resource_name, short_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.training import app

_LEDGER = "ledger.jsonl"
_FORMATS = {"peft": v1.CHECKPOINT_FORMAT_PEFT, "hf": v1.CHECKPOINT_FORMAT_HUGGING_FACE}


@command(
    app,
    "checkpoints",
    example=(
        "tunix-rt train checkpoints",
        "tunix-rt train checkpoints $JOB --sort step",
        "tunix-rt train checkpoints --base-model smollm2-135m-instruct --since 2d",
    ),
    prints=list[v1.Checkpoint],
)
def checkpoints(
    session: Session,
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="A training job; left out: all jobs.",
            autocompletion=completes("trainingJobs"),
            show_default=False,
        ),
    ] = None,
    base_model: Annotated[
        list[str] | None,
        list_option("--base-model", "-m", help="Only of this base model (may be repeated)."),
    ] = None,
    dataset: DatasetOption = None,
    created_after: SinceOption = None,
    created_before: UntilOption = None,
    show_deleted: DeletedOption = False,
    sort: Annotated[str, sort_option("created", "step", "model", "dataset")] = "",
    limit: LimitOption = 20,
) -> None:
    """List checkpoints, the latest of the newest job first unless they are sorted."""
    condition = v1.CheckpointFilter(
        base_models=base_model,
        datasets=dataset_names(dataset),
        created_from=moment("--since", created_after),
        created_before=moment("--until", created_before),
    )
    columns = ("CHECKPOINT", ">STEP", "BASE MODEL", "DATASET", "DIGEST", "?DELETED", ">AGE")
    with session.connect() as client:
        parent = "trainingJobs/-"
        if job is not None:
            parent = named(session, client, resource_name("trainingJobs", job))
        whole_names(session, client, condition)
        found = client.trainer.list_checkpoints(
            parent, filter=condition, order_by=sort, show_deleted=show_deleted, page_size=min(limit, 1000)
        )
        session.show_all(
            islice(found, limit),
            columns,
            _row,
            "no checkpoints",
            ("STEP", "DATASET", "DELETED"),
            filtered=bool(condition.ByteSize()),
        )


def _row(checkpoint: v1.Checkpoint) -> tables.Row:
    spec = checkpoint.manifest.spec
    return (
        short_name(checkpoint.name),
        f"{checkpoint.step:,}",
        spec.base_model,
        short_name(spec.dataset),
        tables.digest(checkpoint.digest),
        tables.deleted(checkpoint),
        tables.age(checkpoint.create_time),
    )


@command(
    app,
    "export",
    example=(
        "tunix-rt train export $JOB --format hf -o tuned",
        "tunix-rt train export $JOB --format peft -o adapter",
        "tunix-rt train export $JOB --format hf -o tuned --with-ledger",
    ),
    prints=v1.CheckpointExport,
)
def export(
    session: Session,
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB",
            help="A training job or one of its checkpoints.",
            autocompletion=completes("trainingJobs"),
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder that is new or empty.")],
    format: Annotated[
        Literal["peft", "hf"],
        typer.Option(
            "--format", "-f", help="peft: the adapter; hf: a whole model, the adapter merged into it."
        ),
    ] = "hf",
    with_ledger: Annotated[
        bool,
        typer.Option(
            "--with-ledger",
            help="Also write ledger.jsonl (the dataset rows that each step learned from) and manifest.json "
            "(all that the weights depend on).",
        ),
    ] = False,
) -> None:
    """Write a checkpoint as `peft` or `transformers` loads it.

    A job stands for its best checkpoint if it keeps one, else for its latest.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise typer.BadParameter(f"{output} is there already; give a folder that is new or empty")
    with session.connect() as client, session.progress() as progress:
        name = checkpoint_name(session, client, job)
        records = _records(client, name) if with_ledger else []
        making = progress.bar(f"making {format} files")
        made = client.trainer.export_checkpoint(name, _FORMATS[format])
        making.finish()
        _download(session, client, made, records, output.absolute())
        made.files.extend(records)
    if session.as_json:
        session.print_message(made)
    else:
        size = sum(file.size_bytes for file in made.files)
        session.say(f"{text.counted(len(made.files), 'file')}, {text.size(size)}, written to {output}")


def _records(client: Client, name: str) -> list[v1.ArtifactFile]:
    """The ledger and the manifest of a checkpoint.

    Raises typer.BadParameter for a checkpoint without a ledger, as versions before there was one left them.
    """
    checkpoint = client.trainer.get_checkpoint(name)
    ledgers = [file for file in checkpoint.files if file.path == _LEDGER]
    if not ledgers:
        raise typer.BadParameter(
            f"{name} has no {_LEDGER}: its job was trained before ledgers were kept; "
            "export it without this option",
            param_hint="--with-ledger",
        )
    return [*ledgers, checkpoint.manifest_file]


def _download(
    session: Session,
    client: Client,
    made: v1.CheckpointExport,
    records: Sequence[v1.ArtifactFile],
    output: Path,
) -> None:
    """Write an export and ``records`` of its checkpoint into ``output``: all files appear, or none."""
    parts = [(file, made.format) for file in made.files]
    parts += [(file, v1.CHECKPOINT_FORMAT_UNSPECIFIED) for file in records]
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with session.progress() as progress:
            bar = progress.bar("fetching", sum(file.size_bytes for file, _ in parts), "bytes")
            done = 0
            for file, kept_as in parts:
                target = temporary / Path(file.path).name
                client.trainer.download_checkpoint_file(made.checkpoint, file.path, target, format=kept_as)
                done += file.size_bytes
                bar.update(done)
            bar.finish()
        if not output.is_dir():
            temporary.rename(output)
            return
        # It may be the folder that the shell is in.
        for part in temporary.iterdir():
            part.rename(output / part.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
