"""`tunix-rt dataset export` and `dropped`: the rows of a dataset, and those that it left out, as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from tunix_rt import v1
from tunix_rt.cli import text
from tunix_rt.cli.command import command
from tunix_rt.cli.console import output_stream
from tunix_rt.cli.datasets import DatasetArgument, app
from tunix_rt.cli.documents import Lines
from tunix_rt.cli.lookup import named
from tunix_rt.cli.options import DatasetFormat, dataset_name
from tunix_rt.cli.session import Session


@command(
    app,
    "dropped",
    example="tunix-rt dataset dropped gsm8k@3 > dropped.jsonl",
    prints=Lines(told="a row that was left out, and what it matched"),
)
def dropped(
    session: Session,
    dataset: DatasetArgument,
) -> None:
    """Write each row that was left out, and what it matched, as JSON lines.

    Rows are written as they arrive. After exit code 1 they are incomplete.
    """
    with session.connect() as client, output_stream(Path("-")) as stdout:
        name = named(session, client, dataset_name(dataset))
        client.exporter.read_dropped_rows_into(name, stdout)


class DownloadedFile(TypedDict):
    """A split that was written into a file."""

    dataset: Annotated[str, "The dataset's name."]
    split: Annotated[str, "The split."]
    format: Annotated[str, "The format of its rows."]
    size_bytes: Annotated[int, "Bytes of the file."]
    digest: Annotated[str, "Digest of the file: `sha256:` and 64 hex digits."]
    file: Annotated[str, "The file, as it was given."]


@command(
    app,
    "export",
    example=(
        "tunix-rt dataset export arithmetic@1 --split train --format training_example -o train.jsonl",
        "tunix-rt dataset export arithmetic@1 --format chat_parquet -o train.parquet",
        "tunix-rt dataset export arithmetic@1 --split test | head -1",
    ),
    prints=(DownloadedFile, Lines(told="a row in the format that was asked for")),
)
def export(
    session: Session,
    dataset: DatasetArgument,
    split: Annotated[str, typer.Option("--split", help="Which split.")] = "train",
    format: Annotated[
        DatasetFormat, typer.Option("--format", "-f", help="Format of the rows.")
    ] = "training_example",
    output: Annotated[Path, typer.Option("--output", "-o", help="Output file; - is stdout.")] = Path("-"),
) -> None:
    """Write one split as JSON lines or Parquet.

    A file is written whole or not at all. On stdout, bytes are written as they arrive; after exit code 1 they
    are incomplete.
    """
    name = dataset_name(dataset)
    wanted = v1.DatasetFormat.Value(f"DATASET_FORMAT_{format.upper()}")
    if str(output) == "-" and format.endswith("_parquet") and _on_terminal():
        raise typer.BadParameter(f"{format} is not text; give -o FILE, or redirect the output")
    with session.connect() as client:
        name = named(session, client, name)
        if str(output) == "-":
            with output_stream(output) as stdout:
                client.exporter.read_dataset_into(name, split, stdout, format=wanted)
        else:
            with session.progress() as progress:
                # A format that nobody asked for before is made first.
                writing = progress.bar(f"{format} of {split}")
                header = client.exporter.download_dataset(name, split, output, format=wanted)
                writing.finish()
            if session.as_json:
                document = {"size_bytes": header.size_bytes, "digest": header.digest, "file": str(output)}
                session.print_json({"dataset": name, "split": split, "format": format} | document)
            else:
                session.say(f"{text.size(header.size_bytes)} written to {output}")


def _on_terminal() -> bool:
    return sys.stdout.isatty()
