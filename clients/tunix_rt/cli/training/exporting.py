"""`tunix-rt train export`."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunix_rt import Client, v1
from tunix_rt.cli import text
from tunix_rt.cli.command import command
from tunix_rt.cli.resources import checkpoint_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.training.app import app


class Format(StrEnum):
    """How a checkpoint's files are laid out."""

    PEFT = "peft"
    HF = "hf"


_FORMATS = {Format.PEFT: v1.CHECKPOINT_FORMAT_PEFT, Format.HF: v1.CHECKPOINT_FORMAT_HUGGING_FACE}


@command(
    app,
    "export",
    example=(
        "tunix-rt train export $JOB --format hf -o tuned",
        "tunix-rt train export $JOB --format peft -o adapter",
    ),
)
def export(
    session: Session,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A training job or one of its checkpoints.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder that is new or empty.")],
    format: Annotated[
        Format,
        typer.Option(
            "--format", "-f", help="peft: the adapter; hf: a whole model, the adapter merged into it."
        ),
    ] = Format.HF,
) -> None:
    """Write a checkpoint as `peft` or `transformers` loads it.

    Of a job its best checkpoint is taken where it was asked to keep one, else its latest.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise typer.BadParameter(f"{output} is there already; give a folder that is new or empty")
    with session.connect() as client, session.progress() as progress:
        name = checkpoint_name(client, job)
        making = progress.bar(f"making {format.value} files")
        made = client.trainer.export_checkpoint(name, _FORMATS[format])
        making.finish()
        _download(session, client, made, output.absolute())
    if session.as_json:
        session.print_message(made)
    else:
        size = sum(file.size_bytes for file in made.files)
        session.say(f"{text.counted(len(made.files), 'file')}, {text.size(size)}, written to {output}")


def _download(session: Session, client: Client, made: v1.CheckpointExport, output: Path) -> None:
    """The files appear in ``output`` all together or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with session.progress() as progress:
            bar = progress.bar("fetching", sum(file.size_bytes for file in made.files), "bytes")
            done = 0
            for file in made.files:
                target = temporary / Path(file.path).name
                client.trainer.download_checkpoint_file(
                    made.checkpoint, file.path, target, format=made.format
                )
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
